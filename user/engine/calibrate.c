// SPDX-License-Identifier: MIT
#include "engine/calibrate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "compute/quant.h"
#include "engine/engine.h"
#include "engine/eval_data.h"
#include "engine/prompt.h"
#include "engine/sequence.h"
#include "engine/stats.h"

enum {
	TRIALS = 1200, /* answers with a half damaged, of all texts together */
	TRIAL_STRIPES = 3, /* that a context has at least */
};

/* The model's RoPE as codec/turn.h wants it. */
static void turn_of(const struct model *m, struct turn_params *turn)
{
	const struct model_params *p = &m->params;

	turn->dims = p->rope_dims;
	turn->halves = p->rope_layout == ROPE_HALVES;
	turn_rates(turn, p->rope_base, p->rope_scale, m->rope_factors);
}

int calibrate_begin(struct engine *e, struct calibrator **out, struct lslm_error *err)
{
	struct kv_identity id;
	struct turn_params turn;
	int rc = engine_identity(e, &id, err);

	if (rc)
		return rc;
	turn_of(e->model, &turn);
	return calibrator_new(out, &e->geo, &turn, &id.model, err);
}

/* One piece: whole blocks that follow each other from position 0. */
static int add_piece(struct engine *e, struct calibrator *c, struct sequence *seq,
		     const int32_t *tokens, uint32_t n, struct lslm_error *err)
{
	const size_t stripe = kv_stripe_bytes(&e->geo, KV_LEVEL_F16);
	int rc;

	seq->own.n_tokens = 0;
	rc = engine_feed(e, seq, tokens, n, err);
	for (uint32_t s = 0; !rc && s < n / KV_BLOCK_TOKENS; s++)
		if (calibrator_add(c, seq->memory + s * stripe, s * KV_BLOCK_TOKENS))
			rc = error_set(err, -ENOMEM, "out of memory");
	return rc;
}

/* --- how much harm errors do --- */

/* A context as it is and through level e, and a sequence on one that is mixed of both. */
struct trial {
	struct engine *e;
	struct calibrator *c;
	const uint8_t *stripes;
	uint8_t *noisy, *mixed;
	size_t size;
	struct sequence *seq;
	float *want, *got; /* [n_answer][n_vocab] */
};

static int make_noise(struct trial *t, struct lslm_error *err)
{
	const struct kv_geometry *g = &t->e->geo;
	const size_t stripe = kv_stripe_bytes(g, KV_LEVEL_F16);
	uint8_t *coded = malloc(codec_stripe_bound(g, KV_LEVEL_E));
	uint32_t *lengths = malloc(g->n_layer * sizeof(*lengths));
	int rc = coded && lengths ? 0 : error_set(err, -ENOMEM, "out of memory");

	for (size_t s = 0; !rc && s < t->size; s += stripe) {
		const uint8_t *at = coded;

		codec_encode(g, KV_LEVEL_E, NULL, 0, t->stripes + s, coded, lengths);
		for (uint32_t l = 0; !rc && l < g->n_layer; at += lengths[l++])
			rc = codec_decode(g, KV_LEVEL_E, NULL, 0, l, at, lengths[l],
					  t->noisy + s + l * kv_block_bytes(g, KV_LEVEL_F16), err);
	}
	free(coded);
	free(lengths);
	return rc;
}

/* Mean square of what a half of every stripe differs by. */
static double error_of(const struct trial *t, uint32_t half)
{
	const struct kv_geometry *g = &t->e->geo;
	const size_t stripe = kv_stripe_bytes(g, KV_LEVEL_F16);
	const size_t n = KV_BLOCK_TOKENS * kv_channels(g);
	double sum = 0;

	for (size_t at = half * kv_half_bytes(g, KV_LEVEL_F16); at < t->size; at += stripe) {
		const uint16_t *a = (const uint16_t *)(t->stripes + at);
		const uint16_t *b = (const uint16_t *)(t->noisy + at);

		for (size_t i = 0; i < n; i++) {
			const double d = (double)f16_to_f32(a[i]) - (double)f16_to_f32(b[i]);

			sum += d * d;
		}
	}
	return sum / (double)(n * (t->size / stripe));
}

static void mix(struct trial *t, const uint8_t *from, uint32_t half)
{
	const struct kv_geometry *g = &t->e->geo;
	const size_t size = kv_half_bytes(g, KV_LEVEL_F16);

	for (size_t at = half * size; at < t->size; at += kv_stripe_bytes(g, KV_LEVEL_F16))
		memcpy(t->mixed + at, from + at, size);
}

/* Logits for every token of the answer. */
static int answer(struct trial *t, const struct eval_question *q, float *logits,
		  struct lslm_error *err)
{
	int32_t tokens[ENGINE_BATCH];
	int rc;

	t->seq->own.n_tokens = 0;
	rc = engine_feed(t->e, t->seq, q->ask, q->n_ask - 1, err);
	if (rc)
		return rc;
	tokens[0] = q->ask[q->n_ask - 1];
	memcpy(tokens + 1, q->answer, (q->n_answer - 1) * sizeof(*tokens));
	return engine_forward(t->e, t->seq, tokens, q->n_answer, logits, 1, err);
}

static int weigh_answer(struct trial *t, const struct eval_question *q, struct lslm_error *err)
{
	const uint32_t n_vocab = t->e->model->params.n_vocab;
	int rc = answer(t, q, t->want, err);

	for (uint32_t half = 0; !rc && half < 2 * t->e->geo.n_layer; half++) {
		double sum = 0;

		mix(t, t->noisy, half);
		rc = answer(t, q, t->got, err);
		mix(t, t->stripes, half);
		for (uint32_t i = 0; !rc && i < q->n_answer; i++)
			sum += stats_divergence(t->want + (size_t)i * n_vocab,
						t->got + (size_t)i * n_vocab, n_vocab);
		if (!rc)
			calibrator_weigh(t->c, half, error_of(t, half), sum / q->n_answer);
	}
	return rc;
}

static bool weighed_enough(const struct trial *t)
{
	return calibrator_n_weighed(t->c) * 2 * t->e->geo.n_layer >= TRIALS;
}

static int trial_begin(struct trial *t, uint32_t most_tokens, uint32_t most_rows,
		       struct lslm_error *err)
{
	const size_t logits = (size_t)most_rows * t->e->model->params.n_vocab * sizeof(float);
	int rc;

	t->noisy = malloc(t->size);
	t->mixed = aligned_alloc(KV_ALIGN, t->size);
	t->want = malloc(logits);
	t->got = malloc(logits);
	if (!t->noisy || !t->mixed || !t->want || !t->got)
		return error_set(err, -ENOMEM, "out of memory");
	rc = sequence_create(&t->seq, &t->e->geo, most_tokens, err);
	if (rc)
		return rc;
	memcpy(t->mixed, t->stripes, t->size);
	rc = sequence_share(
		t->seq,
		&(struct segment){ .base = t->mixed,
				   .n_tokens = (uint32_t)(t->size / kv_stripe_bytes(&t->e->geo,
										    KV_LEVEL_F16)) *
					       KV_BLOCK_TOKENS },
		err);
	return rc ? rc : make_noise(t, err);
}

/* What follows a context of n_stripes: none of the answers is longer than a pass. */
static int weigh(struct engine *e, struct calibrator *c, const uint8_t *stripes, uint32_t n_stripes,
		 const struct eval_question *questions, uint32_t n, struct lslm_error *err)
{
	struct trial t = { .e = e, .c = c, .stripes = stripes };
	uint32_t tokens = 0, rows = 0;
	int rc;

	if (n_stripes < TRIAL_STRIPES || weighed_enough(&t))
		return 0;
	t.size = n_stripes * kv_stripe_bytes(&e->geo, KV_LEVEL_F16);
	for (uint32_t i = 0; i < n; i++) {
		const struct eval_question *q = &questions[i];

		tokens = q->n_ask + q->n_answer > tokens ? q->n_ask + q->n_answer : tokens;
		rows = q->n_answer > rows ? q->n_answer : rows;
	}
	rc = rows > ENGINE_BATCH ?
		     error_set(err, -E2BIG, "an answer of %u tokens: at most %d are possible", rows,
			       ENGINE_BATCH) :
		     trial_begin(&t, tokens, rows, err);
	for (uint32_t i = 0; !rc && i < n && !weighed_enough(&t); i++)
		rc = weigh_answer(&t, &questions[i], err);
	sequence_destroy(t.seq);
	free(t.noisy);
	free(t.mixed);
	free(t.want);
	free(t.got);
	return rc;
}

/* A text's last block is what follows the ones before it. */
static int weigh_piece(struct engine *e, struct calibrator *c, const uint8_t *stripes,
		       int32_t *tokens, uint32_t n, struct lslm_error *err)
{
	const uint32_t context = n - KV_BLOCK_TOKENS;

	return weigh(e, c, stripes, context / KV_BLOCK_TOKENS,
		     &(struct eval_question){ .ask = tokens + context,
					      .n_ask = 1,
					      .answer = tokens + context + 1,
					      .n_answer = KV_BLOCK_TOKENS - 1 },
		     1, err);
}

int calibrate_text(struct engine *e, struct calibrator *c, const char *text, size_t len, bool raw,
		   uint32_t n_ctx, void (*progress)(void *arg, uint32_t done, uint32_t total),
		   void *arg, struct lslm_error *err)
{
	const uint32_t limit = n_ctx ? n_ctx : e->model->params.n_ctx_train;
	struct sequence *seq = NULL;
	int32_t *tokens;
	uint32_t n, piece;
	int rc;

	rc = prompt_context(e->model, text, len, raw, &tokens, &n, err);
	if (rc)
		return rc;
	piece = (n < limit ? n : limit) / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
	if (!piece)
		rc = error_set(err, -EINVAL, "a text of %u tokens is shorter than a block of %d", n,
			       KV_BLOCK_TOKENS);
	if (!rc)
		rc = sequence_create(&seq, &e->geo, piece, err);
	for (uint32_t at = 0, m; !rc && n - at >= KV_BLOCK_TOKENS; at += m) {
		m = n - at < piece ? (n - at) / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS : piece;
		rc = add_piece(e, c, seq, tokens + at, m, err);
		if (!rc)
			rc = weigh_piece(e, c, seq->memory, tokens + at, m, err);
		if (!rc && progress)
			progress(arg, at + m, n);
	}
	sequence_destroy(seq);
	free(tokens);
	return rc;
}

static int add_book(struct engine *e, struct calibrator *c, const struct eval_book *b,
		    struct lslm_error *err)
{
	const uint32_t n = b->n_tokens / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
	struct sequence *seq;
	int rc;

	if (!n)
		return 0;
	rc = sequence_create(&seq, &e->geo, n, err);
	if (rc)
		return rc;
	rc = add_piece(e, c, seq, b->tokens, n, err);
	if (!rc)
		rc = weigh(e, c, seq->memory, n / KV_BLOCK_TOKENS, b->questions, b->n_questions,
			   err);
	sequence_destroy(seq);
	return rc;
}

int calibrate_questions(struct engine *e, struct calibrator *c, const char *path, uint32_t n_ctx,
			void (*progress)(void *arg, uint32_t done, uint32_t total), void *arg,
			struct lslm_error *err)
{
	const uint32_t trained = e->model->params.n_ctx_train;
	struct eval_data d = { .lengths = { n_ctx ? n_ctx : trained }, .n_lengths = 1 };
	int rc = eval_data_read(&d, e->model, path, 0, err);

	for (uint32_t i = 0; !rc && i < d.n_books; i++) {
		rc = add_book(e, c, &d.books[i], err);
		if (!rc && progress)
			progress(arg, i + 1, d.n_books);
	}
	eval_data_free(&d);
	return rc;
}
