/* SPDX-License-Identifier: MIT */
/*
 * What the AVX-512 kernels over f16 keys and values have in common, to be inlined: folding sums, asking for what comes next,
 * and the online softmax of kvtile.h. What becomes of its weights is the caller's.
 */
#ifndef LSLM_COMPUTE_KVTILE_LANES_H
#define LSLM_COMPUTE_KVTILE_LANES_H

#ifdef __x86_64__
#include <immintrin.h>

#include "compute/kvtile.h"

#define AVX512	      __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma")))
#define AVX512_INLINE static inline __attribute__((always_inline)) AVX512

enum { LINE = 64, LANES = KVTILE_LANES };

/* Sums over four neighbouring lanes: lane 4 i + j of the result is that over lanes 4 i .. 4 i + 3 of s[j]. */
AVX512_INLINE __m512 fold(const __m512 *s)
{
	const __m512 a =
		_mm512_add_ps(_mm512_unpacklo_ps(s[0], s[1]), _mm512_unpackhi_ps(s[0], s[1]));
	const __m512 b =
		_mm512_add_ps(_mm512_unpacklo_ps(s[2], s[3]), _mm512_unpackhi_ps(s[2], s[3]));
	const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);

	return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)),
			     _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
}

/*
 * What elements i .. i + 7 of 16 keys take is asked for at `next`, from memory, and at `ahead`, from the second-level
 * cache: 16 rows at once are no order that the processor follows by itself.
 */
AVX512_INLINE void ask(const char *next, const char *ahead, uint32_t i)
{
	if (next)
#pragma GCC unroll 4
		for (int x = 0; x < 4; x++)
			_mm_prefetch(next + i * 32 + x * LINE, _MM_HINT_T1);
	if (ahead)
#pragma GCC unroll 4
		for (int x = 0; x < 4; x++)
			_mm_prefetch(ahead + i * 32 + x * LINE, _MM_HINT_T0);
}

/*
 * As exp_of(), with the processor's own scaling by powers of two, and a polynomial fitted to
 * +-log(2)/2, within 2e-8.
 */
AVX512_INLINE __m512 exp_16(__m512 x)
{
	const __m512 limited = _mm512_max_ps(x, _mm512_set1_ps(-110));
	const __m512 k = _mm512_roundscale_ps(_mm512_mul_ps(limited, _mm512_set1_ps(0x1.715476p0f)),
					      _MM_FROUND_TO_NEAREST_INT);
	const __m512 r =
		_mm512_fnmadd_ps(k, _mm512_set1_ps(0x1.7f7d1cp-20f),
				 _mm512_fnmadd_ps(k, _mm512_set1_ps(0x1.62e4p-1f), limited));
	__m512 p = _mm512_set1_ps(0x1.6ab8c6p-10f);

	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.126dbep-7f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.55589ep-5f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.55540ap-3f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffffap-2f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
	return _mm512_scalef_ps(p, k);
}

/* Weights of a block join those before, lane by lane: adding lanes up would take as long as half of the weighing. */
AVX512_INLINE void add_weights(const struct kvtile_weights *w, uint32_t r, __m512 weights)
{
	float *sum = w->sum + (size_t)r * KVTILE_LANES;

	_mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), weights));
}

/* The largest becomes the row's maximum; what was summed before shrinks accordingly. */
AVX512_INLINE void raise_row(const struct kvtile_weights *w, uint32_t r, float most)
{
	const __m512 shrink = exp_16(_mm512_set1_ps(w->max[r] - most));
	float *acc = w->acc + (size_t)r * w->width, *sum = w->sum + (size_t)r * KVTILE_LANES;

	w->max[r] = most;
	_mm512_storeu_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(sum), shrink));
	for (uint32_t i = 0; i < w->width; i += KVTILE_LANES)
		_mm512_storeu_ps(acc + i, _mm512_mul_ps(_mm512_loadu_ps(acc + i), shrink));
}

/*
 * The first n scores of a row, a block of them, with -inf behind, and what they are weighed against: the largest of an
 * earlier block or of this one.
 */
AVX512_INLINE float load_scores(const struct kvtile_weights *w, uint32_t r, uint32_t n, __m512 *x)
{
	const uint64_t mask = n < KVTILE_TOKENS ? ((uint64_t)1 << n) - 1 : ~(uint64_t)0;
	const __m512 none = _mm512_set1_ps(-__builtin_inff());
	const __m512 enough = _mm512_set1_ps(w->max[r] + KVTILE_SLACK);
	const float *p = w->p + (size_t)r * KVTILE_TOKENS;
	__m512 most;

#pragma GCC unroll 4
	for (int i = 0; i < 4; i++)
		x[i] = _mm512_mask_loadu_ps(none, (__mmask16)(mask >> 16 * i), p + 16 * i);
	most = _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
	/* Which is the largest matters only here, and mostly there is none. */
	if (_mm512_cmp_ps_mask(most, enough, _CMP_GT_OQ))
		raise_row(w, r, _mm512_reduce_max_ps(most));
	/* Nothing to weigh, nor before: the difference of two infinities would be a NaN. */
	return w->max[r] == -__builtin_inff() ? 0 : w->max[r];
}
#endif

#endif
