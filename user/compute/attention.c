// SPDX-License-Identifier: MIT
#include "compute/attention.h"

#include <math.h>
#include <string.h>

#include "compute/kvtile.h"
#include "compute/quant.h"

/* Tokens of one tile; a tile has ATTENTION_TILE * (n_head / n_head_kv) rows. */
enum { ATTENTION_TILE = 16, HEADS = ATTENTION_TILE };
/* One query's keys are shared out in so many parts at most, of at least so many blocks. */
enum { PARTS = 16, PART_BLOCKS = 4 };

_Static_assert((int)ATTENTION_BLOCK == (int)KVTILE_TOKENS, "a block is a block");

/*
 * Scratch of one tile with r rows: q [r][d] scaled, acc [r][width] results, kt [d][BLOCK] keys, column by
 * column, v [BLOCK][width] values, p [r][BLOCK] scores, and two vectors of r. width is d, rounded up to
 * whole vectors.
 */
struct tile {
	const struct attention *a;
	const struct attention_member *member;
	const float *queries; /* the member's */
	uint32_t kv_head;
	uint32_t group; /* query heads per key/value head */
	uint32_t token; /* first query of the tile */
	uint32_t n_tokens;
	uint32_t rows; /* n_tokens * group; row = token * group + head in group */
	uint32_t width;
	float *q, *acc, *kt, *v, *p;
	float *max, *sum;
};

static uint32_t tile_rows(uint32_t n_head, uint32_t n_head_kv)
{
	return ATTENTION_TILE * (n_head / n_head_kv);
}

static size_t padded(size_t n)
{
	return (n + KVTILE_LANES - 1) & ~(size_t)(KVTILE_LANES - 1);
}

size_t attention_scratch(uint32_t n_head, uint32_t n_head_kv, uint32_t head_dim)
{
	const size_t rows = tile_rows(n_head, n_head_kv), width = padded(head_dim);

	return padded(rows * head_dim) + rows * width + 2 * ATTENTION_BLOCK * width +
	       rows * ATTENTION_BLOCK + 2 * padded(rows);
}

size_t attention_partials(uint32_t n_head, uint32_t head_dim)
{
	return (size_t)PARTS * n_head * (head_dim + 1);
}

static void tile_layout(struct tile *t, float *scratch)
{
	const size_t d = t->a->head_dim, rows = tile_rows(t->a->n_head, t->a->n_head_kv);

	t->width = (uint32_t)padded(d);
	t->q = scratch;
	t->acc = t->q + padded(rows * d);
	t->kt = t->acc + rows * t->width;
	t->v = t->kt + (size_t)ATTENTION_BLOCK * t->width;
	t->p = t->v + (size_t)ATTENTION_BLOCK * t->width;
	t->max = t->p + rows * ATTENTION_BLOCK;
	t->sum = t->max + padded(rows);
}

static const float *query(const struct tile *t, uint32_t row)
{
	const struct attention *a = t->a;
	const uint32_t token = t->token + row / t->group;
	const uint32_t head = t->kv_head * t->group + row % t->group;

	return t->queries + ((size_t)token * a->n_head + head) * a->head_dim;
}

/*
 * Turn a row's first n scores into weights relative to the running maximum; the rest, which
 * the query must not see, become 0. Keeps max, sum and acc consistent (online softmax,
 * Milakov and Gimelshein 2018).
 */
static void weigh_row(const struct tile *t, uint32_t r, uint32_t n)
{
	float *acc = t->acc + (size_t)r * t->width, max = t->max[r];
	const float sum = kvtile_weigh(t->p + (size_t)r * ATTENTION_BLOCK, n, &max);

	if (max > t->max[r]) {
		const float shrink = expf(t->max[r] - max); /* exp(-inf) = 0 the first time */

		t->max[r] = max;
		t->sum[r] *= shrink;
		kvtile_scale(acc, acc, shrink, t->width);
	}
	t->sum[r] += sum;
}

/* p = q k^T for the first n keys at k. */
static void scores(const struct tile *t, const uint16_t *k, uint32_t n, const void *next)
{
	const uint32_t d = t->a->head_dim;
	const struct kvtile_product product = {
		.c = t->p,
		.ldc = ATTENTION_BLOCK,
		.a = t->q,
		.lda = d,
		.b = t->kt,
		.ldb = ATTENTION_BLOCK,
		.rows = t->rows,
		.n = (uint32_t)padded(n),
		.k = d,
	};

	if (kvtile_scores_f16(t->p, t->q, k, t->rows, n, d, next))
		return;
	kvtile_turn(t->kt, k, n, d, next);
	kvtile_multiply(&product);
}

/* acc += p v for the first n values at v. */
static void accumulate(const struct tile *t, const uint16_t *v, uint32_t n)
{
	const uint32_t d = t->a->head_dim;
	struct kvtile_product product = {
		.c = t->acc,
		.ldc = t->width,
		.a = t->p,
		.lda = ATTENTION_BLOCK,
		.b = v,
		.ldb = d,
		.rows = t->rows,
		.n = t->width,
		.k = n,
		.add = true,
	};

	if (d == t->width && kvtile_multiply_f16(&product))
		return;
	for (uint32_t j = 0; j < n; j++)
		f16_row_to_f32(v + (size_t)j * d, t->v + (size_t)j * t->width, d);
	product.b = t->v;
	product.ldb = t->width;
	kvtile_multiply(&product);
}

static uint32_t n_blocks(const struct attention_segment *s)
{
	return (s->n_tokens + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK;
}

/* Positions first .. pos of the query are visible to row r, of n tokens from `first` on. */
static uint32_t visible(const struct tile *t, uint32_t r, uint32_t first, uint32_t n)
{
	const int64_t seen = (int64_t)t->member->pos + t->token + r / t->group + 1 - first;

	return seen < 0 ? 0 : seen < n ? (uint32_t)seen : n;
}

static const uint8_t *keys_of(const struct attention_segment *s, uint32_t b)
{
	return s->blocks ? s->blocks[b] + s->blocks_offset : s->base + b * s->stride;
}

/*
 * One block, for the tiles of n_tiles neighbouring key/value heads: first all keys, then all values, which is the
 * order of memory. The next block is asked for: it is too far away for the processor to run ahead
 * by itself.
 */
static void block(const struct tile *tiles, uint32_t n_tiles, const struct attention_segment *s,
		  uint32_t b)
{
	const uint32_t d = tiles->a->head_dim, start = b * ATTENTION_BLOCK;
	const uint32_t left = s->n_tokens - start;
	const uint32_t n = left < ATTENTION_BLOCK ? left : ATTENTION_BLOCK;
	const size_t half = (size_t)ATTENTION_BLOCK * d * sizeof(uint16_t);
	const uint8_t *here = keys_of(s, b);
	const uint8_t *next = b + 1 < n_blocks(s) ? keys_of(s, b + 1) : NULL;

	for (uint32_t i = 0; i < n_tiles; i++) {
		const struct tile *t = &tiles[i];
		const size_t head = t->kv_head * half;

		scores(t, (const uint16_t *)(here + head), n, next ? next + head : NULL);
		for (uint32_t r = 0; r < t->rows; r++)
			weigh_row(t, r, visible(t, r, s->first + start, n));
	}
	for (uint32_t i = 0; i < n_tiles; i++) {
		const struct tile *t = &tiles[i];
		const size_t head = t->kv_head * half + s->value_offset;

		if (next)
			kvtile_fetch(next + head, half);
		accumulate(t, (const uint16_t *)(here + head), n);
	}
}

/* Blocks first .. end of all segments, counted one after the other. */
static void blocks(const struct tile *tiles, uint32_t n_tiles, uint32_t first, uint32_t end)
{
	const struct attention_member *m = tiles->member;
	const uint32_t last = m->pos + tiles->token + tiles->n_tokens - 1;
	uint32_t at = 0;

	for (uint32_t i = 0; i < m->n_segments && at < end; i++) {
		const struct attention_segment *s = &m->segments[i];

		for (uint32_t b = first > at ? first - at : 0; b < n_blocks(s) && at + b < end;
		     b++) {
			if (s->first + b * ATTENTION_BLOCK > last)
				break;
			block(tiles, n_tiles, s, b);
		}
		at += n_blocks(s);
	}
}

/* Nothing seen yet. row: the first of the tile's in scratch, where tiles share it. */
static void begin(struct tile *t, float *scratch, uint32_t row)
{
	const uint32_t d = t->a->head_dim;
	const float scale = 1.0f / sqrtf((float)d);

	tile_layout(t, scratch);
	t->q += (size_t)row * d;
	t->acc += (size_t)row * t->width;
	t->p += (size_t)row * ATTENTION_BLOCK;
	t->max += row;
	t->sum += row;
	for (uint32_t r = 0; r < t->rows; r++) {
		kvtile_scale(t->q + (size_t)r * d, query(t, r), scale, d);
		t->max[r] = -INFINITY;
		t->sum[r] = 0;
	}
	memset(t->acc, 0, sizeof(float) * t->rows * t->width);
	if (d != t->width) /* its last columns are multiplied too */
		memset(t->v, 0, sizeof(float) * ATTENTION_BLOCK * t->width);
}

static void put_row(const struct tile *t, uint32_t r, float *out)
{
	kvtile_scale(out, t->acc + (size_t)r * t->width, t->sum[r] > 0 ? 1 / t->sum[r] : 0,
		     t->a->head_dim);
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

/* Of one member, whose queries and results begin at row. */
struct run {
	const struct attention *a;
	const struct attention_member *member;
	size_t row;
	float *scratch;
	size_t scratch_len;
	uint32_t n_tiles, n_parts, part_blocks;
};

static struct tile tile_of(const struct run *run, uint32_t kv_head, uint32_t index)
{
	const struct attention *a = run->a;
	const uint32_t token = index * ATTENTION_TILE, left = run->member->m - token;
	const uint32_t n = left < ATTENTION_TILE ? left : ATTENTION_TILE;
	const uint32_t group = a->n_head / a->n_head_kv;

	return (struct tile){ .a = a,
			      .member = run->member,
			      .queries = a->q + run->row * a->n_head * a->head_dim,
			      .kv_head = kv_head,
			      .group = group,
			      .token = token,
			      .n_tokens = n,
			      .rows = n * group };
}

/* Late tiles see the most keys: they come first, so that no thread starts one when others are done. */
static void tile_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct run *run = arg;
	const struct attention *a = run->a;
	struct tile t = tile_of(run, item % a->n_head_kv, run->n_tiles - 1 - item / a->n_head_kv);

	begin(&t, run->scratch + thread * run->scratch_len, 0);
	blocks(&t, 1, 0, UINT32_MAX);
	for (uint32_t r = 0; r < t.rows; r++)
		put_row(&t, r, a->out + (query(&t, r) - a->q));
}

/*
 * One query: a part of its keys, for HEADS key/value heads: as many as have their rows in one tile's scratch.
 * Partials: [part][n_head] rows, then their lse.
 */
static void part_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct run *run = arg;
	const struct attention *a = run->a;
	const uint32_t part = item % run->n_parts, first = item / run->n_parts * HEADS;
	const uint32_t n = a->n_head_kv - first < HEADS ? a->n_head_kv - first : HEADS;
	float *rows = a->partials + (size_t)part * a->n_head * (a->head_dim + 1);
	float *lse = rows + (size_t)a->n_head * a->head_dim;
	struct tile tiles[HEADS] = { 0 };

	for (uint32_t i = 0; i < n; i++) {
		tiles[i] = tile_of(run, first + i, 0);
		begin(&tiles[i], run->scratch + thread * run->scratch_len, i * tiles[i].group);
	}
	blocks(tiles, n, part * run->part_blocks, (part + 1) * run->part_blocks);
	for (uint32_t i = 0; i < n; i++) {
		const struct tile *t = &tiles[i];

		for (uint32_t r = 0; r < t->rows; r++) {
			const size_t head = (size_t)t->kv_head * t->group + r;

			put_row(t, r, rows + head * a->head_dim);
			lse[head] = t->sum[r] > 0 ? t->max[r] + logf(t->sum[r]) : -INFINITY;
		}
	}
}

static void merge_parts(const struct run *run)
{
	const struct attention *a = run->a;
	const size_t n = (size_t)a->n_head * a->head_dim;
	float *lse = a->partials + n;

	for (uint32_t p = 1; p < run->n_parts; p++) {
		const float *other = a->partials + p * (n + a->n_head);

		attention_merge(a->partials, lse, other, other + n, a->n_head, a->head_dim);
	}
	memcpy(a->out + run->row * n, a->partials, n * sizeof(float));
}

static void run_member(struct pool *pool, struct run *run)
{
	const struct attention *a = run->a;
	const struct attention_member *m = run->member;
	uint32_t total = 0;

	for (uint32_t i = 0; i < m->n_segments; i++)
		total += n_blocks(&m->segments[i]);
	run->n_tiles = (m->m + ATTENTION_TILE - 1) / ATTENTION_TILE;
	run->part_blocks = (total + PARTS - 1) / PARTS;
	if (run->part_blocks < PART_BLOCKS)
		run->part_blocks = PART_BLOCKS;
	run->n_parts = (total + run->part_blocks - 1) / run->part_blocks;
	if (m->m > 1 || run->n_parts < 2) {
		pool_run(pool, run->n_tiles * a->n_head_kv, tile_item, run);
		return;
	}
	pool_run(pool, run->n_parts * ((a->n_head_kv + HEADS - 1) / HEADS), part_item, run);
	merge_parts(run);
}

void attention_run(struct pool *pool, const struct attention *a, float *scratch, size_t scratch_len)
{
	struct run run = { .a = a, .scratch = scratch, .scratch_len = scratch_len };

	for (uint32_t i = 0; i < a->n_members; i++) {
		run.member = &a->members[i];
		run_member(pool, &run);
		run.row += run.member->m;
	}
}
