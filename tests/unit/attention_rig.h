/* SPDX-License-Identifier: MIT */
/* Keys, values and queries of a layer, what attention over them is by its definition, and segments made of them. */
#ifndef LSLM_TESTS_ATTENTION_RIG_H
#define LSLM_TESTS_ATTENTION_RIG_H

#include "unit/unit.h"

#include <math.h>

#include "compute/attention.h"
#include "compute/kvq.h"
#include "compute/quant.h"

/* Keys and values of one layer, token-major, as they were before they went into segments. */
struct world {
	uint32_t n_head, n_head_kv, d, n, m;
	float *k, *v; /* [n][n_head_kv][d], exactly representable in f16 */
	float *seen_k, *seen_v; /* the same as a segment of some format holds them */
	float *q; /* [m][n_head][d] */
	uint64_t seed;
	bool apart; /* see struct attention */
};

static float next_of(struct world *w)
{
	w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
	return (float)((int32_t)(w->seed >> 33) % 2001 - 1000) / 1000;
}

static float *random_row(struct world *w, size_t n, float scale, int round)
{
	float *x = malloc(n * sizeof(*x));

	for (size_t i = 0; i < n; i++) {
		x[i] = next_of(w) * scale;
		if (round)
			x[i] = f16_to_f32(f32_to_f16(x[i]));
	}
	return x;
}

static void world_make(struct world *w)
{
	const size_t kv = (size_t)w->n * w->n_head_kv * w->d;

	w->k = random_row(w, kv, 2, 1);
	w->v = random_row(w, kv, 1, 1);
	w->q = random_row(w, (size_t)w->m * w->n_head * w->d, 2, 0);
	w->seen_k = malloc(kv * sizeof(float));
	w->seen_v = malloc(kv * sizeof(float));
	memcpy(w->seen_k, w->k, kv * sizeof(float));
	memcpy(w->seen_v, w->v, kv * sizeof(float));
}

static void world_free(struct world *w)
{
	free(w->k);
	free(w->v);
	free(w->seen_k);
	free(w->seen_v);
	free(w->q);
}

/* The definition, in double, over all tokens at once; the last m of the n tokens ask. */
static void reference(const struct world *w, double *out)
{
	double *p = malloc(w->n * sizeof(*p));

	for (uint32_t i = 0; i < w->m; i++)
		for (uint32_t h = 0; h < w->n_head; h++) {
			const float *q = w->q + ((size_t)i * w->n_head + h) * w->d;
			const uint32_t g = h / (w->n_head / w->n_head_kv);
			const uint32_t seen = w->n - w->m + i + 1;
			double sum = 0, max = -INFINITY;
			double *o = out + ((size_t)i * w->n_head + h) * w->d;

			for (uint32_t j = 0; j < seen; j++) {
				p[j] = 0;
				for (uint32_t x = 0; x < w->d; x++)
					p[j] += (double)q[x] *
						w->seen_k[((size_t)j * w->n_head_kv + g) * w->d + x];
				p[j] /= sqrt(w->d);
				max = p[j] > max ? p[j] : max;
			}
			for (uint32_t j = 0; j < seen; j++)
				sum += p[j] = exp(p[j] - max);
			for (uint32_t x = 0; x < w->d; x++) {
				o[x] = 0;
				for (uint32_t j = 0; j < seen; j++)
					o[x] += p[j] / sum *
						w->seen_v[((size_t)j * w->n_head_kv + g) * w->d + x];
			}
		}
	free(p);
}

/* Rows of the first `shared` tokens and of a member's own. */
static float *member_rows(const struct world *w, const float *x, uint32_t shared, uint32_t own_at,
			  uint32_t own)
{
	const size_t row = (size_t)w->n_head_kv * w->d;
	float *out = malloc((shared + own) * row * sizeof(*out));

	memcpy(out, x, shared * row * sizeof(*out));
	memcpy(out + shared * row, x + own_at * row, own * row * sizeof(*out));
	return out;
}

/* The definition for a member, to be freed: it sees the first `shared` tokens and its own, and the last m of these ask, at q. */
static double *member_reference(const struct world *all, uint32_t shared, uint32_t own_at,
				uint32_t own, uint32_t m, float *q)
{
	double *out = malloc((size_t)m * all->n_head * all->d * sizeof(*out));
	struct world w = *all;

	w.n = shared + own;
	w.m = m;
	w.q = q;
	w.seen_k = member_rows(all, all->seen_k, shared, own_at, own);
	w.seen_v = member_rows(all, all->seen_v, shared, own_at, own);
	reference(&w, out);
	free(w.seen_k);
	free(w.seen_v);
	return out;
}

static bool is_f16(enum attention_format format)
{
	return format == ATTENTION_F16 || format == ATTENTION_ROUNDED;
}

static size_t half_bytes(const struct world *w, enum attention_format format)
{
	if (is_f16(format))
		return (size_t)w->n_head_kv * ATTENTION_BLOCK * w->d * 2;
	return kvq_half_bytes(w->n_head_kv, w->d, format == ATTENTION_Q8 ? KVQ_Q8 : KVQ_Q4);
}

/* Up to a block of tokens from `first` on as a half; unused slots hold poison. */
static void pack_half(uint8_t *out, const struct world *w, const float *x, uint32_t first,
		      uint32_t n, enum attention_format format, int rotate)
{
	const size_t values = (size_t)w->n_head_kv * ATTENTION_BLOCK * w->d;
	uint16_t *half = malloc(values * 2);

	for (size_t i = 0; i < values; i++)
		half[i] = is_f16(format) ? 0x7e7e : 0; /* a NaN */
	for (uint32_t t = 0; t < n; t++)
		for (uint32_t g = 0; g < w->n_head_kv; g++)
			f32_row_to_f16(x + ((size_t)(first + t) * w->n_head_kv + g) * w->d,
				       half + ((size_t)g * ATTENTION_BLOCK + t) * w->d, w->d);
	if (is_f16(format))
		memcpy(out, half, values * 2);
	else
		kvq_encode(out, half, w->n_head_kv, w->d, format == ATTENTION_Q8 ? KVQ_Q8 : KVQ_Q4,
			   rotate);
	free(half);
}

/* Tokens first .. first + n of the world as a segment. */
static struct attention_segment pack(const struct world *w, uint32_t first, uint32_t n,
				     enum attention_format format)
{
	const size_t half = half_bytes(w, format), blocks = n / ATTENTION_BLOCK + 1;
	uint8_t *base = malloc(blocks * 2 * half);

	memset(base, 0x7e, blocks * 2 * half);
	for (uint32_t b = 0; b * ATTENTION_BLOCK < n; b++) {
		const uint32_t left = n - b * ATTENTION_BLOCK, m = left < 64 ? left : 64;
		uint8_t *at = base + b * 2 * half;

		pack_half(at, w, w->k, first + b * ATTENTION_BLOCK, m, format,
			  format == ATTENTION_Q4);
		pack_half(at + half, w, w->v, first + b * ATTENTION_BLOCK, m, format, 0);
	}
	return (struct attention_segment){ .format = format,
					   .base = base,
					   .stride = 2 * half,
					   .value_offset = half,
					   .first = first,
					   .n_tokens = n };
}

/* One run over n members; out as of attention_run(). */
static void run_members(const struct world *w, const struct attention_member *members, uint32_t n,
			const float *q, unsigned int threads, float *out)
{
	const size_t len = attention_scratch(w->n_head, w->n_head_kv, w->d);
	const struct attention a = {
		.members = members,
		.n_members = n,
		.n_head = w->n_head,
		.n_head_kv = w->n_head_kv,
		.head_dim = w->d,
		.q = q,
		.out = out,
		.apart = w->apart,
		.partials = malloc(attention_partials(w->n_head, w->d) * sizeof(float)),
	};
	float *scratch = malloc(threads * len * sizeof(*scratch));
	struct lslm_error err;
	struct pool *pool;

	assert_ok(pool_create(&pool, threads, &err), &err);
	attention_run(pool, &a, scratch, len);
	pool_destroy(pool);
	free(scratch);
	free(a.partials);
}

#endif
