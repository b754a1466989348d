// SPDX-License-Identifier: MIT
#include "serve/completion.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "serve/ask.h"

enum {
	/* Longer bodies are read and made into tokens by a worker. */
	INLINE_BYTES = 16 << 10,
};

/* A request on its way to the batch. */
struct completion {
	struct work work;
	struct visit *visit;
	struct ask ask;
	int rc;
	struct lslm_error err;
	bool sleeps; /* counted in front->reading */
};

/* ---- to the batch ---- */

static enum MHD_Result refuse(struct visit *v, const struct lslm_error *err, double retry_s)
{
	switch (err->code) {
	case -ENOENT:
		return visit_error(v, MHD_HTTP_NOT_FOUND,
				   !strcmp(v->param.name, "model") ? "model_not_found" :
								     "context_not_found",
				   0, "%s", err->text);
	case -ENOTUNIQ:
		return visit_error(v, MHD_HTTP_BAD_REQUEST, "context_ambiguous", 0, "%s",
				   err->text);
	case -ENOTCONN:
		return visit_error(v, MHD_HTTP_SERVICE_UNAVAILABLE, "contexts_unknown", 1, "%s",
				   err->text);
	case -EEXIST:
		return visit_error(v, MHD_HTTP_BAD_REQUEST, "context_mismatch", 0, "%s", err->text);
	case -E2BIG:
		return visit_error(v, MHD_HTTP_BAD_REQUEST, "context_length_exceeded", 0, "%s",
				   err->text);
	case -EINVAL:
		return visit_error(v, MHD_HTTP_BAD_REQUEST, NULL, 0, "%s", err->text);
	case -EAGAIN:
		v->param.name[0] = 0;
		return visit_error(v, MHD_HTTP_TOO_MANY_REQUESTS, "queue_full",
				   retry_s > 1 ? (unsigned int)ceil(fmin(retry_s, 3600)) : 1, "%s",
				   err->text);
	case -ESHUTDOWN:
		v->param.name[0] = 0;
		return visit_error(v, MHD_HTTP_SERVICE_UNAVAILABLE, "draining", 5,
				   "the server is shutting down");
	default:
		v->param.name[0] = 0;
		return visit_error(v, MHD_HTTP_INTERNAL_SERVER_ERROR, "answer_failed", 0, "%s",
				   err->text);
	}
}

static enum MHD_Result over_quota(struct visit *v, enum tenant_quota quota, unsigned int wait_s)
{
	v->param.name[0] = 0;
	return visit_error(v, MHD_HTTP_TOO_MANY_REQUESTS, "rate_limit_exceeded", wait_s, "%s",
			   quota == TENANT_TOKENS ?
				   "this tenant's tokens of the minute are used up" :
				   "this tenant has as many answers in flight as it may have");
}

static void left(void *arg)
{
	answer_leave(arg);
}

static enum MHD_Result go_on(struct visit *v);

static enum MHD_Result submit(struct visit *v, struct ask *q)
{
	struct answer_opts a = {
		.conn = v->conn,
		.batch = q->model->batch,
		.model = q->model->model,
		.model_index = q->model_index,
		.model_name = q->model->name,
		.tenant = v->tenant,
		.context = q->context,
		.prompt = q->ids + q->skip,
		.n_prompt = q->n_ids - q->skip,
		.n_predict = ask_n_predict(q),
		.deadline_s = q->r.deadline_s > 0 ? q->r.deadline_s : v->front->deadline_s,
		.seed = q->r.sampling.seed,
	};
	struct lslm_error err = { 0 };
	enum tenant_quota quota;
	unsigned int wait_s;
	double retry_s = 0;

	quota = tenant_take(v->tenant, q->r.n, clock_seconds(), &wait_s);
	if (quota != TENANT_FINE)
		return over_quota(v, quota, wait_s);
	if (!q->r.has_seed)
		randombytes_buf(&a.seed, sizeof(a.seed));
	q->context = NULL; /* the answer's now */
	if (answer_start(&v->answer, v->front->answers, &q->r, &a, &retry_s, &err))
		return refuse(v, &err, retry_s);
	metrics_meeting(v->front->metrics, q->model_index,
			!a.context ? METRICS_ALONE :
			q->skip	   ? METRICS_MATCHED :
				     METRICS_NAMED);
	watch_departure(v->watched, left, v->answer);
	return go_on(v);
}

/* ---- getting ready ---- */

static void prepare(struct completion *c)
{
	struct visit *v = c->visit;

	c->rc = ask_prepare(&c->ask, v->id == ROUTE_CHAT, v->body.text, v->body.received, &c->err);
	body_free(&v->body);
}

static void prepare_aside(struct work *w)
{
	struct completion *c = (void *)w;

	prepare(c);
	/* The library calls the route again. */
	MHD_resume_connection(c->visit->conn);
}

void completion_free(struct completion *c)
{
	if (!c)
		return;
	if (c->sleeps)
		atomic_fetch_sub(&c->visit->front->reading, 1);
	ask_free(&c->ask);
	free(c);
}

static struct completion *make(struct visit *v)
{
	struct completion *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->work.run = prepare_aside;
	c->visit = v;
	c->ask.models = v->front->models;
	c->ask.n_models = v->front->n_models;
	c->ask.max_predict = v->front->max_predict;
	c->ask.salt = visit_salt(v);
	c->ask.named = MHD_lookup_connection_value(v->conn, MHD_HEADER_KIND, "X-Lslm-Context");
	if (c->ask.named && !*c->ask.named)
		c->ask.named = NULL;
	return c;
}

/* What was prepared goes to the batch. */
static enum MHD_Result finish(struct visit *v)
{
	struct completion *c = v->completion;
	enum MHD_Result ret;

	v->param = c->ask.param;
	ret = c->rc ? refuse(v, &c->err, 0) : submit(v, &c->ask);
	v->completion = NULL;
	completion_free(c);
	return ret;
}

static enum MHD_Result start(struct visit *v)
{
	struct completion *c = v->completion = make(v);
	struct front *f = v->front;

	if (!c)
		return MHD_NO;
	if (v->body.received <= INLINE_BYTES) {
		prepare(c);
		return finish(v);
	}
	/* In this order: whoever stops the front looks the other way round. */
	atomic_fetch_add(&f->reading, 1);
	c->sleeps = true;
	if (atomic_load(&f->draining))
		return visit_error(v, MHD_HTTP_SERVICE_UNAVAILABLE, "draining", 5,
				   "the server is shutting down");
	MHD_suspend_connection(v->conn);
	workers_add(f->readers, &c->work);
	return MHD_YES;
}

/* ---- its reply ---- */

static enum MHD_Result tell_error(struct visit *v, const struct lslm_error *err)
{
	v->param.name[0] = 0;
	switch (err->code) {
	case -EPIPE:
		return MHD_NO;
	case -ETIME:
		return visit_error(v, MHD_HTTP_GATEWAY_TIMEOUT, "deadline_exceeded", 0, "%s",
				   err->text);
	case -ESHUTDOWN:
		return visit_error(v, MHD_HTTP_SERVICE_UNAVAILABLE, "draining", 5, "%s", err->text);
	default:
		return visit_error(v, MHD_HTTP_INTERNAL_SERVER_ERROR, "answer_failed", 0, "%s",
				   err->text);
	}
}

static enum MHD_Result stream(struct visit *v)
{
	struct MHD_Response *r = answer_stream(v->answer);
	enum MHD_Result ret;

	if (!r)
		return MHD_NO;
	ret = MHD_queue_response(v->conn, MHD_HTTP_OK, r);
	MHD_destroy_response(r);
	return ret;
}

/* After each time that the connection was resumed; the status waits for the first token. */
static enum MHD_Result go_on(struct visit *v)
{
	struct lslm_error err;

	if (answer_wait(v->answer))
		return MHD_YES;
	if (answer_error(v->answer, &err))
		return tell_error(v, &err);
	if (answer_streams(v->answer))
		return stream(v);
	return reply_json(v->conn, MHD_HTTP_OK, answer_body(v->answer));
}

enum MHD_Result completion_finish(struct visit *v)
{
	if (v->answer)
		return go_on(v);
	return v->completion ? finish(v) : start(v);
}
