// SPDX-License-Identifier: MIT
#include "serve/context_ops.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_JOBS = 4 };

struct context_job {
	struct work work;
	struct visit *visit;
	void (*run)(struct context_job *j);
	const struct front_model *model;
	char *source; /* to attach */
	struct kv_hash key;
	bool pinned;
	int rc;
	struct lslm_error err;
};

/* ---- listing ---- */

/* Of all models; NULL for want of memory. */
static json_t *describe(struct visit *v, const struct kv_hash *key)
{
	const struct kv_hash salt = visit_salt(v);
	const struct front *f = v->front;
	json_t *all = json_array(), *c;
	size_t k;

	for (uint32_t i = 0; i < f->n_models; i++) {
		json_t *some = f->models[i].contexts ?
				       attached_describe(f->models[i].contexts, &salt, key) :
				       json_array();

		json_array_foreach(some, k, c)
			json_object_set_new(c, "model", json_string(f->models[i].name));
		json_array_extend(all, some);
		json_decref(some);
	}
	return all;
}

static enum MHD_Result not_found(struct visit *v)
{
	const struct front *f = v->front;

	for (uint32_t i = 0; i < f->n_models; i++)
		if (f->models[i].contexts && !attached_is_told(f->models[i].contexts))
			return visit_error(
				v, MHD_HTTP_SERVICE_UNAVAILABLE, "contexts_unknown", 1,
				"which contexts there are is not known yet; try again in a moment");
	return visit_error(v, MHD_HTTP_NOT_FOUND, "context_not_found", 0,
			   "no such context is attached");
}

enum MHD_Result contexts_describe(struct visit *v)
{
	return reply_json(v->conn, MHD_HTTP_OK,
			  json_pack("{s:s, s:o}", "object", "list", "data", describe(v, NULL)));
}

/* NULL: there is none. */
static json_t *first_of(json_t *list)
{
	json_t *o = json_incref(json_array_get(list, 0));

	json_decref(list);
	return o;
}

enum MHD_Result contexts_describe_one(struct visit *v)
{
	json_t *o = first_of(describe(v, &v->key));

	return o ? reply_json(v->conn, MHD_HTTP_OK, o) : not_found(v);
}

/* ---- jobs ---- */

static void run_job(struct work *w)
{
	struct context_job *j = (void *)w;

	j->run(j);
	/* The library calls the route again; what was done here is seen there. */
	MHD_resume_connection(j->visit->conn);
}

void context_job_free(struct context_job *j)
{
	if (!j)
		return;
	atomic_fetch_sub(&j->visit->front->changing, 1);
	free(j->source);
	free(j);
}

/* The visit's own. NULL: too many, or no memory; that has been said. */
static struct context_job *new_job(struct visit *v, enum MHD_Result *ret)
{
	struct context_job *j = NULL;

	/* In this order: whoever stops the front looks the other way round. */
	if (atomic_fetch_add(&v->front->changing, 1) < MAX_JOBS &&
	    !atomic_load(&v->front->draining))
		j = calloc(1, sizeof(*j));
	if (!j) {
		atomic_fetch_sub(&v->front->changing, 1);
		*ret = visit_error(v, MHD_HTTP_TOO_MANY_REQUESTS, "busy", 1,
				   "other contexts are being changed; try again in a moment");
		return NULL;
	}
	j->visit = v;
	j->key = v->key;
	v->job = j;
	return j;
}

/* The connection sleeps until it is done, which may be before this returns. */
static enum MHD_Result start(struct context_job *j, void (*run)(struct context_job *j))
{
	j->run = run;
	j->work.run = run_job;
	MHD_suspend_connection(j->visit->conn);
	workers_add(j->visit->front->changers, &j->work);
	return MHD_YES;
}

static enum MHD_Result tell_error(struct visit *v)
{
	const struct lslm_error *err = &v->job->err;

	switch (err->code) {
	case -ENOENT:
	case -ENXIO:
		return visit_error(v, MHD_HTTP_NOT_FOUND, "context_not_found", 0, "%s", err->text);
	case -EEXIST:
	case -EBUSY:
	case -ENOTUNIQ:
		return visit_error(v, MHD_HTTP_CONFLICT, "context_conflict", 0, "%s", err->text);
	case -EACCES:
	case -EKEYREJECTED:
		return visit_error(v, MHD_HTTP_FORBIDDEN, "context_refused", 0, "%s", err->text);
	case -EAGAIN:
		return visit_error(v, MHD_HTTP_TOO_MANY_REQUESTS, "busy", 1, "%s", err->text);
	case -ENOTCONN:
		return visit_error(v, MHD_HTTP_SERVICE_UNAVAILABLE, "contexts_unknown", 1, "%s",
				   err->text);
	case -EINVAL:
	case -ENOEXEC:
	case -E2BIG:
		return visit_error(v, MHD_HTTP_BAD_REQUEST, "context_invalid", 0, "%s", err->text);
	case -ENOSPC:
	case -EDQUOT:
		return visit_error(v, MHD_HTTP_INSUFFICIENT_STORAGE, "context_too_large", 0, "%s",
				   err->text);
	default:
		return visit_error(v, MHD_HTTP_BAD_GATEWAY, "context_failed", 0, "%s", err->text);
	}
}

static enum MHD_Result not_done_here(struct visit *v)
{
	return visit_error(v, MHD_HTTP_NOT_IMPLEMENTED, "not_supported", 0,
			   "this server's contexts are chosen where it is started");
}

/* ---- attaching ---- */

static void attach(struct context_job *j)
{
	const struct front *f = j->visit->front;
	const struct kv_hash salt = visit_salt(j->visit);

	j->rc = f->ops.attach(f->ops.arg, j->model->name,
			      tenants_are_open(f->tenants) ? NULL : &salt, j->source, &j->key,
			      &j->err);
}

/* {"source": string, "model": string}; the model may be left out where there is one. */
static int parse_attach(struct visit *v, struct context_job *j, struct lslm_error *err)
{
	const char *source, *model = NULL;
	const struct front *f = v->front;
	json_error_t where;
	json_t *root;

	root = json_loadb(v->body.text ? v->body.text : "", v->body.text ? v->body.received : 0,
			  JSON_REJECT_DUPLICATES, &where);
	if (!root || json_unpack_ex(root, &where, JSON_STRICT, "{s:s, s?s}", "source", &source,
				    "model", &model) < 0) {
		json_decref(root);
		return error_set(err, -EINVAL,
				 "wanted is {\"source\": URL, name or key, \"model\": string}: %s",
				 where.text);
	}
	for (uint32_t i = 0; i < f->n_models; i++)
		if (model ? !strcmp(model, f->models[i].name) : f->n_models == 1)
			j->model = &f->models[i];
	j->source = strdup(source);
	json_decref(root);
	if (!j->source)
		return error_set(err, -ENOMEM, "out of memory");
	return j->model ? 0 : error_set(err, -EINVAL, "model: name one of /v1/models");
}

static enum MHD_Result tell_attached(struct visit *v)
{
	json_t *o = first_of(describe(v, &v->job->key));
	char key[KV_HASH_TEXT];

	if (o)
		return reply_json(v->conn, MHD_HTTP_OK, o);
	kv_hash_format(&v->job->key, key);
	return reply_json(v->conn, MHD_HTTP_ACCEPTED,
			  json_pack("{s:s, s:s}", "key", key, "state", "attaching"));
}

enum MHD_Result contexts_attach(struct visit *v)
{
	struct context_job *j = v->job;
	struct lslm_error err;
	enum MHD_Result ret;

	if (j)
		return j->rc ? tell_error(v) : tell_attached(v);
	if (!v->front->ops.attach)
		return not_done_here(v);
	j = new_job(v, &ret);
	if (!j)
		return ret;
	if (parse_attach(v, j, &err))
		return visit_error(v, MHD_HTTP_BAD_REQUEST, NULL, 0, "%s", err.text);
	return start(j, attach);
}

/* ---- what is attached already ---- */

static void pin(struct context_job *j)
{
	const struct front_ops *ops = &j->visit->front->ops;

	j->rc = ops->pin(ops->arg, j->model->name, &j->key, j->pinned, &j->err);
	if (!j->rc)
		j->rc = attached_pin(j->model->contexts, &j->key, j->pinned, &j->err);
}

static void drop(struct context_job *j)
{
	const struct front_ops *ops = &j->visit->front->ops;

	j->rc = ops->drop(ops->arg, j->model->name, &j->key, &j->err);
	/* Others may have been told of it before this one is. */
	if (!j->rc)
		attached_remove(j->model->contexts, &j->key, NULL);
}

/* The model that has the context of the path, if that is there for who asks. */
static const struct front_model *model_of(struct visit *v)
{
	const struct kv_hash salt = visit_salt(v);
	const struct front *f = v->front;

	for (uint32_t i = 0; i < f->n_models; i++) {
		json_t *o = f->models[i].contexts ?
				    attached_describe(f->models[i].contexts, &salt, &v->key) :
				    NULL;
		const bool has = json_array_size(o) > 0;

		json_decref(o);
		if (has)
			return &f->models[i];
	}
	return NULL;
}

static enum MHD_Result change(struct visit *v, bool can, bool pinned,
			      void (*run)(struct context_job *j))
{
	const struct front_model *m = model_of(v);
	struct context_job *j;
	enum MHD_Result ret;

	if (!can)
		return not_done_here(v);
	if (!m)
		return not_found(v);
	j = new_job(v, &ret);
	if (!j)
		return ret;
	j->model = m;
	j->pinned = pinned;
	return start(j, run);
}

static enum MHD_Result change_pin(struct visit *v, bool pinned)
{
	if (v->job)
		return v->job->rc ? tell_error(v) : contexts_describe_one(v);
	return change(v, v->front->ops.pin, pinned, pin);
}

enum MHD_Result contexts_pin(struct visit *v)
{
	return change_pin(v, true);
}

enum MHD_Result contexts_unpin(struct visit *v)
{
	return change_pin(v, false);
}

enum MHD_Result contexts_drop(struct visit *v)
{
	if (v->job)
		return v->job->rc ?
			       tell_error(v) :
			       reply_json(v->conn, MHD_HTTP_OK, json_pack("{s:b}", "deleted", 1));
	return change(v, v->front->ops.drop, false, drop);
}
