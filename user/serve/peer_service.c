// SPDX-License-Identifier: MIT
#include "serve/peer_service.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "serve/bearer.h"
#include "serve/daemon.h"
#include "serve/listener.h"
#include "serve/range.h"
#include "serve/reply.h"
#include "serve/tenants.h"

enum {
	PEER_SERVICE_IDLE_S = 30,
	/* So many more are accepted to be told 503; further ones are just closed. */
	PEER_SERVICE_SPARE = 8,
	/* What is copied at once: several TLS records. */
	PEER_SERVICE_PIECE = 256 << 10,
};

struct peer_service {
	struct MHD_Daemon *daemon;
	struct shelf *shelf;
	struct tls_files tls;
	bool has_token;
	struct kv_hash token;
	struct tenants *tenants; /* NULL: none */
	atomic_uint connections;
	int port;
};

/* ---- blocks ---- */

struct reading {
	struct slot *held;
	const struct courier *courier;
	struct range range; /* what was not sent */
	size_t within; /* bytes of its first unit that were */
};

/* Nothing here waits for anything but memory; what is READY stays where it is as long as it is held. */
static ssize_t read_some(void *arg, uint64_t pos, char *buf, size_t max)
{
	struct reading *r = arg;
	const struct manifest *m = courier_manifest(r->courier);
	size_t done = 0;

	while (done < max && r->range.from < r->range.end) {
		uint32_t stripe, unit;
		size_t left, n;

		order_block(&r->range.order, r->range.from, &stripe, &unit);
		left = manifest_unit_bytes(m, r->range.level, stripe, unit) - r->within;
		n = max - done < left ? max - done : left;
		memcpy(buf + done,
		       courier_unit(r->courier, r->range.level, stripe, unit) + r->within, n);
		done += n;
		r->within += n;
		if (n == left) {
			r->range.from++;
			r->within = 0;
		}
	}
	return done ? (ssize_t)done : MHD_CONTENT_READER_END_OF_STREAM;
}

/* Is all that the range touches here, at its level? */
static bool has_range(const struct courier *c, const struct range *r)
{
	for (uint32_t i = r->from; i < r->end; i++) {
		uint32_t stripe, unit;

		order_block(&r->order, i, &stripe, &unit);
		if (courier_held(c, stripe) != (int)r->level->level)
			return false;
	}
	return true;
}

static void end_reading(void *arg)
{
	struct reading *r = arg;

	shelf_let_go(r->held);
	free(r);
}

static enum MHD_Result send_range(struct MHD_Connection *conn, const struct shelf_context *x,
				  const struct range *range)
{
	struct reading *reading = malloc(sizeof(*reading));
	struct MHD_Response *r;
	enum MHD_Result ret;

	if (!reading)
		return MHD_NO;
	/* For as long as the client takes. */
	shelf_hold_on(x->held);
	*reading = (struct reading){ .held = x->held, .courier = x->courier, .range = *range };
	r = MHD_create_response_from_callback(range_bytes(range, courier_manifest(x->courier)),
					      PEER_SERVICE_PIECE, read_some, reading, end_reading);
	if (!r) {
		end_reading(reading);
		return MHD_NO;
	}
	MHD_add_response_header(r, "Content-Type", "application/octet-stream");
	ret = MHD_queue_response(conn, MHD_HTTP_OK, r);
	MHD_destroy_response(r);
	return ret;
}

static enum MHD_Result send_blocks(struct MHD_Connection *conn, const struct shelf_context *x)
{
	const struct courier *c = x->courier;
	struct lslm_error err = { 0 };
	unsigned int status;
	struct range range;

	if (!range_parse(conn, courier_manifest(c), &range, &status, &err)) {
		if (has_range(c, &range))
			return send_range(conn, x, &range);
		return reply_error(conn, MHD_HTTP_NOT_FOUND,
				   "not all of these blocks are here at this level");
	}
	return status ? reply_error(conn, status, "%s", err.text) : reply_failure(conn, &err);
}

/* ---- the rest ---- */

static enum MHD_Result send_held(struct MHD_Connection *conn, const struct shelf_context *x)
{
	const struct courier *c = x->courier;
	const uint32_t n = courier_manifest(c)->n_stripes;
	uint8_t *held = malloc(n + 1);
	enum MHD_Result ret;

	if (!held)
		return MHD_NO;
	for (uint32_t i = 0; i < n; i++)
		held[i] = (uint8_t)(1 + courier_held(c, i));
	ret = reply_bytes(conn, held, n);
	free(held);
	return ret;
}

static enum MHD_Result send_manifest(struct MHD_Connection *conn, const struct shelf_context *x)
{
	size_t size;
	const uint8_t *data = courier_manifest_data(x->courier, &size);

	return reply_bytes(conn, data, size);
}

static const struct {
	const char *name;
	enum MHD_Result (*send)(struct MHD_Connection *conn, const struct shelf_context *x);
} parts[] = {
	{ "/manifest", send_manifest },
	{ "/held", send_held },
	{ "/blocks", send_blocks },
};

/* ---- who may ---- */

/* *salt: of the contexts that are there for it; *all: whatever their salt. */
static bool is_allowed(struct peer_service *p, struct MHD_Connection *conn, struct kv_hash *salt,
		       bool *all)
{
	const union MHD_ConnectionInfo *info;
	struct tenant_store rights;
	const struct tenant *t;

	*all = !p->tenants;
	if (p->tls.client_ca) {
		info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_GNUTLS_SESSION);
		if (!info || !tls_client_trusted(info->tls_session))
			return false;
	}
	if (!p->tenants)
		return !p->has_token || bearer_matches(conn, &p->token);
	t = tenants_find(p->tenants,
			 MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Authorization"));
	if (!t)
		return false;
	tenant_store(t, &rights);
	*salt = rights.salt;
	return true;
}

/* Holds the context with this key, if it is here and this asker's; -ENOENT: it is not there. */
static int find(struct peer_service *p, const struct kv_hash *key, const struct kv_hash *salt,
		bool all, struct shelf_context *x)
{
	int ret = shelf_hold(p->shelf, key, x);

	if (ret)
		return ret;
	if (x->courier &&
	    (all || kv_hash_equal(&courier_manifest(x->courier)->identity.salt, salt)))
		return 0;
	shelf_let_go(x->held);
	return -ENOENT;
}

static enum MHD_Result send_part(struct MHD_Connection *conn, const struct shelf_context *x,
				 const char *rest)
{
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (!strcmp(rest, parts[i].name))
			return parts[i].send(conn, x);
	return reply_error(conn, MHD_HTTP_NOT_FOUND, "there is nothing at this path");
}

/* What follows the key is in *rest. */
static bool parse(const char *path, struct kv_hash *key, const char **rest)
{
	static const char prefix[] = "/v1/contexts/";
	char text[KV_HASH_TEXT] = "";

	if (strncmp(path, prefix, strlen(prefix)))
		return false;
	path += strlen(prefix);
	*rest = strchrnul(path, '/');
	if (*rest - path != KV_HASH_TEXT - 1)
		return false;
	memcpy(text, path, KV_HASH_TEXT - 1);
	return !kv_hash_parse(key, text);
}

static enum MHD_Result answer(struct peer_service *p, struct MHD_Connection *conn, const char *path,
			      const struct kv_hash *salt, bool all)
{
	struct shelf_context x;
	enum MHD_Result ret;
	struct kv_hash key;
	const char *rest;

	if (!parse(path, &key, &rest))
		return reply_error(conn, MHD_HTTP_NOT_FOUND, "there is nothing at this path");
	if (find(p, &key, salt, all, &x))
		return reply_error(conn, MHD_HTTP_NOT_FOUND, "there is no context with this key");
	ret = send_part(conn, &x, rest);
	shelf_let_go(x.held);
	return ret;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *conn, const char *path,
				  const char *method, const char *version, const char *data,
				  size_t *size, void **state)
{
	struct peer_service *p = arg;
	struct kv_hash salt = { 0 };
	bool all;

	if (atomic_load(&p->connections) > PEER_SERVICE_CONNECTIONS)
		return reply_later(conn, MHD_HTTP_SERVICE_UNAVAILABLE, 1, "too many connections");
	if (strcmp(method, "GET"))
		return reply_error(conn, MHD_HTTP_METHOD_NOT_ALLOWED, "peers only read");
	if (!strcmp(path, "/health"))
		return reply_json(conn, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
	if (!is_allowed(p, conn, &salt, &all))
		return reply_error(conn, MHD_HTTP_UNAUTHORIZED,
				   "the bearer token or the certificate is missing or wrong");
	return answer(p, conn, path, &salt, all);
}

static void on_connection(void *arg, struct MHD_Connection *conn, void **state,
			  enum MHD_ConnectionNotificationCode what)
{
	struct peer_service *p = arg;

	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		atomic_fetch_add(&p->connections, 1);
	else
		atomic_fetch_sub(&p->connections, 1);
}

/* ---- start and stop ---- */

static int start_daemon(struct peer_service *p, const char *listen, struct lslm_error *err)
{
	struct daemon_opts opts = {
		.fd = listener_open(listen, err),
		.tls = &p->tls,
		.max_connections = PEER_SERVICE_CONNECTIONS + PEER_SERVICE_SPARE,
		.idle_s = PEER_SERVICE_IDLE_S,
		.handler = on_request,
		.connection = on_connection,
		.arg = p,
	};

	if (opts.fd < 0)
		return opts.fd;
	p->port = listener_port(opts.fd);
	p->daemon = daemon_start(&opts);
	if (!p->daemon) {
		close(opts.fd);
		return error_set(err, -EIO, "%s: the HTTPS server for peers does not start",
				 listen);
	}
	return 0;
}

static int check(const struct peer_service_opts *o, struct lslm_error *err)
{
	if (!o->cert || !o->key)
		return error_set(err, -EINVAL,
				 "peers are served by TLS: give --peer-cert and --peer-key");
	if (!o->token && !o->client_ca && !o->tenants)
		return error_set(
			err, -EINVAL,
			"without authentication anybody could read the contexts; set a token (--peer-token-file), tenants (--peer-tenants) or a CA of clients (--peer-client-ca)");
	if (o->token && !*o->token)
		return error_set(err, -EINVAL, "the peers' token is empty");
	return 0;
}

static int load(struct peer_service *p, const struct peer_service_opts *opts,
		struct lslm_error *err)
{
	int ret = check(opts, err);

	/* The tenants have tokens of their own; the other one is what this gateway shows itself. */
	p->has_token = opts->token && !opts->tenants;
	if (!ret && p->has_token)
		p->token = bearer_digest(opts->token);
	if (!ret && opts->tenants)
		ret = tenants_open(&p->tenants, opts->tenants, err);
	return ret ? ret : tls_load(&p->tls, opts->cert, opts->key, opts->client_ca, err);
}

int peer_service_check(const struct peer_service_opts *opts, struct lslm_error *err)
{
	struct peer_service p = { 0 };
	const int ret = load(&p, opts, err);

	tenants_close(p.tenants);
	tls_free(&p.tls);
	return ret;
}

int peer_service_start(struct peer_service **out, const struct peer_service_opts *opts,
		       struct shelf *shelf, struct lslm_error *err)
{
	struct peer_service *p = calloc(1, sizeof(*p));
	int ret;

	if (!p)
		return error_sys(err, -ENOMEM, "peers");
	p->shelf = shelf;
	ret = load(p, opts, err);
	if (!ret)
		ret = start_daemon(p, opts->listen, err);
	if (ret < 0) {
		peer_service_stop(p);
		return ret;
	}
	*out = p;
	return 0;
}

void peer_service_stop(struct peer_service *p)
{
	if (!p)
		return;
	if (p->daemon)
		MHD_stop_daemon(p->daemon);
	tenants_close(p->tenants);
	tls_free(&p->tls);
	free(p);
}

int peer_service_port(const struct peer_service *p)
{
	return p->port;
}
