// SPDX-License-Identifier: MIT
#include "compute/attention_tile.h"

#include <math.h>
#include <string.h>

#include "compute/dense.h"
#include "compute/kvbf16.h"
#include "compute/kvint.h"
#include "compute/kvtile.h"

/* Rows that meet a rounded block at once. */
enum { AT_ONCE = 24 };

_Static_assert((int)ATTENTION_BLOCK == (int)KVTILE_TOKENS, "a block is a block");

static size_t padded(size_t n)
{
	return (n + KVTILE_LANES - 1) & ~(size_t)(KVTILE_LANES - 1);
}

static size_t ready_floats(uint32_t head_dim)
{
	const size_t floats = ATTENTION_BLOCK * padded(head_dim), ready = kvint_ready(head_dim);

	return padded(floats > ready ? floats : ready);
}

/* Floats of one row's own scratch, and of what comes before all rows. */
static size_t row_floats(uint32_t head_dim)
{
	return 2 * head_dim + padded(head_dim) + padded(head_dim) / 2 + ATTENTION_BLOCK +
	       2 * kvint_query_floats(head_dim) + KVTILE_LANES + 1;
}

size_t attention_tile_scratch(uint32_t group, uint32_t head_dim)
{
	return ready_floats(head_dim) +
	       padded((size_t)ATTENTION_TILE * group * row_floats(head_dim));
}

/* What is whole vectors comes first, so that it is aligned if scratch is. */
static void layout(struct attention_tile *t, float *scratch, uint32_t row)
{
	const size_t d = t->a->head_dim, rows = (size_t)ATTENTION_TILE * t->group;
	const size_t query = kvint_query_floats(t->a->head_dim);
	float *at = scratch + ready_floats(t->a->head_dim);
	const struct {
		float **to;
		size_t floats;
	} parts[] = {
		{ &t->acc, padded(d) },
		{ &t->p, ATTENTION_BLOCK },
		{ &t->sum, KVTILE_LANES },
		{ &t->integers[ATTENTION_Q8], query },
		{ &t->integers[ATTENTION_Q4], query },
		{ &t->rounded, padded(d) / 2 },
		{ &t->q, d },
		{ &t->rotated, d },
		{ &t->max, 1 },
	};

	t->width = (uint32_t)padded(d);
	t->ready = scratch;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		*parts[i].to = at + row * parts[i].floats;
		at += rows * parts[i].floats;
	}
}

/* Rounded, where that is fast; else it is f16 like any other. */
static bool is_rounded(const struct attention_tile *t, enum attention_format format)
{
	return format == ATTENTION_ROUNDED && kvbf16_fast(t->a->head_dim);
}

static uint16_t *rounded_query(const struct attention_tile *t, uint32_t r)
{
	return (uint16_t *)(void *)(t->rounded + r * padded(t->a->head_dim) / 2);
}

/* A row's query in every form that its segments ask for. */
static void begin_row(const struct attention_tile *t, uint32_t r)
{
	const struct attention *a = t->a;
	const uint32_t d = a->head_dim;
	const size_t head =
		(size_t)t->row[r / t->group] * a->n_head + t->kv_head * t->group + r % t->group;
	float *q = t->q + (size_t)r * d, *rotated = t->rotated + (size_t)r * d;
	const size_t at = r * kvint_query_floats(d);

	kvtile_scale(q, a->q + head * d, 1.0f / sqrtf((float)d), d);
	if (t->formats >> ATTENTION_ROUNDED & 1)
		dense_round(rounded_query(t, r), q, d);
	if (t->formats >> ATTENTION_Q8 & 1 && kvint_fast(d))
		kvint_query(t->integers[ATTENTION_Q8] + at, q, d, KVQ_Q8);
	if (!(t->formats >> ATTENTION_Q4 & 1))
		return;
	memcpy(rotated, q, d * sizeof(float));
	kvq_rotate(rotated, d);
	if (kvint_fast(d))
		kvint_query(t->integers[ATTENTION_Q4] + at, rotated, d, KVQ_Q4);
}

void attention_tile_begin(struct attention_tile *t, float *scratch, uint32_t first_row)
{
	t->rows = t->n_queries * t->group;
	layout(t, scratch, first_row);
	for (uint32_t r = 0; r < t->rows; r++) {
		begin_row(t, r);
		t->max[r] = -INFINITY;
	}
	memset(t->sum, 0, sizeof(float) * t->rows * KVTILE_LANES);
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

/* The halves at hand, of keys or of values, and those that come next, or NULL. */
struct halves {
	enum attention_format format;
	const uint8_t *here, *next;
};

static struct kvint_head head_of(const struct attention_tile *t, const struct halves *h,
				 const uint8_t *half)
{
	return kvint_head(half, t->a->n_head_kv, t->kv_head, t->a->head_dim,
			  h->format == ATTENTION_Q8 ? KVQ_Q8 : KVQ_Q4);
}

static bool is_f16(enum attention_format format)
{
	return format == ATTENTION_F16 || format == ATTENTION_ROUNDED;
}

/* This head's part of a half, n tokens of it. */
static struct kvbf16_block block_of(const struct attention_tile *t, const struct halves *h,
				    uint32_t n)
{
	const size_t at = (size_t)t->kv_head * ATTENTION_BLOCK * t->a->head_dim * sizeof(uint16_t);

	return (struct kvbf16_block){
		.x = (const uint16_t *)(const void *)(h->here + at),
		.n = n,
		.d = t->a->head_dim,
		.next = h->next ? (const char *)h->next + at : NULL,
	};
}

static void f16_scores(const struct attention_tile *t, const struct halves *h, uint32_t n)
{
	const struct kvbf16_block b = block_of(t, h, n);

	if (is_rounded(t, h->format))
		kvbf16_scores(t->p, rounded_query(t, 0), t->rows, &b);
	else
		kvtile_scores(t->p, t->q, t->rows, b.x, n, b.d, t->ready, b.next);
}

static void quant_scores(const struct attention_tile *t, const struct halves *h, uint32_t n)
{
	const uint32_t d = t->a->head_dim;
	const struct kvint_head k = head_of(t, h, h->here);
	const struct kvint_head next = head_of(t, h, h->next ? h->next : h->here);
	const struct kvtile_product product = {
		.c = t->p,
		.ldc = ATTENTION_BLOCK,
		.a = h->format == ATTENTION_Q8 ? t->q : t->rotated,
		.lda = d,
		.b = t->ready,
		.ldb = ATTENTION_BLOCK,
		.rows = t->rows,
		.n = (uint32_t)padded(n),
		.k = d,
	};

	if (kvint_fast(d))
		return kvint_scores(t->p, t->integers[h->format], t->rows, &k, n, t->ready,
				    h->next ? &next : NULL);
	kvint_turned(t->ready, ATTENTION_BLOCK, &k, n);
	kvtile_multiply(&product);
}

/* n tokens from position `first` on. */
static void keys(const struct attention_tile *t, const struct halves *h, uint32_t first, uint32_t n)
{
	const struct kvtile_weights w = {
		.p = t->p, .acc = t->acc, .max = t->max, .sum = t->sum, .width = t->width
	};

	if (is_f16(h->format))
		f16_scores(t, h, n);
	else
		quant_scores(t, h, n);
	for (uint32_t i = 0; i < t->n_queries; i++) {
		const uint32_t seen = visible(t->pos[i], first, n);

		if (is_rounded(t, h->format))
			kvbf16_weigh(&w, i * t->group, (i + 1) * t->group, seen);
		else
			kvtile_weigh(&w, i * t->group, (i + 1) * t->group, seen);
	}
}

static void values(const struct attention_tile *t, const struct halves *h, uint32_t n)
{
	const uint32_t d = t->a->head_dim;
	const struct kvbf16_block b = block_of(t, h, n);
	struct kvtile_product product = {
		.c = t->acc,
		.ldc = t->width,
		.a = t->p,
		.lda = ATTENTION_BLOCK,
		.b = b.x,
		.ldb = d,
		.rows = t->rows,
		.n = t->width,
		.k = n,
		.add = true,
	};

	if (is_rounded(t, h->format)) {
		kvbf16_values(t->acc, t->p, t->rows, &b);
	} else if (is_f16(h->format)) {
		kvtile_values(&product, t->ready, b.next);
	} else {
		const struct kvint_head v = head_of(t, h, h->here);
		const struct kvint_head next = head_of(t, h, h->next ? h->next : h->here);

		if (kvint_fast(d))
			return kvint_values(t->acc, t->width, t->p, t->rows, &v, n, t->ready,
					    h->next ? &next : NULL);
		memset(t->ready, 0, sizeof(float) * ATTENTION_BLOCK * t->width);
		kvint_rows(t->ready, t->width, &v, n);
		product.b = t->ready;
		product.ldb = t->width;
		kvtile_multiply(&product);
	}
}

/* Rows first .. first + rows - 1, which see what their positions let them of n tokens from `start` on. */
static void rounded_weights(const struct attention_tile *t, const struct kvtile_weights *w,
			    uint32_t first, uint32_t rows, uint32_t start, uint32_t n)
{
	uint32_t at = 0, end = 0;

	for (; at < rows; at = end) {
		const uint32_t seen = visible(t->pos[(first + at) / t->group], start, n);

		do
			end = ((first + end) / t->group + 1) * t->group - first;
		while (end < rows && visible(t->pos[(first + end) / t->group], start, n) == seen);
		end = end < rows ? end : rows;
		kvbf16_weigh(w, at, end, seen);
	}
}

/*
 * Keys and values of a block are rounded once, and then met by so many rows after the other that all of it stays in the
 * first-level cache.
 */
static void rounded_block(const struct attention_tile *t, const struct halves *k,
			  const struct halves *v, uint32_t start, uint32_t n)
{
	struct kvbf16_block keys = block_of(t, k, n), values = block_of(t, v, n);
	uint16_t *const ready = (uint16_t *)(void *)t->ready;

	kvbf16_round_keys(ready, &keys);
	kvbf16_round_values(ready + ATTENTION_BLOCK * keys.d, &values);
	keys.x = ready;
	values.x = ready + ATTENTION_BLOCK * keys.d;
	keys.rounded = values.rounded = true;
	keys.next = values.next = NULL;
	for (uint32_t r = 0; r < t->rows; r += AT_ONCE) {
		const uint32_t rows = t->rows - r < AT_ONCE ? t->rows - r : AT_ONCE;
		const struct kvtile_weights w = { .p = t->p,
						  .acc = t->acc + (size_t)r * t->width,
						  .max = t->max + r,
						  .sum = t->sum + (size_t)r * KVTILE_LANES,
						  .width = t->width };

		kvbf16_scores(w.p, rounded_query(t, r), rows, &keys);
		rounded_weights(t, &w, r, rows, start, n);
		kvbf16_values(w.acc, w.p, rows, &values);
	}
}

void attention_tile_blocks(struct attention_tile *tiles, uint32_t n_tiles,
			   const struct attention_segment *s, uint32_t first, uint32_t end)
{
	const uint32_t n_blocks = (s->n_tokens + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK;
	const bool many = is_rounded(tiles, s->format) && tiles->rows > KVBF16_FEW;

	for (uint32_t b = first; b < end; b++) {
		const uint32_t start = b * ATTENTION_BLOCK, left = s->n_tokens - start;
		const uint32_t n = left < ATTENTION_BLOCK ? left : ATTENTION_BLOCK;
		const bool more = b + 1 < n_blocks;
		const struct halves k = { s->format, keys_of(s, b),
					  more ? keys_of(s, b + 1) : NULL };
		const struct halves v = { s->format, k.here + s->value_offset,
					  more ? k.next + s->value_offset : NULL };

		for (uint32_t i = 0; i < n_tiles; i++)
			if (many)
				rounded_block(&tiles[i], &k, &v, s->first + start, n);
			else
				keys(&tiles[i], &k, s->first + start, n);
		for (uint32_t i = 0; !many && i < n_tiles; i++)
			values(&tiles[i], &v, n);
	}
}
