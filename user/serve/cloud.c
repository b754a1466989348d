// SPDX-License-Identifier: MIT
#include "serve/cloud.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/bearer.h"
#include "serve/contexts.h"
#include "serve/daemon.h"
#include "serve/listener.h"
#include "serve/reply.h"
#include "serve/sessions.h"

enum {
	CLOUD_MAX_TEXT = 8 << 20,
	CLOUD_MAX_CONNECTIONS = 64,
	CLOUD_IDLE_S = 30,
	/* Beyond max_connections so many are accepted to be told 503; further ones are just closed. */
	CLOUD_SPARE = 8,
	CLOUD_TIDY_S = 60, /* between two looks for contexts that are too old */
};

#define CLOUD_MAX_UPLOAD ((uint64_t)16 << 30)

/* A server with a certificate. Those of before the last reload live on as long as they have connections. */
struct server {
	struct MHD_Daemon *daemon;
	struct tls_files tls;
	int fd; /* that it listens at */
};

/* Of before; the oldest is cut off where there are more. */
enum { CLOUD_SERVERS = 8 };

struct cloud {
	struct server server;
	struct server old[CLOUD_SERVERS];
	uint32_t n_old;
	char *cert, *key,
		*client_ca; /* names of files; client_ca NULL: no certificates of clients */
	unsigned int idle_timeout_s;
	struct contexts contexts;
	bool has_token;
	struct kv_hash token; /* digest of it: equal lengths compare in constant time */
	struct tenants *tenants; /* NULL: none */
	struct kv_hash salt; /* without tenants */
	pthread_t tidier; /* where contexts grow old */
	bool tidies;
	pthread_mutex_t lock; /* of ending */
	pthread_cond_t end;
	bool ending;
	unsigned int max_connections;
	atomic_uint connections;
	int port;
	struct lslm_error no_udp; /* why there is no placement */
	void (*log)(void *arg, const char *line);
	void *arg;
};

/* ---- routes ---- */

enum shape {
	SHAPE_UNKNOWN,
	SHAPE_HEALTH,
	SHAPE_CONTEXTS,
	SHAPE_CONTEXT,
	SHAPE_MANIFEST,
	SHAPE_BLOCKS,
	SHAPE_PIN,
	SHAPE_MODELS,
	SHAPE_PUBLISH,
	SHAPE_SESSIONS,
	SHAPE_SESSION,
	SHAPE_KEYS,
};

static const char *const shape_names[] = {
	[SHAPE_UNKNOWN] = "?",
	[SHAPE_HEALTH] = "/health",
	[SHAPE_CONTEXTS] = "/v1/contexts",
	[SHAPE_CONTEXT] = "/v1/contexts/KEY",
	[SHAPE_MANIFEST] = "/v1/contexts/KEY/manifest",
	[SHAPE_BLOCKS] = "/v1/contexts/KEY/blocks",
	[SHAPE_PIN] = "/v1/contexts/KEY/pin",
	[SHAPE_MODELS] = "/v1/models",
	[SHAPE_PUBLISH] = "/v1/publishes/ID",
	[SHAPE_SESSIONS] = "/v1/sessions",
	[SHAPE_SESSION] = "/v1/sessions/ID",
	[SHAPE_KEYS] = "/v1/sessions/ID/keys",
};

struct route {
	const char *method;
	enum shape shape;
	enum MHD_Result (*begin)(struct request *r);
	enum MHD_Result (*body)(struct request *r, const char *data, size_t size);
	enum MHD_Result (*finish)(struct request *r);
};

static enum MHD_Result health(struct request *r)
{
	return reply_json(r->conn, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
}

static const struct route routes[] = {
	{ "GET", SHAPE_HEALTH, NULL, NULL, health },
	{ "GET", SHAPE_CONTEXTS, NULL, NULL, contexts_list },
	{ "POST", SHAPE_CONTEXTS, contexts_publish_begin, contexts_publish_body, contexts_publish },
	{ "PUT", SHAPE_CONTEXT, contexts_upload_begin, contexts_upload_body, contexts_upload },
	{ "DELETE", SHAPE_CONTEXT, NULL, NULL, contexts_remove },
	{ "GET", SHAPE_MANIFEST, NULL, NULL, contexts_manifest },
	{ "GET", SHAPE_BLOCKS, NULL, NULL, contexts_blocks },
	{ "POST", SHAPE_PIN, NULL, NULL, contexts_add_pin },
	{ "DELETE", SHAPE_PIN, NULL, NULL, contexts_remove_pin },
	{ "GET", SHAPE_MODELS, NULL, NULL, contexts_models },
	{ "GET", SHAPE_PUBLISH, NULL, NULL, contexts_publish_status },
	{ "POST", SHAPE_SESSIONS, NULL, sessions_open_body, sessions_open },
	{ "POST", SHAPE_KEYS, NULL, NULL, sessions_renew },
	{ "DELETE", SHAPE_SESSION, NULL, NULL, sessions_end },
};

/* A request, and where it goes; the library's per-request pointer. */
struct visit {
	struct request request;
	enum shape shape;
	const struct route *route; /* NULL: answered already */
	const char *method;
};

/* What follows the prefix, if it is one. */
static const char *after(const char *path, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(path, prefix, len) ? NULL : path + len;
}

/* -EINVAL: the key is none. */
static int parse_context(const char *path, enum shape *shape, struct kv_hash *key)
{
	const char *rest = strchrnul(path, '/');
	char text[KV_HASH_TEXT] = "";

	if (rest - path == KV_HASH_TEXT - 1)
		memcpy(text, path, KV_HASH_TEXT - 1);
	if (kv_hash_parse(key, text) < 0)
		return -EINVAL;
	if (!*rest)
		*shape = SHAPE_CONTEXT;
	else if (!strcmp(rest, "/manifest"))
		*shape = SHAPE_MANIFEST;
	else if (!strcmp(rest, "/blocks"))
		*shape = SHAPE_BLOCKS;
	else if (!strcmp(rest, "/pin"))
		*shape = SHAPE_PIN;
	return 0;
}

/* Whether there is such a one is not asked here; one with a long name there cannot be. Returns what follows. */
static const char *parse_id(const char *path, char id[SESSION_ID_TEXT])
{
	size_t len = strcspn(path, "/");

	if (!len || len >= SESSION_ID_TEXT)
		return NULL;
	memcpy(id, path, len);
	id[len] = 0;
	return path + len;
}

static void parse_session(const char *path, enum shape *shape, char id[SESSION_ID_TEXT])
{
	const char *rest = parse_id(path, id);

	if (!rest)
		return;
	if (!*rest)
		*shape = SHAPE_SESSION;
	else if (!strcmp(rest, "/keys"))
		*shape = SHAPE_KEYS;
}

/* -EINVAL: it would be a context's path if its key were one. */
static int parse_path(const char *path, struct visit *v)
{
	static const enum shape whole[] = { SHAPE_HEALTH, SHAPE_CONTEXTS, SHAPE_MODELS,
					    SHAPE_SESSIONS };
	const char *rest;
	size_t i;

	v->shape = SHAPE_UNKNOWN;
	for (i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
		if (!strcmp(path, shape_names[whole[i]]))
			v->shape = whole[i];
	if ((rest = after(path, "/v1/sessions/")))
		parse_session(rest, &v->shape, v->request.id);
	else if ((rest = after(path, "/v1/publishes/"))) {
		rest = parse_id(rest, v->request.id);
		if (rest && !*rest)
			v->shape = SHAPE_PUBLISH;
	}
	if ((rest = after(path, "/v1/contexts/")))
		return parse_context(rest, &v->shape, &v->request.key);
	return 0;
}

/* HEAD is GET whose body the library leaves out. */
static bool is_method(const struct route *r, const char *method)
{
	return !strcmp(r->method, method) || (!strcmp(r->method, "GET") && !strcmp(method, "HEAD"));
}

static const struct route *find_route(enum shape shape, const char *method)
{
	size_t i;

	for (i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
		if (routes[i].shape == shape && is_method(&routes[i], method))
			return &routes[i];
	return NULL;
}

/* ---- who may ---- */

/* Whose token it is, where there are tenants; its rights become the request's. */
static bool is_tenant(struct cloud *c, struct request *r)
{
	const char *value = MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, "Authorization");
	const struct tenant *t = tenants_find(c->tenants, value);

	if (!t)
		return false;
	r->is_tenant = true;
	tenant_store(t, &r->rights);
	/* Sessions of one tenant are not another's; a certificate says it more narrowly. */
	if (!c->client_ca)
		r->owner = kv_digest(tenant_name(t), strlen(tenant_name(t)));
	return true;
}

static bool shows_token(struct cloud *c, struct request *r)
{
	if (c->tenants)
		return is_tenant(c, r);
	return !c->has_token || bearer_matches(r->conn, &c->token);
}

/* Trusted; and whose it is, so that tenants with one token each see their own sessions only. */
static bool has_certificate(struct MHD_Connection *conn, struct kv_hash *owner)
{
	const union MHD_ConnectionInfo *info;

	info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	return info && tls_client_trusted(info->tls_session) &&
	       tls_client_digest(info->tls_session, owner);
}

/* ---- one request ---- */

/* The first look: 0 when the request may go on, else it has been answered with *ret. */
static int admit(struct cloud *c, struct visit *v, const char *path, enum MHD_Result *ret)
{
	struct MHD_Connection *conn = v->request.conn;
	int key_ok = parse_path(path, v);

	if (atomic_load(&c->connections) > c->max_connections)
		*ret = reply_error(conn, MHD_HTTP_SERVICE_UNAVAILABLE,
				   "more than %u connections; try again in a moment",
				   c->max_connections);
	else if (v->shape != SHAPE_HEALTH && c->client_ca &&
		 !has_certificate(conn, &v->request.owner))
		*ret = reply_error(conn, MHD_HTTP_UNAUTHORIZED,
				   "a client certificate of this cloud's CA is needed");
	else if (v->shape != SHAPE_HEALTH && !shows_token(c, &v->request))
		*ret = reply_error(conn, MHD_HTTP_UNAUTHORIZED,
				   "the bearer token is missing or wrong");
	else if (key_ok < 0)
		*ret = reply_error(conn, MHD_HTTP_BAD_REQUEST,
				   "a context's key has 64 hexadecimal digits");
	else if (v->shape == SHAPE_UNKNOWN)
		*ret = reply_error(conn, MHD_HTTP_NOT_FOUND, "there is nothing at this path");
	else if (!(v->route = find_route(v->shape, v->method)))
		*ret = reply_error(conn, MHD_HTTP_METHOD_NOT_ALLOWED,
				   "this method means nothing at this path");
	else
		return 0;
	return -EACCES;
}

static enum MHD_Result begin(struct cloud *c, struct MHD_Connection *conn, const char *path,
			     const char *method, void **state)
{
	struct visit *v = malloc(sizeof(*v));
	enum MHD_Result ret;

	if (!v)
		return MHD_NO;
	request_init(&v->request, &c->contexts, conn);
	v->request.rights.salt = c->salt;
	v->route = NULL;
	v->method = method;
	*state = v;
	if (admit(c, v, path, &ret) < 0)
		return ret;
	return v->route->begin ? v->route->begin(&v->request) : MHD_YES;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *conn, const char *path,
				  const char *method, const char *version, const char *data,
				  size_t *size, void **state)
{
	struct visit *v = *state;
	size_t n = *size;

	if (!v)
		return begin(arg, conn, path, method, state);
	/* The library hands on nothing for a request that was answered; were it to, drop it. */
	if (!v->route)
		return MHD_NO;
	if (!n)
		return v->route->finish(&v->request);
	*size = 0;
	return v->route->body ? v->route->body(&v->request, data, n) : MHD_YES;
}

static void log_visit(struct cloud *c, const struct visit *v)
{
	char line[512], peer[64], key[KV_HASH_TEXT] = "";

	reply_peer(v->request.conn, peer, sizeof(peer));
	if (v->shape >= SHAPE_CONTEXT && v->shape <= SHAPE_PIN)
		kv_hash_format(&v->request.key, key);
	/* Not what the client wrote: a path or a method may carry anything. */
	snprintf(line, sizeof(line), "%s %s %s%s%s %u", peer, v->route ? v->route->method : "-",
		 shape_names[v->shape], *key ? " " : "", key, reply_status(v->request.conn));
	c->log(c->arg, line);
}

static void on_completed(void *arg, struct MHD_Connection *conn, void **state,
			 enum MHD_RequestTerminationCode why)
{
	struct cloud *c = arg;
	struct visit *v = *state;

	if (!v)
		return;
	if (c->log)
		log_visit(c, v);
	request_fini(&v->request);
	free(v);
	*state = NULL;
}

static void on_connection(void *arg, struct MHD_Connection *conn, void **state,
			  enum MHD_ConnectionNotificationCode what)
{
	struct cloud *c = arg;

	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		atomic_fetch_add(&c->connections, 1);
	else
		atomic_fetch_sub(&c->connections, 1);
}

/* ---- old contexts ---- */

static void on_gone(void *arg, const struct kv_hash *key)
{
	struct cloud *c = arg;

	if (c->contexts.sender)
		sender_forget(c->contexts.sender, key);
}

static void *tidy(void *arg)
{
	struct cloud *c = arg;
	struct timespec until;

	pthread_mutex_lock(&c->lock);
	while (!c->ending) {
		pthread_mutex_unlock(&c->lock);
		store_expire(c->contexts.store);
		until = clock_after_ms(CLOUD_TIDY_S * 1000);
		pthread_mutex_lock(&c->lock);
		if (!c->ending)
			pthread_cond_timedwait(&c->end, &c->lock, &until);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

static int start_tidying(struct cloud *c, const struct cloud_opts *o, struct lslm_error *err)
{
	int rc;

	if (!o->ttl_s)
		return 0;
	rc = pthread_create(&c->tidier, NULL, tidy, c);
	c->tidies = !rc;
	return rc ? error_sys(err, -rc, "cloud") : 0;
}

static void stop_tidying(struct cloud *c)
{
	pthread_mutex_lock(&c->lock);
	c->ending = true;
	pthread_cond_signal(&c->end);
	pthread_mutex_unlock(&c->lock);
	if (c->tidies)
		pthread_join(c->tidier, NULL);
	pthread_cond_destroy(&c->end);
	pthread_mutex_destroy(&c->lock);
}

/* ---- start and stop ---- */

static int copy_trusted(struct contexts *x, const struct cloud_opts *o, struct lslm_error *err)
{
	if (!o->n_trusted)
		return 0;
	x->trusted = calloc(o->n_trusted, sizeof(*x->trusted));
	if (!x->trusted)
		return error_sys(err, -ENOMEM, "cloud");
	memcpy(x->trusted, o->trusted, o->n_trusted * sizeof(*x->trusted));
	x->n_trusted = o->n_trusted;
	return 0;
}

static int copy_names(struct cloud *c, const struct cloud_opts *o, struct lslm_error *err)
{
	c->idle_timeout_s = o->idle_timeout_s ? o->idle_timeout_s : CLOUD_IDLE_S;
	c->cert = strdup(o->cert);
	c->key = strdup(o->key);
	c->client_ca = o->client_ca ? strdup(o->client_ca) : NULL;
	return c->cert && c->key && (c->client_ca || !o->client_ca) ?
		       0 :
		       error_sys(err, -ENOMEM, "cloud");
}

static int prepare(struct cloud *c, const struct cloud_opts *o, struct lslm_error *err)
{
	struct contexts *x = &c->contexts;
	int ret;

	if (sodium_init() < 0)
		return error_set(err, -EIO, "libsodium does not start");
	if (!o->token && !o->client_ca && !o->tenants)
		return error_set(
			err, -EINVAL,
			"without authentication anybody could read the contexts; set a token (--token-file), tenants (--tenants) or a CA of clients (--client-ca)");
	if (o->token && o->tenants)
		return error_set(err, -EINVAL, "a token and tenants: the tenants have tokens");
	if (o->token && !*o->token)
		return error_set(err, -EINVAL, "the token is empty");
	c->has_token = o->token;
	if (o->token)
		c->token = bearer_digest(o->token);
	c->max_connections = o->max_connections ? o->max_connections : CLOUD_MAX_CONNECTIONS;
	c->log = o->log;
	c->arg = o->arg;
	c->salt = o->salt;
	x->models = o->models;
	x->n_models = o->n_models;
	x->maps = o->maps;
	x->n_maps = o->n_maps;
	x->max_text = o->max_text ? o->max_text : CLOUD_MAX_TEXT;
	x->max_upload = o->max_upload ? o->max_upload : CLOUD_MAX_UPLOAD;
	ret = copy_names(c, o, err);
	if (!ret)
		ret = copy_trusted(x, o, err);
	if (!ret)
		ret = store_open(&x->store, o->store, err);
	if (!ret)
		store_limit(x->store,
			    &(struct store_limits){ o->store_bytes, o->ttl_s, on_gone, c });
	if (!ret && o->tenants)
		ret = tenants_open(&c->tenants, o->tenants, err);
	if (!ret && o->publish)
		ret = pubqueue_open(&x->queue, x->store, o->publish, o->arg, err);
	return ret;
}

/* At the address of HTTPS. What goes wrong is kept, and HTTPS goes on. */
static void start_udp(struct cloud *c, const struct cloud_opts *o, int https)
{
	struct sockaddr_in6 at = { 0 }; /* of either family */
	struct sender_opts opts = o->udp ? *o->udp : (struct sender_opts){ 0 };
	int port = o->udp_port ? o->udp_port : c->port;
	struct lslm_error why = { 0 };

	opts.address = (struct sockaddr *)&at;
	opts.address_len = sizeof(at);
	if (o->udp_port == CLOUD_UDP_OFF) {
		error_set(&c->no_udp, -ENOTSUP, "placement over UDP is switched off");
		return;
	}
	if (getsockname(https, (struct sockaddr *)&at, &opts.address_len) < 0) {
		error_sys(&c->no_udp, -errno, "the address of HTTPS");
		return;
	}
	/* The port lies at the same place in both. */
	at.sin6_port = htons((uint16_t)port);
	if (sender_start(&c->contexts.sender, &opts, &why) < 0)
		error_set(&c->no_udp, why.code, "no placement over UDP: port %d: %s", port,
			  why.text);
}

/* With what the files hold now. The socket is the server's, unless it fails. */
static int start_server(struct cloud *c, struct server *s, int fd, struct lslm_error *err)
{
	const struct daemon_opts opts = {
		.fd = fd,
		.tls = &s->tls,
		.max_connections = c->max_connections + CLOUD_SPARE,
		.idle_s = c->idle_timeout_s,
		.handler = on_request,
		.completed = on_completed,
		.connection = on_connection,
		.arg = c,
	};
	int ret = tls_load(&s->tls, c->cert, c->key, c->client_ca, err);

	if (ret)
		return ret;
	s->fd = fd;
	s->daemon = daemon_start(&opts);
	if (s->daemon)
		return 0;
	tls_free(&s->tls);
	return error_set(err, -EIO, "port %d: the HTTPS server does not start", c->port);
}

static void stop_server(struct server *s)
{
	if (s->daemon)
		MHD_stop_daemon(s->daemon);
	tls_free(&s->tls);
	s->daemon = NULL;
}

static int start_daemon(struct cloud *c, const struct cloud_opts *o, struct lslm_error *err)
{
	int fd = listener_open(o->listen, err), ret;

	if (fd < 0)
		return fd;
	c->port = listener_port(fd);
	start_udp(c, o, fd);
	ret = start_server(c, &c->server, fd, err);
	if (ret)
		close(fd);
	return ret;
}

/* ---- another certificate ---- */

static unsigned int connections_of(const struct server *s)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

	return info ? info->num_connections : 0;
}

static void drop_old(struct cloud *c, uint32_t i)
{
	stop_server(&c->old[i]);
	memmove(&c->old[i], &c->old[i + 1], (--c->n_old - i) * sizeof(c->old[0]));
}

static void drop_idle(struct cloud *c)
{
	for (uint32_t i = c->n_old; i-- > 0;)
		if (!connections_of(&c->old[i]))
			drop_old(c, i);
	if (c->n_old == CLOUD_SERVERS)
		drop_old(c, 0);
}

/* New connections meet the new certificate; those that there are go on with the old one. Nobody is refused in between. */
static int reload_tls(struct cloud *c, struct lslm_error *err)
{
	struct server next = { 0 };
	int fd = fcntl(c->server.fd, F_DUPFD_CLOEXEC, 0);
	int ret = fd < 0 ? error_sys(err, -errno, "cloud") : start_server(c, &next, fd, err);

	if (ret) {
		if (fd >= 0)
			close(fd);
		return ret;
	}
	drop_idle(c);
	fd = MHD_quiesce_daemon(c->server.daemon);
	if (fd >= 0)
		close(fd);
	c->old[c->n_old++] = c->server;
	c->server = next;
	return 0;
}

/* Nobody who sets the clock makes the tidier wait for longer, or not at all. */
static void make_lock(struct cloud *c)
{
	pthread_mutex_init(&c->lock, NULL);
	clock_cond_init(&c->end);
}

int cloud_start(struct cloud **out, const struct cloud_opts *opts, struct lslm_error *err)
{
	struct cloud *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return error_sys(err, -ENOMEM, "cloud");
	make_lock(c);
	ret = prepare(c, opts, err);
	if (!ret)
		ret = start_daemon(c, opts, err);
	if (!ret)
		ret = start_tidying(c, opts, err);
	if (ret < 0) {
		cloud_stop(c);
		return ret;
	}
	*out = c;
	return 0;
}

void cloud_stop(struct cloud *c)
{
	if (!c)
		return;
	while (c->n_old)
		drop_old(c, c->n_old - 1);
	stop_server(&c->server);
	stop_tidying(c);
	sender_stop(c->contexts.sender);
	pubqueue_close(c->contexts.queue);
	store_close(c->contexts.store);
	free(c->contexts.trusted);
	tenants_close(c->tenants);
	free(c->cert);
	free(c->key);
	free(c->client_ca);
	free(c);
}

int cloud_reload(struct cloud *c, struct lslm_error *err)
{
	int ret = c->tenants ? tenants_reload(c->tenants, err) : 0;

	return ret ? ret : reload_tls(c, err);
}

int cloud_port(const struct cloud *c)
{
	return c->port;
}

int cloud_udp_port(const struct cloud *c, struct lslm_error *why)
{
	if (c->contexts.sender)
		return sender_port(c->contexts.sender);
	return error_set(why, c->no_udp.code, "%s", c->no_udp.text);
}

void cloud_udp_stats(const struct cloud *c, struct sender_stats *out)
{
	*out = (struct sender_stats){ 0 };
	if (c->contexts.sender)
		sender_stats(c->contexts.sender, out);
}
