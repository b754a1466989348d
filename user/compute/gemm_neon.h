/* SPDX-License-Identifier: MIT */
/*
 * The kernels of gemm_neon.c and gemm_dotprod.c, which are the same but for add_four(), defined by each before it takes this
 * in: sum += codes * activations, four of both to each of four sums.
 *
 * A panel's word is four registers, of four rows each. One or two rows of activations take all of them at a time, more
 * two registers for four rows: 8 sums of integers and as many of floats.
 */
#ifndef LSLM_COMPUTE_GEMM_NEON_H
#define LSLM_COMPUTE_GEMM_NEON_H

#include <string.h>

#include "compute/acts.h"
#include "compute/pack.h"

enum {
	LANES = 4, /* rows of the panel in a register */
	QUARTERS = PACK_ROWS / LANES,
	GROUP = 4, /* rows of activations */
};

/* To the left; to the right where it is negative. */
INLINE uint8x16_t shifted(uint8x16_t v, int by)
{
	return vshlq_u8(v, vdupq_n_s8((int8_t)by));
}

/* Of four rows, codes of columns 4 g .. 4 g + 3; Q8_0: the weights themselves. */
INLINE int8x16_t codes(enum gguf_type type, const uint8_t *words, int g)
{
	uint8x16_t v, h;

	if (type == GGUF_Q8_0)
		return vreinterpretq_s8_u8(
			veorq_u8(vld1q_u8(words + g * PACK_WORD), vdupq_n_u8(0x80)));
	v = vld1q_u8(words + g % 4 * PACK_WORD);
	v = g < 4 ? vandq_u8(v, vdupq_n_u8(15)) : vshrq_n_u8(v, 4);
	if (type == GGUF_Q5_0 || type == GGUF_Q5_1 || type == GGUF_Q5_K) {
		h = shifted(vld1q_u8(words + 4 * PACK_WORD), 4 - g);
		v = vorrq_u8(v, vandq_u8(h, vdupq_n_u8(16)));
	}
	if (type == GGUF_Q6_K) {
		h = shifted(vld1q_u8(words + (4 + g / 4) * PACK_WORD), 4 - g % 4 * 2);
		v = vorrq_u8(v, vandq_u8(h, vdupq_n_u8(48)));
	}
	return vreinterpretq_s8_u8(v);
}

INLINE float32x4_t halves(const uint8_t *p)
{
	return vcvt_f32_f16(vreinterpret_f16_u16(vreinterpret_u16_u8(vld1_u8(p))));
}

INLINE float32x4_t bytes(const uint8_t *p, bool is_signed)
{
	uint32_t four;
	uint8x8_t v;

	memcpy(&four, p, sizeof(four));
	v = vreinterpret_u8_u32(vdup_n_u32(four));
	if (is_signed)
		return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(v)))));
	return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(v))));
}

/* d[h] scales the sums over half h; d[1] only for Q6_K. min is to be added. */
struct scales {
	float32x4_t d[2], min;
};

/* s: of the run in which this is block b; lane: the first of four rows. */
INLINE void read_scales(enum gguf_type type, const uint8_t *s, uint32_t b, uint32_t lane,
			struct scales *out)
{
	const uint32_t own = pack_halves_at(type, b);
	const float32x4_t d = halves(s + own + 2 * lane);
	const uint8_t *k = s + 64 + b * PACK_ROWS + lane;
	const uint8_t *q6 = s + 32 + b * 2 * PACK_ROWS + lane;

	out->d[0] = d;
	if (type == GGUF_Q4_1 || type == GGUF_Q5_1)
		out->min = halves(s + 32 + 2 * lane);
	if (type == GGUF_Q4_K || type == GGUF_Q5_K) {
		out->d[0] = vmulq_f32(d, bytes(k, false));
		out->min = vnegq_f32(
			vmulq_f32(halves(s + 32 + 2 * lane), bytes(k + 8 * PACK_ROWS, false)));
	}
	if (type == GGUF_Q6_K) {
		out->d[0] = vmulq_f32(d, bytes(q6, true));
		out->d[1] = vmulq_f32(d, bytes(q6 + PACK_ROWS, true));
	}
}

/* Where the sum of row i starts; n: the integers behind the activations, see acts.h. */
INLINE int32x4_t start(enum gguf_type type, const int32_t *n, uint32_t rows, uint32_t i, int half)
{
	switch (type) {
	case GGUF_Q4_0:
		return vdupq_n_s32(n[i]);
	case GGUF_Q5_0:
		return vdupq_n_s32(2 * n[i]);
	case GGUF_Q6_K:
		return vdupq_n_s32(n[(2 + (uint32_t)half) * rows + i]);
	default:
		return vdupq_n_s32(0);
	}
}

INLINE int8x16_t four(const int8_t *q)
{
	int32_t v;

	memcpy(&v, q, sizeof(v));
	return vreinterpretq_s8_s32(vdupq_n_s32(v));
}

/* What a tile is done in: quarters of its panel, rows of activations first .. first + n. */
struct piece {
	const struct gemm_tile *t;
	uint32_t first, lane; /* the first row of the panel */
};

/* Words first .. last of 32 columns. */
INLINE void multiply(enum gguf_type type, int quarters, int n, const uint8_t *words,
		     const int8_t *q, int32x4_t (*sum)[GROUP], int first, int last)
{
#pragma GCC unroll 8
	for (int g = first; g < last; g++) {
		int8x16_t a[GROUP];

#pragma GCC unroll 4
		for (int i = 0; i < n; i++)
			a[i] = four(q + i * ACTS_BLOCK + 4 * g);
#pragma GCC unroll 4
		for (int k = 0; k < quarters; k++) {
			const int8x16_t w = codes(type, words + k * 4 * LANES, g);

#pragma GCC unroll 4
			for (int i = 0; i < n; i++)
				sum[k][i] = add_four(sum[k][i], w, a[i]);
		}
	}
}

/* 32 columns. */
INLINE void block(enum gguf_type type, int quarters, int n, const struct piece *p,
		  const uint8_t *words, const struct scales *s, const uint8_t *act,
		  float32x4_t (*acc)[GROUP])
{
	const uint32_t rows = p->t->rows;
	const float *step = (const float *)(act + rows * ACTS_BLOCK) + p->first;
	const int32_t *from = (const int32_t *)(step + 2 * rows);
	const int8_t *q = (const int8_t *)act + p->first * ACTS_BLOCK;
	const int parts = type == GGUF_Q6_K ? 2 : 1;
	int32x4_t sum[QUARTERS][GROUP];

#pragma GCC unroll 2
	for (int h = 0; h < parts; h++) {
#pragma GCC unroll 4
		for (int k = 0; k < quarters; k++)
#pragma GCC unroll 4
			for (int i = 0; i < n; i++)
				sum[k][i] = start(type, from, rows, (uint32_t)i, h);
		multiply(type, quarters, n, words, q, sum, h * 8 / parts, (h + 1) * 8 / parts);
#pragma GCC unroll 4
		for (int k = 0; k < quarters; k++)
#pragma GCC unroll 4
			for (int i = 0; i < n; i++)
				acc[k][i] = vfmaq_f32(acc[k][i], vcvtq_f32_s32(sum[k][i]),
						      vmulq_n_f32(s[k].d[h], step[i]));
	}
	if (!pack_has_min(type))
		return;
#pragma GCC unroll 4
	for (int k = 0; k < quarters; k++)
#pragma GCC unroll 4
		for (int i = 0; i < n; i++)
			acc[k][i] = vfmaq_n_f32(acc[k][i], s[k].min, step[rows + (uint32_t)i]);
}

INLINE void store(const struct piece *p, int quarters, int n, float32x4_t (*acc)[GROUP])
{
	const struct gemm_tile *t = p->t;

	for (int i = 0; i < n && p->first + (uint32_t)i < t->m; i++)
		for (int k = 0; k < quarters; k++) {
			const uint32_t lane = p->lane + (uint32_t)k * LANES;
			float *y = t->y + (p->first + (size_t)i) * t->stride + lane;
			float v[LANES];

			vst1q_f32(v, acc[k][i]);
			for (uint32_t j = 0; j < LANES && lane + j < t->n; j++)
				y[j] = (t->add ? y[j] : 0) + v[j];
		}
}

INLINE void run(enum gguf_type type, int quarters, int n, const struct piece *p)
{
	const struct pack_layout *l = pack_layout(type);
	const uint8_t *words = p->t->panel, *act = p->t->acts;
	uint32_t left = p->t->n_in / PACK_COLUMNS;
	float32x4_t acc[QUARTERS][GROUP];
	struct scales s[QUARTERS];

#pragma GCC unroll 4
	for (int k = 0; k < quarters; k++)
#pragma GCC unroll 4
		for (int i = 0; i < n; i++)
			acc[k][i] = vdupq_n_f32(0);
	while (left) {
		const uint32_t blocks = pack_run_blocks(l, left);
		const uint8_t *scales = words;

		words += l->scales;
		for (uint32_t b = 0; b < blocks; b++) {
#pragma GCC unroll 4
			for (int k = 0; k < quarters; k++)
				read_scales(type, scales, b, p->lane + (uint32_t)k * LANES, &s[k]);
			block(type, quarters, n, p, words + p->lane * 4, s, act, acc);
			words += l->codes;
			act += p->t->rows * ACTS_BLOCK_BYTES;
		}
		left -= blocks;
	}
	store(p, quarters, n, acc);
}

INLINE void run_tile(enum gguf_type type, const struct gemm_tile *t)
{
	struct piece p = { .t = t };

	if (t->rows == 1)
		run(type, QUARTERS, 1, &p);
	else if (t->rows == 2)
		run(type, QUARTERS, 2, &p);
	else
		for (p.lane = 0; p.lane < PACK_ROWS; p.lane += 2 * LANES)
			for (p.first = 0; p.first < t->rows; p.first += GROUP)
				run(type, 2, GROUP, &p);
}

#define FOR_TYPE(type)                                         \
	SET static void type##_tile(const struct gemm_tile *t) \
	{                                                      \
		run_tile(GGUF_##type, t);                      \
	}

GEMM_TYPES(FOR_TYPE)

static void (*const tiles[])(const struct gemm_tile *t) = { GEMM_TYPES(GEMM_ENTRY) };

static void tile(const struct gemm_tile *t)
{
	tiles[t->type](t);
}

#endif
