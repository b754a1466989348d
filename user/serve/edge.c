// SPDX-License-Identifier: MIT
#include "serve/edge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "net/allow.h"
#include "net/sites.h"
#include "net/source.h"
#include "net/steer.h"
#include "serve/changes.h"
#include "serve/cloud_list.h"
#include "serve/custody.h"
#include "serve/desk.h"
#include "serve/salts.h"
#include "serve/tls.h"
#include "serve/weights_share.h"

_Static_assert((int)SITES_MAX <= (int)BOARD_CLOUDS, "a row for each");
_Static_assert(sizeof(((struct channel_message *)NULL)->text) == SITE_BYTES,
	       "a name is copied whole");

enum { MAX_CREDS = 1 << 16 };

struct edge {
	const struct edge_opts *opts;
	struct custody *custody; /* NULL: nobody outlives this process */
	struct board *board; /* likewise */
	struct changes *changes; /* likewise */
	struct stripe_store *store;
	struct steer *steer;
	struct allow *allow; /* its senders */
	struct peers *peers; /* NULL: there are none */
	struct sites *sites;
	struct sites_listener listener; /* for the supervisor */
	struct shelf *shelf;
	struct peer_service *service; /* likewise */
	struct rights rights; /* of tenants */
	char *site; /* whose they are */
	struct cloud_list *lists[1 + RIGHTS_MAX]; /* one for each token */
	uint32_t n_lists;
	struct weights_share **weights; /* [n_weights] */
	uint32_t n_weights;
	struct desk *desk;
	char steer_text[512]; /* why there is none */
};

static const char *store_text(const struct edge_opts *o)
{
	if (!o->store)
		return "off: not wanted (--store)";
	return o->store->dir ? o->store->dir : "in the user's cache directory";
}

/* Without it datagrams take the slower way, through the socket: worth a line, not a failure. */
static void steer_if_possible(struct edge *e, const struct edge_opts *o)
{
	char ifname[IF_NAMESIZE];
	enum steer_mode mode;
	struct lslm_error why;
	int ret;

	snprintf(e->steer_text, sizeof(e->steer_text), "off: not asked for (--steer)");
	if (!o->steer)
		return;
	ret = steer_parse(o->steer, ifname, &mode, &why);
	if (!ret)
		ret = steer_open(&e->steer, ifname, mode, &why);
	if (!ret && o->steer_burst)
		ret = steer_limit(e->steer, o->steer_rate, o->steer_burst, &why);
	if (!ret)
		ret = allow_open(&e->allow, e->steer, o->steer_rate, o->steer_burst, &why);
	if (!ret)
		return;
	steer_close(e->steer);
	e->steer = NULL;
	snprintf(e->steer_text, sizeof(e->steer_text), "off: %s", why.text);
	error_prefix(&why, ret, "no steering, datagrams take the way through the socket");
	if (o->log)
		o->log(o->arg, why.text);
}

/* A gateway that answers from memory of another kind is worth more than one that does not: a line, not a failure. */
static enum buffer_backend backend_of(const struct edge_opts *o)
{
	struct lslm_error line;

	if (o->courier.backend != BUFFER_KERNEL || buffer_backend_active() == BUFFER_KERNEL)
		return o->courier.backend;
	error_set(&line, -ENODEV, "no buffers of the module, which were asked for, but %s",
		  buffer_backend_reason());
	if (o->log)
		o->log(o->arg, line.text);
	return BUFFER_AUTO;
}

static int add_contexts(struct edge *e, const struct edge_opts *o, struct lslm_error *err)
{
	int ret = 0;

	for (uint32_t i = 0; i < o->n_contexts && !ret; i++) {
		ret = shelf_add(e->shelf, o->contexts[i], err);
		if (ret == -ECANCELED)
			ret = 0; /* an admin dropped it */
	}
	shelf_end_of_start(e->shelf);
	return ret;
}

/* On their way before anybody asks; a model whose weights are not shared is a line, not a failure. */
static int start_weights(struct edge *e, const struct edge_opts *o, enum buffer_backend backend,
			 struct lslm_error *err)
{
	struct weights_share_opts w = {
		.load = o->load,
		.backend = backend,
		.custody = e->custody ? custody_ops(e->custody) : NULL,
		.log = o->log,
		.arg = o->arg,
	};
	int ret = 0;

	if (!o->n_models || (o->load != MATRICES_READ && o->load != MATRICES_AUTO))
		return 0;
	e->weights = calloc(o->n_models, sizeof(struct weights_share *));
	if (!e->weights)
		return error_sys(err, -ENOMEM, "weights");
	for (uint32_t i = 0; i < o->n_models && !ret; i++) {
		w.model = o->models[i];
		ret = weights_share_start(&e->weights[i], &w, err);
		e->n_weights += !ret;
	}
	return ret;
}

static int find_peers(struct edge *e, const struct edge_opts *o, struct lslm_error *err)
{
	struct peers_opts p;

	if (!o->peers)
		return 0;
	p = *o->peers;
	p.log = o->log;
	p.arg = o->arg;
	return peers_open(&e->peers, &p, err);
}

/* For those who report it, and for the courier after this one. */
static void tell_supervisor(void *arg)
{
	struct edge *e = arg;
	struct site_stats s;

	for (uint32_t i = 0; !sites_look(e->sites, i, &s); i++) {
		struct channel_message m = {
			.op = CHANNEL_CLOUD,
			.value = s.state,
			.opened = s.opened,
			.probes = s.probes,
		};

		memcpy(m.text, s.name, sizeof(m.text));
		custody_say(e->custody, &m);
	}
}

static bool was_away(void *arg, const char *name)
{
	const struct edge *e = arg;
	struct board_cloud c;

	return board_cloud(e->board, name, &c) && c.state != BREAKER_CLOSED;
}

static void log_cloud(void *arg, const char *line)
{
	const struct edge *e = arg;

	if (e->opts->log)
		e->opts->log(e->opts->arg, line);
}

static int watch_clouds(struct edge *e, const struct edge_opts *o, struct lslm_error *err)
{
	const struct sites_opts s = {
		.http = source_https_opts(&o->courier),
		.log = log_cloud,
		.was_away = was_away,
		.arg = e,
	};
	int ret = sites_open(&e->sites, &s, err);

	e->listener = (struct sites_listener){ .changed = tell_supervisor, .arg = e };
	if (!ret && e->custody)
		sites_listen(e->sites, &e->listener);
	return ret;
}

static int serve_peers(struct edge *e, const struct edge_opts *o, struct lslm_error *err)
{
	char line[64];
	int ret;

	if (!o->peer_service)
		return 0;
	ret = peer_service_start(&e->service, o->peer_service, e->shelf, err);
	if (ret < 0)
		return ret;
	snprintf(line, sizeof(line), "peers are served on port %d", peer_service_port(e->service));
	if (o->log)
		o->log(o->arg, line);
	return 0;
}

/* What is there for the usual token, and for each salt's own. */
static int list_cloud(struct edge *e, const struct edge_opts *o, const struct shelf_opts *shelf,
		      struct lslm_error *err)
{
	struct shelf_opts own = *shelf;
	int ret = 0;

	for (uint32_t i = 0; o->cloud && i <= e->rights.n && !ret; i++) {
		own.courier.token = i ? e->rights.all[i - 1].cloud : shelf->courier.token;
		if (i && !own.courier.token)
			continue;
		ret = cloud_list_start(&e->lists[e->n_lists], o->cloud, &own, e->shelf, err);
		e->n_lists += !ret;
	}
	return ret;
}

/* Tokens of tenants are shown to the cloud, and to nobody else whose URL was named. */
static int read_rights(struct edge *e, const struct edge_opts *o, struct lslm_error *err)
{
	const char *cloud = o->cloud ? o->cloud : "";
	size_t len = strlen(cloud);
	int ret = salts_read(&e->rights, o->tenants, true, err);

	if (ret)
		return ret;
	while (len && cloud[len - 1] == '/')
		len--;
	/* Without a cloud it is "", which is no URL's. */
	e->rights.site = e->site = strndup(cloud, len);
	return e->site ? 0 : error_sys(err, -ENOMEM, "tenants");
}

/* Engines come when all of it is served. */
static int start_others(struct edge *e, const struct edge_opts *o, const struct shelf_opts *shelf,
			struct lslm_error *err)
{
	struct changes_opts c = {
		.channel = o->channel,
		.custody = e->custody,
		.board = e->board,
		.shelf = e->shelf,
		.log = o->log,
		.arg = o->arg,
	};
	int ret = list_cloud(e, o, shelf, err);

	if (ret || !e->custody) {
		shelf_expect(e->shelf, -1);
		return ret;
	}
	c.lists = e->lists;
	c.n_lists = e->n_lists;
	c.store = e->store;
	ret = changes_start(&e->changes, &c, err);
	shelf_expect(e->shelf, -1);
	return ret ? ret : custody_ready(e->custody, err);
}

/* The socket comes before the contexts: a second edge must find out before it fetches anything. */
static int start(struct edge *e, const struct edge_opts *o, struct lslm_error *err)
{
	struct shelf_opts shelf = { .courier = o->courier, .log = o->log, .arg = o->arg };
	struct desk_opts desk = {
		.socket = o->socket,
		.group = o->group,
		.store_text = store_text(o),
		.steer_text = e->steer_text,
		.log = o->log,
		.arg = o->arg,
	};
	int ret;

	ret = o->channel ? custody_open(&e->custody, o->channel, &e->board, err) : 0;
	if (!ret)
		ret = read_rights(e, o, err);
	if (!ret && o->store)
		ret = stripe_store_open(&e->store, o->store, err);
	if (ret < 0)
		return ret;
	shelf.board = desk.board = e->board;
	shelf.max = o->max_contexts;
	shelf.asked_only = o->asked_only;
	shelf.courier.custody = e->custody ? custody_ops(e->custody) : NULL;
	steer_if_possible(e, o);
	shelf.courier.backend = backend_of(o);
	shelf.courier.store = desk.store = e->store;
	shelf.courier.steer = e->steer;
	shelf.courier.rights = &e->rights;
	shelf.courier.allow = e->allow;
	desk.steer = e->steer;
	ret = start_weights(e, o, shelf.courier.backend, err);
	if (!ret)
		ret = find_peers(e, o, err);
	if (!ret)
		ret = watch_clouds(e, o, err);
	shelf.courier.peers = e->peers;
	shelf.courier.sites = desk.sites = e->sites;
	if (!ret)
		ret = shelf_open(&e->shelf, &shelf, err);
	desk.shelf = e->shelf;
	desk.weights = e->weights;
	desk.n_weights = e->n_weights;
	if (!ret)
		shelf_expect(e->shelf, 1);
	if (!ret)
		ret = desk_open(&e->desk, &desk, err);
	if (!ret)
		ret = serve_peers(e, o, err);
	if (!ret)
		ret = add_contexts(e, o, err);
	return ret ? ret : start_others(e, o, &shelf, err);
}

int edge_start(struct edge **out, const struct edge_opts *opts, struct lslm_error *err)
{
	struct edge *e = calloc(1, sizeof(*e));
	int ret;

	if (!e)
		return error_sys(err, -ENOMEM, "edge");
	e->opts = opts;
	ret = start(e, opts, err);
	if (ret < 0) {
		edge_stop(e);
		return ret;
	}
	*out = e;
	return 0;
}

/* As shelf_add() has them; one that was dropped since is looked at too. */
static int check_contexts(const struct edge_opts *o, struct lslm_error *err)
{
	const uint32_t max = o->max_contexts ? o->max_contexts : SHELF_CONTEXTS;
	struct kv_hash key, other;
	int ret;

	for (uint32_t i = 0; i < o->n_contexts; i++) {
		const char *source = o->contexts[i];
		const bool url = strstr(source, "://");

		ret = url ? source_https_key(source, &key, err) : 0;
		if (ret)
			return error_prefix(err, ret, "%s", source);
		for (uint32_t k = 0; k < i; k++)
			if (!strcmp(source, o->contexts[k]) ||
			    (url && !source_https_key(o->contexts[k], &other, NULL) &&
			     kv_hash_equal(&key, &other)))
				return error_set(err, -EEXIST, "%s: named twice", source);
	}
	return o->n_contexts <= max ?
		       0 :
		       error_set(err, -ENOSPC, "%u contexts are named: there is room for %u",
				 o->n_contexts, max);
}

static int check_access(const struct edge_opts *o, struct lslm_error *err)
{
	const struct http_opts http = source_https_opts(&o->courier);
	struct http_client *client;
	int ret = http_open(&client, &http, err);

	if (ret)
		return ret;
	http_close(client);
	return tls_check(http.cert, http.key, http.cacert, err);
}

/* Both are read when somebody is asked, and a line is all that would come of it then. */
static int check_peers(const struct peers_opts *p, struct lslm_error *err)
{
	const struct directory_opts *d = p->directory;
	char *creds = NULL;
	size_t size;
	int ret = tls_check(p->cert, p->key, p->cacert, err);

	if (!ret && d)
		ret = tls_check(NULL, NULL, d->cacert, err);
	if (!ret && d && d->creds)
		ret = file_read(d->creds, MAX_CREDS, &creds, &size, err);
	if (creds)
		explicit_bzero(creds, size);
	free(creds);
	return ret;
}

int edge_check(const struct edge_opts *o, struct lslm_error *err)
{
	struct rights rights;
	int ret = check_contexts(o, err);

	if (!ret)
		ret = check_access(o, err);
	if (!ret && o->peers)
		ret = check_peers(o->peers, err);
	if (!ret && o->peer_service)
		ret = peer_service_check(o->peer_service, err);
	if (ret)
		return ret;
	ret = salts_read(&rights, o->tenants, true, err);
	salts_free(&rights);
	return ret;
}

void edge_stop(struct edge *e)
{
	if (!e)
		return;
	sites_stop(e->sites);
	for (uint32_t i = 0; i < e->n_lists; i++)
		cloud_list_cancel(e->lists[i]);
	changes_stop(e->changes);
	while (e->n_lists)
		cloud_list_stop(e->lists[--e->n_lists]);
	/* Engines first: their questions are about couriers. */
	desk_close(e->desk);
	while (e->n_weights)
		weights_share_stop(e->weights[--e->n_weights]);
	free(e->weights);
	peer_service_stop(e->service);
	shelf_close(e->shelf);
	sites_close(e->sites);
	peers_close(e->peers);
	allow_close(e->allow);
	steer_close(e->steer);
	stripe_store_close(e->store);
	salts_free(&e->rights);
	free(e->site);
	custody_close(e->custody);
	board_close(e->board);
	free(e);
}
