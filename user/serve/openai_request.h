/* SPDX-License-Identifier: MIT */
/*
 * What a client of /v1/chat/completions or /v1/completions asks for, read from its JSON.
 *
 * docs/http.md lists the fields. A field that would change the answer and that is not done here is refused by name,
 * and so is one that nobody knows; a field that changes nothing (user, store, metadata, service_tier,
 * parallel_tool_calls) is taken and ignored. Every refusal names the field and says what would be taken.
 */
#ifndef LSLM_SERVE_OPENAI_REQUEST_H
#define LSLM_SERVE_OPENAI_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/prompt.h"
#include "engine/sampler.h"
#include "serve/stop.h"

enum { OPENAI_MAX_CHOICES = 8, OPENAI_MAX_MESSAGES = 1024 };

struct openai_request {
	bool chat; /* which of the two */
	char *model; /* NULL: not named */
	char *context; /* the extension: a context's key, the beginning of one, or title; NULL: found by its tokens */

	/* Chat: the messages, their texts owned here. Else the prompt: a text, or token ids. */
	struct prompt_message *messages;
	uint32_t n_messages;
	char *prompt;
	size_t prompt_len;
	int32_t *ids; /* NULL: a text */
	uint32_t n_ids;

	uint32_t n; /* choices */
	uint32_t n_predict; /* 0: as many as there is room for, or the server says */
	bool stream, include_usage;
	struct sampler_opts sampling;
	bool has_seed;
	bool logprobs;
	uint32_t top_logprobs;
	double deadline_s; /* 0: the server's */
	struct stop stop;
};

/* Which field of a request was wrong, for the error's "param"; "" for none. */
struct openai_param {
	char name[64];
};

/*
 * body: len bytes from a client. -EINVAL with the field's name. What was read must be freed in the end, after a
 * failure too.
 */
int openai_request_parse(struct openai_request *r, bool chat, const char *body, size_t len,
			 struct openai_param *param, struct lslm_error *err);
void openai_request_free(struct openai_request *r);

#endif
