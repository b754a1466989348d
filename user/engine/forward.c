// SPDX-License-Identifier: MIT
/*
 * One forward pass, in reading order: embed; per layer norm, q k v, RoPE, attention over
 * segments, output, residual, norm, gated feed-forward, residual; norm, logits.
 * Shapes: m rows of n_embd, heads of head_dim.
 */
#include <errno.h>
#include <string.h>

#include "compute/attention.h"
#include "compute/matmul.h"
#include "compute/ops.h"
#include "compute/quant.h"
#include "engine/engine.h"
#include "engine/gate.h"
#include "engine/sequence.h"

struct pass {
	struct engine *e;
	const struct model_params *p;
	struct sequence *seq;
	uint32_t m; /* tokens; a walk drops some on its way */
	uint32_t pos; /* position of the first */
	uint32_t (*end)(void *arg, uint32_t layer); /* of a walk; else NULL */
	void *arg;
	uint32_t layer;
	const float *norm; /* weights of the next one */
	struct attention_segment segments[SEQUENCE_MAX_SEGMENTS + 1];
};

/* Rows per pool item of what is done row by row. */
enum { ROWS = 8 };

static void multiply(struct pass *f, const struct matmul *jobs, unsigned int n, const float *x,
		     void (*make)(void *arg, uint32_t first, uint32_t n_rows))
{
	const struct matmul_rows rows = { .x = x, .m = f->m, .make = make, .arg = f };

	matmul_run(f->e->pool, jobs, n, &rows, &f->e->area);
}

static void embed(struct pass *f, const int32_t *tokens)
{
	const struct gguf_tensor *t = f->e->model->embd;
	const size_t row = gguf_row_bytes(t->type, t->ne[0]);

	/* All at once: behind a loader that keeps the disk busy, each would wait for its turn. */
	for (uint32_t i = 0; f->m > 1 && i < f->m; i++)
		gguf_will_read(f->e->model->gguf, (const char *)t->data + (size_t)tokens[i] * row,
			       row);
	for (uint32_t i = 0; i < f->m; i++)
		quant_dequantize(t->type, (const char *)t->data + (size_t)tokens[i] * row,
				 f->e->x + (size_t)i * f->p->n_embd, f->p->n_embd);
}

/* h = the normed residual stream, for rows first .. first + n. */
static void norm_rows(void *arg, uint32_t first, uint32_t n)
{
	const struct pass *f = arg;
	const size_t width = f->p->n_embd;

	for (uint32_t i = first; i < first + n; i++)
		ops_rms_norm(f->e->h + i * width, f->e->x + i * width, f->norm, width,
			     f->p->norm_eps);
}

/* Norm (qwen3) and RoPE on every head of one row of q or k. */
static void turn_heads(struct pass *f, float *row, uint32_t n_head, const float *norm,
		       const float *angles)
{
	const uint32_t d = f->p->head_dim;

	for (uint32_t h = 0; h < n_head; h++) {
		float *head = row + (size_t)h * d;

		if (norm)
			ops_rms_norm(head, head, norm, d, f->p->norm_eps);
		ops_rope_turn(head, angles, f->p->rope_dims, f->p->rope_layout == ROPE_HALVES);
	}
}

static void angles(struct pass *f)
{
	for (uint32_t i = 0; i < f->m; i++)
		ops_rope_angles(f->e->angles + (size_t)i * f->p->rope_dims, f->pos + i,
				f->p->rope_dims, f->p->rope_base, f->p->rope_scale,
				f->e->model->rope_factors);
}

static void add_bias(float *y, const float *bias, size_t n)
{
	if (bias)
		ops_add(y, bias, n);
}

/* Biases and positions of one row of q, k and v; k and v go to the private segment. */
static void finish_row(struct pass *f, uint32_t i)
{
	const struct model_layer *y = &f->e->model->layers[f->layer];
	const size_t nq = (size_t)f->p->n_head * f->p->head_dim;
	const size_t nkv = (size_t)f->p->n_head_kv * f->p->head_dim;
	const float *angles = f->e->angles + (size_t)i * f->p->rope_dims;
	float *q = f->e->q + i * nq, *k = f->e->k + i * nkv, *v = f->e->v + i * nkv;

	add_bias(q, y->bq, nq);
	add_bias(k, y->bk, nkv);
	add_bias(v, y->bv, nkv);
	turn_heads(f, q, f->p->n_head, y->q_norm, angles);
	turn_heads(f, k, f->p->n_head_kv, y->k_norm, angles);
	sequence_store(f->seq, f->layer, f->seq->own.n_tokens + i, k, v);
}

static void finish_item(void *arg, uint32_t item, unsigned int thread)
{
	struct pass *f = arg;
	const uint32_t end = (item + 1) * ROWS < f->m ? (item + 1) * ROWS : f->m;

	for (uint32_t i = item * ROWS; i < end; i++)
		finish_row(f, i);
}

/* q, k, v of all rows. */
static void project(struct pass *f, uint32_t l)
{
	struct engine *e = f->e;
	const struct matrices_layer *w = &e->layers[l];
	const struct matmul qkv[] = { { &w->wq, e->q }, { &w->wk, e->k }, { &w->wv, e->v } };

	f->layer = l;
	f->norm = e->model->layers[l].attn_norm;
	multiply(f, qkv, 3, e->h, norm_rows);
	if (f->m <= ROWS)
		finish_item(f, 0, 0);
	else
		pool_run(e->pool, (f->m + ROWS - 1) / ROWS, finish_item, f);
}

static struct attention_segment layer_of(const struct pass *f, const struct segment *s, uint32_t l)
{
	const struct kv_geometry *g = &f->seq->geo;

	return (struct attention_segment){
		.base = s->base + (size_t)l * kv_block_bytes(g, KV_LEVEL_F16),
		.stride = kv_stripe_bytes(g, KV_LEVEL_F16),
		.value_offset = kv_half_bytes(g, KV_LEVEL_F16),
		.first = s->first,
		.n_tokens = s->n_tokens,
	};
}

static void attend(struct pass *f, uint32_t l)
{
	struct sequence *s = f->seq;
	const struct attention_member member = {
		.segments = f->segments,
		.n_segments = s->n_segments + 1,
		.m = f->m,
		.pos = f->pos,
	};
	const struct attention a = {
		.members = &member,
		.n_members = 1,
		.n_head = f->p->n_head,
		.n_head_kv = f->p->n_head_kv,
		.head_dim = f->p->head_dim,
		.q = f->e->q,
		.out = f->e->att,
		.partials = f->e->partials,
	};

	for (uint32_t i = 0; i < s->n_segments; i++)
		f->segments[i] = layer_of(f, &s->segments[i], l);
	f->segments[s->n_segments] = layer_of(f, &s->own, l);
	/* The tokens of this pass are stored but not yet counted. */
	f->segments[s->n_segments].n_tokens += f->m;
	attention_run(f->e->pool, &a, f->e->area.scratch, f->e->area.scratch_len);
}

/* x += the attention's output */
static void attend_output(struct pass *f, uint32_t l)
{
	const struct matmul out = { &f->e->layers[l].wo, f->e->x, MATMUL_ADD };

	multiply(f, &out, 1, f->e->att, NULL);
}

/* x += down(silu(gate(h)) * up(h)) */
static void feed_forward(struct pass *f, uint32_t l)
{
	struct engine *e = f->e;
	const struct matrices_layer *w = &e->layers[l];
	const struct matmul both = { &w->gate, e->gate, MATMUL_SWIGLU, &w->up, e->up };
	const struct matmul down = { &w->down, e->x, MATMUL_ADD };

	f->norm = e->model->layers[l].ffn_norm;
	multiply(f, &both, 1, e->h, norm_rows);
	multiply(f, &down, 1, e->gate, NULL);
}

/*
 * Rows that have arrived meanwhile are dropped: they are the last ones, so no row that is left
 * attends to them.
 */
static void drop_rows(struct pass *f, uint32_t layer)
{
	const uint32_t end = f->end(f->arg, layer);

	if (end < (uint64_t)f->pos + f->m)
		f->m = end > f->pos ? end - f->pos : 0;
}

static int layers(struct pass *f, struct lslm_error *err)
{
	for (uint32_t l = 0; l < f->p->n_layer; l++) {
		int rc;

		if (f->end)
			drop_rows(f, l);
		if (!f->m)
			return 0;
		rc = matrices_need(f->e->matrices, l, err);
		if (rc)
			return rc;
		project(f, l);
		rc = gate_layer(f->seq, l, err);
		if (rc)
			return rc;
		attend(f, l);
		attend_output(f, l);
		feed_forward(f, l);
	}
	return 0;
}

static int head(struct pass *f, float *logits, int all, struct lslm_error *err)
{
	const struct matmul out = { matrices_output(f->e->matrices), logits };
	int rc = matrices_need(f->e->matrices, f->p->n_layer, err);

	if (rc)
		return rc;
	if (!all && f->m > 1) {
		memmove(f->e->x, f->e->x + (size_t)(f->m - 1) * f->p->n_embd,
			f->p->n_embd * sizeof(float));
		f->m = 1;
	}
	f->norm = f->e->model->output_norm;
	multiply(f, &out, 1, f->e->h, norm_rows);
	return 0;
}

static int check(const struct pass *f, const int32_t *tokens, struct lslm_error *err)
{
	if (f->m == 0 || f->m > ENGINE_BATCH)
		return error_set(err, -EINVAL, "a pass of %u tokens: 1..%d are possible", f->m,
				 ENGINE_BATCH);
	for (uint32_t i = 0; i < f->m; i++)
		if (tokens[i] < 0 || (uint32_t)tokens[i] >= f->p->n_vocab)
			return error_set(err, -EINVAL, "token %d is outside the vocabulary of %u",
					 tokens[i], f->p->n_vocab);
	if (f->seq->own.n_tokens + f->m > f->seq->capacity)
		return error_set(err, -ENOSPC, "the sequence is full at %u tokens",
				 sequence_len(f->seq));
	return 0;
}

/* Store the KV of f->m tokens. They are counted, as far as none was dropped. */
static int run(struct pass *f, const int32_t *tokens, struct lslm_error *err)
{
	int rc = check(f, tokens, err);

	if (!rc)
		rc = matrices_begin(f->e->matrices, err);
	if (!rc)
		rc = gate_enter(f->seq, err);
	if (rc)
		return rc;
	embed(f, tokens);
	angles(f);
	rc = layers(f, err);
	gate_leave(f->seq);
	if (!rc)
		f->seq->own.n_tokens += f->m;
	return rc;
}

int engine_forward(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t n,
		   float *logits, int all_logits, struct lslm_error *err)
{
	struct pass f = {
		.e = e,
		.p = &e->model->params,
		.seq = seq,
		.m = n,
		.pos = sequence_len(seq),
	};
	int rc = run(&f, tokens, err);

	if (rc || !logits)
		return rc;
	rc = head(&f, logits, all_logits, err);
	if (rc)
		seq->own.n_tokens -= n;
	return rc;
}

int engine_walk(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t *n,
		uint32_t (*end)(void *arg, uint32_t layer), void *arg, struct lslm_error *err)
{
	struct pass f = {
		.e = e,
		.p = &e->model->params,
		.seq = seq,
		.m = *n,
		.pos = sequence_len(seq),
		.end = end,
		.arg = arg,
	};
	int rc = run(&f, tokens, err);

	*n = rc ? 0 : f.m;
	return rc;
}
