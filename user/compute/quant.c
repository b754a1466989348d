// SPDX-License-Identifier: MIT
#include "compute/quant.h"

#include <string.h>

#include "base/clones.h"
#include "compute/block.h"
#include "compute/half.h"

/*
 * Exactness. A half has 11 significant bits, the integers that multiply it have at
 * most 12 together, and 23 bits fit a float: every product below is exact, and at
 * most one addition rounds. So the result does not depend on the order of the
 * multiplications or on fused multiply-add, and all clones agree bit for bit.
 */

/* --- one block of each type to floats --- */

INLINE void q8_0_block(const void *p, float *y)
{
	const struct q8_0 *b = p;
	float d = half_to_float(b->d);

	for (int j = 0; j < BLOCK_SMALL; j++)
		y[j] = d * (float)b->q[j];
}

/* Low nibbles are the first half of a block, high nibbles the second, for the four 32-element types. */

INLINE void q4_0_block(const void *p, float *y)
{
	const struct q4_0 *b = p;
	float d = half_to_float(b->d);

	for (int j = 0; j < BLOCK_SMALL / 2; j++) {
		y[j] = d * (float)((b->q[j] & 15) - 8);
		y[j + BLOCK_SMALL / 2] = d * (float)((b->q[j] >> 4) - 8);
	}
}

INLINE void q4_1_block(const void *p, float *y)
{
	const struct q4_1 *b = p;
	float d = half_to_float(b->d), m = half_to_float(b->m);

	for (int j = 0; j < BLOCK_SMALL / 2; j++) {
		y[j] = d * (float)(b->q[j] & 15) + m;
		y[j + BLOCK_SMALL / 2] = d * (float)(b->q[j] >> 4) + m;
	}
}

INLINE void q5_0_block(const void *p, float *y)
{
	const struct q5_0 *b = p;
	float d = half_to_float(b->d);
	uint8_t value[BLOCK_SMALL];

	five_bits(b->high, b->q, value);
	for (int j = 0; j < BLOCK_SMALL; j++)
		y[j] = d * (float)(value[j] - 16);
}

INLINE void q5_1_block(const void *p, float *y)
{
	const struct q5_1 *b = p;
	float d = half_to_float(b->d), m = half_to_float(b->m);
	uint8_t value[BLOCK_SMALL];

	five_bits(b->high, b->q, value);
	for (int j = 0; j < BLOCK_SMALL; j++)
		y[j] = d * (float)value[j] + m;
}

/* Groups of 32 in pairs: the even one has the low nibbles of 32 bytes, the odd one the high ones. */
INLINE void q4_k_block(const void *p, float *y)
{
	const struct q4_k *b = p;
	float d = half_to_float(b->d), dmin = half_to_float(b->dmin);

	for (int i = 0; i < 8; i++) {
		const uint8_t *q = b->q + i / 2 * 32;
		int scale, min, shift = i % 2 * 4;
		float ds, m;

		six_bits(b->scales, i, &scale, &min);
		ds = d * (float)scale;
		m = dmin * (float)min;
		for (int j = 0; j < 32; j++)
			y[32 * i + j] = ds * (float)(q[j] >> shift & 15) - m;
	}
}

/* As Q4_K; the fifth bit of element j of group i is bit i of high[j]. */
INLINE void q5_k_block(const void *p, float *y)
{
	const struct q5_k *b = p;
	float d = half_to_float(b->d), dmin = half_to_float(b->dmin);

	for (int i = 0; i < 8; i++) {
		const uint8_t *q = b->q + i / 2 * 32;
		int scale, min, shift = i % 2 * 4;
		float ds, m;

		six_bits(b->scales, i, &scale, &min);
		ds = d * (float)scale;
		m = dmin * (float)min;
		for (int j = 0; j < 32; j++)
			y[32 * i + j] =
				ds * (float)((q[j] >> shift & 15) | (b->high[j] >> i & 1) << 4) - m;
	}
}

/*
 * Two halves of 128, each four groups of 32: groups 0 and 1 have the low nibbles of
 * 32 bytes each, 2 and 3 the high nibbles of the same; high[j] holds the upper two
 * bits of element j of all four. Scales are per 16 elements.
 */
INLINE void q6_k_block(const void *p, float *y)
{
	const struct q6_k *b = p;
	float d = half_to_float(b->d);

	for (int i = 0; i < 16; i++) {
		const uint8_t *low = b->low + i / 8 * 64 + i % 4 * 16;
		const uint8_t *high = b->high + i / 8 * 32 + i % 2 * 16;
		int nibble = i % 8 / 4 * 4, pair = i % 8 / 2 * 2;
		float ds = d * (float)b->scales[i];

		for (int j = 0; j < 16; j++) {
			int q = (low[j] >> nibble & 15) | (high[j] >> pair & 3) << 4;

			y[16 * i + j] = ds * (float)(q - 32);
		}
	}
}

/* The plain types in runs of BLOCK_SMALL, so that everything has the same form. */

INLINE void f32_block(const void *p, float *y)
{
	memcpy(y, p, BLOCK_SMALL * sizeof(float));
}

INLINE void bf16_block(const void *p, float *y)
{
	const uint16_t *h = p;

	for (int j = 0; j < BLOCK_SMALL; j++)
		y[j] = float_of((uint32_t)h[j] << 16);
}

/* --- rows --- */

typedef void block_fn(const void *p, float *y);

INLINE void row(block_fn *block, size_t size, size_t bytes, const uint8_t *src, float *dst,
		size_t n)
{
	for (size_t i = 0; i < n; i += size, src += bytes)
		block(src, dst + i);
}

/* Eight floats at any address: what a compiler maps to the widest registers that a clone has. */
typedef float lanes __attribute__((vector_size(32), aligned(4), may_alias));

/* BLOCK_LARGE weights at a time become floats on the stack, then meet x in 32 running sums. */
INLINE float dot(block_fn *block, size_t size, size_t bytes, const uint8_t *w, const float *x,
		 size_t n)
{
	lanes a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
	float y[BLOCK_LARGE], sum = 0;

	while (n) {
		size_t m = n < BLOCK_LARGE ? n : BLOCK_LARGE;

		row(block, size, bytes, w, y, m);
		for (size_t j = 0; j < m; j += BLOCK_SMALL) {
			a += *(const lanes *)(y + j) * *(const lanes *)(x + j);
			b += *(const lanes *)(y + j + 8) * *(const lanes *)(x + j + 8);
			c += *(const lanes *)(y + j + 16) * *(const lanes *)(x + j + 16);
			d += *(const lanes *)(y + j + 24) * *(const lanes *)(x + j + 24);
		}
		n -= m;
		x += m;
		w += m / size * bytes;
	}
	a = (a + b) + (c + d);
	for (int j = 0; j < 8; j++)
		sum += a[j];
	return sum;
}

#define ROW_FUNCTIONS(type, size, bytes)                                        \
	CLONES static void type##_row(const void *src, float *dst, size_t n)    \
	{                                                                       \
		row(type##_block, size, bytes, src, dst, n);                    \
	}                                                                       \
	CLONES static float type##_dot(const void *w, const float *x, size_t n) \
	{                                                                       \
		return dot(type##_block, size, bytes, w, x, n);                 \
	}

ROW_FUNCTIONS(f32, BLOCK_SMALL, BLOCK_SMALL * 4)
ROW_FUNCTIONS(bf16, BLOCK_SMALL, BLOCK_SMALL * 2)
ROW_FUNCTIONS(q8_0, BLOCK_SMALL, sizeof(struct q8_0))
ROW_FUNCTIONS(q4_0, BLOCK_SMALL, sizeof(struct q4_0))
ROW_FUNCTIONS(q4_1, BLOCK_SMALL, sizeof(struct q4_1))
ROW_FUNCTIONS(q5_0, BLOCK_SMALL, sizeof(struct q5_0))
ROW_FUNCTIONS(q5_1, BLOCK_SMALL, sizeof(struct q5_1))
ROW_FUNCTIONS(q4_k, BLOCK_LARGE, sizeof(struct q4_k))
ROW_FUNCTIONS(q5_k, BLOCK_LARGE, sizeof(struct q5_k))
ROW_FUNCTIONS(q6_k, BLOCK_LARGE, sizeof(struct q6_k))

static void f16_row(const void *src, float *dst, size_t n)
{
	f16_row_to_f32(src, dst, n);
}

static float f16_dot(const void *w, const float *x, size_t n)
{
	const uint16_t *h = w;
	float y[BLOCK_LARGE], sum = 0;

	for (size_t i = 0, m; i < n; i += m) {
		m = n - i < BLOCK_LARGE ? n - i : BLOCK_LARGE;
		f16_row_to_f32(h + i, y, m);
		sum += f32_dot(y, x + i, m);
	}
	return sum;
}

static const struct functions {
	void (*row)(const void *src, float *dst, size_t n);
	float (*dot)(const void *w, const float *x, size_t n);
} functions[] = {
	[GGUF_F32] = { f32_row, f32_dot },    [GGUF_F16] = { f16_row, f16_dot },
	[GGUF_BF16] = { bf16_row, bf16_dot }, [GGUF_Q8_0] = { q8_0_row, q8_0_dot },
	[GGUF_Q4_0] = { q4_0_row, q4_0_dot }, [GGUF_Q4_1] = { q4_1_row, q4_1_dot },
	[GGUF_Q5_0] = { q5_0_row, q5_0_dot }, [GGUF_Q5_1] = { q5_1_row, q5_1_dot },
	[GGUF_Q4_K] = { q4_k_row, q4_k_dot }, [GGUF_Q5_K] = { q5_k_row, q5_k_dot },
	[GGUF_Q6_K] = { q6_k_row, q6_k_dot },
};

/* What is left of a row of F32, F16 or BF16, less than BLOCK_SMALL elements, padded with zeros. */
static size_t take_tail(enum gguf_type type, const void *src, size_t n,
			uint8_t tail[BLOCK_SMALL * 4])
{
	size_t bytes = gguf_type_block_bytes(type), left = n % BLOCK_SMALL;

	if (gguf_type_block(type) != 1 || !left)
		return 0;
	memset(tail, 0, BLOCK_SMALL * 4);
	memcpy(tail, (const uint8_t *)src + (n - left) * bytes, left * bytes);
	return left;
}

void quant_dequantize(enum gguf_type type, const void *src, float *dst, size_t n)
{
	_Alignas(4) uint8_t tail[BLOCK_SMALL * 4];
	size_t left = take_tail(type, src, n, tail);
	float y[BLOCK_SMALL];

	functions[type].row(src, dst, n - left);
	if (left) {
		functions[type].row(tail, y, BLOCK_SMALL);
		memcpy(dst + n - left, y, left * sizeof(*y));
	}
}

float quant_dot(enum gguf_type type, const void *w, const float *x, size_t n)
{
	_Alignas(4) uint8_t tail[BLOCK_SMALL * 4];
	size_t left = take_tail(type, w, n, tail);
	float sum = functions[type].dot(w, x, n - left), y[BLOCK_SMALL] = { 0 };

	if (left) {
		memcpy(y, x + n - left, left * sizeof(*y));
		sum += functions[type].dot(tail, y, BLOCK_SMALL);
	}
	return sum;
}
