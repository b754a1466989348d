// SPDX-License-Identifier: MIT
#include "engine/calibrate.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/engine.h"
#include "engine/prompt.h"
#include "engine/sequence.h"

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
	int rc = 0;

	seq->own.n_tokens = 0;
	for (uint32_t at = 0, m; !rc && at < n; at += m) {
		m = n - at < ENGINE_BATCH ? n - at : ENGINE_BATCH;
		rc = engine_forward(e, seq, tokens + at, m, NULL, 0, err);
	}
	for (uint32_t s = 0; !rc && s < n / KV_BLOCK_TOKENS; s++)
		if (calibrator_add(c, seq->memory + s * stripe, s * KV_BLOCK_TOKENS))
			rc = error_set(err, -ENOMEM, "out of memory");
	return rc;
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
		if (!rc && progress)
			progress(arg, at + m, n);
	}
	sequence_destroy(seq);
	free(tokens);
	return rc;
}
