// SPDX-License-Identifier: MIT
#include "compute/kvtile.h"

#include "base/clones.h"
#include "compute/half.h"

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
 * The strip c[rows][w] of a product, where w floats are one register. rows is a constant of at most 4, so that sums
 * stay in registers. One for every form of b and register: a vector that is two registers wide would
 * end up in memory.
 */
#define STRIP(attribute, name, bytes, b_type, b_load)                                           \
	typedef float name##_lanes __attribute__((vector_size(bytes), aligned(4), may_alias));  \
	attribute static inline __attribute__((always_inline)) void name(                       \
		int rows, const struct kvtile_product *p, float *c, const float *a, uint32_t j) \
	{                                                                                       \
		const b_type *b = (const b_type *)p->b + j;                                     \
		name##_lanes sum[4];                                                            \
                                                                                                \
		c += j;                                                                         \
		_Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)                          \
		{                                                                               \
			sum[r] = p->add ? *(const name##_lanes *)(c + r * p->ldc) :             \
					  (name##_lanes){ 0 };                                  \
		}                                                                               \
		for (uint32_t i = 0; i < p->k; i++) {                                           \
			const name##_lanes x = b_load(b + i * p->ldb);                          \
                                                                                                \
			_Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)                  \
			{                                                                       \
				sum[r] += a[r * p->lda + i] * x;                                \
			}                                                                       \
		}                                                                               \
		_Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)                          \
		{                                                                               \
			*(name##_lanes *)(c + r * p->ldc) = sum[r];                             \
		}                                                                               \
	}

#define STRIPS(strip, width, p)                                                    \
	do {                                                                       \
		const float *a = (p)->a;                                           \
		float *c = (p)->c;                                                 \
		uint32_t rows = (p)->rows;                                         \
                                                                                   \
		for (; rows >= 4; rows -= 4, c += 4 * (p)->ldc, a += 4 * (p)->lda) \
			for (uint32_t j = 0; j < (p)->n; j += (width))             \
				strip(4, p, c, a, j);                              \
		for (uint32_t j = 0; rows && j < (p)->n; j += (width)) {           \
			if (rows == 3)                                             \
				strip(3, p, c, a, j);                              \
			else if (rows == 2)                                        \
				strip(2, p, c, a, j);                              \
			else                                                       \
				strip(1, p, c, a, j);                              \
		}                                                                  \
	} while (0)

#define LOAD_8(at) (*(const strip8_lanes *)(at))

STRIP(, strip8, 32, float, LOAD_8)

CLONES static void multiply_plain(const struct kvtile_product *p)
{
	STRIPS(strip8, 8, p);
}

static void turn_plain(float *kt, const uint16_t *k, uint32_t first, uint32_t n, uint32_t d)
{
	for (uint32_t j = first; j < n; j++)
		for (uint32_t i = 0; i < d; i++)
			kt[(size_t)i * KVTILE_TOKENS + j] = half_to_float(k[(size_t)j * d + i]);
}

#ifdef __x86_64__
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512vl,fma")))
#define AVX2   __attribute__((target("avx2,f16c")))

static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
	       !without_avx512;
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
	STRIPS(strip16, 16, p);
}

AVX512 static void multiply_f16_avx512(const struct kvtile_product *p)
{
	STRIPS(strip16_f16, 16, p);
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

void kvtile_turn(float *kt, const uint16_t *k, uint32_t n, uint32_t d, const void *next)
{
	const uint32_t fast = has_avx2() && d % 16 == 0 ? n & ~7u : 0;

	turn_avx2(kt, k, fast, d, next);
	turn_plain(kt, k, fast, n, d);
}

/* --- rows --- */

CLONES float kvtile_max(float max, const float *x, uint32_t n)
{
	float lane[KVTILE_LANES];
	uint32_t i = 0;

	for (int j = 0; j < KVTILE_LANES; j++)
		lane[j] = max;
	for (; i + KVTILE_LANES <= n; i += KVTILE_LANES)
		for (int j = 0; j < KVTILE_LANES; j++)
			lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
	for (; i < n; i++)
		lane[0] = x[i] > lane[0] ? x[i] : lane[0];
	for (int j = 0; j < KVTILE_LANES; j++)
		max = lane[j] > max ? lane[j] : max;
	return max;
}

CLONES void kvtile_scale(float *y, const float *x, float factor, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		y[i] = x[i] * factor;
}
