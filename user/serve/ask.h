/* SPDX-License-Identifier: MIT */
/*
 * What is asked, made ready for the batch: from a body to a model, a context and token ids.
 *
 * It takes time in proportion to the text, and touches no connection: it may be done on any thread.
 */
#ifndef LSLM_SERVE_ASK_H
#define LSLM_SERVE_ASK_H

#include "serve/attached.h"
#include "serve/front.h"
#include "serve/openai_request.h"

struct ask {
	/* Of the front and the request, set by the caller; they outlive it. */
	const struct front_model *models;
	uint32_t n_models;
	uint32_t max_predict; /* where the request says nothing */
	struct kv_hash salt; /* of the contexts that are there for who asks */
	const char *named; /* a context, by a header; NULL: none */

	struct openai_request r;
	struct openai_param param; /* what was looked at when it failed */
	const struct front_model *model;
	uint32_t model_index;
	struct attached_context *context; /* held; NULL: none */
	/* All ids, of which the first `skip` are the context's where it was met by them. */
	int32_t *ids;
	uint32_t n_ids, skip;
	uint32_t n_context; /* tokens of the context */
};

/*
 * -EINVAL: something in it is wrong; -ENOENT: no such model or context (param says which); -ENOTUNIQ: more than one context is named so;
 * -EEXIST: the context is another text than the system message; -E2BIG: it does not fit.
 */
int ask_prepare(struct ask *q, bool chat, const char *body, size_t size, struct lslm_error *err);
/* What fits behind it, of what it asks for. */
uint32_t ask_n_predict(const struct ask *q);
/* After a failure too. The context stays, where it was set to NULL before. */
void ask_free(struct ask *q);

#endif
