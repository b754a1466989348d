// SPDX-License-Identifier: MIT
#include "engine/eval.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sequence.h"

struct run {
	struct engine *e;
	const struct eval_data *d;
	uint32_t n_vocab;
	float *logits; /* [most rows][n_vocab], of the question at work */
	float *reference; /* of every question of the book, one after the other */
	uint32_t most_rows; /* of a question */
};

void eval_score_free(struct eval_score *s)
{
	stats_free(&s->divergence);
	stats_free(&s->agrees);
	stats_free(&s->surprise);
	stats_free(&s->exact);
	stats_free(&s->f1);
}

/* Logits after the question and after each token of the answer but the last. Its rows fit a pass: see eval_run(). */
static int force(struct run *r, struct sequence *s, const struct eval_question *q,
		 struct lslm_error *err)
{
	int32_t tokens[ENGINE_BATCH];
	int rc = engine_feed(r->e, s, q->ask, q->n_ask - 1, err);

	if (rc)
		return rc;
	tokens[0] = q->ask[q->n_ask - 1];
	memcpy(tokens + 1, q->answer, (q->n_answer - 1) * sizeof(*tokens));
	return engine_forward(r->e, s, tokens, q->n_answer, r->logits, 1, err);
}

/* Greedy decoding from r->logits on, as text; at most twice the expected answer, and some. */
static int answer(struct run *r, struct sequence *s, const struct eval_question *q, char *text,
		  size_t room, struct lslm_error *err)
{
	const struct tokenizer *t = r->e->model->tokenizer;
	int32_t id = (int32_t)stats_best(r->logits, r->n_vocab);
	size_t at = 0;
	int rc = 0;

	for (uint32_t i = 0; !rc && i < 2 * q->n_answer + 8 && !tokenizer_is_eog(t, id); i++) {
		at += tokenizer_piece(t, id, false, text + at, room - 1 - at);
		if (at >= room - 1)
			break;
		rc = engine_forward(r->e, s, &id, 1, r->logits, 0, err);
		id = (int32_t)stats_best(r->logits, r->n_vocab);
	}
	text[at < room ? at : room - 1] = 0;
	return rc;
}

/* The answer was forced: take it back, and let the model speak. */
static int score_f1(struct run *r, struct sequence *s, const struct eval_question *q, uint32_t at,
		    bool exact, double *f1, struct lslm_error *err)
{
	char text[4096];
	int rc;

	*f1 = 1;
	if (exact)
		return 0;
	s->own.n_tokens = at + q->n_ask;
	rc = answer(r, s, q, text, sizeof(text), err);
	*f1 = rc ? 0 : stats_f1(text, q->text);
	return rc;
}

static int score_tokens(struct run *r, const struct eval_question *q, const float *reference,
			uint32_t group, struct eval_score *to, bool *exact, struct lslm_error *err)
{
	int rc = 0;

	*exact = true;
	for (uint32_t i = 0; !rc && i < q->n_answer; i++) {
		const float *got = r->logits + (size_t)i * r->n_vocab;
		const float *want = reference + (size_t)i * r->n_vocab;
		const size_t best = stats_best(got, r->n_vocab);

		*exact = *exact && best == (size_t)q->answer[i];
		rc = stats_add(&to->divergence, group, stats_divergence(want, got, r->n_vocab),
			       err);
		if (!rc)
			rc = stats_add(&to->agrees, group, best == stats_best(want, r->n_vocab),
				       err);
		if (!rc)
			rc = stats_add(&to->surprise, group,
				       stats_surprise(got, r->n_vocab, (size_t)q->answer[i]), err);
	}
	return rc;
}

static int score_question(struct run *r, struct sequence *s, const struct eval_question *q,
			  const float *reference, uint32_t group, struct eval_score *to,
			  struct lslm_error *err)
{
	const uint32_t at = s->own.n_tokens;
	bool exact;
	double f1;
	int rc = score_tokens(r, q, reference, group, to, &exact, err);

	if (!rc && q->text) {
		rc = stats_add(&to->exact, group, exact, err);
		if (!rc)
			rc = score_f1(r, s, q, at - q->n_ask - q->n_answer + 1, exact, &f1, err);
		if (!rc)
			rc = stats_add(&to->f1, group, f1, err);
	}
	return rc;
}

/* A sequence on the given stripes, with the tokens behind the last of them computed. */
static int begin(struct run *r, const struct eval_book *b, const uint8_t *stripes, bool rounded,
		 struct sequence **out, struct lslm_error *err)
{
	const uint32_t shared = b->n_tokens / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
	uint32_t most = 0;
	int rc;

	for (uint32_t i = 0; i < b->n_questions; i++) {
		const struct eval_question *q = &b->questions[i];
		const uint32_t n = q->n_ask + 2 * q->n_answer + 8;

		most = n > most ? n : most;
	}
	rc = sequence_create(out, &r->e->geo, b->n_tokens - shared + most, err);
	if (!rc && shared)
		rc = sequence_share(*out,
				    &(struct segment){ .base = stripes,
						       .n_tokens = shared,
						       .rounded = rounded },
				    err);
	return rc ? rc : engine_feed(r->e, *out, b->tokens + shared, b->n_tokens - shared, err);
}

/* Books of a length are numbered from 0. */
static uint32_t group_of(const struct eval_data *d, const struct eval_book *b)
{
	uint32_t n = 0;

	for (const struct eval_book *other = d->books; other < b; other++)
		n += other->length == b->length;
	return n;
}

static int run_way(struct run *r, const struct eval_book *b, const struct eval_way *w, bool first,
		   uint8_t *stripes, struct eval_score *to, struct lslm_error *err)
{
	const uint32_t group = group_of(r->d, b);
	float *reference = r->reference;
	struct sequence *s = NULL;
	uint32_t start;
	int rc = w->make ? w->make(w->arg, b, stripes, err) : 0;

	if (!rc && w->coder)
		rc = eval_coder_run(w->coder, &r->e->geo, w->cal, b->tokens, b->n_tokens, stripes,
				    &to->cost, err);
	if (!rc)
		rc = begin(r, b, stripes, w->rounded, &s, err);
	start = rc ? 0 : s->own.n_tokens;
	for (uint32_t i = 0; !rc && i < b->n_questions; i++) {
		const struct eval_question *q = &b->questions[i];
		const size_t n = (size_t)q->n_answer * r->n_vocab;

		s->own.n_tokens = start;
		rc = force(r, s, q, err);
		if (!rc && first)
			memcpy(reference, r->logits, n * sizeof(*reference));
		if (!rc)
			rc = score_question(r, s, q, reference, group, to, err);
		reference += n;
	}
	sequence_destroy(s);
	return rc;
}

static int run_book(struct run *r, const struct eval_book *b, const struct eval_way *ways,
		    uint32_t n_ways, struct eval_score *scores, struct lslm_error *err)
{
	const uint32_t shared = b->n_tokens / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
	const size_t size =
		(size_t)shared / KV_BLOCK_TOKENS * kv_stripe_bytes(&r->e->geo, KV_LEVEL_F16);
	struct sequence *own = NULL;
	uint8_t *stripes = aligned_alloc(KV_ALIGN, size + KV_ALIGN);
	int rc = stripes ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (!rc)
		rc = sequence_create(&own, &r->e->geo, b->n_tokens, err);
	if (!rc)
		rc = engine_feed(r->e, own, b->tokens, shared, err);
	for (uint32_t w = 0; !rc && w < n_ways; w++) {
		memcpy(stripes, own->memory, size);
		rc = run_way(r, b, &ways[w], w == 0, stripes,
			     &scores[(size_t)w * r->d->n_lengths + b->length], err);
	}
	sequence_destroy(own);
	free(stripes);
	return rc;
}

/* Room for the logits of a question, and of all questions of a book. */
static int allocate(struct run *r, struct lslm_error *err)
{
	size_t book_rows = 0;

	for (uint32_t i = 0; i < r->d->n_books; i++) {
		const struct eval_book *b = &r->d->books[i];
		size_t rows = 0;

		for (uint32_t k = 0; k < b->n_questions; k++) {
			const uint32_t n = b->questions[k].n_answer;

			if (n > ENGINE_BATCH)
				return error_set(err, -E2BIG,
						 "an answer of %u tokens: at most %d are possible",
						 n, ENGINE_BATCH);
			r->most_rows = n > r->most_rows ? n : r->most_rows;
			rows += n;
		}
		book_rows = rows > book_rows ? rows : book_rows;
	}
	r->logits = calloc((size_t)r->most_rows * r->n_vocab, sizeof(*r->logits));
	r->reference = calloc(book_rows * r->n_vocab, sizeof(*r->reference));
	return r->logits && r->reference ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int eval_run(struct engine *e, const struct eval_data *d, const struct eval_way *ways,
	     uint32_t n_ways, struct eval_score *scores,
	     void (*progress)(uint32_t done, uint32_t total), struct lslm_error *err)
{
	struct run r = { .e = e, .d = d, .n_vocab = e->model->params.n_vocab };
	int rc = allocate(&r, err);

	for (uint32_t i = 0; !rc && i < d->n_books; i++) {
		rc = run_book(&r, &d->books[i], ways, n_ways, scores, err);
		if (progress)
			progress(i + 1, d->n_books);
	}
	free(r.logits);
	free(r.reference);
	return rc;
}
