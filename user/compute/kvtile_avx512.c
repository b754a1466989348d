// SPDX-License-Identifier: MIT
/*
 * f16 keys and values for AVX-512. A row of the result goes through the same operations in the same order whatever
 * other rows there are.
 */
#include "compute/kvtile_avx512.h"

#ifdef __x86_64__
#include "compute/kvtile_lanes.h"

bool kvtile_has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}

/* --- keys --- */

/*
 * 16 keys, 8 values of each, as eight registers: register g of a pair has four values of keys g, 4 + g, 8 + g and
 * 12 + g, side by side, so that sums over a key's values stay within 128 bits.
 */
AVX512_INLINE void keys_8(__m512 *low, __m512 *high, const uint16_t *k, size_t d)
{
#pragma GCC unroll 4
	for (size_t g = 0; g < 4; g++, k += d) {
		const __m256i x = _mm256_inserti128_si256(
			_mm256_castsi128_si256(_mm_loadu_si128((const void *)k)),
			_mm_loadu_si128((const void *)(k + 8 * d)), 1);
		const __m256i y = _mm256_inserti128_si256(
			_mm256_castsi128_si256(_mm_loadu_si128((const void *)(k + 4 * d))),
			_mm_loadu_si128((const void *)(k + 12 * d)), 1);

		low[g] = _mm512_cvtph_ps(_mm256_unpacklo_epi64(x, y));
		high[g] = _mm512_cvtph_ps(_mm256_unpackhi_epi64(x, y));
	}
}

/* Scores of 16 keys for a constant number of rows. The keys are at k, or as keys_8() gives them in `ready`. */
AVX512_INLINE void scores_16(int rows, float *p, const float *q, const uint16_t *k,
			     const float *ready, uint32_t d, const char *next, const char *ahead)
{
	__m512 sum[16], low[4], high[4];

#pragma GCC unroll 16
	for (int s = 0; s < 4 * rows; s++)
		sum[s] = _mm512_setzero_ps();
	for (uint32_t i = 0; i < d; i += 8) {
		if (ready) {
#pragma GCC unroll 4
			for (int g = 0; g < 4; g++) {
				low[g] = _mm512_loadu_ps(ready + i * LANES + g * LANES);
				high[g] = _mm512_loadu_ps(ready + (i + 4) * LANES + g * LANES);
			}
		} else {
			keys_8(low, high, k + i, d);
		}
		ask(next, ahead, i);
#pragma GCC unroll 4
		for (int r = 0; r < rows; r++) {
			const float *at = q + (size_t)r * d + i;
			const __m512 a = _mm512_broadcast_f32x4(_mm_loadu_ps(at));
			const __m512 b = _mm512_broadcast_f32x4(_mm_loadu_ps(at + 4));

#pragma GCC unroll 4
			for (int g = 0; g < 4; g++)
				sum[4 * r + g] = _mm512_fmadd_ps(low[g], a, sum[4 * r + g]);
#pragma GCC unroll 4
			for (int g = 0; g < 4; g++)
				sum[4 * r + g] = _mm512_fmadd_ps(high[g], b, sum[4 * r + g]);
		}
	}
#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
		_mm512_storeu_ps(p + r * KVTILE_TOKENS, fold(sum + 4 * r));
}

AVX512_INLINE void scores_rows(float *p, const float *q, uint32_t rows, const uint16_t *k,
			       const float *ready, uint32_t d, const char *next)
{
	const char *ahead = ready ? NULL : (const char *)(k + (size_t)LANES * d);

	for (; rows >= 4; rows -= 4, p += 4 * KVTILE_TOKENS, q += (size_t)4 * d) {
		scores_16(4, p, q, k, ready, d, next, ahead);
		next = ahead = NULL;
	}
	if (rows == 3)
		scores_16(3, p, q, k, ready, d, next, ahead);
	else if (rows == 2)
		scores_16(2, p, q, k, ready, d, next, ahead);
	else if (rows == 1)
		scores_16(1, p, q, k, ready, d, next, ahead);
}

AVX512 void kvtile_scores_avx512(float *p, const float *q, uint32_t rows, const uint16_t *k,
				 uint32_t n, uint32_t d, float *ready, const char *next)
{
	for (uint32_t j = 0; j < n; j += LANES, p += LANES, k += (size_t)LANES * d) {
		for (uint32_t i = 0; rows > KVTILE_FEW && i < d; i += 8) {
			__m512 x[8];

			keys_8(x, x + 4, k + i, d);
#pragma GCC unroll 8
			for (int g = 0; g < 8; g++)
				_mm512_storeu_ps(ready + (i * LANES + g * LANES), x[g]);
		}
		if (rows > KVTILE_FEW)
			scores_rows(p, q, rows, k, ready, d, next);
		else
			scores_rows(p, q, rows, k, NULL, d, next);
		if (next)
			next += (size_t)LANES * d * 2;
	}
}

/* --- values --- */

/* rows x regs registers of acc, both constants, their product at most 16. v is f16, or floats. */
AVX512_INLINE void strip(int rows, int regs, bool half, const struct kvtile_product *t, float *c,
			 const float *a, uint32_t at, const char *next)
{
	__m512 sum[16], x[4];

	c += at;
#pragma GCC unroll 16
	for (int s = 0; s < rows * regs; s++)
		sum[s] = _mm512_loadu_ps(c + s / regs * t->ldc + s % regs * LANES);
	for (uint32_t j = 0; j < t->k; j++) {
		const size_t from = j * t->ldb + at;

#pragma GCC unroll 4
		for (int g = 0; g < regs; g++)
			x[g] = half ? _mm512_cvtph_ps(_mm256_loadu_si256(
					      (const void *)((const uint16_t *)t->b + from +
							     g * LANES))) :
				      _mm512_loadu_ps((const float *)t->b + from + g * LANES);
		if (next)
#pragma GCC unroll 4
			for (int g = 0; g < regs; g += 2)
				_mm_prefetch(next + (from + (size_t)g * LANES) * 2, _MM_HINT_T1);
#pragma GCC unroll 8
		for (int r = 0; r < rows; r++) {
			const __m512 w = _mm512_set1_ps(a[r * t->lda + j]);

#pragma GCC unroll 4
			for (int g = 0; g < regs; g++)
				sum[r * regs + g] = _mm512_fmadd_ps(x[g], w, sum[r * regs + g]);
		}
	}
#pragma GCC unroll 16
	for (int s = 0; s < rows * regs; s++)
		_mm512_storeu_ps(c + s / regs * t->ldc + s % regs * LANES, sum[s]);
}

/* All columns of a constant number of rows; up to four rows have room for four registers each. */
AVX512_INLINE void strips(int rows, bool half, const struct kvtile_product *t, float *c,
			  const float *a, const char *next)
{
	uint32_t at = 0;

	if (rows <= 4)
		for (; at + 4 * LANES <= t->n; at += 4 * LANES)
			strip(rows, 4, half, t, c, a, at, next);
	for (; at + 2 * LANES <= t->n; at += 2 * LANES)
		strip(rows, 2, half, t, c, a, at, next);
	if (at < t->n)
		strip(rows, 1, half, t, c, a, at, next);
}

AVX512 static void few(const struct kvtile_product *t, const char *next)
{
	switch (t->rows) {
	case 1:
		return strips(1, true, t, t->c, t->a, next);
	case 2:
		return strips(2, true, t, t->c, t->a, next);
	case 3:
		return strips(3, true, t, t->c, t->a, next);
	case 4:
		return strips(4, true, t, t->c, t->a, next);
	case 5:
		return strips(5, true, t, t->c, t->a, next);
	case 6:
		return strips(6, true, t, t->c, t->a, next);
	case 7:
		return strips(7, true, t, t->c, t->a, next);
	case 8:
		return strips(8, true, t, t->c, t->a, next);
	}
}

AVX512 static void many(const struct kvtile_product *t)
{
	const float *a = t->a;
	float *c = t->c;
	uint32_t rows = t->rows;

	for (; rows >= 4; rows -= 4, c += 4 * t->ldc, a += 4 * t->lda)
		strips(4, false, t, c, a, NULL);
	if (rows == 3)
		strips(3, false, t, c, a, NULL);
	else if (rows == 2)
		strips(2, false, t, c, a, NULL);
	else if (rows == 1)
		strips(1, false, t, c, a, NULL);
}

AVX512 void kvtile_values_avx512(const struct kvtile_product *t, float *ready, const char *next)
{
	struct kvtile_product floats = *t;
	const uint16_t *v = t->b;

	if (t->rows <= KVTILE_FEW)
		return few(t, next);
	for (size_t x = 0; x < (size_t)t->k * t->ldb; x += LANES) {
		_mm512_storeu_ps(ready + x,
				 _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(v + x))));
		if (next && x % (2 * LANES) == 0)
			_mm_prefetch(next + x * 2, _MM_HINT_T1);
	}
	floats.b = ready;
	many(&floats);
}

/* --- weights --- */

AVX512 void kvtile_weigh_avx512(const struct kvtile_weights *w, uint32_t first, uint32_t end,
				uint32_t n)
{
	for (uint32_t r = first; r < end; r++) {
		float *p = w->p + (size_t)r * KVTILE_TOKENS;
		__m512 x[4];
		const __m512 top = _mm512_set1_ps(load_scores(w, r, n, x));

#pragma GCC unroll 4
		for (int i = 0; i < 4; i++) {
			x[i] = exp_16(_mm512_sub_ps(x[i], top));
			_mm512_storeu_ps(p + 16 * i, x[i]);
		}
		add_weights(w, r,
			    _mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3])));
	}
}
#else
bool kvtile_has_avx512(void)
{
	return false;
}

void kvtile_scores_avx512(float *p, const float *q, uint32_t rows, const uint16_t *k, uint32_t n,
			  uint32_t d, float *ready, const char *next)
{
}

void kvtile_values_avx512(const struct kvtile_product *t, float *ready, const char *next)
{
}

void kvtile_weigh_avx512(const struct kvtile_weights *w, uint32_t first, uint32_t end, uint32_t n)
{
}
#endif
