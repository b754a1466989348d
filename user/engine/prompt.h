/* SPDX-License-Identifier: MIT */
/*
 * Text to the token ids that a model is given.
 *
 * A context (prefix) and a question (suffix) are rendered and tokenised apart, so that the
 * context's ids are the same whatever is asked. A model without a chat template, and
 * `raw`, take text as it is. Only template text can become control tokens.
 */
#ifndef LSLM_ENGINE_PROMPT_H
#define LSLM_ENGINE_PROMPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/model.h"

/* *ids is malloc'd for the caller. -EINVAL for empty text. */
int prompt_context(const struct model *m, const char *text, size_t len, bool raw, int32_t **ids,
		   uint32_t *n, struct lslm_error *err);
/* first: nothing comes before it, so it begins with BOS where the model wants that. */
int prompt_user(const struct model *m, const char *text, size_t len, bool raw, bool first,
		int32_t **ids, uint32_t *n, struct lslm_error *err);

enum prompt_role { PROMPT_SYSTEM, PROMPT_USER, PROMPT_ASSISTANT };

struct prompt_message {
	enum prompt_role role;
	char *text;
	size_t len;
};

/*
 * The turns of a conversation up to where the model answers: user and assistant in turn, beginning and ending with the
 * user. The system message is not among them: it is a context, rendered by prompt_context(). One user's turn gives
 * the ids of prompt_user().
 */
int prompt_turns(const struct model *m, const struct prompt_message *messages, uint32_t n_messages,
		 bool first, int32_t **ids, uint32_t *n, struct lslm_error *err);

#endif
