// SPDX-License-Identifier: MIT
#include "engine/eval_data.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/file.h"
#include "engine/prompt.h"
#include "kv/geometry.h"

enum { MAX_FILE = 256 << 20 };

static void question_free(struct eval_question *q)
{
	free(q->ask);
	free(q->answer);
	free(q->text);
}

static void book_free(struct eval_book *b)
{
	for (uint32_t i = 0; i < b->n_questions; i++)
		question_free(&b->questions[i]);
	free(b->questions);
	free(b->tokens);
}

void eval_data_free(struct eval_data *d)
{
	for (uint32_t i = 0; i < d->n_books; i++)
		book_free(&d->books[i]);
	free(d->books);
	d->books = NULL;
	d->n_books = 0;
}

/* Index of the class, or n_lengths. */
static uint32_t class_of(const struct eval_data *d, uint32_t n)
{
	uint32_t i = 0;

	while (i < d->n_lengths && n > d->lengths[i])
		i++;
	return i;
}

static uint32_t count_class(const struct eval_data *d, uint32_t length)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < d->n_books; i++)
		n += d->books[i].length == length;
	return n;
}

/* The book becomes the data's, or is freed. */
static int keep(struct eval_data *d, struct eval_book *b, struct lslm_error *err)
{
	struct eval_book *all = realloc(d->books, (d->n_books + 1) * sizeof(*all));

	if (!all) {
		book_free(b);
		return error_set(err, -ENOMEM, "out of memory");
	}
	d->books = all;
	d->books[d->n_books++] = *b;
	return 0;
}

/* What ends a turn that the model wrote: its EOS. */
static int answer_ids(const struct model *m, struct eval_question *q, const char *text,
		      struct lslm_error *err)
{
	int32_t *ids;
	size_t n;
	int rc = tokenizer_encode(m->tokenizer, text, strlen(text), 0, &ids, &n, err);

	if (rc)
		return rc;
	q->answer = realloc(ids, (n + 1) * sizeof(*ids));
	if (!q->answer) {
		free(ids);
		return error_set(err, -ENOMEM, "out of memory");
	}
	q->answer[n] = tokenizer_eos(m->tokenizer);
	q->n_answer = (uint32_t)(n + (q->answer[n] >= 0));
	q->text = strdup(text);
	return q->text ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int read_question(struct eval_book *b, const struct model *m, const json_t *from,
			 struct lslm_error *err)
{
	const char *ask = json_string_value(json_object_get(from, "q"));
	const char *answer = json_string_value(json_object_get(from, "a"));
	struct eval_question *q = &b->questions[b->n_questions];
	int rc;

	if (!ask || !answer || !*answer)
		return error_set(err, -EINVAL, "a question needs \"q\" and \"a\"");
	b->n_questions++;
	rc = prompt_user(m, ask, strlen(ask), false, false, &q->ask, &q->n_ask, err);
	return rc ? rc : answer_ids(m, q, answer, err);
}

static int read_book(struct eval_data *d, const struct model *m, const json_t *line, uint32_t limit,
		     struct lslm_error *err)
{
	const char *text = json_string_value(json_object_get(line, "handbook"));
	const json_t *questions = json_object_get(line, "questions");
	const size_t n = json_array_size(questions);
	struct eval_book b = { 0 };
	int rc;

	if (!text || !n)
		return error_set(err, -EINVAL, "a line needs \"handbook\" and \"questions\"");
	rc = prompt_context(m, text, strlen(text), false, &b.tokens, &b.n_tokens, err);
	if (rc)
		return rc;
	b.length = class_of(d, b.n_tokens);
	if (b.length == d->n_lengths || b.n_tokens >= m->params.n_ctx_train) {
		d->n_skipped++;
		book_free(&b);
		return 0;
	}
	b.questions = calloc(n, sizeof(*b.questions));
	rc = b.questions ? 0 : error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; !rc && i < n; i++)
		rc = read_question(&b, m, json_array_get(questions, i), err);
	if (rc || (limit && count_class(d, b.length) >= limit)) {
		book_free(&b);
		return rc;
	}
	return keep(d, &b, err);
}

static int read_qa(struct eval_data *d, const struct model *m, char *text, uint32_t limit,
		   struct lslm_error *err)
{
	uint32_t number = 0;
	char *rest = text, *line;
	int rc = 0;

	while (!rc && (line = strsep(&rest, "\n"))) {
		json_t *json;

		number++;
		if (!line[strspn(line, " \t\r")])
			continue;
		json = json_loads(line, 0, NULL);
		rc = json ? read_book(d, m, json, limit, err) : error_set(err, -EINVAL, "not JSON");
		json_decref(json);
		if (rc)
			return error_prefix(err, rc, "line %u", number);
	}
	return rc;
}

static int32_t *copy(const int32_t *from, uint32_t n)
{
	int32_t *to = malloc(n * sizeof(*to));

	return to ? memcpy(to, from, n * sizeof(*to)) : NULL;
}

/* Tokens first .. first + length: the context, one token to go on from, and what ought to follow it. */
static int add_window(struct eval_data *d, const int32_t *tokens, uint32_t class,
		      struct lslm_error *err)
{
	const uint32_t n = d->lengths[class] - EVAL_SUFFIX;
	struct eval_book b = { .tokens = copy(tokens, n), .n_tokens = n, .length = class };
	struct eval_question *q = b.questions = calloc(1, sizeof(*q));

	if (q) {
		b.n_questions = 1;
		*q = (struct eval_question){
			.ask = copy(tokens + n, 1),
			.n_ask = 1,
			.answer = copy(tokens + n + 1, EVAL_SUFFIX - 1),
			.n_answer = EVAL_SUFFIX - 1,
		};
	}
	if (!b.tokens || !q || !q->ask || !q->answer) {
		book_free(&b);
		return error_set(err, -ENOMEM, "out of memory");
	}
	return keep(d, &b, err);
}

static int cut_text(struct eval_data *d, const struct model *m, const char *text, size_t size,
		    uint32_t limit, struct lslm_error *err)
{
	int32_t *tokens;
	uint32_t n;
	int rc = prompt_context(m, text, size, true, &tokens, &n, err);

	if (rc)
		return rc;
	for (uint32_t c = 0; !rc && c < d->n_lengths; c++) {
		const uint32_t length = d->lengths[c];

		if (length > m->params.n_ctx_train || length > n) {
			d->n_skipped++;
			continue;
		}
		for (uint32_t i = 0; !rc && i < n / length && (!limit || i < limit); i++)
			rc = add_window(d, tokens + (size_t)i * length, c, err);
	}
	free(tokens);
	return rc;
}

static int check_lengths(const struct eval_data *d, struct lslm_error *err)
{
	for (uint32_t i = 0; i < d->n_lengths; i++)
		if (d->lengths[i] < KV_BLOCK_TOKENS + EVAL_SUFFIX ||
		    d->lengths[i] > KV_MAX_TOKENS || (i && d->lengths[i] <= d->lengths[i - 1]))
			return error_set(err, -EINVAL,
					 "context lengths must ascend, from %d to %d tokens",
					 KV_BLOCK_TOKENS + EVAL_SUFFIX, KV_MAX_TOKENS);
	return 0;
}

bool eval_data_has_questions(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot && !strcmp(dot, ".jsonl");
}

int eval_data_read(struct eval_data *out, const struct model *m, const char *path, uint32_t limit,
		   struct lslm_error *err)
{
	size_t size;
	char *text;
	int rc = check_lengths(out, err);

	if (!rc)
		rc = file_read(path, MAX_FILE, &text, &size, err);
	if (rc)
		return rc;
	if (eval_data_has_questions(path))
		rc = read_qa(out, m, text, limit, err);
	else
		rc = cut_text(out, m, text, size, limit, err);
	free(text);
	if (!rc && !out->n_books)
		rc = error_set(err, -EINVAL, "no context of up to %u tokens is in it",
			       out->lengths[out->n_lengths - 1]);
	if (rc) {
		eval_data_free(out);
		return error_prefix(err, rc, "%s", path);
	}
	return 0;
}
