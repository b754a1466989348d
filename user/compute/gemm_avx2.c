// SPDX-License-Identifier: MIT
/*
 * Integer products with AVX2. vpmaddubsw multiplies 32 unsigned codes with signed activations and adds pairs to 16
 * bits, which saturate. With codes up to 15 (31, 63) eight (four, two) words can be added up before they must be
 * widened: 15 * 127 * 2 * 8 < 2^15. Bytes need |w| * (sign of w) * a instead, one word at a time.
 *
 * A panel is done in two halves of 8 rows, for 4 rows of activations at a time: 16 registers.
 */
#include "compute/gemm.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "compute/acts.h"
#include "compute/pack.h"

#define SET	   __attribute__((target("avx2,fma,f16c")))
#define SET_INLINE static inline __attribute__((always_inline)) SET

enum {
	GROUP = 4, /* rows of activations */
	LANES = 8, /* rows of the panel */
	HALF_WORD = PACK_WORD / 2,
	AHEAD = 4096,
};

SET_INLINE __m256i load(const void *p)
{
	return _mm256_loadu_si256(p);
}

/* Words whose products may be added up in 16 bits. */
SET_INLINE int words_at_once(enum gguf_type type)
{
	switch (type) {
	case GGUF_Q8_0:
		return 1;
	case GGUF_Q6_K:
		return 2;
	case GGUF_Q4_0:
	case GGUF_Q4_1:
	case GGUF_Q4_K:
		return 8;
	default:
		return 4;
	}
}

/* Codes of columns 4 g .. 4 g + 3; Q8_0: the weights themselves. */
SET_INLINE __m256i codes(enum gguf_type type, const uint8_t *words, int g)
{
	const __m256i low = _mm256_set1_epi8(15), fifth = _mm256_set1_epi8(16);
	const __m256i upper = _mm256_set1_epi8(48);
	__m256i v, h;

	if (type == GGUF_Q8_0)
		return _mm256_xor_si256(load(words + g * PACK_WORD), _mm256_set1_epi8(-128));
	v = load(words + g % 4 * PACK_WORD);
	v = _mm256_and_si256(g < 4 ? v : _mm256_srli_epi16(v, 4), low);
	if (type == GGUF_Q5_0 || type == GGUF_Q5_1 || type == GGUF_Q5_K) {
		h = load(words + 4 * PACK_WORD);
		h = g < 4 ? _mm256_slli_epi16(h, 4 - g) : _mm256_srli_epi16(h, g - 4);
		v = _mm256_or_si256(v, _mm256_and_si256(h, fifth));
	}
	if (type == GGUF_Q6_K) {
		h = load(words + (4 + g / 4) * PACK_WORD);
		h = g % 4 < 2 ? _mm256_slli_epi16(h, 4 - g % 4 * 2) :
				_mm256_srli_epi16(h, g % 4 * 2 - 4);
		v = _mm256_or_si256(v, _mm256_and_si256(h, upper));
	}
	return v;
}

SET_INLINE __m256 halves(const uint8_t *p)
{
	return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

SET_INLINE __m256 bytes(const uint8_t *p, bool is_signed)
{
	const __m128i v = _mm_loadl_epi64((const __m128i *)p);

	return _mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(v) : _mm256_cvtepu8_epi32(v));
}

/* d[h] scales the sums over half h; d[1] only for Q6_K. min is to be added. */
struct scales {
	__m256 d[2], min;
};

/* lane: 0 or 8, the first row of the half panel. */
SET_INLINE void read_scales(enum gguf_type type, const uint8_t *s, uint32_t b, uint32_t lane,
			    struct scales *out)
{
	const uint32_t own = pack_halves_at(type, b);
	const __m256 d = halves(s + own + 2 * lane);

	out->d[0] = d;
	if (type == GGUF_Q4_1 || type == GGUF_Q5_1)
		out->min = halves(s + 32 + 2 * lane);
	if (type == GGUF_Q4_K || type == GGUF_Q5_K) {
		s += b * PACK_ROWS + lane;
		out->d[0] = _mm256_mul_ps(d, bytes(s + 64, false));
		out->min = _mm256_fnmadd_ps(halves(s - b * PACK_ROWS + 32 + lane),
					    bytes(s + 192, false), _mm256_setzero_ps());
	}
	if (type == GGUF_Q6_K) {
		s += b * 2 * PACK_ROWS + lane;
		out->d[0] = _mm256_mul_ps(d, bytes(s + 32, true));
		out->d[1] = _mm256_mul_ps(d, bytes(s + 48, true));
	}
}

/* Where the sum of row i starts; n: the integers behind the activations, see acts.h. */
SET_INLINE __m256i start(enum gguf_type type, const int32_t *n, int rows, int i, int half)
{
	switch (type) {
	case GGUF_Q4_0:
		return _mm256_set1_epi32(n[i]);
	case GGUF_Q5_0:
		return _mm256_slli_epi32(_mm256_set1_epi32(n[i]), 1);
	case GGUF_Q6_K:
		return _mm256_set1_epi32(n[(2 + half) * rows + i]);
	default:
		return _mm256_setzero_si256();
	}
}

SET_INLINE __m256i four(const int8_t *q)
{
	int32_t v;

	memcpy(&v, q, sizeof(v));
	return _mm256_set1_epi32(v);
}

SET_INLINE __m256i pairs(enum gguf_type type, __m256i w, __m256i a)
{
	if (type == GGUF_Q8_0)
		return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
	return _mm256_maddubs_epi16(w, a);
}

/* Words first .. last of 32 columns, for n rows of activations. */
SET_INLINE void multiply(enum gguf_type type, int n, const uint8_t *words, const int8_t *q,
			 __m256i *sum, int first, int last)
{
	const __m256i ones = _mm256_set1_epi16(1);
	const int step = words_at_once(type) < last - first ? words_at_once(type) : last - first;

#pragma GCC unroll 8
	for (int from = first; from < last; from += step) {
		__m256i s[GROUP];

#pragma GCC unroll 8
		for (int g = from; g < from + step; g++) {
			const __m256i w = codes(type, words, g);

#pragma GCC unroll 4
			for (int i = 0; i < n; i++) {
				const __m256i p = pairs(type, w, four(q + i * ACTS_BLOCK + 4 * g));

				s[i] = g == from ? p : _mm256_add_epi16(s[i], p);
			}
		}
#pragma GCC unroll 4
		for (int i = 0; i < n; i++)
			sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(s[i], ones));
	}
}

/* Rows of activations first .. first + n of a tile of `rows`. */
SET_INLINE void block(enum gguf_type type, int n, uint32_t rows, uint32_t first,
		      const uint8_t *words, const struct scales *s, const uint8_t *act, __m256 *acc)
{
	const float *step = (const float *)(act + rows * ACTS_BLOCK) + first;
	const int32_t *from = (const int32_t *)(step + 2 * rows);
	const int8_t *q = (const int8_t *)act + first * ACTS_BLOCK;
	const int parts = type == GGUF_Q6_K ? 2 : 1;
	__m256i sum[GROUP];

#pragma GCC unroll 2
	for (int h = 0; h < parts; h++) {
#pragma GCC unroll 4
		for (int i = 0; i < n; i++)
			sum[i] = start(type, from, (int)rows, i, h);
		multiply(type, n, words, q, sum, h * 8 / parts, (h + 1) * 8 / parts);
#pragma GCC unroll 4
		for (int i = 0; i < n; i++)
			acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[i]),
						 _mm256_mul_ps(s->d[h], _mm256_set1_ps(step[i])),
						 acc[i]);
	}
	if (!pack_has_min(type))
		return;
#pragma GCC unroll 4
	for (int i = 0; i < n; i++)
		acc[i] = _mm256_fmadd_ps(s->min, _mm256_set1_ps(step[rows + i]), acc[i]);
}

SET_INLINE __m256i mask_of(int n)
{
	const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

	return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
}

SET_INLINE void store(const struct gemm_tile *t, int n, uint32_t first, uint32_t lane,
		      const __m256 *acc)
{
	const __m256i mask = mask_of((int)t->n - (int)lane);

#pragma GCC unroll 4
	for (int i = 0; i < n; i++) {
		float *y = t->y + (first + (size_t)i) * t->stride + lane;
		__m256 v = acc[i];

		if (first + (uint32_t)i >= t->m)
			return;
		if (t->add)
			v = _mm256_add_ps(v, _mm256_maskload_ps(y, mask));
		_mm256_maskstore_ps(y, mask, v);
	}
}

SET_INLINE void run(enum gguf_type type, int n, const struct gemm_tile *t, uint32_t first,
		    uint32_t lane)
{
	const struct pack_layout *l = pack_layout(type);
	const uint32_t code_bytes = l->codes, rows = t->rows;
	const uint8_t *words = t->panel, *act = t->acts;
	uint32_t left = t->n_in / PACK_COLUMNS;
	__m256 acc[GROUP];
	struct scales s;

#pragma GCC unroll 4
	for (int i = 0; i < n; i++)
		acc[i] = _mm256_setzero_ps();
	while (left) {
		const uint32_t blocks = pack_run_blocks(l, left);
		const uint8_t *scales = words;

		words += l->scales;
		for (uint32_t b = 0; b < blocks; b++) {
			if (lane == 0 && first == 0 && rows <= 2)
				for (uint32_t at = 0; at < code_bytes; at += PACK_WORD)
					_mm_prefetch(words + at + AHEAD, _MM_HINT_T0);
			read_scales(type, scales, b, lane, &s);
			block(type, n, rows, first, words + lane / LANES * HALF_WORD, &s, act, acc);
			words += code_bytes;
			act += rows * ACTS_BLOCK_BYTES;
		}
		left -= blocks;
	}
	store(t, n, first, lane, acc);
}

#define FOR_TYPE(type)                                                            \
	SET static void type##_tile(const struct gemm_tile *t, uint32_t lane)     \
	{                                                                         \
		switch (t->rows) {                                                \
		case 1:                                                           \
			run(GGUF_##type, 1, t, 0, lane);                          \
			break;                                                    \
		case 2:                                                           \
			run(GGUF_##type, 2, t, 0, lane);                          \
			break;                                                    \
		default:                                                          \
			for (uint32_t first = 0; first < t->rows; first += GROUP) \
				run(GGUF_##type, GROUP, t, first, lane);          \
		}                                                                 \
	}

GEMM_TYPES(FOR_TYPE)

static void (*const tiles[])(const struct gemm_tile *t, uint32_t lane) = { GEMM_TYPES(GEMM_ENTRY) };

static void tile(const struct gemm_tile *t)
{
	tiles[t->type](t, 0);
	tiles[t->type](t, LANES);
}

static bool usable(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#else
static void tile(const struct gemm_tile *t)
{
}

static bool usable(void)
{
	return false;
}
#endif

const struct gemm_set gemm_avx2 = { "AVX2", usable, tile };
