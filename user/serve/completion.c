// SPDX-License-Identifier: MIT
#include "serve/completion.h"

#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* A request on its way to the batch. */
struct ask {
	struct visit *v;
	struct openai_request r;
	const struct front_model *model;
	uint32_t model_index;
	struct attached_context *context; /* NULL: none */
	/* All ids, of which the first `skip` are the context's where it was met by them. */
	int32_t *ids;
	uint32_t n_ids, skip;
	uint32_t n_context; /* tokens of the context */
};

/* ---- which model, which context ---- */

/* What is looked at now: the "param" of its error. */
static void set_param(struct ask *q, const char *name)
{
	snprintf(q->v->param.name, sizeof(q->v->param.name), "%s", name);
}

/* -ENOENT: no such model; -EINVAL: which one? */
static int find_model(struct ask *q, struct lslm_error *err)
{
	const struct front *f = q->v->front;

	set_param(q, "model");
	if (!q->r.model && f->n_models == 1) {
		q->model = &f->models[0];
		return 0;
	}
	if (!q->r.model)
		return error_set(err, -EINVAL,
				 "model: several are served here; name one of /v1/models");
	for (uint32_t i = 0; i < f->n_models; i++) {
		if (!strcmp(f->models[i].name, q->r.model)) {
			q->model = &f->models[i];
			q->model_index = i;
			return 0;
		}
	}
	return error_set(err, -ENOENT, "model: there is no such one here; /v1/models lists them");
}

static const char *named_context(const struct ask *q)
{
	const char *name = q->r.context;

	if (!name)
		name = MHD_lookup_connection_value(q->v->conn, MHD_HEADER_KIND, "X-Lslm-Context");
	return name && *name ? name : NULL;
}

static int find_context(struct ask *q, const char *name, struct lslm_error *err)
{
	const char *tenant = tenant_name(q->v->tenant);
	int rc = -ENOENT;

	set_param(q, "context");
	if (q->model->contexts)
		rc = attached_find(q->model->contexts, tenant, name, &q->context, err);
	else
		error_set(err, rc, "this model has no contexts");
	if (rc)
		return error_prefix(err, rc, "context");
	context_tokens(attached_get(q->context), &q->n_context);
	return 0;
}

/* Without a name: by what it says. */
static void match_context(struct ask *q)
{
	if (!q->model->contexts)
		return;
	q->context =
		attached_match(q->model->contexts, tenant_name(q->v->tenant), q->ids, q->n_ids);
	if (!q->context)
		return;
	context_tokens(attached_get(q->context), &q->n_context);
	q->skip = q->n_context;
}

/* ---- text to tokens ---- */

static int join(struct ask *q, const int32_t *more, uint32_t n, struct lslm_error *err)
{
	int32_t *ids = realloc(q->ids, ((size_t)q->n_ids + n) * sizeof(*ids));

	if (!ids)
		return error_set(err, -ENOMEM, "out of memory");
	memcpy(ids + q->n_ids, more, n * sizeof(*ids));
	q->ids = ids;
	q->n_ids += n;
	return 0;
}

static int add_turns(struct ask *q, struct lslm_error *err)
{
	const bool system = q->r.messages[0].role == PROMPT_SYSTEM;
	int32_t *ids;
	uint32_t n;
	int rc;

	rc = prompt_turns(q->model->model, q->r.messages + system, q->r.n_messages - system,
			  !system && !q->context, &ids, &n, err);
	if (rc)
		return rc;
	rc = join(q, ids, n, err);
	free(ids);
	return rc;
}

/* A context was named, and a system message is there too: it has to be the same. */
static int check_system(struct ask *q, struct lslm_error *err)
{
	uint32_t n;
	const int32_t *tokens = context_tokens(attached_get(q->context), &n);

	if (n != q->n_ids || memcmp(tokens, q->ids, n * sizeof(*tokens)))
		return error_set(
			err, -EEXIST,
			"messages: a context is named, and the system message is another text; leave one of "
			"them out");
	q->skip = n;
	return 0;
}

static int encode_chat(struct ask *q, struct lslm_error *err)
{
	const struct prompt_message *first = &q->r.messages[0];
	int rc = 0;

	set_param(q, "messages");
	if (first->role == PROMPT_SYSTEM) {
		rc = prompt_context(q->model->model, first->text, first->len, false, &q->ids,
				    &q->n_ids, err);
		if (!rc && q->context)
			rc = check_system(q, err);
	}
	return rc ? rc : add_turns(q, err);
}

static int encode_text(struct ask *q, struct lslm_error *err)
{
	set_param(q, "prompt");
	if (q->r.ids) {
		q->ids = q->r.ids;
		q->n_ids = q->r.n_ids;
		q->r.ids = NULL;
		return 0;
	}
	return prompt_user(q->model->model, q->r.prompt, q->r.prompt_len, true, !q->context,
			   &q->ids, &q->n_ids, err);
}

/* ---- to the batch ---- */

static uint64_t total(const struct ask *q)
{
	return (uint64_t)q->n_context + q->n_ids - q->skip;
}

static int check_length(struct ask *q, struct lslm_error *err)
{
	if (total(q) < q->model->n_ctx)
		return 0;
	return error_set(
		err, -E2BIG,
		"this model has %u positions; context (%u tokens) and prompt (%u) leave none "
		"for an answer",
		q->model->n_ctx, q->n_context, q->n_ids - q->skip);
}

static uint32_t n_predict(const struct ask *q)
{
	const uint32_t room = q->model->n_ctx - (uint32_t)total(q);
	const uint32_t wanted = q->r.n_predict ? q->r.n_predict : q->v->front->max_predict;

	return wanted < room ? wanted : room;
}

static enum MHD_Result refuse(struct ask *q, const struct lslm_error *err, double retry_s)
{
	struct visit *v = q->v;

	switch (err->code) {
	case -ENOENT:
		return visit_error(v, MHD_HTTP_NOT_FOUND,
				   !strcmp(v->param.name, "model") ? "model_not_found" :
								     "context_not_found",
				   0, "%s", err->text);
	case -ENOTUNIQ:
		return visit_error(v, MHD_HTTP_BAD_REQUEST, "context_ambiguous", 0, "%s",
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

static enum MHD_Result submit(struct ask *q)
{
	struct visit *v = q->v;
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
		.n_predict = n_predict(q),
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
		return refuse(q, &err, retry_s);
	metrics_meeting(v->front->metrics, q->model_index,
			!a.context ? METRICS_ALONE :
			q->skip	   ? METRICS_MATCHED :
				     METRICS_NAMED);
	watch_departure(v->watched, left, v->answer);
	return go_on(v);
}

/* Up to the batch: what is wrong is the request's. */
static int prepare(struct ask *q, struct lslm_error *err)
{
	struct visit *v = q->v;
	const char *name;
	int rc;

	rc = openai_request_parse(&q->r, v->id == ROUTE_CHAT, v->body.text, v->body.received,
				  &v->param, err);
	body_free(&v->body);
	if (!rc)
		rc = find_model(q, err);
	name = rc ? NULL : named_context(q);
	if (name)
		rc = find_context(q, name, err);
	if (!rc)
		rc = q->r.chat ? encode_chat(q, err) : encode_text(q, err);
	if (!rc && !name)
		match_context(q);
	return rc ? rc : check_length(q, err);
}

static enum MHD_Result start(struct visit *v)
{
	struct ask q = { .v = v };
	struct lslm_error err = { 0 };
	enum MHD_Result ret;

	ret = prepare(&q, &err) ? refuse(&q, &err, 0) : submit(&q);
	if (q.context)
		attached_put(q.context);
	openai_request_free(&q.r);
	free(q.ids);
	return ret;
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
	return v->answer ? go_on(v) : start(v);
}
