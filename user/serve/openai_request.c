// SPDX-License-Identifier: MIT
#include "serve/openai_request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/batch.h"

enum { MAX_PROMPT_IDS = 1 << 22 };

/* What is being read, and for whom the reason of a refusal is. */
struct reader {
	struct openai_request *r;
	struct openai_param *param;
	struct lslm_error *err;
	bool has_max_tokens, has_include_usage, has_top_logprobs;
};

static int __attribute__((format(printf, 2, 3))) refuse(struct reader *p, const char *fmt, ...)
{
	char line[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return error_set(p->err, -EINVAL, "%s: %s", p->param->name, line);
}

static int no_memory(struct reader *p)
{
	return error_set(p->err, -ENOMEM, "out of memory");
}

/* ---- values ---- */

static int read_bool(struct reader *p, const json_t *v, bool *out)
{
	if (!json_is_boolean(v))
		return refuse(p, "true or false is wanted");
	*out = json_is_true(v);
	return 0;
}

static int read_u32(struct reader *p, const json_t *v, json_int_t min, json_int_t max,
		    uint32_t *out)
{
	const json_int_t i = json_integer_value(v);

	if (!json_is_integer(v) || i < min || i > max)
		return refuse(p, "an integer from %lld to %lld is wanted", (long long)min,
			      (long long)max);
	*out = (uint32_t)i;
	return 0;
}

static int read_number(struct reader *p, const json_t *v, double min, double max, double *out)
{
	const double d = json_number_value(v);

	if (!json_is_number(v) || !isfinite(d) || d < min || d > max)
		return refuse(p, "a number from %g to %g is wanted", min, max);
	*out = d;
	return 0;
}

static int read_float(struct reader *p, const json_t *v, double min, double max, float *out)
{
	double d = 0;
	int rc = read_number(p, v, min, max, &d);

	if (!rc)
		*out = (float)d;
	return rc;
}

/* A name: short, without a NUL. */
static int read_name(struct reader *p, const json_t *v, char **out)
{
	if (!json_is_string(v) || !json_string_length(v) || json_string_length(v) > 512 ||
	    strlen(json_string_value(v)) != json_string_length(v))
		return refuse(p, "a string of 1 to 512 bytes is wanted");
	free(*out);
	*out = strdup(json_string_value(v));
	return *out ? 0 : no_memory(p);
}

static int append(struct reader *p, char **text, size_t *len, const char *more, size_t n)
{
	char *grown = realloc(*text, *len + n + 1);

	if (!grown)
		return no_memory(p);
	memcpy(grown + *len, more, n);
	*text = grown;
	*len += n;
	grown[*len] = 0;
	return 0;
}

/* ---- messages ---- */

/* One of several parts of a content. */
static int read_part(struct reader *p, const json_t *v, struct prompt_message *m)
{
	const char *type = json_string_value(json_object_get(v, "type"));
	const json_t *text = json_object_get(v, "text");

	if (!type || strcmp(type, "text") || !json_is_string(text))
		return refuse(p, "this model reads text only: {\"type\":\"text\",\"text\":string}");
	return append(p, &m->text, &m->len, json_string_value(text), json_string_length(text));
}

static int read_content(struct reader *p, const json_t *v, struct prompt_message *m)
{
	size_t i;
	json_t *part;
	int rc = 0;

	if (json_is_string(v))
		return append(p, &m->text, &m->len, json_string_value(v), json_string_length(v));
	if (!json_is_array(v))
		return refuse(p, "a string, or an array of text parts, is wanted");
	json_array_foreach(v, i, part) {
		if (!rc)
			rc = read_part(p, part, m);
	}
	return rc;
}

static int read_role(struct reader *p, const json_t *v, enum prompt_role *role)
{
	static const struct {
		const char *name;
		enum prompt_role role;
	} roles[] = {
		{ "system", PROMPT_SYSTEM },
		{ "developer", PROMPT_SYSTEM },
		{ "user", PROMPT_USER },
		{ "assistant", PROMPT_ASSISTANT },
	};
	const char *name = json_string_value(v);

	for (size_t i = 0; name && i < sizeof(roles) / sizeof(roles[0]); i++) {
		if (!strcmp(name, roles[i].name)) {
			*role = roles[i].role;
			return 0;
		}
	}
	return refuse(p, "system, developer, user or assistant is wanted");
}

/* The names of a message's fields; what a name or an empty refusal says is not part of the prompt. */
static int check_keys(struct reader *p, json_t *v)
{
	const char *key;
	json_t *value;

	json_object_foreach(v, key, value) {
		if (strcmp(key, "role") && strcmp(key, "content") && strcmp(key, "name") &&
		    !json_is_null(value))
			return refuse(p, "a message has role and content; '%.32s' is not taken",
				      key);
	}
	return 0;
}

/* Neighbours of one role are one turn: templates have no other form for them. */
static int keep(struct reader *p, struct prompt_message *m)
{
	struct openai_request *r = p->r;
	struct prompt_message *last = r->n_messages ? &r->messages[r->n_messages - 1] : NULL;
	int rc;

	if (last && last->role == m->role) {
		rc = append(p, &last->text, &last->len, "\n\n", 2);
		if (!rc)
			rc = append(p, &last->text, &last->len, m->text, m->len);
		free(m->text);
		return rc;
	}
	r->messages[r->n_messages++] = *m;
	return 0;
}

static int read_message(struct reader *p, size_t i, json_t *v)
{
	struct prompt_message m = { 0 };
	int rc;

	snprintf(p->param->name, sizeof(p->param->name), "messages[%zu]", i);
	if (!json_is_object(v))
		return refuse(p, "an object with role and content is wanted");
	rc = check_keys(p, v);
	if (!rc)
		rc = read_role(p, json_object_get(v, "role"), &m.role);
	if (!rc)
		rc = read_content(p, json_object_get(v, "content"), &m);
	if (!rc && !m.len)
		rc = refuse(p, "the content is empty");
	if (rc) {
		free(m.text);
		return rc;
	}
	return keep(p, &m);
}

/* At most one system message, first; then user and assistant in turn, the user last. */
static int check_turns(struct reader *p)
{
	const struct openai_request *r = p->r;
	uint32_t at = r->messages[0].role == PROMPT_SYSTEM;

	for (uint32_t i = at; i < r->n_messages; i++) {
		if (r->messages[i].role == PROMPT_SYSTEM)
			return refuse(p, "a system message comes first or not at all");
		if (r->messages[i].role != ((i - at) % 2 ? PROMPT_ASSISTANT : PROMPT_USER))
			return refuse(p, "the first turn after the system's is the user's");
	}
	if (r->messages[r->n_messages - 1].role != PROMPT_USER)
		return refuse(p, "the last message is the user's");
	return 0;
}

static int read_messages(struct reader *p, const json_t *v)
{
	const size_t n = json_array_size(v);
	size_t i;
	json_t *m;
	int rc = 0;

	if (!json_is_array(v) || !n || n > OPENAI_MAX_MESSAGES)
		return refuse(p, "an array of 1 to %d messages is wanted", OPENAI_MAX_MESSAGES);
	p->r->messages = calloc(n, sizeof(*p->r->messages));
	if (!p->r->messages)
		return no_memory(p);
	json_array_foreach(v, i, m) {
		if (!rc)
			rc = read_message(p, i, m);
	}
	if (rc)
		return rc;
	snprintf(p->param->name, sizeof(p->param->name), "messages");
	return check_turns(p);
}

/* ---- the prompt of a completion ---- */

static int read_ids(struct reader *p, const json_t *v)
{
	const size_t n = json_array_size(v);
	size_t i;
	json_t *id;

	p->r->ids = malloc(n * sizeof(*p->r->ids));
	if (!p->r->ids)
		return no_memory(p);
	json_array_foreach(v, i, id) {
		if (!json_is_integer(id) || json_integer_value(id) < 0 ||
		    json_integer_value(id) > INT32_MAX)
			return refuse(p, "a token id is an integer from 0 on");
		p->r->ids[i] = (int32_t)json_integer_value(id);
	}
	p->r->n_ids = (uint32_t)n;
	return 0;
}

static int read_prompt(struct reader *p, const json_t *v)
{
	const size_t n = json_array_size(v);

	if (n && n <= MAX_PROMPT_IDS && json_is_integer(json_array_get(v, 0)))
		return read_ids(p, v);
	if (n == 1)
		v = json_array_get(v, 0);
	if (!json_is_string(v) || !json_string_length(v))
		return refuse(p, "one text that is not empty, or an array of token ids, is wanted; "
				 "send several prompts as several requests");
	return append(p, &p->r->prompt, &p->r->prompt_len, json_string_value(v),
		      json_string_length(v));
}

/* ---- the other fields ---- */

static int read_model(struct reader *p, const json_t *v)
{
	return read_name(p, v, &p->r->model);
}

static int read_context(struct reader *p, const json_t *v)
{
	return read_name(p, v, &p->r->context);
}

static int read_n(struct reader *p, const json_t *v)
{
	return read_u32(p, v, 1, OPENAI_MAX_CHOICES, &p->r->n);
}

static int read_max_tokens(struct reader *p, const json_t *v)
{
	if (p->has_max_tokens)
		return refuse(p, "max_tokens and max_completion_tokens are the same; give one");
	p->has_max_tokens = true;
	return read_u32(p, v, 1, INT32_MAX, &p->r->n_predict);
}

static int read_stream(struct reader *p, const json_t *v)
{
	return read_bool(p, v, &p->r->stream);
}

static int read_stream_options(struct reader *p, const json_t *v)
{
	const json_t *usage = json_object_get(v, "include_usage");

	if (!json_is_object(v) || json_object_size(v) > (usage != NULL))
		return refuse(p, "{\"include_usage\": bool} is wanted");
	p->has_include_usage = true;
	return usage ? read_bool(p, usage, &p->r->include_usage) : 0;
}

static int read_temperature(struct reader *p, const json_t *v)
{
	return read_float(p, v, 0, 2, &p->r->sampling.temperature);
}

static int read_top_p(struct reader *p, const json_t *v)
{
	int rc = read_float(p, v, 0, 1, &p->r->sampling.top_p);

	/* Nothing but the likeliest token: to the sampler that is a mass above 0. */
	if (!rc && p->r->sampling.top_p < 1e-6f)
		p->r->sampling.top_p = 1e-6f;
	return rc;
}

static int read_top_k(struct reader *p, const json_t *v)
{
	return read_u32(p, v, 0, 1 << 24, &p->r->sampling.top_k);
}

static int read_min_p(struct reader *p, const json_t *v)
{
	return read_float(p, v, 0, 1, &p->r->sampling.min_p);
}

static int read_repeat_penalty(struct reader *p, const json_t *v)
{
	return read_float(p, v, 1e-3, 1000, &p->r->sampling.repeat_penalty);
}

static int read_seed(struct reader *p, const json_t *v)
{
	if (!json_is_integer(v))
		return refuse(p, "an integer is wanted");
	p->r->sampling.seed = (uint64_t)json_integer_value(v);
	p->r->has_seed = true;
	return 0;
}

static int read_chat_logprobs(struct reader *p, const json_t *v)
{
	return read_bool(p, v, &p->r->logprobs);
}

static int read_top_logprobs(struct reader *p, const json_t *v)
{
	p->has_top_logprobs = true;
	return read_u32(p, v, 0, BATCH_MAX_LOGPROBS, &p->r->top_logprobs);
}

static int read_count_logprobs(struct reader *p, const json_t *v)
{
	p->r->logprobs = true;
	return read_u32(p, v, 0, BATCH_MAX_LOGPROBS, &p->r->top_logprobs);
}

static int read_stop(struct reader *p, const json_t *v)
{
	const size_t n = json_is_array(v) ? json_array_size(v) : 1;

	for (size_t i = 0; i < n; i++) {
		const json_t *s = json_is_array(v) ? json_array_get(v, i) : v;
		struct lslm_error why;
		int rc;

		if (!json_is_string(s))
			return refuse(p, "a string, or up to %d, are wanted", STOP_MAX);
		rc = stop_add(&p->r->stop, json_string_value(s), json_string_length(s), &why);
		if (rc)
			return rc == -ENOMEM ? no_memory(p) : refuse(p, "%s", why.text);
	}
	return 0;
}

static int read_deadline(struct reader *p, const json_t *v)
{
	return read_number(p, v, 0.001, 86400, &p->r->deadline_s);
}

/* Takes any value: it changes nothing. */
static int ignore(struct reader *p, const json_t *v)
{
	return 0;
}

static int must_be_zero(struct reader *p, const json_t *v)
{
	if (json_is_number(v) && json_number_value(v) == 0)
		return 0;
	return refuse(p,
		      "this server has no such penalty; leave it out or 0 (repeat_penalty is the "
		      "one that there is)");
}

static int must_be_one(struct reader *p, const json_t *v)
{
	if (json_is_integer(v) && json_integer_value(v) == 1)
		return 0;
	return refuse(p, "only 1 is taken: every choice is returned");
}

static int must_be_false(struct reader *p, const json_t *v)
{
	return json_is_false(v) ? 0 : refuse(p, "only false is taken");
}

static int must_be_empty(struct reader *p, const json_t *v)
{
	if ((json_is_object(v) && !json_object_size(v)) ||
	    (json_is_array(v) && !json_array_size(v)) ||
	    (json_is_string(v) && !json_string_length(v)))
		return 0;
	return refuse(p, "not done by this server; leave it out");
}

static int must_be_none(struct reader *p, const json_t *v)
{
	if (json_is_string(v) && !strcmp(json_string_value(v), "none"))
		return 0;
	return refuse(p, "tools are not done by this server; leave it out");
}

static int must_be_text(struct reader *p, const json_t *v)
{
	const char *type = json_string_value(json_object_get(v, "type"));

	return type && !strcmp(type, "text") ? 0 : refuse(p, "only {\"type\":\"text\"} is taken");
}

enum { CHAT = 1, TEXT = 2, BOTH = 3 };

static const struct field {
	const char *name;
	unsigned int where;
	int (*read)(struct reader *p, const json_t *v);
} fields[] = {
	{ "model", BOTH, read_model },
	{ "context", BOTH, read_context },
	{ "messages", CHAT, read_messages },
	{ "prompt", TEXT, read_prompt },
	{ "n", BOTH, read_n },
	{ "max_tokens", BOTH, read_max_tokens },
	{ "max_completion_tokens", CHAT, read_max_tokens },
	{ "stream", BOTH, read_stream },
	{ "stream_options", BOTH, read_stream_options },
	{ "temperature", BOTH, read_temperature },
	{ "top_p", BOTH, read_top_p },
	{ "top_k", BOTH, read_top_k },
	{ "min_p", BOTH, read_min_p },
	{ "repeat_penalty", BOTH, read_repeat_penalty },
	{ "seed", BOTH, read_seed },
	{ "logprobs", CHAT, read_chat_logprobs },
	{ "logprobs", TEXT, read_count_logprobs },
	{ "top_logprobs", CHAT, read_top_logprobs },
	{ "stop", BOTH, read_stop },
	{ "deadline_s", BOTH, read_deadline },
	{ "user", BOTH, ignore },
	{ "store", CHAT, ignore },
	{ "metadata", CHAT, ignore },
	{ "service_tier", CHAT, ignore },
	{ "parallel_tool_calls", CHAT, ignore },
	{ "presence_penalty", BOTH, must_be_zero },
	{ "frequency_penalty", BOTH, must_be_zero },
	{ "best_of", TEXT, must_be_one },
	{ "echo", TEXT, must_be_false },
	{ "suffix", TEXT, must_be_empty },
	{ "logit_bias", BOTH, must_be_empty },
	{ "tools", CHAT, must_be_empty },
	{ "functions", CHAT, must_be_empty },
	{ "tool_choice", CHAT, must_be_none },
	{ "function_call", CHAT, must_be_none },
	{ "response_format", CHAT, must_be_text },
};

static int read_field(struct reader *p, const char *name, const json_t *v)
{
	const unsigned int where = p->r->chat ? CHAT : TEXT;

	snprintf(p->param->name, sizeof(p->param->name), "%.60s", name);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if ((fields[i].where & where) && !strcmp(fields[i].name, name))
			return json_is_null(v) ? 0 : fields[i].read(p, v);
	return refuse(p, "there is no such field");
}

/* What depends on more than one field. */
static int check(struct reader *p)
{
	const struct openai_request *r = p->r;

	snprintf(p->param->name, sizeof(p->param->name), "%s", r->chat ? "messages" : "prompt");
	if (r->chat ? !r->messages : !r->prompt && !r->ids)
		return refuse(p, "it is missing");
	snprintf(p->param->name, sizeof(p->param->name), "stream_options");
	if (p->has_include_usage && !r->stream)
		return refuse(p, "only where stream is true");
	snprintf(p->param->name, sizeof(p->param->name), "top_logprobs");
	if (p->has_top_logprobs && !r->logprobs)
		return refuse(p, "only where logprobs is true");
	p->param->name[0] = 0;
	return 0;
}

int openai_request_parse(struct openai_request *r, bool chat, const char *body, size_t len,
			 struct openai_param *param, struct lslm_error *err)
{
	struct reader p = { .r = r, .param = param, .err = err };
	json_error_t where;
	const char *name;
	json_t *root, *v;
	int rc = 0;

	*r = (struct openai_request){
		.chat = chat,
		.n = 1,
		.sampling = { .temperature = 1,
			      .top_p = 1,
			      .repeat_penalty = 1,
			      .repeat_last_n = 64 },
	};
	param->name[0] = 0;
	root = json_loadb(len ? body : "", len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
	if (!root)
		return error_set(err, -EINVAL, "the body is not JSON: line %d, column %d: %s",
				 where.line, where.column, where.text);
	if (!json_is_object(root))
		rc = error_set(err, -EINVAL, "the body is not a JSON object");
	json_object_foreach(root, name, v) {
		if (!rc)
			rc = read_field(&p, name, v);
	}
	json_decref(root);
	return rc ? rc : check(&p);
}

void openai_request_free(struct openai_request *r)
{
	for (uint32_t i = 0; i < r->n_messages; i++)
		free(r->messages[i].text);
	free(r->messages);
	free(r->model);
	free(r->context);
	free(r->prompt);
	free(r->ids);
	stop_free(&r->stop);
	*r = (struct openai_request){ 0 };
}
