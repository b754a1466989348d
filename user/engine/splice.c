// SPDX-License-Identifier: MIT
#include "engine/splice.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compute/quant.h"
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

/* The hidden state at one layer, of the tokens of one pass: what is read from one model and put into the other. */
struct tap {
	struct engine *e;
	uint32_t layer, m;
	uint16_t *hidden; /* [ENGINE_BATCH][n_embd] f16, as it would travel */
};

/* engine_walk() asks before each layer where to end; here it never ends before its tokens do. */
static uint32_t read_hidden(void *arg, uint32_t layer)
{
	struct tap *t = arg;

	if (layer == t->layer)
		f32_row_to_f16(t->e->x, t->hidden, (size_t)t->m * t->e->model->params.n_embd);
	return UINT32_MAX;
}

static uint32_t put_hidden(void *arg, uint32_t layer)
{
	struct tap *t = arg;

	if (layer == t->layer)
		f16_row_to_f32(t->hidden, t->e->x, (size_t)t->m * t->e->model->params.n_embd);
	return UINT32_MAX;
}

static int walk(struct engine *e, struct sequence *s, const int32_t *tokens, uint32_t m,
		uint32_t (*tap)(void *arg, uint32_t layer), struct tap *t, struct lslm_error *err)
{
	t->e = e;
	t->m = m;
	return engine_walk(e, s, tokens, &m, tap, t, err);
}

/*
 * Both models over the same tokens, piece by piece. Layers of `to` below the run are computed for nothing: what they leave in the
 * hidden state is replaced where the run begins.
 */
static int run_both(struct engine *from, struct engine *to, const int32_t *tokens, uint32_t n,
		    struct splice_run run, struct sequence *theirs, struct sequence *own,
		    struct lslm_error *err)
{
	struct tap t = { .layer = run.first };
	int rc = 0;

	t.hidden = malloc(ENGINE_BATCH * (size_t)to->model->params.n_embd * sizeof(*t.hidden));
	if (!t.hidden)
		return error_set(err, -ENOMEM, "out of memory");
	for (uint32_t at = 0, m; !rc && at < n; at += m) {
		m = n - at < ENGINE_BATCH ? n - at : ENGINE_BATCH;
		rc = walk(from, theirs, tokens + at, m, read_hidden, &t, err);
		/* From layer 0 on the tokens' own embedding is what the run begins with. */
		if (!rc && run.first < run.end && !run.first)
			rc = engine_forward(to, own, tokens + at, m, NULL, 0, err);
		else if (!rc && run.first < run.end)
			rc = walk(to, own, tokens + at, m, put_hidden, &t, err);
	}
	free(t.hidden);
	return rc;
}

static void splice(const struct kv_geometry *g, uint32_t n_stripes, struct splice_run run,
		   const uint8_t *theirs, const uint8_t *own, uint8_t *out)
{
	const size_t stripe = kv_stripe_bytes(g, KV_LEVEL_F16);
	const size_t block = kv_block_bytes(g, KV_LEVEL_F16);

	memcpy(out, theirs, n_stripes * stripe);
	for (uint32_t s = 0; s < n_stripes; s++)
		memcpy(out + s * stripe + run.first * block, own + s * stripe + run.first * block,
		       (run.end - run.first) * block);
}

int splice_make(struct engine *from, struct engine *to, const int32_t *tokens, uint32_t n,
		struct splice_run run, uint8_t *out, struct lslm_error *err)
{
	struct sequence *theirs = NULL, *own = NULL;
	int rc = 0;

	n -= n % KV_BLOCK_TOKENS;
	if (!n)
		return 0;
	rc = sequence_create(&theirs, &from->geo, n, err);
	if (!rc)
		rc = sequence_create(&own, &to->geo, n, err);
	if (!rc)
		rc = run_both(from, to, tokens, n, run, theirs, own, err);
	if (!rc)
		splice(&to->geo, n / KV_BLOCK_TOKENS, run, theirs->memory, own->memory, out);
	sequence_destroy(theirs);
	sequence_destroy(own);
	return rc;
}

uint32_t splice_bytes(const struct engine *to, struct splice_run run)
{
	const struct kv_geometry *g = &to->geo;
	const uint32_t layer = 2 * g->n_head_kv * g->head_dim * (uint32_t)sizeof(uint16_t);
	const uint32_t hidden = to->model->params.n_embd * (uint32_t)sizeof(uint16_t);

	return (g->n_layer - (run.end - run.first)) * layer +
	       (run.first && run.first < run.end ? hidden : 0);
}
