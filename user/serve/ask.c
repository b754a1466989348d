// SPDX-License-Identifier: MIT
#include "serve/ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	/* A text of more bytes than so many for each position is not looked at: no language needs them. */
	BYTES_PER_POSITION = 64,
};

/* ---- which model, which context ---- */

/* What is looked at now: the "param" of its error. */
static void set_param(struct ask *q, const char *name)
{
	snprintf(q->param.name, sizeof(q->param.name), "%s", name);
}

/* -ENOENT: no such model; -EINVAL: which one? */
static int find_model(struct ask *q, struct lslm_error *err)
{
	set_param(q, "model");
	if (!q->r.model && q->n_models == 1) {
		q->model = &q->models[0];
		return 0;
	}
	if (!q->r.model)
		return error_set(err, -EINVAL,
				 "model: several are served here; name one of /v1/models");
	for (uint32_t i = 0; i < q->n_models; i++) {
		if (!strcmp(q->models[i].name, q->r.model)) {
			q->model = &q->models[i];
			q->model_index = i;
			return 0;
		}
	}
	return error_set(err, -ENOENT, "model: there is no such one here; /v1/models lists them");
}

static int find_context(struct ask *q, const char *name, struct lslm_error *err)
{
	int rc = -ENOENT;

	set_param(q, "context");
	if (q->model->contexts)
		rc = attached_find(q->model->contexts, &q->salt, name, &q->context, err);
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
	q->context = attached_match(q->model->contexts, &q->salt, q->ids, q->n_ids);
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

/* ---- all of it ---- */

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

uint32_t ask_n_predict(const struct ask *q)
{
	const uint32_t room = q->model->n_ctx - (uint32_t)total(q);
	const uint32_t wanted = q->r.n_predict ? q->r.n_predict : q->max_predict;

	return wanted < room ? wanted : room;
}

static int check_bytes(struct ask *q, struct lslm_error *err)
{
	const uint64_t most = (uint64_t)BYTES_PER_POSITION * q->model->n_ctx;
	uint64_t n = q->r.prompt_len;

	for (uint32_t i = 0; i < q->r.n_messages; i++)
		n += q->r.messages[i].len;
	if (n <= most)
		return 0;
	set_param(q, q->r.chat ? "messages" : "prompt");
	return error_set(err, -E2BIG,
			 "a text of %llu bytes does not fit the %u positions of this model",
			 (unsigned long long)n, q->model->n_ctx);
}

int ask_prepare(struct ask *q, bool chat, const char *body, size_t size, struct lslm_error *err)
{
	const char *name;
	int rc;

	rc = openai_request_parse(&q->r, chat, body, size, &q->param, err);
	if (!rc)
		rc = find_model(q, err);
	if (!rc)
		rc = check_bytes(q, err);
	name = q->r.context ? q->r.context : q->named;
	if (!rc && name)
		rc = find_context(q, name, err);
	if (!rc)
		rc = chat ? encode_chat(q, err) : encode_text(q, err);
	if (!rc && !name)
		match_context(q);
	return rc ? rc : check_length(q, err);
}

void ask_free(struct ask *q)
{
	if (q->context)
		attached_put(q->context);
	openai_request_free(&q->r);
	free(q->ids);
}
