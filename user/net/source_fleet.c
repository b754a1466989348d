// SPDX-License-Identifier: MIT
#include "net/source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "net/courier.h"
#include "net/http_client.h"
#include "net/peer.h"
#include "net/peers.h"
#include "net/rights.h"
#include "net/shares.h"

/* Between two looks for further holders: so many waits of a tenth of a second. */
enum { FLEET_LOOK_EVERY = 20, FLEET_RECORDS = 64 };

/* Before one that ended is asked again; each time twice as long. */
#define FLEET_FIRST_WAIT_S 2.0
#define FLEET_LAST_WAIT_S  60.0

_Static_assert((int)PEERS_MAX + (int)SHARES_PEER <= (int)SHARES_SOURCES, "a share for each");

/* One that ended: when to ask again. */
struct record {
	char url[PEERS_URL_BYTES];
	double wait_s, again; /* again: INFINITY for one that lied */
};

struct fleet {
	struct source source;
	struct source *cloud;
	struct peers *peers;
	const struct rights *rights; /* NULL: none but the usual */
	const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES];
	size_t n_trusted;
	struct http_opts http;
	const atomic_bool *cancel; /* of everything, as in courier_opts */
	char name[16]; /* of the context, for the log */
	struct shares *shares;

	pthread_mutex_t lock; /* of what follows */
	struct peer *members[PEERS_MAX];
	struct record records[FLEET_RECORDS];
	uint32_t n_records;
	struct sink *sink; /* while receiving */
	bool direct; /* the cloud's source is at work */
	pthread_t scout;
	bool scouts;

	atomic_bool end; /* of the peers */
	atomic_bool alone; /* the cloud's source has given up */
	/* Why sink->stop was set: by a peer, so that the cloud's source lets go; by the courier. */
	atomic_bool recalled, woken;
};

static struct fleet *of(struct source *s)
{
	return (struct fleet *)s;
}

/* ---- the manifest ---- */

/* Signed by somebody who is trusted, and of this context: then it does not matter who had it. */
static int check_manifest(struct fleet *f, const uint8_t *data, size_t size, struct lslm_error *err)
{
	struct manifest *m = NULL;
	int ret;

	ret = manifest_verify(data, size, f->trusted, f->n_trusted, err);
	if (!ret)
		ret = manifest_parse(&m, data, size, err);
	if (!ret && !kv_hash_equal(&m->key, f->source.key))
		ret = error_set(err, -EBADMSG, "the manifest is of another context");
	manifest_free(m);
	return ret;
}

static int ask_manifest(struct fleet *f, const char *site, const char *token, uint8_t **data,
			size_t *size, struct lslm_error *err)
{
	char url[PEERS_URL_BYTES + 128], hex[KV_HASH_TEXT];
	struct http_opts o = f->http;
	struct http_client *http;
	int ret;

	o.stop = f->cancel;
	o.token = token;
	kv_hash_format(f->source.key, hex);
	snprintf(url, sizeof(url), "%s/v1/contexts/%s/manifest", site, hex);
	ret = http_open(&http, &o, err);
	if (ret < 0)
		return ret;
	ret = http_get(http, url, MANIFEST_MAX_BYTES, data, size, err);
	http_close(http);
	if (ret < 0)
		return ret;
	ret = check_manifest(f, *data, *size, err);
	if (ret < 0)
		free(*data);
	return ret;
}

/* By the usual token, then by those of salts, until it is there to one. */
static int ask_with_each(struct fleet *f, const char *site, uint8_t **data, size_t *size,
			 struct lslm_error *err)
{
	const struct rights *r = f->rights;
	int ret = ask_manifest(f, site, f->http.token, data, size, err), again = ret;
	struct lslm_error why;

	for (uint32_t i = 0; r && i < r->n && (again == -ENOENT || again == -EACCES); i++)
		if (r->all[i].peer)
			again = ask_manifest(f, site, r->all[i].peer, data, size, &why);
	return again ? ret : 0;
}

static void fleet_salt(struct source *s, const struct kv_hash *salt)
{
	struct fleet *f = of(s);

	f->http.token = rights_peer(f->rights, salt, f->http.token);
	if (f->cloud->ops->salt)
		f->cloud->ops->salt(f->cloud, salt);
}

/* A cloud that says that there is no such context is believed; one that says nothing is not waited for. */
static int fleet_manifest(struct source *s, uint8_t **data, size_t *size, struct lslm_error *err)
{
	struct fleet *f = of(s);
	char urls[PEERS_MAX][PEERS_URL_BYTES];
	struct lslm_error why;
	uint32_t n;
	int ret = f->cloud->ops->manifest(f->cloud, data, size, err);

	if (!http_is_outage(ret))
		return ret;
	n = peers_find(f->peers, s->key, urls);
	for (uint32_t i = 0; i < n; i++) {
		if (!ask_with_each(f, urls[i], data, size, &why))
			return 0;
		if (why.code != -ENOENT)
			peers_say(f->peers, "%s: peer %s: %s", f->name, urls[i], why.text);
	}
	return ret;
}

/* ---- peers come and go ---- */

/* Also where all is done: whoever waits for the cloud's source need not. */
static void recall(void *arg)
{
	struct fleet *f = arg;

	pthread_mutex_lock(&f->lock);
	if (f->direct) {
		atomic_store(&f->recalled, true);
		atomic_store(&f->sink->stop, true);
		f->cloud->ops->wake(f->cloud);
	}
	pthread_mutex_unlock(&f->lock);
	shares_tell(f->shares);
}

static void gone(void *arg, const char *url, const struct lslm_error *why)
{
	struct fleet *f = arg;

	peers_say(f->peers, "%s: peer %s: %s%s", f->name, url, why->text,
		  why->code == -EBADMSG ? "; it is not asked again" : "");
	shares_tell(f->shares);
}

static bool is_member(const struct fleet *f, const char *url)
{
	for (uint32_t i = 0; i < PEERS_MAX; i++)
		if (f->members[i] && !strcmp(peer_url(f->members[i]), url))
			return true;
	return false;
}

static struct record *find_record(struct fleet *f, const char *url)
{
	for (uint32_t i = 0; i < f->n_records; i++)
		if (!strcmp(f->records[i].url, url))
			return &f->records[i];
	return NULL;
}

/* The one that may be asked the soonest makes room: whoever lied is forgotten last. */
static struct record *make_record(struct fleet *f, const char *url)
{
	struct record *r = &f->records[0];

	if (f->n_records < FLEET_RECORDS)
		r = &f->records[f->n_records++];
	for (uint32_t i = 0; r->wait_s > 0 && i < FLEET_RECORDS; i++)
		if (f->records[i].again < r->again)
			r = &f->records[i];
	*r = (struct record){ .wait_s = FLEET_FIRST_WAIT_S / 2 };
	snprintf(r->url, sizeof(r->url), "%s", url);
	return r;
}

/* Whoever was told to end is asked at once the next time. */
static void note_end(struct fleet *f, const char *url, int why)
{
	struct record *r = find_record(f, url);

	if (!why || why == -ECANCELED)
		return;
	if (!r)
		r = make_record(f, url);
	r->wait_s = fmin(2 * r->wait_s, FLEET_LAST_WAIT_S);
	r->again = why == -EBADMSG ? INFINITY : clock_seconds() + r->wait_s;
}

static bool may_ask(struct fleet *f, const char *url)
{
	const struct record *r = find_record(f, url);

	return !r || r->again <= clock_seconds();
}

static void bury(struct fleet *f, uint32_t i)
{
	struct peer *p = f->members[i];
	char url[PEERS_URL_BYTES];

	snprintf(url, sizeof(url), "%s", peer_url(p));
	f->members[i] = NULL;
	note_end(f, url, peer_join(p));
}

static void start_peer(struct fleet *f, const char *url)
{
	struct lslm_error why;
	struct peer_opts o = {
		.url = url,
		.key = f->source.key,
		.http = f->http,
		.sink = f->sink,
		.alone = &f->alone,
		.recall = recall,
		.gone = gone,
		.arg = f,
	};
	uint32_t i = 0;

	while (i < PEERS_MAX && f->members[i])
		i++;
	if (i == PEERS_MAX)
		return;
	o.source = SHARES_PEER + i;
	if (peer_start(&f->members[i], &o, &why)) {
		f->members[i] = NULL;
		peers_say(f->peers, "%s: peer %s: %s", f->name, url, why.text);
	}
}

static void look_for_peers(struct fleet *f)
{
	char urls[PEERS_MAX][PEERS_URL_BYTES];
	const uint32_t n = peers_find(f->peers, f->source.key, urls);

	pthread_mutex_lock(&f->lock);
	for (uint32_t i = 0; i < PEERS_MAX; i++)
		if (f->members[i] && peer_is_over(f->members[i]))
			bury(f, i);
	for (uint32_t i = 0; i < n; i++)
		if (!is_member(f, urls[i]) && may_ask(f, urls[i]))
			start_peer(f, urls[i]);
	pthread_mutex_unlock(&f->lock);
}

/* Those that get the context meanwhile. */
static void *scout(void *arg)
{
	struct fleet *f = arg;

	for (uint32_t i = 1; !atomic_load(&f->end); i++) {
		shares_wait(f->shares);
		if (i % FLEET_LOOK_EVERY == 0 && !atomic_load(&f->end))
			look_for_peers(f);
	}
	return NULL;
}

static int begin(struct fleet *f, struct sink *sink, struct lslm_error *err)
{
	int ret = f->shares ? 0 : shares_open(&f->shares, sink->order.n_stripes, err);

	if (ret < 0)
		return ret;
	sink->shares = f->shares;
	atomic_store(&f->end, false);
	atomic_store(&f->alone, false);
	pthread_mutex_lock(&f->lock);
	f->sink = sink;
	pthread_mutex_unlock(&f->lock);
	look_for_peers(f);
	/* Without one those that there are now are all. */
	f->scouts = !pthread_create(&f->scout, NULL, scout, f);
	return 0;
}

/* Nobody writes to the sink afterwards. */
static void end(struct fleet *f)
{
	atomic_store(&f->end, true);
	shares_tell(f->shares);
	if (f->scouts)
		pthread_join(f->scout, NULL);
	/* Together they take as long as the slowest. Their last callbacks need the lock. */
	pthread_mutex_lock(&f->lock);
	f->sink = NULL;
	for (uint32_t i = 0; i < PEERS_MAX; i++)
		if (f->members[i])
			peer_wake(f->members[i]);
	pthread_mutex_unlock(&f->lock);
	for (uint32_t i = 0; i < PEERS_MAX; i++) {
		while (f->members[i] && !peer_is_over(f->members[i]))
			shares_wait(f->shares);
		pthread_mutex_lock(&f->lock);
		if (f->members[i])
			bury(f, i);
		pthread_mutex_unlock(&f->lock);
	}
}

/* ---- receiving ---- */

/* Was it a peer alone that stopped the cloud's source? */
static bool undo_recall(struct fleet *f, struct sink *sink)
{
	if (!atomic_exchange(&f->recalled, false))
		return false;
	atomic_store(&sink->stop, false);
	return !atomic_load(&f->woken);
}

static int receive_direct(struct fleet *f, struct sink *sink, struct lslm_error *err)
{
	int ret;

	shares_join(f->shares, SHARES_DIRECT);
	pthread_mutex_lock(&f->lock);
	f->direct = true;
	pthread_mutex_unlock(&f->lock);
	ret = f->cloud->ops->receive(f->cloud, sink, err);
	pthread_mutex_lock(&f->lock);
	f->direct = false;
	pthread_mutex_unlock(&f->lock);
	shares_leave(f->shares, SHARES_DIRECT);
	return ret;
}

static bool is_hopeful(struct fleet *f)
{
	bool hope = false;

	pthread_mutex_lock(&f->lock);
	for (uint32_t i = 0; i < PEERS_MAX; i++)
		hope |= f->members[i] && peer_may_bring(f->members[i]);
	pthread_mutex_unlock(&f->lock);
	return hope;
}

/* The cloud has failed. What its peers have of it comes all the same. */
static void wait_for_peers(struct fleet *f, struct sink *sink)
{
	atomic_store(&f->alone, true);
	shares_tell(f->shares);
	while (!atomic_load(&sink->stop) && !atomic_load(&f->woken) && !sink_is_done(sink) &&
	       is_hopeful(f))
		shares_wait(f->shares);
}

static int fleet_receive(struct source *s, struct sink *sink, struct lslm_error *err)
{
	struct fleet *f = of(s);
	bool recalled;
	int ret;

	/* In this order: fleet_wake() says that it was called, then sets stop once more. */
	atomic_store(&f->woken, false);
	if (atomic_load(&sink->stop))
		return error_set(err, -ECANCELED, "stopped");
	ret = begin(f, sink, err);
	if (ret < 0)
		return ret;
	do {
		ret = receive_direct(f, sink, err);
		recalled = undo_recall(f, sink);
	} while (ret == -ECANCELED && recalled && !sink_is_done(sink));
	if (ret < 0 && ret != -ECANCELED)
		wait_for_peers(f, sink);
	end(f);
	return ret < 0 && sink_is_done(sink) ? 0 : ret;
}

static void fleet_wake(struct source *s)
{
	struct fleet *f = of(s);

	atomic_store(&f->woken, true);
	pthread_mutex_lock(&f->lock);
	if (f->sink) {
		atomic_store(&f->sink->stop, true);
		shares_tell(f->shares);
	}
	pthread_mutex_unlock(&f->lock);
	if (f->cloud->ops->wake)
		f->cloud->ops->wake(f->cloud);
}

static void fleet_path(struct source *s, char out[SOURCE_PATH_BYTES])
{
	struct fleet *f = of(s);
	uint32_t n = 0;
	size_t len;

	source_path(f->cloud, out);
	pthread_mutex_lock(&f->lock);
	for (uint32_t i = 0; i < PEERS_MAX; i++)
		n += f->members[i] && peer_is_hopeful(f->members[i]);
	pthread_mutex_unlock(&f->lock);
	len = strlen(out);
	if (n)
		snprintf(out + len, SOURCE_PATH_BYTES - len, ", %u peer%s", n, n == 1 ? "" : "s");
}

static bool fleet_udp(struct source *s, struct courier_udp *out)
{
	struct source *cloud = of(s)->cloud;

	return cloud->ops->udp && cloud->ops->udp(cloud, out);
}

static void fleet_close(struct source *s)
{
	struct fleet *f = of(s);

	f->cloud->ops->close(f->cloud);
	shares_close(f->shares);
	pthread_mutex_destroy(&f->lock);
	source_fini(s);
	free(f);
}

static const struct source_ops fleet_ops = {
	.manifest = fleet_manifest,
	.salt = fleet_salt,
	.receive = fleet_receive,
	.wake = fleet_wake,
	.path = fleet_path,
	.udp = fleet_udp,
	.close = fleet_close,
};

int source_fleet_open(struct source **out, struct source *cloud, const struct courier_opts *opts,
		      struct lslm_error *err)
{
	const struct peers_opts *o = peers_opts(opts->peers);
	struct fleet *f = calloc(1, sizeof(*f));
	char hex[KV_HASH_TEXT];

	if (!f)
		return error_sys(err, -ENOMEM, "source");
	source_init(&f->source, &fleet_ops, cloud->from, "");
	pthread_mutex_init(&f->lock, NULL);
	f->source.key = cloud->key;
	f->cloud = cloud;
	f->peers = opts->peers;
	f->rights = opts->rights;
	f->trusted = opts->trusted;
	f->n_trusted = opts->n_trusted;
	f->cancel = opts->stop;
	f->http = (struct http_opts){
		.cacert = o->cacert,
		.token = o->token,
		.cert = o->cert,
		.key = o->key,
		.connect_timeout_ms = opts->connect_timeout_ms,
		.stall_timeout_ms = opts->stall_timeout_ms,
		.stop = &f->end,
	};
	kv_hash_format(cloud->key, hex);
	snprintf(f->name, sizeof(f->name), "%.12s", hex);
	*out = &f->source;
	return 0;
}
