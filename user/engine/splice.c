// SPDX-License-Identifier: MIT
#include "engine/splice.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compute/quant.h"
#include "engine/reuse.h"
#include "engine/sequence.h"

int splice_check(struct engine *from, struct engine *to, struct lslm_error *err)
{
	const struct model_params *a = &from->model->params, *b = &to->model->params;

	if (memcmp(&from->geo, &to->geo, sizeof(from->geo)) || a->n_embd != b->n_embd ||
	    a->rope_layout != b->rope_layout || a->rope_dims != b->rope_dims ||
	    a->rope_base != b->rope_base || a->rope_scale != b->rope_scale)
		return error_set(
			err, -ENOEXEC,
			"the two models are not of one shape; without --same-arch a map is "
			"made");
	return 0;
}

struct kv_run splice_run(const struct engine *to, uint32_t first, uint32_t end)
{
	return (struct kv_run){ first, end, first && first < end ? to->model->params.n_embd : 0 };
}

/* The hidden state at one layer, of the tokens of one pass: read on its way, and put into E blocks. */
struct tap {
	struct engine *e;
	const struct kv_run *run;
	uint32_t m;
	uint8_t *stripe; /* in which the pass begins */
	size_t stripe_bytes;
};

/* engine_walk() asks before each layer where to end; here it never ends before its tokens do. */
static uint32_t read_hidden(void *arg, uint32_t layer)
{
	const struct tap *t = arg;
	const size_t values = KV_BLOCK_TOKENS * (size_t)t->run->hidden;

	if (layer == t->run->first && t->run->hidden)
		for (uint32_t b = 0; b < t->m / KV_BLOCK_TOKENS; b++)
			f32_row_to_f16(t->e->x + b * values,
				       (uint16_t *)(t->stripe + b * t->stripe_bytes), values);
	return UINT32_MAX;
}

void splice_take(const struct kv_geometry *model, const struct kv_run *run, uint32_t n_stripes,
		 const uint8_t *stripes, uint8_t *out)
{
	const struct kv_geometry geo = kv_run_geometry(run, model);
	const size_t block = kv_block_bytes(model, KV_LEVEL_F16);

	for (uint32_t s = 0; s < n_stripes; s++) {
		for (uint32_t l = 0; l < model->n_layer; l++)
			if (!kv_run_has(run, l))
				memcpy(out + kv_unit_offset(&geo, KV_LEVEL_F16,
							    kv_run_block(run, l)),
				       stripes + l * block, block);
		stripes += kv_stripe_bytes(model, KV_LEVEL_F16);
		out += kv_stripe_bytes(&geo, KV_LEVEL_F16);
	}
}

int splice_send(struct engine *from, const int32_t *tokens, uint32_t n, const struct kv_run *run,
		uint8_t *out, void (*progress)(void *arg, uint32_t done, uint32_t total), void *arg,
		struct lslm_error *err)
{
	const struct kv_geometry geo = kv_run_geometry(run, &from->geo);
	struct tap t = { .e = from, .run = run };
	struct sequence *theirs = NULL;
	int rc;

	n -= n % KV_BLOCK_TOKENS;
	if (!n)
		return 0;
	rc = sequence_create(&theirs, &from->geo, n, err);
	t.stripe_bytes = kv_stripe_bytes(&geo, KV_LEVEL_F16);
	for (uint32_t at = 0; !rc && at < n; at += t.m) {
		t.m = n - at < ENGINE_BATCH ? n - at : ENGINE_BATCH;
		t.stripe = out + at / KV_BLOCK_TOKENS * t.stripe_bytes;
		rc = engine_walk(from, theirs, tokens + at, &t.m, read_hidden, &t, err);
		if (!rc && progress)
			progress(arg, at + t.m, n);
	}
	if (!rc)
		splice_take(&from->geo, run, n / KV_BLOCK_TOKENS, theirs->memory, out);
	sequence_destroy(theirs);
	return rc;
}

/* The layers of the run, of what came in E blocks or of the tokens. */
static int compute_run(struct reuse *r, const struct kv_geometry *geo, const uint8_t *sent,
		       struct lslm_error *err)
{
	const size_t stripe = kv_stripe_bytes(geo, KV_LEVEL_F16);
	uint32_t n;
	int rc = 0;

	while (!rc && (n = reuse_next(r, 0))) {
		const uint32_t first = sequence_len(r->seq) / KV_BLOCK_TOKENS;

		for (uint32_t i = 0; geo->hidden && i < n / KV_BLOCK_TOKENS; i++)
			reuse_take(r, i, KV_LEVEL_F16, sent + (first + i) * stripe);
		rc = reuse_compute(r, n, err);
	}
	return rc;
}

static void assemble(const struct kv_geometry *model, const struct kv_run *run, uint32_t n_stripes,
		     const uint8_t *sent, const uint8_t *own, uint8_t *out)
{
	const struct kv_geometry geo = kv_run_geometry(run, model);
	const size_t block = kv_block_bytes(model, KV_LEVEL_F16);

	for (uint32_t s = 0; s < n_stripes; s++) {
		for (uint32_t l = 0; l < model->n_layer; l++, out += block)
			memcpy(out,
			       kv_run_has(run, l) ? own + (l - run->first) * block :
						    sent + kv_unit_offset(&geo, KV_LEVEL_F16,
									  kv_run_block(run, l)),
			       block);
		sent += kv_stripe_bytes(&geo, KV_LEVEL_F16);
		own += (run->end - run->first) * block;
	}
}

int splice_make(struct engine *from, struct engine *to, const int32_t *tokens, uint32_t n,
		const struct kv_run *run, const struct eval_coder *level, struct eval_cost *cost,
		uint8_t *out, struct lslm_error *err)
{
	const struct kv_geometry geo = kv_run_geometry(run, &to->geo);
	const uint32_t n_stripes = n / KV_BLOCK_TOKENS;
	const bool is_whole = kv_run_is_none(run);
	struct reuse r = { 0 };
	uint8_t *sent;
	int rc;

	if (!n_stripes)
		return 0;
	/* Where nothing is computed it is what came. */
	sent = is_whole ? out : malloc(n_stripes * kv_stripe_bytes(&geo, KV_LEVEL_F16));
	if (!sent)
		return error_set(err, -ENOMEM, "out of memory");
	rc = splice_send(from, tokens, n, run, sent, NULL, NULL, err);
	if (!rc && level)
		rc = eval_coder_run(level, &geo, NULL, tokens, n, sent, cost, err);
	if (is_whole)
		return rc;
	if (!rc)
		rc = reuse_open(&r, to, run, tokens, n_stripes * KV_BLOCK_TOKENS, err);
	if (!rc)
		rc = compute_run(&r, &geo, sent, err);
	if (!rc)
		assemble(&to->geo, run, n_stripes, sent, r.seq->memory, out);
	reuse_close(&r);
	free(sent);
	return rc;
}

uint32_t splice_bytes(const struct engine *to, const struct kv_run *run, enum kv_level level)
{
	const struct kv_geometry geo = kv_run_geometry(run, &to->geo);

	return (uint32_t)(kv_stripe_bytes(&geo, level) / KV_BLOCK_TOKENS);
}
