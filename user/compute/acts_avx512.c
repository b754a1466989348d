// SPDX-License-Identifier: MIT
/*
 * Activations rounded by AVX-512: one thread makes them while the others wait, so half of the time is worth having (2048
 * columns: 0.43 us instead of 0.93; SmolLM2-135M decodes 10 % faster on two threads).
 */
#include "compute/acts_avx512.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "compute/acts.h"

#define SET	   __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define SET_INLINE static inline __attribute__((always_inline)) SET

bool acts_has_avx512(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("avx512vnni");
}

/* As largest() in acts.c. */
SET_INLINE float largest(__m512 a, __m512 b)
{
	const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
	const __m512i max = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a), magnitude),
					     _mm512_and_si512(_mm512_castps_si512(b), magnitude));
	const __m256i half =
		_mm256_max_epi32(_mm512_castsi512_si256(max), _mm512_extracti64x4_epi64(max, 1));
	__m128i m = _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));

	m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
	m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
	return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

/* As rounded() in acts.c, sixteen times. */
SET_INLINE __m128i rounded(__m512 x, __m512 inverse)
{
	const __m512 shift = _mm512_set1_ps(0x1.8p23f);
	const __m512 sum = _mm512_add_ps(_mm512_mul_ps(x, inverse), shift);

	return _mm512_cvtepi32_epi8(
		_mm512_sub_epi32(_mm512_castps_si512(sum), _mm512_castps_si512(shift)));
}

SET void acts_row_avx512(uint8_t *tile, const float *x, uint64_t n_blocks, uint32_t rows,
			 uint32_t r)
{
	for (uint64_t b = 0; b < n_blocks; b++, x += ACTS_BLOCK) {
		const __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
		const float max = largest(low, high);
		const bool nothing = max < 1e-30f;
		const __m512 inverse = _mm512_set1_ps(nothing ? 0 : 127 / max);
		const float step = nothing ? 0 : max / 127;
		const __m128i q0 = rounded(low, inverse), q1 = rounded(high, inverse);
		const __m128i ones = _mm_set1_epi8(1), zero = _mm_setzero_si128();
		__m128i s = _mm_hadd_epi32(_mm_dpbusd_epi32(zero, ones, q0),
					   _mm_dpbusd_epi32(zero, ones, q1));
		float *f = (float *)(tile + rows * ACTS_BLOCK);
		int32_t *n = (int32_t *)(f + 2 * rows);
		int32_t half[2];

		s = _mm_hadd_epi32(s, s);
		half[0] = _mm_cvtsi128_si32(s);
		half[1] = _mm_extract_epi32(s, 1);
		_mm_storeu_si128((__m128i *)(tile + r * ACTS_BLOCK), q0);
		_mm_storeu_si128((__m128i *)(tile + r * ACTS_BLOCK + 16), q1);
		f[r] = step;
		f[rows + r] = step * (float)(half[0] + half[1]);
		n[r] = -8 * (half[0] + half[1]);
		n[rows + r] = -128 * (half[0] + half[1]);
		n[2 * rows + r] = -32 * half[0];
		n[3 * rows + r] = -32 * half[1];
		tile += (size_t)rows * ACTS_BLOCK_BYTES;
	}
}
#else
bool acts_has_avx512(void)
{
	return false;
}

void acts_row_avx512(uint8_t *tile, const float *x, uint64_t n_blocks, uint32_t rows, uint32_t r)
{
}
#endif
