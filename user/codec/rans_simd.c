// SPDX-License-Identifier: MIT
/*
 * The decoders for AVX-512 and AVX2, and an encoder for AVX-512. A lane of a vector is a lane of the stream. Lanes that need a word take
 * the next ones of the input in order of lanes: expand (AVX-512), or a permutation chosen by which lanes need one (AVX2).
 */
#include "codec/rans_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx2,popcnt")))
#define AVX2   __attribute__((target("avx2,popcnt")))
#define FORCED static inline __attribute__((always_inline))

/* A step forward of the column that a group begins with. */
FORCED uint32_t advance(uint32_t c, uint32_t step, uint32_t columns)
{
	c += step;
	return c >= columns ? c - columns : c;
}

/* --- AVX-512: two vectors of 16 lanes --- */

FORCED AVX512 __m512i take512(const uint32_t *slots, const uint32_t *offsets, __m512i x, int16_t *v)
{
	const __m512i low = _mm512_set1_epi32(RANS_SCALE - 1);
	const __m512i at = _mm512_add_epi32(_mm512_and_si512(x, low), _mm512_loadu_si512(offsets));
	const __m512i slot = _mm512_i32gather_epi32(at, slots, 4);
	const __m512i high = _mm512_srli_epi32(x, RANS_SCALE_BITS);
	__m512i next = _mm512_mullo_epi32(_mm512_and_si512(slot, low), high);

	_mm256_storeu_si256((__m256i *)v, _mm512_cvtepi32_epi16(_mm512_srai_epi32(slot, 22)));
	next = _mm512_add_epi32(next, high);
	return _mm512_add_epi32(next,
				_mm512_and_si512(_mm512_srli_epi32(slot, RANS_SCALE_BITS), low));
}

FORCED AVX512 __m512i refill512(struct rans_decoder *d, __m512i x)
{
	const __mmask16 need = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(RANS_LOWEST));
	const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)d->at));

	d->at += 2 * _mm_popcnt_u32(need);
	x = _mm512_mask_slli_epi32(x, need, x, 16);
	return _mm512_or_si512(x, _mm512_maskz_expand_epi32(need, words));
}

AVX512 static size_t decode_avx512(struct rans_decoder *d, const uint32_t *slots, int16_t *v,
				   const uint32_t *offsets, uint32_t columns, size_t groups)
{
	const uint32_t step = RANS_LANES % columns;
	__m512i a = _mm512_loadu_si512(d->state), b = _mm512_loadu_si512(d->state + 16);
	uint32_t c = 0;
	size_t i = 0;

	for (; i < groups && d->end - d->at >= 2 * RANS_LANES; i++, v += RANS_LANES) {
		a = take512(slots, offsets + c, a, v);
		b = take512(slots, offsets + c + 16, b, v + 16);
		a = refill512(d, a);
		b = refill512(d, b);
		c = advance(c, step, columns);
	}
	_mm512_storeu_si512(d->state, a);
	_mm512_storeu_si512(d->state + 16, b);
	return i;
}

/* Lanes whose state is too large for their symbol give up its lower half, and their words end where what is written begins. */
FORCED AVX512 __m512i spill512(struct rans_encoder *e, __m512i x, __m512i frequency)
{
	const __mmask16 spills =
		_mm512_cmpge_epu32_mask(_mm512_srli_epi32(x, 32 - RANS_SCALE_BITS), frequency);
	const uint32_t n = (uint32_t)_mm_popcnt_u32(spills);
	const __m512i words = _mm512_maskz_compress_epi32(spills, x);

	e->at -= 2 * n;
	_mm256_mask_storeu_epi16(e->at, (__mmask16)((1u << n) - 1), _mm512_cvtepi32_epi16(words));
	return _mm512_mask_srli_epi32(x, spills, x, 16);
}

/*
 * Quotients are below 2^21, and single precision has them within a quarter of one: the remainder says whether it is the next one, either
 * way.
 */
FORCED AVX512 __m512i put512(struct rans_encoder *e, const uint32_t *symbols,
			     const uint32_t *offsets, __m512i x, const int16_t *q)
{
	const __m512i low = _mm512_set1_epi32(RANS_SCALE - 1), one = _mm512_set1_epi32(1);
	const __m512i values = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)q));
	const __m512i at = _mm512_add_epi32(values, _mm512_loadu_si512(offsets));
	const __m512i symbol = _mm512_i32gather_epi32(at, symbols, 4);
	const __m512i f = _mm512_add_epi32(_mm512_and_si512(symbol, low), one);
	__m512i quotient, rest;
	__mmask16 less, more;

	x = spill512(e, x, f);
	quotient = _mm512_cvttps_epi32(_mm512_div_ps(_mm512_cvtepu32_ps(x), _mm512_cvtepi32_ps(f)));
	rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, f));
	less = _mm512_cmplt_epi32_mask(rest, _mm512_setzero_si512());
	more = _mm512_cmpge_epi32_mask(rest, f);
	quotient = _mm512_mask_sub_epi32(quotient, less, quotient, one);
	rest = _mm512_mask_add_epi32(rest, less, rest, f);
	quotient = _mm512_mask_add_epi32(quotient, more, quotient, one);
	rest = _mm512_mask_sub_epi32(rest, more, rest, f);
	rest = _mm512_add_epi32(rest, _mm512_srli_epi32(symbol, RANS_SCALE_BITS));
	return _mm512_add_epi32(rest, _mm512_slli_epi32(quotient, RANS_SCALE_BITS));
}

AVX512 static void encode_avx512(struct rans_encoder *e, const uint32_t *symbols, const int16_t *q,
				 const uint32_t *offsets, uint32_t columns, size_t groups)
{
	const uint32_t step = RANS_LANES % columns;
	__m512i a = _mm512_loadu_si512(e->state), b = _mm512_loadu_si512(e->state + 16);
	/* As many as they are rows of, so behind the last group the first column comes. */
	uint32_t c = 0;

	q += groups * RANS_LANES;
	while (groups-- > 0) {
		c = advance(c, columns - step, columns);
		q -= RANS_LANES;
		b = put512(e, symbols, offsets + c + 16, b, q + 16);
		a = put512(e, symbols, offsets + c, a, q);
	}
	_mm512_storeu_si512(e->state, a);
	_mm512_storeu_si512(e->state + 16, b);
}

static bool has_avx512(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl");
}

/* --- AVX2: four vectors of 8 lanes --- */

/* Which of the next words each lane takes, for every set of lanes that need one. */
static uint8_t order[256][8];

__attribute__((constructor)) static void build_order(void)
{
	for (int need = 0; need < 256; need++)
		for (int lane = 0, n = 0; lane < 8; lane++)
			if (need >> lane & 1)
				order[need][lane] = (uint8_t)n++;
}

FORCED AVX2 __m256i take256(const uint32_t *slots, const uint32_t *offsets, __m256i x,
			    __m256i *slot)
{
	const __m256i low = _mm256_set1_epi32(RANS_SCALE - 1);
	const __m256i at = _mm256_add_epi32(_mm256_and_si256(x, low),
					    _mm256_loadu_si256((const __m256i *)offsets));
	const __m256i high = _mm256_srli_epi32(x, RANS_SCALE_BITS);
	__m256i next;

	*slot = _mm256_i32gather_epi32((const int *)slots, at, 4);
	next = _mm256_mullo_epi32(_mm256_and_si256(*slot, low), high);
	next = _mm256_add_epi32(next, high);
	return _mm256_add_epi32(next,
				_mm256_and_si256(_mm256_srli_epi32(*slot, RANS_SCALE_BITS), low));
}

FORCED AVX2 __m256i refill256(struct rans_decoder *d, __m256i x)
{
	/* States are below 2^16 where nothing is left above that. */
	const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), _mm256_setzero_si256());
	const unsigned int need = (unsigned int)_mm256_movemask_ps(_mm256_castsi256_ps(low));
	const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)d->at));
	const __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)order[need]));
	const __m256i filled = _mm256_or_si256(_mm256_slli_epi32(x, 16),
					       _mm256_permutevar8x32_epi32(words, lanes));

	d->at += 2 * _mm_popcnt_u32(need);
	return _mm256_blendv_epi8(x, filled, low);
}

/* Values of 16 lanes. */
FORCED AVX2 void store256(int16_t *v, __m256i a, __m256i b)
{
	const __m256i packed =
		_mm256_packs_epi32(_mm256_srai_epi32(a, 22), _mm256_srai_epi32(b, 22));

	_mm256_storeu_si256((__m256i *)v, _mm256_permute4x64_epi64(packed, 0xd8));
}

AVX2 static size_t decode_avx2(struct rans_decoder *d, const uint32_t *slots, int16_t *v,
			       const uint32_t *offsets, uint32_t columns, size_t groups)
{
	const uint32_t step = RANS_LANES % columns;
	__m256i x[4], slot[4];
	uint32_t c = 0;
	size_t i = 0;

	for (int k = 0; k < 4; k++)
		x[k] = _mm256_loadu_si256((const __m256i *)d->state + k);
	for (; i < groups && d->end - d->at >= 2 * RANS_LANES; i++, v += RANS_LANES) {
#pragma GCC unroll 4
		for (int k = 0; k < 4; k++)
			x[k] = take256(slots, offsets + c + 8 * k, x[k], &slot[k]);
#pragma GCC unroll 4
		for (int k = 0; k < 4; k++)
			x[k] = refill256(d, x[k]);
		store256(v, slot[0], slot[1]);
		store256(v + 16, slot[2], slot[3]);
		c = advance(c, step, columns);
	}
	for (int k = 0; k < 4; k++)
		_mm256_storeu_si256((__m256i *)d->state + k, x[k]);
	return i;
}

static bool has_avx2(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
}
#else
static size_t decode_avx512(struct rans_decoder *d, const uint32_t *slots, int16_t *v,
			    const uint32_t *offsets, uint32_t columns, size_t groups)
{
	return 0;
}

static void encode_avx512(struct rans_encoder *e, const uint32_t *symbols, const int16_t *q,
			  const uint32_t *offsets, uint32_t columns, size_t groups)
{
}

static size_t decode_avx2(struct rans_decoder *d, const uint32_t *slots, int16_t *v,
			  const uint32_t *offsets, uint32_t columns, size_t groups)
{
	return 0;
}

static bool has_avx512(void)
{
	return false;
}

static bool has_avx2(void)
{
	return false;
}
#endif

const struct rans_set rans_avx512 = { "AVX-512", has_avx512, decode_avx512, encode_avx512 };
const struct rans_set rans_avx2 = { "AVX2", has_avx2, decode_avx2, NULL };
