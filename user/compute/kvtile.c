// SPDX-License-Identifier: MIT
#include "compute/kvtile.h"

#include <math.h>

#include "base/clones.h"
#include "compute/exp.h"

enum { LINE = 64 };

static bool without_avx512, without_avx2;

void kvtile_limit(bool no_avx512, bool no_avx2)
{
	without_avx512 = no_avx512 || no_avx2;
	without_avx2 = no_avx2;
}

void kvtile_fetch(const void *p, size_t n)
{
	for (size_t i = 0; i < n; i += LINE)
		__builtin_prefetch((const char *)p + i, 0, 2);
}

/* --- products --- */

/*
 * The strip c[rows][regs * w] of a product, where w floats are one register. rows and regs are constants, rows * regs at most
 * 8, so that sums stay in registers. One for every form of b and register: a vector that is two
 * registers wide would end up in memory.
 */
#define STRIP(attribute, name, bytes, b_type, b_load)                                          \
	typedef float name##_lanes __attribute__((vector_size(bytes), aligned(4), may_alias)); \
	attribute static inline __attribute__((always_inline)) void name(                      \
		int rows, int regs, const struct kvtile_product *p, float *c, const float *a,  \
		uint32_t j)                                                                    \
	{                                                                                      \
		const int w = (bytes) / 4;                                                     \
		const b_type *b = (const b_type *)p->b + j;                                    \
		name##_lanes sum[8], x[2];                                                     \
                                                                                               \
		c += j;                                                                        \
		_Pragma("GCC unroll 8") for (int s = 0; s < rows * regs; s++)                  \
		{                                                                              \
			float *at = c + s / regs * p->ldc + s % regs * w;                      \
                                                                                               \
			sum[s] = p->add ? *(const name##_lanes *)at : (name##_lanes){ 0 };     \
		}                                                                              \
		for (uint32_t i = 0; i < p->k; i++) {                                          \
			_Pragma("GCC unroll 2") for (int g = 0; g < regs; g++)                 \
			{                                                                      \
				x[g] = b_load(b + i * p->ldb + g * w);                         \
			}                                                                      \
			_Pragma("GCC unroll 8") for (int s = 0; s < rows * regs; s++)          \
			{                                                                      \
				sum[s] += a[s / regs * p->lda + i] * x[s % regs];              \
			}                                                                      \
		}                                                                              \
		_Pragma("GCC unroll 8") for (int s = 0; s < rows * regs; s++)                  \
		{                                                                              \
			float *at = c + s / regs * p->ldc + s % regs * w;                      \
                                                                                               \
			*(name##_lanes *)at = sum[s];                                          \
		}                                                                              \
	}

/* Two registers a row where the width allows it, which it does but for the last strip. */
#define STRIP_ROWS(strip, width, rows)                            \
	do {                                                      \
		uint32_t j = 0;                                   \
                                                                  \
		for (; j + 2 * (width) <= p->n; j += 2 * (width)) \
			strip(rows, 2, p, c, a, j);               \
		if (j < p->n)                                     \
			strip(rows, 1, p, c, a, j);               \
	} while (0)

#define STRIPS(strip, width)                                                   \
	do {                                                                   \
		const float *a = p->a;                                         \
		float *c = p->c;                                               \
		uint32_t rows = p->rows;                                       \
                                                                               \
		for (; rows >= 4; rows -= 4, c += 4 * p->ldc, a += 4 * p->lda) \
			STRIP_ROWS(strip, width, 4);                           \
		if (rows == 3)                                                 \
			STRIP_ROWS(strip, width, 3);                           \
		else if (rows == 2)                                            \
			STRIP_ROWS(strip, width, 2);                           \
		else if (rows == 1)                                            \
			STRIP_ROWS(strip, width, 1);                           \
	} while (0)

#define LOAD_8(at) (*(const strip8_lanes *)(at))

STRIP(, strip8, 32, float, LOAD_8)

CLONES static void multiply_plain(const struct kvtile_product *p)
{
	STRIPS(strip8, 8);
}

static void turn_plain(float *kt, const uint16_t *k, uint32_t first, uint32_t n, uint32_t d)
{
	for (uint32_t j = first; j < n; j++)
		for (uint32_t i = 0; i < d; i++)
			kt[(size_t)i * KVTILE_TOKENS + j] = half_to_float(k[(size_t)j * d + i]);
}

#ifdef __x86_64__
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,fma")))
#define AVX2   __attribute__((target("avx2,f16c")))

#define AVX512_INLINE static inline __attribute__((always_inline)) AVX512

static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512vl") && !without_avx512;
}

static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2") && !without_avx2;
}

#define LOAD_16(at)	(*(const strip16_lanes *)(at))
#define LOAD_16_F16(at) ((strip16_f16_lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(at))))

STRIP(AVX512, strip16, 64, float, LOAD_16)
STRIP(AVX512, strip16_f16, 64, uint16_t, LOAD_16_F16)

AVX512 static void multiply_avx512(const struct kvtile_product *p)
{
	STRIPS(strip16, 16);
}

AVX512 static void multiply_f16_avx512(const struct kvtile_product *p)
{
	STRIPS(strip16_f16, 16);
}

/* Sums over each of four registers: lane 4 i + j of the result is a part of s[j]'s. */
AVX512_INLINE __m512 fold_4(const __m512 *s)
{
	const __m512 a =
		_mm512_add_ps(_mm512_unpacklo_ps(s[0], s[1]), _mm512_unpackhi_ps(s[0], s[1]));
	const __m512 b =
		_mm512_add_ps(_mm512_unpacklo_ps(s[2], s[3]), _mm512_unpackhi_ps(s[2], s[3]));
	const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);

	return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)),
			     _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
}

/* The same of two of those, then of two of these: in the end lane j is the sum over register j of 16. */
AVX512_INLINE __m512 fold_2(__m512 a, __m512 b)
{
	return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

/* Scores of 16 keys for a constant number of rows, at most 4; four keys at a time meet all rows. */
AVX512_INLINE void scores_16(int rows, float *p, const float *q, const uint16_t *k, uint32_t d)
{
	__m512 part[4][4];

#pragma GCC unroll 4
	for (int g = 0; g < 4; g++, k += 4 * (size_t)d) {
		__m512 sum[16];

#pragma GCC unroll 16
		for (int s = 0; s < 16; s++)
			sum[s] = _mm512_setzero_ps();
		for (uint32_t i = 0; i < d; i += 16) {
			__m512 key[4];

#pragma GCC unroll 4
			for (uint32_t j = 0; j < 4; j++)
				key[j] = _mm512_cvtph_ps(
					_mm256_loadu_si256((const void *)(k + j * d + i)));
#pragma GCC unroll 4
			for (int r = 0; r < rows; r++) {
				const __m512 x = _mm512_loadu_ps(q + (size_t)r * d + i);

#pragma GCC unroll 4
				for (int j = 0; j < 4; j++)
					sum[4 * r + j] = _mm512_fmadd_ps(key[j], x, sum[4 * r + j]);
			}
		}
#pragma GCC unroll 4
		for (int r = 0; r < rows; r++)
			part[r][g] = fold_4(sum + 4 * r);
	}
#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
		_mm512_storeu_ps(p + r * KVTILE_TOKENS, fold_2(fold_2(part[r][0], part[r][1]),
							       fold_2(part[r][2], part[r][3])));
}

AVX512 static void scores_avx512(float *p, const float *q, const uint16_t *k, uint32_t rows,
				 uint32_t n, uint32_t d, const char *next)
{
	for (uint32_t j = 0; j < n; j += 16, p += 16, k += (size_t)16 * d) {
		if (next)
			kvtile_fetch(next + (size_t)j * d * 2, (size_t)d * 32);
		for (uint32_t r = 0; r < rows; r += 4) {
			float *to = p + (size_t)r * KVTILE_TOKENS;
			const float *from = q + (size_t)r * d;

			if (rows - r >= 4)
				scores_16(4, to, from, k, d);
			else if (rows - r == 3)
				scores_16(3, to, from, k, d);
			else if (rows - r == 2)
				scores_16(2, to, from, k, d);
			else
				scores_16(1, to, from, k, d);
		}
	}
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
			kvtile_fetch(next + (size_t)j * d * 2, (size_t)d * 16);
		for (uint32_t i = 0; i < d; i += 16)
			turn_8x16(kt, k, i, j, d);
	}
}
#else
static bool has_avx512(void)
{
	return false;
}

static bool has_avx2(void)
{
	return false;
}

static void multiply_avx512(const struct kvtile_product *p)
{
}

static void multiply_f16_avx512(const struct kvtile_product *p)
{
}

static void scores_avx512(float *p, const float *q, const uint16_t *k, uint32_t rows, uint32_t n,
			  uint32_t d, const char *next)
{
}

static void turn_avx2(float *kt, const uint16_t *k, uint32_t n, uint32_t d, const char *next)
{
}
#endif

void kvtile_multiply(const struct kvtile_product *p)
{
	if (has_avx512())
		multiply_avx512(p);
	else
		multiply_plain(p);
}

/* With more rows b would be converted once for every four of them. */
bool kvtile_multiply_f16(const struct kvtile_product *p)
{
	if (p->rows > 8 || !has_avx512())
		return false;
	multiply_f16_avx512(p);
	return true;
}

bool kvtile_scores_f16(float *p, const float *q, const uint16_t *k, uint32_t rows, uint32_t n,
		       uint32_t d, const void *next)
{
	if (rows > 8 || d % 16 || !has_avx512())
		return false;
	scores_avx512(p, q, k, rows, n, d, next);
	return true;
}

void kvtile_turn(float *kt, const uint16_t *k, uint32_t n, uint32_t d, const void *next)
{
	const uint32_t fast = has_avx2() && d % 16 == 0 ? n & ~7u : 0;

	turn_avx2(kt, k, fast, d, next);
	turn_plain(kt, k, fast, n, d);
}

/* --- rows --- */

/* Every count is a constant, so that all of a block's scores stay in registers. */
CLONES float kvtile_weigh(float p[KVTILE_TOKENS], uint32_t n, float *max)
{
	float lane[KVTILE_LANES], top = *max;

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
	for (int w = KVTILE_LANES / 2; w; w /= 2)
		for (int j = 0; j < w; j++)
			lane[j] += lane[j + w];
	return lane[0];
}

CLONES void kvtile_scale(float *y, const float *x, float factor, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		y[i] = x[i] * factor;
}
