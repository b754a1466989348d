// SPDX-License-Identifier: MIT
/*
 * One forward pass, in reading order: embed; per layer norm, q k v, RoPE, attention over
 * segments, output, residual, norm, gated feed-forward, residual; norm, logits.
 * Shapes: m rows of n_embd, part after part; heads of head_dim.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

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
	const struct engine_part *parts;
	uint32_t n_parts;
	uint32_t m; /* rows of all; a walk drops some on its way */
	uint16_t part[ENGINE_BATCH]; /* of each row */
	uint16_t first[ENGINE_BATCH]; /* row of each part */
	uint32_t (*end)(void *arg, uint32_t layer); /* of a walk, which has one part; else NULL */
	void *arg;
	const struct kv_run *run; /* of a pass over these layers alone; else NULL */
	const uint16_t *hidden; /* with which it begins */
	uint32_t layer;
	const float *norm; /* weights of the next one */
	struct attention_member *members; /* [n_parts] */
	struct attention_segment *segments; /* of all of them */
	uint32_t failed; /* part */
};

/* Rows per pool item of what is done row by row. */
enum { ROWS = 8 };

static void multiply(struct pass *f, const struct matmul *jobs, unsigned int n, const float *x,
		     void (*make)(void *arg, uint32_t first, uint32_t n_rows))
{
	const struct matmul_rows rows = { .x = x, .m = f->m, .make = make, .arg = f };
	struct engine_spent *spent = &f->e->spent;
	const double start = clock_seconds();

	matmul_run(f->e->pool, jobs, n, &rows, &f->e->area);
	spent->products += clock_seconds() - start;
	for (unsigned int i = 0; i < n; i++)
		spent->operations += 2.0 * f->m * (double)jobs[i].w->n_in *
				     (double)jobs[i].w->n_out * (jobs[i].up ? 2 : 1);
}

static int32_t token_of(const struct pass *f, uint32_t row)
{
	const uint32_t part = f->part[row];

	return f->parts[part].tokens[row - f->first[part]];
}

static void embed(struct pass *f)
{
	const struct gguf_tensor *t = f->e->model->embd;
	const size_t row = gguf_row_bytes(t->type, t->ne[0]);

	if (f->run && f->run->hidden) {
		f16_row_to_f32(f->hidden, f->e->x, (size_t)f->m * f->p->n_embd);
		return;
	}

	/* All at once: behind a loader that keeps the disk busy, each would wait for its turn. */
	for (uint32_t i = 0; f->m > 1 && i < f->m; i++)
		gguf_will_read(f->e->model->gguf,
			       (const char *)t->data + (size_t)token_of(f, i) * row, row);
	for (uint32_t i = 0; i < f->m; i++)
		quant_dequantize(t->type, (const char *)t->data + (size_t)token_of(f, i) * row,
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
	for (uint32_t i = 0; i < f->m; i++) {
		const uint32_t part = f->part[i];

		ops_rope_angles(f->e->angles + (size_t)i * f->p->rope_dims,
				sequence_len(f->parts[part].seq) + i - f->first[part],
				f->p->rope_dims, f->p->rope_base, f->p->rope_scale,
				f->e->model->rope_factors);
	}
}

static void add_bias(float *y, const float *bias, size_t n)
{
	if (bias)
		ops_add(y, bias, n);
}

/* Biases and positions of one row of q, k and v; k and v go to its sequence's private segment. */
static void finish_row(struct pass *f, uint32_t i)
{
	const uint32_t part = f->part[i];
	struct sequence *seq = f->parts[part].seq;
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
	sequence_store(seq, f->layer, seq->own.n_tokens + i - f->first[part], k, v);
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

/*
 * Of contexts, blocks of f16 are rounded in products, whoever made them and however many ask, so that an answer depends on
 * neither.
 */
static enum attention_format format_of(const struct segment *s, enum kv_level level)
{
	static const enum attention_format formats[KV_LEVELS] = {
		[KV_LEVEL_F16] = ATTENTION_F16,
		[KV_LEVEL_Q8] = ATTENTION_Q8,
		[KV_LEVEL_Q4] = ATTENTION_Q4,
	};

	return level == KV_LEVEL_F16 && s->rounded ? ATTENTION_ROUNDED : formats[level];
}

/* One of the layers that are not among the segment's own. */
static struct attention_segment layer_of_run(const struct segment *s, uint32_t l)
{
	const struct segment_run *run = s->run;
	const uint32_t stripe = s->first / KV_BLOCK_TOKENS;

	return (struct attention_segment){
		.format = format_of(s, KV_LEVEL_F16),
		.base = run->base + stripe * run->stripe +
			(l - run->layers.first) * kv_block_bytes(&run->geo, KV_LEVEL_F16),
		.stride = run->stripe,
		.value_offset = kv_half_bytes(&run->geo, KV_LEVEL_F16),
		.first = s->first,
		.n_tokens = s->n_tokens,
	};
}

static size_t offset_of(const struct sequence *q, const struct segment *s, uint32_t l)
{
	if (s->run)
		return kv_unit_offset(&s->run->geo, s->level, kv_run_block(&s->run->layers, l));
	return (l - q->first_layer) * kv_block_bytes(&q->geo, s->level);
}

static struct attention_segment layer_of(const struct sequence *q, const struct segment *s,
					 uint32_t l)
{
	const struct kv_geometry *g = &q->geo;
	size_t offset;

	if (s->run && kv_run_has(&s->run->layers, l))
		return layer_of_run(s, l);
	offset = offset_of(q, s, l);
	return (struct attention_segment){
		.format = format_of(s, s->level),
		.base = s->blocks ? NULL : s->base + offset,
		.stride = s->pitch ? s->pitch : kv_stripe_bytes(g, s->level),
		.blocks = s->blocks,
		.blocks_offset = offset,
		.value_offset = kv_half_bytes(g, s->level),
		.first = s->first,
		.n_tokens = s->n_tokens,
	};
}

/* The member of a part; its segments begin at *segment. */
static struct attention_member member(const struct pass *f, uint32_t part, uint32_t l,
				      struct attention_segment *segment)
{
	const struct sequence *s = f->parts[part].seq;
	const uint32_t m = f->end ? f->m : f->parts[part].n;

	for (uint32_t k = 0; k < s->n_segments; k++)
		segment[k] = layer_of(s, &s->segments[k], l);
	segment[s->n_segments] = layer_of(s, &s->own, l);
	/* The tokens of this pass are stored but not yet counted. */
	segment[s->n_segments].n_tokens += m;
	return (struct attention_member){
		.segments = segment,
		.n_segments = s->n_segments + 1,
		.m = m,
		.pos = sequence_len(s),
	};
}

static void attend(struct pass *f, uint32_t l)
{
	struct attention_segment *segment = f->segments;
	const struct attention a = {
		.members = f->members,
		.n_members = f->n_parts,
		.n_head = f->p->n_head,
		.n_head_kv = f->p->n_head_kv,
		.head_dim = f->p->head_dim,
		.q = f->e->q,
		.out = f->e->att,
		.partials = f->e->partials,
		.apart = f->e->attend_apart,
	};
	const double start = clock_seconds();

	for (uint32_t i = 0; i < f->n_parts; i++) {
		f->members[i] = member(f, i, l, segment);
		segment += f->members[i].n_segments;
	}
	attention_run(f->e->pool, &a, f->e->area.scratch, f->e->area.scratch_len);
	f->e->spent.attention += clock_seconds() - start;
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
	const uint32_t end = f->end(f->arg, layer), pos = sequence_len(f->parts->seq);

	if (end < (uint64_t)pos + f->m)
		f->m = end > pos ? end - pos : 0;
}

static int layers(struct pass *f, struct lslm_error *err)
{
	const uint32_t end = f->run ? f->run->end : f->p->n_layer;

	for (uint32_t l = f->run ? f->run->first : 0; l < end; l++) {
		int rc;

		if (f->end)
			drop_rows(f, l);
		if (!f->m)
			return 0;
		rc = matrices_need(f->e->matrices, l, err);
		if (rc)
			return rc;
		project(f, l);
		/* Nobody attends to more than its keys and values. */
		if (f->run && l + 1 == end)
			return 0;
		rc = gate_layer(f->parts, f->n_parts, l, &f->failed, err);
		if (rc)
			return rc;
		attend(f, l);
		attend_output(f, l);
		feed_forward(f, l);
	}
	return 0;
}

/* Rows that logits are wanted of, moved together to the front of the residual stream: how many. */
static uint32_t gather(struct pass *f)
{
	const size_t width = f->p->n_embd;
	uint32_t n = 0;

	for (uint32_t i = 0; i < f->n_parts; i++)
		for (uint32_t k = f->parts[i].n - f->parts[i].rows; k < f->parts[i].n; k++, n++)
			if (f->first[i] + k != n)
				memcpy(f->e->x + n * width, f->e->x + (f->first[i] + k) * width,
				       width * sizeof(float));
	return n;
}

static int head(struct pass *f, float *logits, struct lslm_error *err)
{
	const struct matmul out = { matrices_output(f->e->matrices), logits };
	int rc = matrices_need(f->e->matrices, f->p->n_layer, err);

	if (rc)
		return rc;
	f->m = gather(f);
	f->norm = f->e->model->output_norm;
	multiply(f, &out, 1, f->e->h, norm_rows);
	return 0;
}

static int check_part(const struct pass *f, const struct engine_part *p, struct lslm_error *err)
{
	if (p->n == 0 || p->n > ENGINE_BATCH - f->m)
		return error_set(err, -EINVAL, "a pass of %u tokens: 1..%d are possible",
				 f->m + p->n, ENGINE_BATCH);
	for (uint32_t i = 0; i < p->n; i++)
		if (p->tokens[i] < 0 || (uint32_t)p->tokens[i] >= f->p->n_vocab)
			return error_set(err, -EINVAL, "token %d is outside the vocabulary of %u",
					 p->tokens[i], f->p->n_vocab);
	if (p->seq->own.n_tokens + p->n > p->seq->capacity)
		return error_set(err, -ENOSPC, "the sequence is full at %u tokens",
				 sequence_len(p->seq));
	return 0;
}

/* Which rows are whose. */
static int lay_out(struct pass *f, struct lslm_error *err)
{
	size_t n_segments = 0;

	for (uint32_t i = 0; i < f->n_parts; i++) {
		const struct engine_part *p = &f->parts[i];
		int rc = check_part(f, p, err);

		if (rc) {
			f->failed = i;
			return rc;
		}
		f->first[i] = (uint16_t)f->m;
		for (uint32_t k = 0; k < p->n; k++)
			f->part[f->m++] = (uint16_t)i;
		n_segments += p->seq->n_segments + 1;
	}
	f->failed = f->n_parts;
	f->segments = malloc(n_segments * sizeof(*f->segments));
	f->members = malloc(f->n_parts * sizeof(*f->members));
	return f->segments && f->members ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int pass(struct pass *f, float *logits, struct lslm_error *err)
{
	int rc = matrices_begin(f->e->matrices, err);

	if (!rc)
		rc = gate_enter(f->parts, f->n_parts, &f->failed, err);
	if (rc)
		return rc;
	embed(f);
	angles(f);
	rc = layers(f, err);
	gate_leave(f->parts, f->n_parts);
	if (!rc && logits)
		rc = head(f, logits, err);
	return rc;
}

/* Store the KV of the parts' tokens; they are counted by the caller. */
static int forward(struct pass *f, float *logits, struct lslm_error *err)
{
	const double start = clock_seconds();
	int rc = lay_out(f, err);

	if (!rc)
		rc = pass(f, logits, err);
	free(f->segments);
	free(f->members);
	f->e->spent.seconds += clock_seconds() - start;
	return rc;
}

int engine_pass(struct engine *e, const struct engine_part *parts, uint32_t n_parts, float *logits,
		uint32_t *failed, struct lslm_error *err)
{
	struct pass f = {
		.e = e,
		.p = &e->model->params,
		.parts = parts,
		.n_parts = n_parts,
	};
	int rc = forward(&f, logits, err);

	for (uint32_t i = 0; !rc && i < n_parts; i++)
		parts[i].seq->own.n_tokens += parts[i].n;
	if (rc && failed)
		*failed = f.failed;
	return rc;
}

int engine_forward(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t n,
		   float *logits, int all_logits, struct lslm_error *err)
{
	const struct engine_part part = {
		.seq = seq,
		.tokens = tokens,
		.n = n,
		.rows = !logits	   ? 0 :
			all_logits ? n :
				     1,
	};

	return engine_pass(e, &part, 1, logits, NULL, err);
}

int engine_feed(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t n,
		struct lslm_error *err)
{
	int rc = 0;

	for (uint32_t at = 0, m; !rc && at < n; at += m) {
		m = n - at < ENGINE_BATCH ? n - at : ENGINE_BATCH;
		rc = engine_forward(e, seq, tokens + at, m, NULL, 0, err);
	}
	return rc;
}

int engine_walk(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t *n,
		uint32_t (*end)(void *arg, uint32_t layer), void *arg, struct lslm_error *err)
{
	const struct engine_part part = { .seq = seq, .tokens = tokens, .n = *n };
	struct pass f = {
		.e = e,
		.p = &e->model->params,
		.parts = &part,
		.n_parts = 1,
		.end = end,
		.arg = arg,
	};
	int rc = forward(&f, NULL, err);

	*n = rc ? 0 : f.m;
	seq->own.n_tokens += *n;
	return rc;
}

int engine_run(struct engine *e, struct sequence *seq, const struct kv_run *run,
	       const int32_t *tokens, const uint16_t *hidden, uint32_t n, struct lslm_error *err)
{
	const struct engine_part part = { .seq = seq, .tokens = tokens, .n = n };
	struct pass f = {
		.e = e,
		.p = &e->model->params,
		.parts = &part,
		.n_parts = 1,
		.run = run,
		.hidden = hidden,
	};
	int rc = forward(&f, NULL, err);

	if (!rc)
		seq->own.n_tokens += n;
	return rc;
}
