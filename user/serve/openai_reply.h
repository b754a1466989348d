/* SPDX-License-Identifier: MIT */
/*
 * What a client of /v1/chat/completions or /v1/completions is told, as JSON.
 *
 * Texts may be any bytes: what is no UTF-8 becomes U+FFFD. Every function returns a new reference, or NULL for want of
 * memory; those that take a json_t take its reference over, NULL too.
 */
#ifndef LSLM_SERVE_OPENAI_REPLY_H
#define LSLM_SERVE_OPENAI_REPLY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "model/tokenizer.h"

/* What all replies and chunks of one request begin with. */
struct openai_head {
	bool chat;
	const char *id; /* "chatcmpl-..." */
	const char *model;
	int64_t created; /* seconds since 1970 */
	bool tells_usage; /* a chunk without usage says null */
};

struct openai_usage {
	uint64_t prompt_tokens, cached_tokens, completion_tokens;
};

/* One candidate: what a position's log-probability is told of. */
struct openai_token {
	int32_t id;
	float logprob;
};

/*
 * The log-probabilities of tokens, added one by one; with chat an object with "content", else the four arrays of the older
 * form, whose offsets count bytes of text from `offset` on.
 */
json_t *openai_logprobs(bool chat);
int openai_logprobs_add(json_t *to, bool chat, const struct tokenizer *t, struct openai_token token,
			const struct openai_token *top, uint32_t n_top, uint64_t offset);

/* finish: "stop", "length", NULL while there is more to come. logprobs: NULL for null. */
json_t *openai_choice(bool chat, uint32_t index, const char *text, size_t len, json_t *logprobs,
		      const char *finish);
/* The same in a stream: first has the role, and what has no text has no content. */
json_t *openai_delta(bool chat, uint32_t index, bool first, const char *text, size_t len,
		     json_t *logprobs, const char *finish);

/* choices: an array. usage: NULL for none. chunk: of a stream. */
json_t *openai_body(const struct openai_head *h, bool chunk, json_t *choices,
		    const struct openai_usage *usage);

/* "data: JSON\n\n", malloc'd, without a NUL; *len its length. Takes the reference over. */
char *openai_event(json_t *body, size_t *len);

#endif
