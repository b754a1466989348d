// SPDX-License-Identifier: MIT
#include "compute/attention_tile.h"

#include <math.h>
#include <string.h>

#include "compute/kvtile.h"

_Static_assert((int)ATTENTION_BLOCK == (int)KVTILE_TOKENS, "a block is a block");

static size_t padded(size_t n)
{
	return (n + KVTILE_LANES - 1) & ~(size_t)(KVTILE_LANES - 1);
}

size_t attention_tile_scratch(uint32_t group, uint32_t head_dim)
{
	const size_t rows = (size_t)ATTENTION_TILE * group, width = padded(head_dim);

	return padded(rows * head_dim) + rows * width + rows * ATTENTION_BLOCK + 2 * padded(rows) +
	       ATTENTION_BLOCK * width;
}

static void layout(struct attention_tile *t, float *scratch, uint32_t row)
{
	const size_t d = t->a->head_dim, rows = (size_t)ATTENTION_TILE * t->group;

	t->width = (uint32_t)padded(d);
	t->ready = scratch;
	t->q = t->ready + (size_t)ATTENTION_BLOCK * t->width;
	t->acc = t->q + padded(rows * d);
	t->p = t->acc + rows * t->width;
	t->max = t->p + rows * ATTENTION_BLOCK;
	t->sum = t->max + padded(rows) + row;
	t->q += (size_t)row * d;
	t->acc += (size_t)row * t->width;
	t->p += (size_t)row * ATTENTION_BLOCK;
	t->max += row;
}

void attention_tile_begin(struct attention_tile *t, float *scratch, uint32_t first_row)
{
	const uint32_t d = t->a->head_dim;
	const float scale = 1.0f / sqrtf((float)d);

	t->rows = t->n_queries * t->group;
	layout(t, scratch, first_row);
	for (uint32_t r = 0; r < t->rows; r++) {
		const size_t head = (size_t)t->row[r / t->group] * t->a->n_head +
				    t->kv_head * t->group + r % t->group;

		kvtile_scale(t->q + (size_t)r * d, t->a->q + head * d, scale, d);
		t->max[r] = -INFINITY;
		t->sum[r] = 0;
	}
	memset(t->acc, 0, sizeof(float) * t->rows * t->width);
}

/* How many of n tokens from position `first` on a query sees. */
static uint32_t visible(uint32_t pos, uint32_t first, uint32_t n)
{
	const int64_t seen = (int64_t)pos + 1 - first;

	return seen < 0 ? 0 : seen < n ? (uint32_t)seen : n;
}

static const uint8_t *keys_of(const struct attention_segment *s, uint32_t b)
{
	return s->blocks ? s->blocks[b] + s->blocks_offset : s->base + b * s->stride;
}

/* A block of n tokens from position `first` on. `next`: keys of the block behind it, which are asked for, or NULL. */
static void keys(const struct attention_tile *t, const uint8_t *half, const uint8_t *next,
		 uint32_t first, uint32_t n)
{
	const uint32_t d = t->a->head_dim;
	const size_t head = (size_t)t->kv_head * ATTENTION_BLOCK * d * sizeof(uint16_t);
	const struct kvtile_weights w = {
		.p = t->p, .acc = t->acc, .max = t->max, .sum = t->sum, .width = t->width
	};

	kvtile_scores(t->p, t->q, t->rows, (const uint16_t *)(const void *)(half + head), n, d,
		      t->ready, next ? next + head : NULL);
	for (uint32_t i = 0; i < t->n_queries; i++)
		kvtile_weigh(&w, i * t->group, (i + 1) * t->group, visible(t->pos[i], first, n));
}

static void values(const struct attention_tile *t, const uint8_t *half, const uint8_t *next,
		   uint32_t n)
{
	const uint32_t d = t->a->head_dim;
	const size_t head = (size_t)t->kv_head * ATTENTION_BLOCK * d * sizeof(uint16_t);
	const struct kvtile_product product = {
		.c = t->acc,
		.ldc = t->width,
		.a = t->p,
		.lda = ATTENTION_BLOCK,
		.b = half + head,
		.ldb = d,
		.rows = t->rows,
		.n = t->width,
		.k = n,
		.add = true,
	};

	kvtile_values(&product, t->ready, next ? next + head : NULL);
}

void attention_tile_blocks(struct attention_tile *tiles, uint32_t n_tiles,
			   const struct attention_segment *s, uint32_t first, uint32_t end,
			   uint32_t then)
{
	const uint32_t n_blocks = (s->n_tokens + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK;

	for (uint32_t b = first; b < end; b++) {
		const uint32_t start = b * ATTENTION_BLOCK, left = s->n_tokens - start;
		const uint32_t n = left < ATTENTION_BLOCK ? left : ATTENTION_BLOCK;
		const uint8_t *here = keys_of(s, b);
		const uint32_t coming = b + 1 < end ? b + 1 : then;
		const uint8_t *next = coming < n_blocks ? keys_of(s, coming) : NULL;

		for (uint32_t i = 0; i < n_tiles; i++)
			keys(&tiles[i], here, next, s->first + start, n);
		for (uint32_t i = 0; i < n_tiles; i++)
			values(&tiles[i], here + s->value_offset,
			       next ? next + s->value_offset : NULL, n);
	}
}
