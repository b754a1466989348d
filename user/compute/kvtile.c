// SPDX-License-Identifier: MIT
#include "compute/kvtile.h"

#include <math.h>
#include <string.h>

#include "base/clones.h"
#include "compute/exp.h"
#include "compute/kvtile_avx512.h"
#include "compute/quant.h"

static bool without_avx512, without_avx2;

void kvtile_limit(bool no_avx512, bool no_avx2)
{
	without_avx512 = no_avx512 || no_avx2;
	without_avx2 = no_avx2;
}

/* --- products --- */

typedef float lanes __attribute__((vector_size(32), aligned(4), may_alias));

enum { WIDTH = 8 }; /* floats of a lanes */

/*
 * c[rows][2 * WIDTH] of a product. rows is a constant, at most 4, so that sums stay in registers.
 */
static inline __attribute__((always_inline)) void strip(int rows, const struct kvtile_product *p,
							float *c, const float *a, const float *b)
{
	lanes sum[8], x[2];

#pragma GCC unroll 8
	for (int s = 0; s < 2 * rows; s++) {
		const float *at = c + s / 2 * p->ldc + s % 2 * WIDTH;

		sum[s] = p->add ? *(const lanes *)at : (lanes){ 0 };
	}
	for (uint32_t i = 0; i < p->k; i++) {
		x[0] = *(const lanes *)(b + i * p->ldb);
		x[1] = *(const lanes *)(b + i * p->ldb + WIDTH);
#pragma GCC unroll 8
		for (int s = 0; s < 2 * rows; s++)
			sum[s] += a[s / 2 * p->lda + i] * x[s % 2];
	}
#pragma GCC unroll 8
	for (int s = 0; s < 2 * rows; s++)
		*(lanes *)(c + s / 2 * p->ldc + s % 2 * WIDTH) = sum[s];
}

CLONES void kvtile_multiply(const struct kvtile_product *p)
{
	const float *a = p->a;
	float *c = p->c;
	uint32_t rows = p->rows;

	for (; rows; c += 4 * p->ldc, a += 4 * p->lda, rows -= rows < 4 ? rows : 4)
		for (uint32_t j = 0; j < p->n; j += 2 * WIDTH) {
			const float *b = (const float *)p->b + j;

			if (rows >= 4)
				strip(4, p, c + j, a, b);
			else if (rows == 3)
				strip(3, p, c + j, a, b);
			else if (rows == 2)
				strip(2, p, c + j, a, b);
			else
				strip(1, p, c + j, a, b);
		}
}

static void turn_plain(float *kt, const uint16_t *k, uint32_t first, uint32_t n, uint32_t d)
{
	for (uint32_t j = first; j < n; j++)
		for (uint32_t i = 0; i < d; i++)
			kt[(size_t)i * KVTILE_TOKENS + j] = half_to_float(k[(size_t)j * d + i]);
}

#ifdef __x86_64__

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,f16c")))

enum { LINE = 64 };

/* Ask for n bytes that will be read soon. */
static void fetch(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i += LINE)
		__builtin_prefetch(p + i, 0, 2);
}

static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2") && !without_avx2;
}

/* Both halves of a register of 2 x 8 f16, of dimensions i and i + 8. */
AVX2 static inline void put(float *kt, uint32_t i, uint32_t j, __m256i v)
{
	_mm256_storeu_ps(kt + (size_t)i * KVTILE_TOKENS + j,
			 _mm256_cvtph_ps(_mm256_castsi256_si128(v)));
	_mm256_storeu_ps(kt + (size_t)(i + 8) * KVTILE_TOKENS + j,
			 _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)));
}

/* 8 tokens from j on, 16 dimensions from i on: pairs, fours, eights of tokens come together. */
AVX2 static inline void turn_8x16(float *kt, const uint16_t *k, uint32_t i, uint32_t j, uint32_t d)
{
	__m256i r[8], s[8];

#pragma GCC unroll 8
	for (int x = 0; x < 8; x++)
		r[x] = _mm256_loadu_si256((const __m256i *)(k + (size_t)(j + (uint32_t)x) * d + i));
#pragma GCC unroll 4
	for (int x = 0; x < 4; x++) {
		s[2 * x] = _mm256_unpacklo_epi16(r[2 * x], r[2 * x + 1]);
		s[2 * x + 1] = _mm256_unpackhi_epi16(r[2 * x], r[2 * x + 1]);
	}
#pragma GCC unroll 4
	for (int x = 0; x < 4; x++) {
		const int from = x / 2 * 4 + x % 2, to = x / 2 * 4 + x % 2 * 2;

		r[to] = _mm256_unpacklo_epi32(s[from], s[from + 2]);
		r[to + 1] = _mm256_unpackhi_epi32(s[from], s[from + 2]);
	}
#pragma GCC unroll 4
	for (uint32_t x = 0; x < 4; x++) {
		put(kt, i + 2 * x, j, _mm256_unpacklo_epi64(r[x], r[x + 4]));
		put(kt, i + 2 * x + 1, j, _mm256_unpackhi_epi64(r[x], r[x + 4]));
	}
}

AVX2 static void turn_avx2(float *kt, const uint16_t *k, uint32_t n, uint32_t d, const char *next)
{
	for (uint32_t j = 0; j < n; j += 8) {
		if (next)
			fetch(next + (size_t)j * d * 2, (size_t)d * 16);
		for (uint32_t i = 0; i < d; i += 16)
			turn_8x16(kt, k, i, j, d);
	}
}
#else
static bool has_avx2(void)
{
	return false;
}

static void turn_avx2(float *kt, const uint16_t *k, uint32_t n, uint32_t d, const char *next)
{
}
#endif

static bool has_avx512(void)
{
	return !without_avx512 && kvtile_has_avx512();
}

/* kt[i][j] = k[j][i]; columns behind the n tokens keep what they had. */
static void turn(float *kt, const uint16_t *k, uint32_t n, uint32_t d, const void *next)
{
	const uint32_t fast = has_avx2() && d % 16 == 0 ? n & ~7u : 0;

	turn_avx2(kt, k, fast, d, next);
	turn_plain(kt, k, fast, n, d);
}

void kvtile_scores(float *p, const float *q, uint32_t rows, const uint16_t *k, uint32_t n,
		   uint32_t d, float *ready, const void *next)
{
	const struct kvtile_product product = {
		.c = p,
		.ldc = KVTILE_TOKENS,
		.a = q,
		.lda = d,
		.b = ready,
		.ldb = KVTILE_TOKENS,
		.rows = rows,
		.n = (n + KVTILE_LANES - 1) & ~(KVTILE_LANES - 1u),
		.k = d,
	};

	if (d % KVTILE_LANES == 0 && has_avx512())
		return kvtile_scores_avx512(p, q, rows, k, n, d, ready, next);
	turn(ready, k, n, d, next);
	kvtile_multiply(&product);
}

void kvtile_values(const struct kvtile_product *p, float *ready, const void *next)
{
	struct kvtile_product floats = *p;
	const uint16_t *v = p->b;

	if (p->ldb == p->n && has_avx512())
		return kvtile_values_avx512(p, ready, next);
	for (uint32_t j = 0; j < p->k; j++) {
		float *row = ready + (size_t)j * p->n;

		f16_row_to_f32(v + j * p->ldb, row, p->ldb);
		memset(row + p->ldb, 0, (p->n - p->ldb) * sizeof(float));
	}
	floats.b = ready;
	floats.ldb = p->n;
	kvtile_multiply(&floats);
}

/* --- rows --- */

/* Every count is a constant, so that all of a block's scores stay in registers. lane: sums of the weights. */
CLONES static void weigh_plain(float p[KVTILE_TOKENS], uint32_t n, float *max,
			       float lane[KVTILE_LANES])
{
	float top = *max;

	for (uint32_t j = n; j < KVTILE_TOKENS; j++)
		p[j] = -INFINITY;
	for (int j = 0; j < KVTILE_LANES; j++) {
		const float a = p[j] > p[j + 16] ? p[j] : p[j + 16];
		const float b = p[j + 32] > p[j + 48] ? p[j + 32] : p[j + 48];

		lane[j] = a > b ? a : b;
	}
	for (int w = KVTILE_LANES / 2; w; w /= 2)
		for (int j = 0; j < w; j++)
			lane[j] = lane[j] > lane[j + w] ? lane[j] : lane[j + w];
	top = lane[0] > top ? lane[0] : top;
	*max = top;
	/* Nothing to weigh, nor before: the difference of two infinities would be a NaN. */
	if (top == -INFINITY)
		top = 0;
	for (int j = 0; j < KVTILE_TOKENS; j++)
		p[j] = exp_of(p[j] - top);
	for (int j = 0; j < KVTILE_LANES; j++)
		lane[j] = (p[j] + p[j + 16]) + (p[j + 32] + p[j + 48]);
}

float kvtile_total(const float sum[KVTILE_LANES])
{
	float lane[4];

	for (int j = 0; j < 4; j++)
		lane[j] = (sum[j] + sum[j + 4]) + (sum[j + 8] + sum[j + 12]);
	return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

CLONES void kvtile_scale(float *y, const float *x, float factor, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		y[i] = x[i] * factor;
}

static void weigh_row(const struct kvtile_weights *w, uint32_t r, uint32_t n)
{
	float *acc = w->acc + (size_t)r * w->width, *sum = w->sum + (size_t)r * KVTILE_LANES;
	float lane[KVTILE_LANES], max = w->max[r];

	weigh_plain(w->p + (size_t)r * KVTILE_TOKENS, n, &max, lane);
	if (max > w->max[r]) {
		const float shrink = expf(w->max[r] - max); /* exp(-inf) = 0 the first time */

		w->max[r] = max;
		kvtile_scale(sum, sum, shrink, KVTILE_LANES);
		kvtile_scale(acc, acc, shrink, w->width);
	}
	for (int j = 0; j < KVTILE_LANES; j++)
		sum[j] += lane[j];
}

void kvtile_weigh(const struct kvtile_weights *w, uint32_t first, uint32_t end, uint32_t n)
{
	if (has_avx512())
		return kvtile_weigh_avx512(w, first, end, n);
	for (uint32_t r = first; r < end; r++)
		weigh_row(w, r, n);
}
