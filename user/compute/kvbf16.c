// SPDX-License-Identifier: MIT
/*
 * Up to FEW rows, keys and values are rounded in registers on their way to them; for more rows, once, into memory, in the
 * same order of elements. Each row's sums are the same either way.
 */
#include "compute/kvbf16.h"

static bool without;

void kvbf16_limit(bool no_bf16)
{
	without = no_bf16;
}

const char *kvbf16_describe(uint32_t d)
{
	if (kvbf16_fast(d))
		return "as bf16 by AVX-512 BF16";
	return d % KVTILE_LANES ? "as floats, heads being no multiple of 16" :
				  "as floats, the processor having no AVX-512 BF16";
}

#ifdef __x86_64__
#include "compute/kvtile_avx512.h"
#include "compute/kvtile_lanes.h"

#define BF16	    __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx512bf16,fma")))
#define BF16_INLINE static inline __attribute__((always_inline)) BF16

enum { FEW = 6 };

bool kvbf16_fast(uint32_t d)
{
	return d % LANES == 0 && !without && kvtile_has_avx512() &&
	       __builtin_cpu_supports("avx512bf16");
}

/* How many of so many rows come next: few sums would wait for each other. */
static uint32_t next_rows(uint32_t rows)
{
	return rows >= 6 && rows != 8 ? 6 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
}

/* Two times 16 f16 as 32 bf16. */
BF16_INLINE __m512i round_32(__m256i low, __m256i high)
{
	return (__m512i)_mm512_cvtne2ps_pbh(_mm512_cvtph_ps(high), _mm512_cvtph_ps(low));
}

BF16_INLINE __m512 multiply(__m512 sum, __m512i a, __m512i b)
{
	return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

/* --- keys --- */

/*
 * 16 keys, 8 elements of each, as four registers: g has those of keys g, 4 + g, 8 + g and 12 + g, side by side, so that
 * sums over a key's elements stay within 128 bits.
 */
BF16_INLINE void keys_8(__m512i *out, const uint16_t *k, size_t d)
{
#pragma GCC unroll 4
	for (size_t g = 0; g < 4; g++, k += d) {
		const __m256i x = _mm256_inserti128_si256(
			_mm256_castsi128_si256(_mm_loadu_si128((const void *)k)),
			_mm_loadu_si128((const void *)(k + 4 * d)), 1);
		const __m256i y = _mm256_inserti128_si256(
			_mm256_castsi128_si256(_mm_loadu_si128((const void *)(k + 8 * d))),
			_mm_loadu_si128((const void *)(k + 12 * d)), 1);

		out[g] = round_32(x, y);
	}
}

/* Scores of 16 keys for a constant number of rows, at most FEW. The keys are at k, or rounded in `ready`. */
BF16_INLINE void scores_16(int rows, float *p, const uint16_t *q, const uint16_t *k,
			   const __m512i *ready, uint32_t d, const char *next, const char *ahead)
{
	__m512 sum[4 * FEW];
	__m512i key[4];

#pragma GCC unroll 24
	for (int s = 0; s < 4 * rows; s++)
		sum[s] = _mm512_setzero_ps();
	for (uint32_t i = 0; i < d; i += 8) {
		if (ready)
#pragma GCC unroll 4
			for (int g = 0; g < 4; g++)
				key[g] = _mm512_loadu_si512(ready++);
		else
			keys_8(key, k + i, d);
		ask(next, ahead, i);
#pragma GCC unroll 6
		for (int r = 0; r < rows; r++) {
			const __m512i a = _mm512_broadcast_i32x4(
				_mm_loadu_si128((const void *)(q + (size_t)r * d + i)));

#pragma GCC unroll 4
			for (int g = 0; g < 4; g++)
				sum[4 * r + g] = multiply(sum[4 * r + g], key[g], a);
		}
	}
#pragma GCC unroll 6
	for (int r = 0; r < rows; r++)
		_mm512_storeu_ps(p + r * KVTILE_TOKENS, fold(sum + 4 * r));
}

BF16 static void scores_few(float *p, const uint16_t *q, uint32_t rows, const uint16_t *k,
			    uint32_t d, const char *next)
{
	const char *ahead = (const char *)(k + (size_t)LANES * d);

	switch (rows) {
	case 1:
		return scores_16(1, p, q, k, NULL, d, next, ahead);
	case 2:
		return scores_16(2, p, q, k, NULL, d, next, ahead);
	case 3:
		return scores_16(3, p, q, k, NULL, d, next, ahead);
	case 4:
		return scores_16(4, p, q, k, NULL, d, next, ahead);
	case 5:
		return scores_16(5, p, q, k, NULL, d, next, ahead);
	case 6:
		return scores_16(6, p, q, k, NULL, d, next, ahead);
	}
}

BF16 static void scores_many(float *p, const uint16_t *q, uint32_t rows, const __m512i *ready,
			     uint32_t d)
{
	for (uint32_t m; rows; rows -= m, p += m * KVTILE_TOKENS, q += (size_t)m * d) {
		m = next_rows(rows);
		if (m == 6)
			scores_16(6, p, q, NULL, ready, d, NULL, NULL);
		else if (m == 4)
			scores_16(4, p, q, NULL, ready, d, NULL, NULL);
		else if (m == 2)
			scores_16(2, p, q, NULL, ready, d, NULL, NULL);
		else
			scores_16(1, p, q, NULL, ready, d, NULL, NULL);
	}
}

BF16 void kvbf16_scores(float *p, const uint16_t *q, uint32_t rows, const uint16_t *k, uint32_t n,
			uint32_t d, float *ready, const char *next)
{
	__m512i *const keys = (__m512i *)(void *)ready;

	for (uint32_t j = 0; j < n; j += LANES, p += LANES, k += (size_t)LANES * d) {
		if (rows <= FEW) {
			scores_few(p, q, rows, k, d, next);
		} else {
			for (uint32_t i = 0; i < d; i += 8) {
				__m512i x[4];

				keys_8(x, k + i, d);
				ask(next, (const char *)(k + (size_t)LANES * d), i);
#pragma GCC unroll 4
				for (int g = 0; g < 4; g++)
					_mm512_storeu_si512(keys + i / 2 + g, x[g]);
			}
			scores_many(p, q, rows, keys, d);
		}
		if (next)
			next += (size_t)LANES * d * 2;
	}
}

/* --- weights --- */

/*
 * exp(x - top / log2(e)) within 3e-6, which is a thousandth of what rounding will do: 2 to the power of log2(e) times as
 * much, by a polynomial fitted to +-1/2.
 */
BF16_INLINE __m512 weight_16(__m512 x, __m512 top)
{
	const __m512 t = _mm512_max_ps(_mm512_fmsub_ps(x, _mm512_set1_ps(0x1.715476p0f), top),
				       _mm512_set1_ps(-150));
	const __m512 k = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT);
	const __m512 r = _mm512_sub_ps(t, k);
	__m512 p = _mm512_set1_ps(0x1.3a02ccp-7f);

	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c9fc48p-5f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ec0378p-3f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e12cp-1f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
	return _mm512_scalef_ps(p, k);
}

BF16 void kvbf16_weigh(const struct kvtile_weights *w, uint32_t first, uint32_t end, uint32_t n)
{
	const __m512i one = _mm512_set1_epi16(0x3f80);

	for (uint32_t r = first; r < end; r++) {
		float *p = w->p + (size_t)r * KVTILE_TOKENS;
		__m512i low, high;
		__m512 x[4], sum;
		const __m512 top = _mm512_set1_ps(load_scores(w, r, n, x) * 0x1.715476p0f);

#pragma GCC unroll 4
		for (int i = 0; i < 4; i++)
			x[i] = weight_16(x[i], top);
		low = (__m512i)_mm512_cvtne2ps_pbh(x[1], x[0]);
		high = (__m512i)_mm512_cvtne2ps_pbh(x[3], x[2]);
		_mm512_storeu_si512(p, low);
		_mm512_storeu_si512(p + LANES, high);
		sum = multiply(multiply(_mm512_setzero_ps(), low, one), high, one);
		w->sum[r] += _mm512_reduce_add_ps(sum);
	}
}

/* --- values --- */

/* 16 elements of two values, pair by pair; the second may be nobody's. */
BF16_INLINE __m512i pair_of(const uint16_t *v, const uint16_t *other)
{
	const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25,
					       9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
					       17, 1, 16, 0);
	const __m256i second = other ? _mm256_loadu_si256((const void *)other) :
				       _mm256_setzero_si256();

	return _mm512_permutexvar_epi16(order,
					round_32(_mm256_loadu_si256((const void *)v), second));
}

/* Weights and sums of a few rows, from element `at` on; what is read is values at v, or pairs of them rounded in `ready`. */
struct strip {
	float *acc;
	const float *p;
	const uint16_t *v;
	const __m512i *ready;
	const char *next;
	uint32_t n, d;
};

/* Tokens j and, if it is not alone, j + 1, for rows x regs sums, both constants. */
BF16_INLINE void strip_step(int rows, int regs, const struct strip *t, uint32_t j, bool alone,
			    __m512 *sum)
{
	const uint16_t *v = t->v + (size_t)j * t->d;
	__m512i x[4];

#pragma GCC unroll 4
	for (int g = 0; g < regs; g++)
		x[g] = t->ready ? _mm512_loadu_si512(t->ready + (size_t)j / 2 * t->d / LANES + g) :
				  pair_of(v + g * LANES, alone ? NULL : v + t->d + g * LANES);
	if (t->next)
#pragma GCC unroll 4
		for (int g = 0; g < regs; g++)
			_mm_prefetch(t->next + ((size_t)(j + g % 2) * t->d + g / 2 * 2 * LANES) * 2,
				     _MM_HINT_T1);
#pragma GCC unroll 6
	for (int r = 0; r < rows; r++) {
		const __m512i w =
			_mm512_castps_si512(_mm512_set1_ps(t->p[r * KVTILE_TOKENS + j / 2]));

#pragma GCC unroll 4
		for (int g = 0; g < regs; g++)
			sum[r * regs + g] = multiply(sum[r * regs + g], x[g], w);
	}
}

BF16_INLINE void strip(int rows, int regs, const struct strip *t)
{
	__m512 sum[4 * FEW];
	uint32_t j = 0;

#pragma GCC unroll 24
	for (int s = 0; s < rows * regs; s++)
		sum[s] = _mm512_loadu_ps(t->acc + (size_t)(s / regs) * t->d + s % regs * LANES);
	for (; j + 1 < t->n; j += 2)
		strip_step(rows, regs, t, j, false, sum);
	if (j < t->n)
		strip_step(rows, regs, t, j, true, sum);
#pragma GCC unroll 24
	for (int s = 0; s < rows * regs; s++)
		_mm512_storeu_ps(t->acc + (size_t)(s / regs) * t->d + s % regs * LANES, sum[s]);
}

/* All elements of a constant number of rows, at most FEW. */
BF16_INLINE void strips(int rows, struct strip t, bool ready)
{
	uint32_t at = 0;

	while (at < t.d) {
		const uint32_t left = t.d - at;
		const uint32_t regs = left >= 4 * LANES ? 4 : left >= 2 * LANES ? 2 : 1;

		if (regs == 4)
			strip(rows, 4, &t);
		else if (regs == 2)
			strip(rows, 2, &t);
		else
			strip(rows, 1, &t);
		at += regs * LANES;
		t.acc += regs * LANES;
		if (ready)
			t.ready += regs;
		else
			t.v += regs * LANES;
		if (t.next)
			t.next += regs * LANES * 2;
	}
}

BF16 static void values_few(const struct strip *t, uint32_t rows)
{
	switch (rows) {
	case 1:
		return strips(1, *t, false);
	case 2:
		return strips(2, *t, false);
	case 3:
		return strips(3, *t, false);
	case 4:
		return strips(4, *t, false);
	case 5:
		return strips(5, *t, false);
	case 6:
		return strips(6, *t, false);
	}
}

BF16 static void values_many(struct strip t, uint32_t rows)
{
	for (uint32_t m; rows; rows -= m) {
		m = next_rows(rows);
		if (m == 6)
			strips(6, t, true);
		else if (m == 4)
			strips(4, t, true);
		else if (m == 2)
			strips(2, t, true);
		else
			strips(1, t, true);
		t.acc += (size_t)m * t.d;
		t.p += (size_t)m * KVTILE_TOKENS;
	}
}

BF16 void kvbf16_values(const struct kvbf16_values *t, float *ready, const char *next)
{
	__m512i *to = (__m512i *)(void *)ready;
	struct strip s = { .acc = t->acc, .p = t->p, .v = t->v, .next = next, .n = t->n, .d = t->d };

	if (t->rows <= FEW)
		return values_few(&s, t->rows);
	for (uint32_t j = 0; j < t->n; j += 2)
		for (uint32_t i = 0; i < t->d; i += LANES) {
			const uint16_t *v = t->v + (size_t)j * t->d + i;

			_mm512_storeu_si512(to++, pair_of(v, j + 1 < t->n ? v + t->d : NULL));
			if (next)
				_mm_prefetch(next + ((size_t)j * t->d + 2 * i) * 2, _MM_HINT_T1);
		}
	s.ready = (const __m512i *)(const void *)ready;
	s.next = NULL;
	values_many(s, t->rows);
}
#else
bool kvbf16_fast(uint32_t d)
{
	return false;
}

void kvbf16_scores(float *p, const uint16_t *q, uint32_t rows, const uint16_t *k, uint32_t n,
		   uint32_t d, float *ready, const char *next)
{
}

void kvbf16_weigh(const struct kvtile_weights *w, uint32_t first, uint32_t end, uint32_t n)
{
}

void kvbf16_values(const struct kvbf16_values *t, float *ready, const char *next)
{
}
#endif
