// SPDX-License-Identifier: MIT
#include "compute/attention.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/clones.h"
#include "compute/quant.h"

/* Tokens of one tile; a tile has ATTENTION_TILE * (n_head / n_head_kv) rows. */
enum { ATTENTION_TILE = 16 };
/* From this many rows a block's products are worth a library call. */
enum { GEMM_ROWS = 8 };

/*
 * Scratch of one tile with r rows: q [r][d] scaled, acc [r][d] and seg [r][d] results,
 * k and v [BLOCK][d] as floats, p [r][BLOCK] scores, and four vectors of r.
 */
struct tile {
	const struct attention *a;
	uint32_t kv_head;
	uint32_t group; /* query heads per key/value head */
	uint32_t token; /* first query of the tile */
	uint32_t n_tokens;
	uint32_t rows; /* n_tokens * group; row = token * group + head in group */
	float *q, *acc, *seg, *k, *v, *p;
	float *acc_lse, *seg_lse, *max, *sum;
};

static uint32_t tile_rows(uint32_t n_head, uint32_t n_head_kv)
{
	return ATTENTION_TILE * (n_head / n_head_kv);
}

size_t attention_scratch(uint32_t n_head, uint32_t n_head_kv, uint32_t head_dim)
{
	const size_t rows = tile_rows(n_head, n_head_kv);

	return 3 * rows * head_dim + 2 * (size_t)ATTENTION_BLOCK * head_dim +
	       rows * ATTENTION_BLOCK + 4 * rows;
}

static void tile_layout(struct tile *t, float *scratch)
{
	const size_t d = t->a->head_dim, rows = tile_rows(t->a->n_head, t->a->n_head_kv);

	t->q = scratch;
	t->acc = t->q + rows * d;
	t->seg = t->acc + rows * d;
	t->k = t->seg + rows * d;
	t->v = t->k + ATTENTION_BLOCK * d;
	t->p = t->v + ATTENTION_BLOCK * d;
	t->acc_lse = t->p + rows * ATTENTION_BLOCK;
	t->seg_lse = t->acc_lse + rows;
	t->max = t->seg_lse + rows;
	t->sum = t->max + rows;
}

static const float *query(const struct tile *t, uint32_t row)
{
	const struct attention *a = t->a;
	const uint32_t token = t->token + row / t->group;
	const uint32_t head = t->kv_head * t->group + row % t->group;

	return a->q + ((size_t)token * a->n_head + head) * a->head_dim;
}

CLONES_FAST
static float dot(const float *a, const float *b, uint32_t n)
{
	float sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

CLONES_FAST
static void axpy(float *y, float a, const float *x, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		y[i] += a * x[i];
}

/* p = q k^T for n keys of the block. */
static void scores(const struct tile *t, uint32_t n)
{
	const uint32_t d = t->a->head_dim;

	if (t->rows >= GEMM_ROWS) {
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)t->rows, (blasint)n,
			    (blasint)d, 1.0f, t->q, (blasint)d, t->k, (blasint)d, 0.0f, t->p,
			    ATTENTION_BLOCK);
		return;
	}
	for (uint32_t r = 0; r < t->rows; r++)
		for (uint32_t j = 0; j < n; j++)
			t->p[r * ATTENTION_BLOCK + j] = dot(t->q + r * d, t->k + j * d, d);
}

/* seg += p v for n values of the block. */
static void accumulate(const struct tile *t, uint32_t n)
{
	const uint32_t d = t->a->head_dim;

	if (t->rows >= GEMM_ROWS) {
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)t->rows, (blasint)d,
			    (blasint)n, 1.0f, t->p, ATTENTION_BLOCK, t->v, (blasint)d, 1.0f, t->seg,
			    (blasint)d);
		return;
	}
	for (uint32_t r = 0; r < t->rows; r++)
		for (uint32_t j = 0; j < n; j++)
			axpy(t->seg + r * d, t->p[r * ATTENTION_BLOCK + j], t->v + j * d, d);
}

/*
 * Turn a row's first n scores into weights relative to the running maximum; the rest, which
 * the query must not see, become 0. Keeps max, sum and seg consistent (online softmax,
 * Milakov and Gimelshein 2018).
 */
static void weigh_row(const struct tile *t, uint32_t r, uint32_t n, uint32_t n_block)
{
	const uint32_t d = t->a->head_dim;
	float *p = t->p + r * ATTENTION_BLOCK;
	float max = t->max[r], sum = 0;

	for (uint32_t j = 0; j < n; j++)
		max = p[j] > max ? p[j] : max;
	if (max > t->max[r]) {
		const float shrink = expf(t->max[r] - max); /* exp(-inf) = 0 the first time */

		t->max[r] = max;
		t->sum[r] *= shrink;
		for (uint32_t i = 0; i < d; i++)
			t->seg[r * d + i] *= shrink;
	}
	for (uint32_t j = 0; j < n; j++) {
		p[j] = expf(p[j] - max);
		sum += p[j];
	}
	for (uint32_t j = n; j < n_block; j++)
		p[j] = 0;
	t->sum[r] += sum;
}

static void block(const struct tile *t, const struct attention_segment *s, uint32_t b)
{
	const uint32_t d = t->a->head_dim, start = b * ATTENTION_BLOCK;
	const uint32_t n = s->n_tokens - start < ATTENTION_BLOCK ? s->n_tokens - start :
								   ATTENTION_BLOCK;
	const uint8_t *at = s->base + b * s->stride +
			    (size_t)t->kv_head * ATTENTION_BLOCK * d * sizeof(uint16_t);

	f16_row_to_f32((const uint16_t *)at, t->k, (size_t)n * d);
	f16_row_to_f32((const uint16_t *)(at + s->value_offset), t->v, (size_t)n * d);
	scores(t, n);
	for (uint32_t r = 0; r < t->rows; r++) {
		/* Positions first + start + j <= pos of the query are visible. */
		const int64_t visible =
			(int64_t)t->a->pos + t->token + r / t->group + 1 - s->first - start;

		weigh_row(t, r, visible < 0 ? 0 : visible < n ? (uint32_t)visible : n, n);
	}
	accumulate(t, n);
}

/* seg, seg_lse = attention of the tile over one segment. */
static void segment(const struct tile *t, const struct attention_segment *s)
{
	const uint32_t d = t->a->head_dim;
	const uint32_t last = t->a->pos + t->token + t->n_tokens - 1;

	memset(t->seg, 0, sizeof(float) * t->rows * d);
	for (uint32_t r = 0; r < t->rows; r++) {
		t->max[r] = -INFINITY;
		t->sum[r] = 0;
	}
	for (uint32_t b = 0; b * ATTENTION_BLOCK < s->n_tokens; b++) {
		if (s->first + b * ATTENTION_BLOCK > last)
			break;
		block(t, s, b);
	}
	for (uint32_t r = 0; r < t->rows; r++) {
		t->seg_lse[r] = t->sum[r] > 0 ? t->max[r] + logf(t->sum[r]) : -INFINITY;
		for (uint32_t i = 0; t->sum[r] > 0 && i < d; i++)
			t->seg[r * d + i] /= t->sum[r];
	}
}

void attention_merge(float *out, float *lse, const float *other, const float *other_lse,
		     uint32_t rows, uint32_t head_dim)
{
	for (uint32_t r = 0; r < rows; r++, out += head_dim, other += head_dim) {
		const float max = lse[r] > other_lse[r] ? lse[r] : other_lse[r];
		float a, b, sum;

		if (max == -INFINITY)
			continue;
		a = expf(lse[r] - max);
		b = expf(other_lse[r] - max);
		sum = a + b;
		a /= sum;
		b /= sum;
		for (uint32_t i = 0; i < head_dim; i++)
			out[i] = a * out[i] + b * other[i];
		lse[r] = max + logf(sum);
	}
}

struct run {
	const struct attention *a;
	float *scratch;
	size_t scratch_len;
	uint32_t n_tiles;
};

static void tile_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct run *run = arg;
	const struct attention *a = run->a;
	const uint32_t d = a->head_dim;
	const float scale = 1.0f / sqrtf((float)d);
	struct tile t = {
		.a = a,
		.kv_head = item / run->n_tiles,
		.group = a->n_head / a->n_head_kv,
		.token = item % run->n_tiles * ATTENTION_TILE,
	};

	t.n_tokens = a->m - t.token < ATTENTION_TILE ? a->m - t.token : ATTENTION_TILE;
	t.rows = t.n_tokens * t.group;
	tile_layout(&t, run->scratch + thread * run->scratch_len);
	for (uint32_t r = 0; r < t.rows; r++) {
		const float *q = query(&t, r);

		for (uint32_t i = 0; i < d; i++)
			t.q[r * d + i] = q[i] * scale;
		t.acc_lse[r] = -INFINITY;
	}
	memset(t.acc, 0, sizeof(float) * t.rows * d);
	for (uint32_t s = 0; s < a->n_segments; s++) {
		if (a->segments[s].n_tokens == 0)
			continue;
		segment(&t, &a->segments[s]);
		attention_merge(t.acc, t.acc_lse, t.seg, t.seg_lse, t.rows, d);
	}
	for (uint32_t r = 0; r < t.rows; r++)
		memcpy(a->out + (query(&t, r) - a->q), t.acc + r * d, d * sizeof(float));
}

void attention_run(struct pool *pool, const struct attention *a, float *scratch, size_t scratch_len)
{
	struct run run = {
		.a = a,
		.scratch = scratch,
		.scratch_len = scratch_len,
		.n_tiles = (a->m + ATTENTION_TILE - 1) / ATTENTION_TILE,
	};

	pool_run(pool, run.n_tiles * a->n_head_kv, tile_item, &run);
}
