/* SPDX-License-Identifier: MIT */
/*
 * One request to the front, from its first header to its last byte; and what all of them share.
 *
 * A visit is admitted or refused when its headers are there. Who is refused hears it when the body has been
 * read and thrown away, because a client that is still sending would see a broken connection; one that waits for a sign
 * to go on (Expect) hears it at once. Then the route's finish() replies, or suspends the connection, and is
 * called again when that is resumed.
 */
#ifndef LSLM_SERVE_VISIT_H
#define LSLM_SERVE_VISIT_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "serve/answer.h"
#include "serve/body.h"
#include "serve/front.h"
#include "serve/metrics.h"
#include "serve/reply.h"
#include "serve/tenants.h"
#include "serve/tls.h"
#include "serve/watch.h"
#include "serve/workers.h"

enum route_id {
	ROUTE_UNKNOWN,
	ROUTE_PAGE,
	ROUTE_HEALTH,
	ROUTE_READY,
	ROUTE_METRICS,
	ROUTE_MODELS,
	ROUTE_MODEL,
	ROUTE_CHAT,
	ROUTE_COMPLETIONS,
	ROUTE_CONTEXTS,
	ROUTE_CONTEXT,
	ROUTE_PIN,
	ROUTE_UNPIN,
	N_ROUTES,
};

extern const char *const route_names[N_ROUTES];

struct front {
	struct front_model *models; /* names are copies */
	const char **model_names;
	uint32_t n_models;
	struct front_ops ops; /* all NULL without any */
	struct tenants *tenants;
	struct kv_hash salt; /* of tenants that have none of their own */
	struct watch *watch;
	struct answers *answers;
	struct metrics *metrics;
	struct MHD_Daemon *daemon;
	struct tls_files tls;
	bool has_tls;
	int port;
	uint64_t max_body;
	uint32_t max_predict;
	double deadline_s;
	unsigned int max_connections;
	time_t started;
	atomic_bool draining;
	int quiesced; /* the listening socket, once nothing is accepted any more; -1 */
	void (*more_metrics)(void *arg, FILE *to);
	bool (*totals)(void *arg, struct tally_page *out); /* NULL: its own counts are all */
	struct workers *readers; /* of long texts */
	struct workers *changers; /* of contexts; NULL without ops */
	atomic_uint reading, changing; /* work of them, each a connection that is suspended */
	void (*log)(void *arg, const char *line);
	void *arg;
};

struct completion;
struct context_job;

struct visit {
	struct front *front;
	struct MHD_Connection *conn;
	struct watch_conn *watched;
	const struct route *route; /* NULL: it will be refused */
	enum route_id id;
	const char *path;
	struct tenant *tenant; /* once authenticated */
	struct kv_hash key; /* of the path, where it has one */
	struct body body;
	/* Status 0: not refused. The strings that it points to are constants, or `param`. */
	struct reply_openai refusal;
	struct openai_param param;
	struct lslm_error why;

	struct completion *completion; /* until it is submitted */
	struct answer *answer; /* once it runs */
	struct context_job *job;
};

/* The callbacks of the HTTP library; their first argument is the front. */
enum MHD_Result visit_handle(void *arg, struct MHD_Connection *conn, const char *path,
			     const char *method, const char *version, const char *data,
			     size_t *size, void **state);
void visit_completed(void *arg, struct MHD_Connection *conn, void **state,
		     enum MHD_RequestTerminationCode why);
void visit_connection(void *arg, struct MHD_Connection *conn, void **state,
		      enum MHD_ConnectionNotificationCode what);

/* Replies an error. code may be NULL; the field is v->param's, where that has a name. wait_s: of Retry-After, or 0. */
enum MHD_Result visit_error(struct visit *v, unsigned int status, const char *code,
			    unsigned int wait_s, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* Of the contexts that are there for this one: the tenant's, or the front's where it has none. */
struct kv_hash visit_salt(const struct visit *v);
/* May it see what is all tenants' together? An admin, and not of a salt of its own. */
bool visit_sees_all(const struct visit *v);

#endif
