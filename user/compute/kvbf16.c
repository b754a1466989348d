// SPDX-License-Identifier: MIT
/*
 * For few rows keys and values are rounded in registers on their way to them; for more, once, into memory, in the same order of
 * elements. Each row's sums are the same either way.
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

enum { FEW = KVBF16_FEW };

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

BF16 void kvbf16_round_keys(uint16_t *to, const struct kvbf16_block *b)
{
	const uint16_t *k = b->x;
	const char *next = b->next;

	for (uint32_t j = 0; j < b->n; j += LANES, k += (size_t)LANES * b->d) {
		for (uint32_t i = 0; i < b->d; i += 8, to += 8 * LANES) {
			__m512i x[4];

			keys_8(x, k + i, b->d);
			ask(next, (const char *)(k + (size_t)LANES * b->d), i);
#pragma GCC unroll 4
			for (int g = 0; g < 4; g++)
				_mm512_storeu_si512(to + g * 2 * LANES, x[g]);
		}
		if (next)
			next += (size_t)LANES * b->d * 2;
	}
}

BF16 void kvbf16_scores(float *p, const uint16_t *q, uint32_t rows, const struct kvbf16_block *b)
{
	const uint16_t *k = b->x;
	const char *next = b->next;

	for (uint32_t j = 0; j < b->n; j += LANES, p += LANES, k += (size_t)LANES * b->d) {
		if (b->rounded)
			scores_many(p, q, rows, (const __m512i *)(const void *)k, b->d);
		else
			scores_few(p, q, rows, k, b->d, next);
		if (next)
			next += (size_t)LANES * b->d * 2;
	}
}

/* --- weights --- */

/*
 * exp(x - top / log2(e)) within 3e-6, which is a thousandth of what rounding will do, of four vectors for each top: 2 to the power
 * of log2(e) times as much, by a polynomial fitted to +-1/2. What is less than 2^-126 becomes that. Adding 1.5 * 2^23 rounds
 * to an integer, which then stands in the low bits: units that round and scale have the polynomial to do. Step by
 * step for all of them, as each step waits for the one before.
 */
BF16_INLINE void weights_of(int n, __m512 *x, const __m512 *top)
{
	static const float factors[] = { 0x1.c9fc48p-5f, 0x1.ec0378p-3f, 0x1.62e12cp-1f, 1 };
	const __m512 magic = _mm512_set1_ps(0x1.8p23f);
	__m512 shifted[8], p[8];

#pragma GCC unroll 8
	for (int i = 0; i < n; i++)
		x[i] = _mm512_fmsub_ps(x[i], _mm512_set1_ps(0x1.715476p0f), top[i / 4]);
#pragma GCC unroll 8
	for (int i = 0; i < n; i++)
		x[i] = _mm512_max_ps(x[i], _mm512_set1_ps(-126));
#pragma GCC unroll 8
	for (int i = 0; i < n; i++)
		shifted[i] = _mm512_add_ps(x[i], magic);
#pragma GCC unroll 8
	for (int i = 0; i < n; i++)
		p[i] = _mm512_sub_ps(shifted[i], magic);
#pragma GCC unroll 8
	for (int i = 0; i < n; i++) {
		x[i] = _mm512_sub_ps(x[i], p[i]);
		p[i] = _mm512_set1_ps(0x1.3a02ccp-7f);
	}
#pragma GCC unroll 4
	for (int step = 0; step < 4; step++)
#pragma GCC unroll 8
		for (int i = 0; i < n; i++)
			p[i] = _mm512_fmadd_ps(p[i], x[i], _mm512_set1_ps(factors[step]));
#pragma GCC unroll 8
	for (int i = 0; i < n; i++)
		x[i] = _mm512_castsi512_ps(
			_mm512_add_epi32(_mm512_castps_si512(p[i]),
					 _mm512_slli_epi32(_mm512_castps_si512(shifted[i]), 23)));
}

/* A constant number of rows, at most two, of n scores each. */
BF16_INLINE void weigh_rows(int rows, const struct kvtile_weights *w, uint32_t r, uint32_t n)
{
	const uint64_t mask = n < KVTILE_TOKENS ? ((uint64_t)1 << n) - 1 : ~(uint64_t)0;
	const __m512i one = _mm512_set1_epi16(0x3f80);
	__m512 x[8], top[2];

#pragma GCC unroll 2
	for (int i = 0; i < rows; i++)
		top[i] = _mm512_set1_ps(load_scores(w, r + (uint32_t)i, n, x + 4 * i) *
					0x1.715476p0f);
	weights_of(4 * rows, x, top);
#pragma GCC unroll 2
	for (int i = 0; i < rows; i++) {
		float *p = w->p + (size_t)(r + (uint32_t)i) * KVTILE_TOKENS;
		const __m512i low = _mm512_maskz_mov_epi16(
			(__mmask32)mask, (__m512i)_mm512_cvtne2ps_pbh(x[4 * i + 1], x[4 * i]));
		const __m512i high = _mm512_maskz_mov_epi16(
			(__mmask32)(mask >> 32),
			(__m512i)_mm512_cvtne2ps_pbh(x[4 * i + 3], x[4 * i + 2]));

		_mm512_storeu_si512(p, low);
		_mm512_storeu_si512(p + LANES, high);
		add_weights(w, r + (uint32_t)i,
			    multiply(multiply(_mm512_setzero_ps(), low, one), high, one));
	}
}

BF16 void kvbf16_weigh(const struct kvtile_weights *w, uint32_t first, uint32_t end, uint32_t n)
{
	for (; first + 1 < end; first += 2)
		if (n == KVTILE_TOKENS)
			weigh_rows(2, w, first, KVTILE_TOKENS);
		else
			weigh_rows(2, w, first, n);
	if (first < end)
		weigh_rows(1, w, first, n);
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

BF16 void kvbf16_round_values(uint16_t *to, const struct kvbf16_block *b)
{
	const uint16_t *v = b->x;
	const size_t d = b->d;

	for (uint32_t j = 0; j < b->n; j += 2, v += 2 * d)
		for (uint32_t i = 0; i < d; i += LANES, to += 2 * LANES) {
			_mm512_storeu_si512(to, pair_of(v + i, j + 1 < b->n ? v + d + i : NULL));
			if (b->next)
				_mm_prefetch(b->next + (j * d + 2 * i) * 2, _MM_HINT_T1);
		}
}

BF16 void kvbf16_values(float *acc, const float *p, uint32_t rows, const struct kvbf16_block *v)
{
	struct strip s = { .acc = acc, .p = p, .n = v->n, .d = v->d };

	if (v->rounded) {
		s.ready = (const __m512i *)(const void *)v->x;
		values_many(s, rows);
	} else {
		s.v = v->x;
		s.next = v->next;
		values_few(&s, rows);
	}
}
#else
bool kvbf16_fast(uint32_t d)
{
	return false;
}

void kvbf16_round_keys(uint16_t *to, const struct kvbf16_block *k)
{
}

void kvbf16_round_values(uint16_t *to, const struct kvbf16_block *v)
{
}

void kvbf16_scores(float *p, const uint16_t *q, uint32_t rows, const struct kvbf16_block *k)
{
}

void kvbf16_weigh(const struct kvtile_weights *w, uint32_t first, uint32_t end, uint32_t n)
{
}

void kvbf16_values(float *acc, const float *p, uint32_t rows, const struct kvbf16_block *v)
{
}
#endif
