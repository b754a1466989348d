// SPDX-License-Identifier: MIT
/*
 * Integer products with AVX-512 VNNI: vpdpbusd multiplies 64 unsigned codes with signed activations and adds
 * each four to one of 16 sums, one per row of the panel.
 */
#include "compute/gemm.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "compute/acts.h"
#include "compute/acts_avx512.h"
#include "compute/pack.h"

#define SET	   __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")))
#define SET_INLINE static inline __attribute__((always_inline)) SET

/*
 * Where few rows of activations meet weights from DRAM, the processor's own prefetching reads what is read in order, without
 * a step aside, at 99 % of what a loop that only adds gets (Zen 4, one thread, 33 GB/s). Lines that a program asks for
 * take the places in which its own misses wait, 24 of them, and get 26 GB/s from there whatever the distance and the order.
 * Scales behind the codes of a panel, a gap of 2 KiB in 18, cost half. One line of each block, NEXT_PAGE ahead, is asked for
 * nevertheless: prefetching ends where a page does (4 to 8 % for Q8_0, 0 to 3 for others).
 */
enum { NEXT_PAGE = 4096 };

SET_INLINE __m512i load(const void *p)
{
	return _mm512_loadu_si512(p);
}

/* Codes of columns 4 g .. 4 g + 3. */
SET_INLINE __m512i codes(enum gguf_type type, const uint8_t *words, int g)
{
	const __m512i low = _mm512_set1_epi8(15), fifth = _mm512_set1_epi8(16);
	const __m512i upper = _mm512_set1_epi8(48);
	__m512i v, h;

	if (type == GGUF_Q8_0)
		return load(words + g * PACK_WORD);
	v = load(words + g % 4 * PACK_WORD);
	v = _mm512_and_si512(g < 4 ? v : _mm512_srli_epi16(v, 4), low);
	if (type == GGUF_Q5_0 || type == GGUF_Q5_1 || type == GGUF_Q5_K) {
		h = load(words + 4 * PACK_WORD);
		h = g < 4 ? _mm512_slli_epi16(h, 4 - g) : _mm512_srli_epi16(h, g - 4);
		v = _mm512_or_si512(v, _mm512_and_si512(h, fifth));
	}
	if (type == GGUF_Q6_K) {
		h = load(words + (4 + g / 4) * PACK_WORD);
		h = g % 4 < 2 ? _mm512_slli_epi16(h, 4 - g % 4 * 2) :
				_mm512_srli_epi16(h, g % 4 * 2 - 4);
		v = _mm512_or_si512(v, _mm512_and_si512(h, upper));
	}
	return v;
}

SET_INLINE __m512 halves(const uint8_t *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

SET_INLINE __m512 bytes(const uint8_t *p, bool is_signed)
{
	const __m128i v = _mm_loadu_si128((const __m128i *)p);

	return _mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(v) : _mm512_cvtepu8_epi32(v));
}

/* d[h] scales the sums over half h; d[1] only for Q6_K. min is to be added. */
struct scales {
	__m512 d[2], min;
};

SET_INLINE void read_scales(enum gguf_type type, const uint8_t *s, uint32_t b, struct scales *out)
{
	const __m512 d = halves(s + pack_halves_at(type, b));

	out->d[0] = d;
	if (type == GGUF_Q4_1 || type == GGUF_Q5_1)
		out->min = halves(s + 32);
	if (type == GGUF_Q4_K || type == GGUF_Q5_K) {
		out->d[0] = _mm512_mul_ps(d, bytes(s + 64 + b * PACK_ROWS, false));
		out->min = _mm512_fnmadd_ps(halves(s + 32), bytes(s + 192 + b * PACK_ROWS, false),
					    _mm512_setzero_ps());
	}
	if (type == GGUF_Q6_K) {
		out->d[0] = _mm512_mul_ps(d, bytes(s + 32 + b * 2 * PACK_ROWS, true));
		out->d[1] = _mm512_mul_ps(d, bytes(s + 48 + b * 2 * PACK_ROWS, true));
	}
}

/* Where the sum of row i starts; n: the integers behind the activations, see acts.h. */
SET_INLINE __m512i start(enum gguf_type type, const int32_t *n, int rows, int i, int half)
{
	switch (type) {
	case GGUF_Q8_0:
		return _mm512_set1_epi32(n[rows + i]);
	case GGUF_Q4_0:
		return _mm512_set1_epi32(n[i]);
	case GGUF_Q5_0:
		return _mm512_slli_epi32(_mm512_set1_epi32(n[i]), 1);
	case GGUF_Q6_K:
		return _mm512_set1_epi32(n[(2 + half) * rows + i]);
	default:
		return _mm512_setzero_si512();
	}
}

/* sum += codes * the four activations at q, which the instruction itself repeats: compilers would not. */
SET_INLINE __m512i add_four(__m512i sum, __m512i w, const int8_t *q)
{
	__asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const int8_t(*)[4])q));
	return sum;
}

/* Words first .. last of 32 columns, over all rows. */
SET_INLINE void multiply(enum gguf_type type, int rows, const uint8_t *words, const int8_t *q,
			 __m512i *sum, int first, int last)
{
#pragma GCC unroll 8
	for (int g = first; g < last; g++) {
		const __m512i w = codes(type, words, g);

#pragma GCC unroll 8
		for (int i = 0; i < rows; i++)
			sum[i] = add_four(sum[i], w, q + i * ACTS_BLOCK + 4 * g);
	}
}

SET_INLINE void block(enum gguf_type type, int rows, const uint8_t *words, const struct scales *s,
		      const uint8_t *act, __m512 *acc)
{
	const float *step = (const float *)(act + rows * ACTS_BLOCK);
	const int32_t *n = (const int32_t *)(step + 2 * rows);
	const int parts = type == GGUF_Q6_K ? 2 : 1;
	__m512i sum[ACTS_ROWS];

#pragma GCC unroll 2
	for (int h = 0; h < parts; h++) {
#pragma GCC unroll 8
		for (int i = 0; i < rows; i++)
			sum[i] = start(type, n, rows, i, h);
		multiply(type, rows, words, (const int8_t *)act, sum, h * 8 / parts,
			 (h + 1) * 8 / parts);
#pragma GCC unroll 8
		for (int i = 0; i < rows; i++)
			acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i]),
						 _mm512_mul_ps(s->d[h], _mm512_set1_ps(step[i])),
						 acc[i]);
	}
	if (!pack_has_min(type))
		return;
#pragma GCC unroll 8
	for (int i = 0; i < rows; i++)
		acc[i] = _mm512_fmadd_ps(s->min, _mm512_set1_ps(step[rows + i]), acc[i]);
}

SET_INLINE void store(const struct gemm_tile *t, int rows, const __m512 *acc)
{
	const __mmask16 mask = (__mmask16)((1u << t->n) - 1);

#pragma GCC unroll 8
	for (int i = 0; i < rows; i++) {
		float *y = t->y + (size_t)i * t->stride;
		__m512 v = acc[i];

		if ((uint32_t)i >= t->m)
			return;
		if (t->add)
			v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, y));
		_mm512_mask_storeu_ps(y, mask, v);
	}
}

/* Of the panel behind, which several rows of activations leave time for. */
SET_INLINE void fetch_panel(const uint8_t *words, uint32_t bytes_of, size_t panel)
{
	for (uint32_t at = 0; at < bytes_of; at += PACK_WORD)
		_mm_prefetch(words + panel + at, _MM_HINT_T1);
}

SET_INLINE void run(enum gguf_type type, int rows, const struct gemm_tile *t)
{
	const struct pack_layout *l = pack_layout(type);
	const uint8_t *words = t->panel, *act = t->acts;
	const size_t panel = pack_panel_bytes(type, t->n_in);
	uint32_t left = t->n_in / PACK_COLUMNS;
	__m512 acc[ACTS_ROWS];
	struct scales s;

#pragma GCC unroll 8
	for (int i = 0; i < rows; i++)
		acc[i] = _mm512_setzero_ps();
	while (left) {
		const uint32_t n = pack_run_blocks(l, left);
		const uint8_t *scales = words;

		if (rows > 2 && t->ahead)
			fetch_panel(scales, l->scales, panel);
		words += l->scales;
		for (uint32_t b = 0; b < n; b++) {
			if (rows <= 2)
				_mm_prefetch(words + NEXT_PAGE, _MM_HINT_T1);
			else if (t->ahead)
				fetch_panel(words, l->codes, panel);
			read_scales(type, scales, b, &s);
			block(type, rows, words, &s, act, acc);
			words += l->codes;
			act += rows * ACTS_BLOCK_BYTES;
		}
		left -= n;
	}
	store(t, rows, acc);
}

#define FOR_TYPE(type)                                         \
	SET static void type##_tile(const struct gemm_tile *t) \
	{                                                      \
		switch (t->rows) {                             \
		case 1:                                        \
			run(GGUF_##type, 1, t);                \
			break;                                 \
		case 2:                                        \
			run(GGUF_##type, 2, t);                \
			break;                                 \
		case 4:                                        \
			run(GGUF_##type, 4, t);                \
			break;                                 \
		default:                                       \
			run(GGUF_##type, 8, t);                \
		}                                              \
	}

GEMM_TYPES(FOR_TYPE)

static void (*const tiles[])(const struct gemm_tile *t) = { GEMM_TYPES(GEMM_ENTRY) };

static void tile(const struct gemm_tile *t)
{
	tiles[t->type](t);
}

static bool usable(void)
{
	return acts_has_avx512();
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

const struct gemm_set gemm_vnni = { "AVX-512 VNNI", usable, tile };
