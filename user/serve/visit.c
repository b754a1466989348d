// SPDX-License-Identifier: MIT
#include "serve/visit.h"

#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "serve/completion.h"
#include "serve/context_ops.h"
#include "serve/front_info.h"
#include "serve/page.h"

/* Of routes: without a token; for admins; makes answers; has a body. */
enum { PUBLIC = 1, ADMIN = 2, ANSWERS = 4, BODY = 8 };

const char *const route_names[N_ROUTES] = {
	[ROUTE_UNKNOWN] = "?",
	[ROUTE_PAGE] = "page",
	[ROUTE_HEALTH] = "/health",
	[ROUTE_READY] = "/ready",
	[ROUTE_METRICS] = "/metrics",
	[ROUTE_MODELS] = "/v1/models",
	[ROUTE_MODEL] = "/v1/models/NAME",
	[ROUTE_CHAT] = "/v1/chat/completions",
	[ROUTE_COMPLETIONS] = "/v1/completions",
	[ROUTE_CONTEXTS] = "/v1/contexts",
	[ROUTE_CONTEXT] = "/v1/contexts/KEY",
	[ROUTE_PIN] = "/v1/contexts/KEY/pin",
	[ROUTE_UNPIN] = "/v1/contexts/KEY/unpin",
};

struct route {
	const char *method;
	enum route_id id;
	unsigned int flags;
	enum MHD_Result (*finish)(struct visit *v);
};

static enum MHD_Result page(struct visit *v)
{
	const struct page_file *f = page_find(v->path);
	struct MHD_Response *r;
	enum MHD_Result ret;

	r = MHD_create_response_from_buffer(f->size, (void *)f->data, MHD_RESPMEM_PERSISTENT);
	if (!r)
		return MHD_NO;
	MHD_add_response_header(r, "Content-Type", f->type);
	MHD_add_response_header(r, "Content-Security-Policy", PAGE_POLICY);
	MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
	MHD_add_response_header(r, "Cache-Control", "no-cache");
	ret = MHD_queue_response(v->conn, MHD_HTTP_OK, r);
	MHD_destroy_response(r);
	return ret;
}

static const struct route routes[] = {
	{ "GET", ROUTE_PAGE, PUBLIC, page },
	{ "GET", ROUTE_HEALTH, PUBLIC, front_health },
	{ "GET", ROUTE_READY, PUBLIC, front_ready },
	{ "GET", ROUTE_METRICS, 0, front_metrics },
	{ "GET", ROUTE_MODELS, 0, front_models },
	{ "GET", ROUTE_MODEL, 0, front_one_model },
	{ "POST", ROUTE_CHAT, ANSWERS | BODY, completion_finish },
	{ "POST", ROUTE_COMPLETIONS, ANSWERS | BODY, completion_finish },
	{ "GET", ROUTE_CONTEXTS, 0, contexts_describe },
	{ "GET", ROUTE_CONTEXT, 0, contexts_describe_one },
	{ "POST", ROUTE_CONTEXTS, ADMIN | BODY, contexts_attach },
	{ "POST", ROUTE_PIN, ADMIN, contexts_pin },
	{ "POST", ROUTE_UNPIN, ADMIN, contexts_unpin },
	{ "DELETE", ROUTE_CONTEXT, ADMIN, contexts_drop },
};

/* ---- where to ---- */

/* KEY, KEY/pin, KEY/unpin. */
static enum route_id parse_context(const char *rest, struct kv_hash *key)
{
	static const struct {
		const char *rest;
		enum route_id id;
	} tails[] = { { "", ROUTE_CONTEXT }, { "/pin", ROUTE_PIN }, { "/unpin", ROUTE_UNPIN } };
	const size_t len = strcspn(rest, "/");
	char text[KV_HASH_TEXT] = "";

	if (len != KV_HASH_TEXT - 1)
		return ROUTE_UNKNOWN;
	memcpy(text, rest, len);
	if (kv_hash_parse(key, text))
		return ROUTE_UNKNOWN;
	for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++)
		if (!strcmp(rest + len, tails[i].rest))
			return tails[i].id;
	return ROUTE_UNKNOWN;
}

static enum route_id parse_path(const char *path, struct kv_hash *key)
{
	static const char contexts[] = "/v1/contexts/", models[] = "/v1/models/";

	for (int i = 0; i < N_ROUTES; i++)
		if (!strcmp(path, route_names[i]))
			return (enum route_id)i;
	if (!strncmp(path, contexts, strlen(contexts)))
		return parse_context(path + strlen(contexts), key);
	if (!strncmp(path, models, strlen(models)))
		return ROUTE_MODEL;
	return page_find(path) ? ROUTE_PAGE : ROUTE_UNKNOWN;
}

/* HEAD is GET whose body the library leaves out. */
static const struct route *find_route(enum route_id id, const char *method)
{
	if (!strcmp(method, "HEAD"))
		method = "GET";
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
		if (routes[i].id == id && !strcmp(routes[i].method, method))
			return &routes[i];
	return NULL;
}

/* ---- who ---- */

static const char *header(const struct visit *v, const char *name)
{
	return MHD_lookup_connection_value(v->conn, MHD_HEADER_KIND, name);
}

/* A name that can only be this machine's, whatever a name server says. */
static bool is_local_host(const char *host)
{
	size_t len = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");

	if (len == 9 && !strncasecmp(host, "localhost", 9))
		return true;
	if (len == 5 && !strncmp(host, "[::1]", 5))
		return true;
	return !strncmp(host, "127.", 4) && strspn(host, "0123456789.") == len;
}

/*
 * Without tokens a page of another origin, in the browser of somebody at this machine, could ask here: by writing the address
 * (it then sends Origin), or by a name of its own that it lets point here (Host).
 */
static bool is_from_elsewhere(const struct visit *v)
{
	const char *host = header(v, "Host"), *origin = header(v, "Origin"), *at;

	if (host && !is_local_host(host))
		return true;
	if (!origin)
		return false;
	at = strstr(origin, "://");
	return !host || !at || strcasecmp(at + 3, host);
}

/* False: it has none of its own. */
static bool own_salt(const struct visit *v, struct kv_hash *salt)
{
	struct tenant_store store;

	tenant_store(v->tenant, &store);
	*salt = store.salt;
	return !kv_hash_is_zero(salt);
}

struct kv_hash visit_salt(const struct visit *v)
{
	struct kv_hash salt;

	return own_salt(v, &salt) ? salt : v->front->salt;
}

bool visit_sees_all(const struct visit *v)
{
	struct kv_hash salt;

	return tenant_is_admin(v->tenant) && !own_salt(v, &salt);
}

/* ---- errors ---- */

static const char *type_of(unsigned int status)
{
	switch (status) {
	case 401:
		return "authentication_error";
	case 403:
		return "permission_error";
	case 429:
		return "rate_limit_error";
	default:
		return status < 500 ? "invalid_request_error" : "server_error";
	}
}

static void set_refusal(struct visit *v, unsigned int status, const char *code, unsigned int wait_s,
			const char *line)
{
	v->refusal = (struct reply_openai){
		.status = status,
		.type = type_of(status),
		.param = *v->param.name ? v->param.name : NULL,
		.code = code,
		.wait_s = wait_s,
	};
	/* line may be why's own text. */
	memmove(v->why.text, line, strlen(line) + 1);
}

static void __attribute__((format(printf, 4, 5)))
refuse(struct visit *v, unsigned int status, const char *code, const char *fmt, ...)
{
	char line[sizeof(v->why.text)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	set_refusal(v, status, code, 0, line);
}

enum MHD_Result visit_error(struct visit *v, unsigned int status, const char *code,
			    unsigned int wait_s, const char *fmt, ...)
{
	char line[sizeof(v->why.text)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	set_refusal(v, status, code, wait_s, line);
	return reply_openai(v->conn, &v->refusal, v->why.text);
}

/* ---- one request ---- */

static uint64_t announced(const struct visit *v)
{
	const char *value = header(v, "Content-Length");

	return value ? strtoull(value, NULL, 10) : 0;
}

/* What may be said of it before anybody knows who asks. */
static void check_place(struct visit *v, const char *method)
{
	v->route = find_route(v->id, method);
	if (watch_count(v->front->watch) > v->front->max_connections) {
		refuse(v, MHD_HTTP_SERVICE_UNAVAILABLE, "too_many_connections",
		       "more than %u connections; try again in a moment",
		       v->front->max_connections);
		v->refusal.wait_s = 1;
	} else if (v->id == ROUTE_UNKNOWN) {
		refuse(v, MHD_HTTP_NOT_FOUND, "not_found", "there is nothing at this path");
	} else if (!v->route) {
		refuse(v, MHD_HTTP_METHOD_NOT_ALLOWED, "method_not_allowed",
		       "this method means nothing at this path");
	} else if (tenants_are_open(v->front->tenants) && is_from_elsewhere(v)) {
		refuse(v, MHD_HTTP_FORBIDDEN, "foreign_origin",
		       "without tokens this server answers for localhost only, and no pages of others");
	}
}

static void check_client(struct visit *v)
{
	const unsigned int flags = v->route->flags;

	v->tenant = tenants_find(v->front->tenants, header(v, "Authorization"));
	if (flags & PUBLIC)
		return;
	if (!v->tenant)
		refuse(v, MHD_HTTP_UNAUTHORIZED, "invalid_api_key",
		       "the bearer token is missing or wrong");
	else if ((flags & ADMIN) && !tenant_is_admin(v->tenant))
		refuse(v, MHD_HTTP_FORBIDDEN, "not_admin",
		       "this tenant may use contexts, but not change them");
	else if ((flags & (ANSWERS | ADMIN)) && atomic_load(&v->front->draining)) {
		refuse(v, MHD_HTTP_SERVICE_UNAVAILABLE, "draining", "the server is shutting down");
		v->refusal.wait_s = 5;
	}
}

static void too_large(struct visit *v)
{
	refuse(v, MHD_HTTP_CONTENT_TOO_LARGE, "body_too_large",
	       "the body is larger than the %llu bytes accepted here",
	       (unsigned long long)v->front->max_body);
}

/* What nobody wants to read is thrown away, whether it is refused or was not asked for. */
static bool wants_body(const struct visit *v)
{
	return !v->refusal.status && (v->route->flags & BODY);
}

/* The client waits for a sign, or sends more than anybody would read: say it now. */
static bool must_hear_now(const struct visit *v)
{
	return v->refusal.status &&
	       (header(v, "Expect") || announced(v) > v->front->max_body + BODY_DISCARD_MAX);
}

static enum MHD_Result say_refusal(struct visit *v)
{
	return reply_openai(v->conn, &v->refusal, v->why.text);
}

static enum MHD_Result begin(struct front *f, struct MHD_Connection *conn, const char *path,
			     const char *method, void **state)
{
	const union MHD_ConnectionInfo *info;
	struct visit *v = calloc(1, sizeof(*v));

	info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	if (!v || !info || !info->socket_context) {
		free(v);
		return MHD_NO;
	}
	v->front = f;
	v->conn = conn;
	v->watched = info->socket_context;
	v->path = path;
	v->id = parse_path(path, &v->key);
	*state = v;
	watch_phase(v->watched, WATCH_BODY);
	check_place(v, method);
	if (!v->refusal.status)
		check_client(v);
	if (wants_body(v) && announced(v) > v->front->max_body)
		too_large(v);
	return must_hear_now(v) ? say_refusal(v) : MHD_YES;
}

static enum MHD_Result take_body(struct visit *v, const char *data, size_t size)
{
	const uint64_t max = v->front->max_body;
	int rc = wants_body(v) ? body_keep(&v->body, data, size, max) :
				 body_count(&v->body, size, max);

	if (rc == -EMSGSIZE)
		return MHD_NO;
	if (rc == -ENOMEM && wants_body(v))
		refuse(v, MHD_HTTP_INTERNAL_SERVER_ERROR, "no_memory", "out of memory");
	else if (rc && wants_body(v))
		too_large(v);
	return MHD_YES;
}

enum MHD_Result visit_handle(void *arg, struct MHD_Connection *conn, const char *path,
			     const char *method, const char *version, const char *data,
			     size_t *size, void **state)
{
	struct visit *v = *state;
	size_t n = *size;

	if (!v)
		return begin(arg, conn, path, method, state);
	if (n) {
		*size = 0;
		return take_body(v, data, n);
	}
	watch_phase(v->watched, WATCH_REPLY);
	return v->refusal.status ? say_refusal(v) : v->route->finish(v);
}

/* ---- its end ---- */

/* Not what the client wrote: a path or a method may carry anything. */
static void log_visit(struct visit *v, unsigned int status, bool whole)
{
	struct answer_counts c = { 0 };
	char line[512], peer[64];
	int n;

	reply_peer(v->conn, peer, sizeof(peer));
	n = snprintf(line, sizeof(line), "%s %s %s %s %u%s", peer,
		     v->tenant ? tenant_name(v->tenant) : "-", v->route ? v->route->method : "-",
		     route_names[v->id], status, whole ? "" : " cut");
	if (v->answer) {
		answer_counts(v->answer, &c);
		snprintf(line + n, sizeof(line) - (size_t)n,
			 " prompt=%llu cached=%llu generated=%llu ttft_s=%.3f total_s=%.3f",
			 (unsigned long long)c.prompt, (unsigned long long)c.cached,
			 (unsigned long long)c.generated, c.ttft_s, c.total_s);
	}
	v->front->log(v->front->arg, line);
}

void visit_completed(void *arg, struct MHD_Connection *conn, void **state,
		     enum MHD_RequestTerminationCode why)
{
	struct front *f = arg;
	struct visit *v = *state;
	unsigned int status;

	if (!v)
		return;
	*state = NULL;
	/* From here on nobody else knows the visit. */
	watch_forget(v->watched);
	watch_phase(v->watched, WATCH_HEADERS);
	status = reply_status(v->conn);
	metrics_request(f->metrics, v->id, status);
	if (f->log)
		log_visit(v, status, why == MHD_REQUEST_TERMINATED_COMPLETED_OK);
	if (v->answer)
		answer_drop(v->answer);
	completion_free(v->completion);
	context_job_free(v->job);
	body_free(&v->body);
	free(v);
}

void visit_connection(void *arg, struct MHD_Connection *conn, void **state,
		      enum MHD_ConnectionNotificationCode what)
{
	const union MHD_ConnectionInfo *info;
	struct front *f = arg;

	if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (*state)
			watch_remove(*state);
		*state = NULL;
		return;
	}
	info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
	*state = info ? watch_add(f->watch, info->connect_fd) : NULL;
}
