/* SPDX-License-Identifier: MIT */
/*
 * An answer on its way: the choices of one request, between the batch's thread and an HTTP connection.
 *
 * The batch's thread appends to it and never waits. The connection sleeps (suspended in the HTTP library) until there is something to
 * tell: the first token of a stream, all of an answer that is told at once. Stop strings are looked for
 * as tokens arrive, so that a choice ends, and its place is free, with the token that completes one.
 *
 * An answer has several owners: its connection, and the batch once for each choice. What the last one leaves is freed by
 * answers_sweep(), on a thread that may wait for the batch and close contexts.
 */
#ifndef LSLM_SERVE_ANSWER_H
#define LSLM_SERVE_ANSWER_H

#include <jansson.h>
#include <microhttpd.h>

#include "engine/batch.h"
#include "serve/attached.h"
#include "serve/openai_reply.h"
#include "serve/openai_request.h"
#include "serve/tenants.h"

struct answers;
struct answer;

struct answers_opts {
	/* Something is to be swept. From any thread. */
	void (*wake)(void *arg);
	/* A choice has ended. On the batch's thread. */
	void (*ended)(void *arg, uint32_t model, const struct batch_result *r, bool by_stop_string);
	void *arg;
};

int answers_open(struct answers **out, const struct answers_opts *opts, struct lslm_error *err);
/* There are none left. NULL is allowed. */
void answers_close(struct answers *all);
void answers_sweep(struct answers *all);
/* Answers whose choices have not all ended, or that are not told yet. */
uint32_t answers_count(struct answers *all);
/* All end as cancelled, and those to come at once. */
void answers_stop(struct answers *all);

struct answer_opts {
	struct MHD_Connection *conn;
	struct batch *batch;
	const struct model *model;
	uint32_t model_index; /* for ended() */
	const char *model_name;
	struct tenant *tenant; /* n choices of it were taken; given back in the end */
	struct attached_context *context; /* NULL: none; put in the end */
	const int32_t *prompt; /* behind the context */
	uint32_t n_prompt;
	uint32_t n_predict;
	double deadline_s;
	uint64_t seed; /* of the first choice; the next one's is one more */
};

/*
 * Submit the choices of r, all or none; its stop strings are taken over. What was taken of the tenant and the context are the answer's
 * to give back, also where this fails, as batch_submit() does.
 */
int answer_start(struct answer **out, struct answers *all, struct openai_request *r,
		 const struct answer_opts *opts, double *retry_s, struct lslm_error *err);
/* The connection's part is over; what still runs is cancelled. */
void answer_drop(struct answer *a);
/* The client has left. From any thread. */
void answer_leave(struct answer *a);

/* Suspends the connection until there is something to tell; false: there already is. */
bool answer_wait(struct answer *a);

/* What there is to tell: 0, or why there is no answer (-ETIME its deadline, -ESHUTDOWN, -EPIPE the client left, or the batch's). */
int answer_error(struct answer *a, struct lslm_error *err);
bool answer_streams(const struct answer *a);
/* All of it. NULL: no memory. */
json_t *answer_body(struct answer *a);
/* A stream of events, which keeps the answer until it ends. NULL: no memory. */
struct MHD_Response *answer_stream(struct answer *a);

struct answer_counts {
	uint64_t prompt, cached, generated;
	double ttft_s, total_s; /* of the slowest choice */
	uint32_t ended; /* choices */
};

void answer_counts(struct answer *a, struct answer_counts *out);

#endif
