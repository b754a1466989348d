// SPDX-License-Identifier: MIT
#include "serve/openai_reply.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static json_t *text_json(const char *text, size_t len)
{
	size_t n;
	char *clean = utf8_replace(text, len, &n);
	json_t *s = clean ? json_stringn(clean, n) : NULL;

	free(clean);
	return s;
}

/* ---- log-probabilities ---- */

/* JSON has no infinity. */
static double finite_logprob(float logprob)
{
	return isfinite(logprob) ? (double)logprob : -9999;
}

/* The bytes of a token, malloc'd; of an end token its name. */
static char *piece(const struct tokenizer *t, int32_t id, size_t *len)
{
	char *text;

	*len = tokenizer_piece(t, id, true, NULL, 0);
	text = malloc(*len + 1);
	if (text)
		tokenizer_piece(t, id, true, text, *len);
	return text;
}

/* A token that is a part of a character only is named by its bytes, as OpenAI does. */
static json_t *name(const char *text, size_t len)
{
	json_t *s = json_stringn(text, len);
	char *hex, *at;

	if (s)
		return s;
	hex = malloc(4 * len + 7);
	if (!hex)
		return NULL;
	at = stpcpy(hex, "bytes:");
	for (size_t i = 0; i < len; i++)
		at += sprintf(at, "\\x%02x", (unsigned char)text[i]);
	s = json_string(hex);
	free(hex);
	return s;
}

static json_t *bytes(const char *text, size_t len)
{
	json_t *a = json_array();

	for (size_t i = 0; i < len; i++)
		json_array_append_new(a, json_integer((unsigned char)text[i]));
	return a;
}

static json_t *chat_token(const struct tokenizer *t, struct openai_token token)
{
	size_t len;
	char *text = piece(t, token.id, &len);
	json_t *o = NULL;

	if (text)
		o = json_pack("{s:o, s:f, s:o}", "token", name(text, len), "logprob",
			      finite_logprob(token.logprob), "bytes", bytes(text, len));
	free(text);
	return o;
}

static int add_chat(json_t *to, const struct tokenizer *t, struct openai_token token,
		    const struct openai_token *top, uint32_t n_top)
{
	json_t *o = chat_token(t, token), *list = json_array();

	for (uint32_t i = 0; i < n_top; i++)
		json_array_append_new(list, chat_token(t, top[i]));
	if (!o || json_object_set_new(o, "top_logprobs", list)) {
		json_decref(o);
		return -1;
	}
	return json_array_append_new(json_object_get(to, "content"), o);
}

static void set_candidate(json_t *map, const struct tokenizer *t, const struct openai_token *token)
{
	size_t len;
	char *text = piece(t, token->id, &len);
	json_t *key = text ? name(text, len) : NULL;

	if (key)
		json_object_set_new(map, json_string_value(key),
				    json_real(finite_logprob(token->logprob)));
	json_decref(key);
	free(text);
}

static int add_text(json_t *to, const struct tokenizer *t, struct openai_token token,
		    const struct openai_token *top, uint32_t n_top, uint64_t offset)
{
	size_t len;
	char *text = piece(t, token.id, &len);
	json_t *map = json_object();
	int rc = text ? 0 : -1;

	for (uint32_t i = 0; i < n_top; i++)
		set_candidate(map, t, &top[i]);
	if (text)
		rc = json_array_append_new(json_object_get(to, "tokens"), name(text, len));
	free(text);
	rc |= json_array_append_new(json_object_get(to, "token_logprobs"),
				    json_real(finite_logprob(token.logprob)));
	rc |= json_array_append_new(json_object_get(to, "top_logprobs"), map);
	rc |= json_array_append_new(json_object_get(to, "text_offset"),
				    json_integer((json_int_t)offset));
	return rc;
}

json_t *openai_logprobs(bool chat)
{
	if (chat)
		return json_pack("{s:[], s:n}", "content", "refusal");
	return json_pack("{s:[], s:[], s:[], s:[]}", "tokens", "token_logprobs", "top_logprobs",
			 "text_offset");
}

int openai_logprobs_add(json_t *to, bool chat, const struct tokenizer *t, struct openai_token token,
			const struct openai_token *top, uint32_t n_top, uint64_t offset)
{
	return chat ? add_chat(to, t, token, top, n_top) :
		      add_text(to, t, token, top, n_top, offset);
}

/* ---- choices ---- */

/* Takes the references of what it gets; logprobs may be missing. */
static json_t *choice(uint32_t index, const char *what, json_t *content, json_t *logprobs,
		      const char *finish)
{
	return json_pack("{s:i, s:o, s:o, s:s?}", "index", (int)index, what, content, "logprobs",
			 logprobs ? logprobs : json_null(), "finish_reason", finish);
}

json_t *openai_choice(bool chat, uint32_t index, const char *text, size_t len, json_t *logprobs,
		      const char *finish)
{
	json_t *s = text_json(text, len);

	if (!chat)
		return choice(index, "text", s, logprobs, finish);
	return choice(index, "message",
		      json_pack("{s:s, s:o, s:n}", "role", "assistant", "content", s, "refusal"),
		      logprobs, finish);
}

json_t *openai_delta(bool chat, uint32_t index, bool first, const char *text, size_t len,
		     json_t *logprobs, const char *finish)
{
	json_t *delta;

	if (!chat)
		return choice(index, "text", text_json(text, len), logprobs, finish);
	delta = json_object();
	if (first)
		json_object_set_new(delta, "role", json_string("assistant"));
	if (first || len)
		json_object_set_new(delta, "content", text_json(text, len));
	return choice(index, "delta", delta, logprobs, finish);
}

/* ---- whole bodies ---- */

static const char *object_of(const struct openai_head *h, bool chunk)
{
	if (!h->chat)
		return "text_completion";
	return chunk ? "chat.completion.chunk" : "chat.completion";
}

static json_t *usage_json(const struct openai_usage *u)
{
	return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)u->prompt_tokens,
			 "completion_tokens", (json_int_t)u->completion_tokens, "total_tokens",
			 (json_int_t)(u->prompt_tokens + u->completion_tokens),
			 "prompt_tokens_details", "cached_tokens", (json_int_t)u->cached_tokens);
}

json_t *openai_body(const struct openai_head *h, bool chunk, json_t *choices,
		    const struct openai_usage *usage)
{
	json_t *o = json_pack("{s:s, s:s, s:I, s:s, s:n, s:o}", "id", h->id, "object",
			      object_of(h, chunk), "created", (json_int_t)h->created, "model",
			      h->model, "system_fingerprint", "choices", choices);

	if (o && (usage || h->tells_usage) &&
	    json_object_set_new(o, "usage", usage ? usage_json(usage) : json_null())) {
		json_decref(o);
		return NULL;
	}
	return o;
}

char *openai_event(json_t *body, size_t *len)
{
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL, *event = NULL;
	int n = -1;

	json_decref(body);
	if (text)
		n = asprintf(&event, "data: %s\n\n", text);
	free(text);
	if (n < 0)
		return NULL;
	*len = (size_t)n;
	return event;
}
