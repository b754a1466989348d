// SPDX-License-Identifier: MIT
#include "compute/kvq.h"

#include <math.h>
#include <string.h>

#include "base/clones.h"
#include "compute/half.h"
#include "compute/quant.h"
#include "lslm/page.h"

enum { ALIGN = 64 };

/*
 * What the value of largest magnitude may become, -8 first. Fewer steps than 8 leave room that few values use,
 * more clip that one value for the sake of the others.
 */
static const float q4_extremes[] = { -8, -7.5f, -7, -6.5f, -8.5f, -9, -10, 7.5f };

enum { N_EXTREMES = sizeof(q4_extremes) / sizeof(q4_extremes[0]) };

uint32_t kvq_groups(uint32_t d)
{
	return (d + KVQ_GROUP - 1) / KVQ_GROUP;
}

size_t kvq_row_bytes(uint32_t d, enum kvq_bits bits)
{
	const uint32_t last = d % KVQ_GROUP;

	if (bits == KVQ_Q8)
		return d;
	return d / KVQ_GROUP * (size_t)(KVQ_GROUP / 2) + (last + 1) / 2;
}

size_t kvq_scales_offset(uint32_t n_head_kv, uint32_t d, enum kvq_bits bits)
{
	return (size_t)n_head_kv * KVQ_TOKENS * kvq_row_bytes(d, bits);
}

size_t kvq_half_bytes(uint32_t n_head_kv, uint32_t d, enum kvq_bits bits)
{
	const size_t scales = (size_t)n_head_kv * KVQ_TOKENS * kvq_groups(d) * sizeof(uint16_t);

	return lslm_round_up(kvq_scales_offset(n_head_kv, d, bits) + scales, ALIGN);
}

uint32_t kvq_rotation(uint32_t d)
{
	const uint32_t n = d & -d;

	return n >= 8 ? n : 1;
}

typedef float eight __attribute__((vector_size(32)));

/* The three steps within eight values; the difference a - b is a + -b. */
INLINE void hadamard8(float *x)
{
	eight v;

	memcpy(&v, x, sizeof(v));
	v = __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6) +
	    v * (eight){ 1, -1, 1, -1, 1, -1, 1, -1 };
	v = __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5) +
	    v * (eight){ 1, 1, -1, -1, 1, 1, -1, -1 };
	v = __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3) +
	    v * (eight){ 1, 1, 1, 1, -1, -1, -1, -1 };
	memcpy(x, &v, sizeof(v));
}

INLINE void add_and_subtract(float *x, float *y)
{
	eight a, b, sum, difference;

	memcpy(&a, x, sizeof(a));
	memcpy(&b, y, sizeof(b));
	sum = a + b;
	difference = a - b;
	memcpy(x, &sum, sizeof(sum));
	memcpy(y, &difference, sizeof(difference));
}

/*
 * Additions only, and one product at the end: nothing here depends on how a compiler or an
 * instruction set groups them. n: 8 at least.
 */
INLINE void hadamard(float *x, uint32_t n)
{
	const float norm = 1 / sqrtf((float)n);

	for (uint32_t i = 0; i < n; i += 8)
		hadamard8(x + i);
	for (uint32_t h = 8; h < n; h *= 2)
		for (uint32_t i = 0; i < n; i += 2 * h)
			for (uint32_t j = i; j < i + h; j += 8)
				add_and_subtract(x + j, x + j + h);
	for (uint32_t i = 0; i < n; i++)
		x[i] *= norm;
}

CLONES static void rotate_row(float *x, uint32_t d, uint32_t n)
{
	for (uint32_t i = 0; i < d; i += n)
		hadamard(x + i, n);
}

void kvq_rotate(float *x, uint32_t d)
{
	const uint32_t n = kvq_rotation(d);

	if (n > 1)
		rotate_row(x, d, n);
}

/* To nearest even, for |x| < 2^22. */
INLINE float round_even(float x)
{
	return x + 0x1.8p23f - 0x1.8p23f;
}

INLINE float clip(float x, float low, float high)
{
	x = x < low ? low : x;
	return x > high ? high : x;
}

/* A scale as it is stored, and what values are multiplied with. */
INLINE float stored_scale(float scale, uint16_t *stored, float *inverse)
{
	float reciprocal;

	*stored = float_to_half(clip(scale, -F16_TAME_LARGEST / 8, F16_TAME_LARGEST / 8));
	scale = half_to_float(*stored);
	reciprocal = 1 / scale;
	*inverse = scale != 0 ? reciprocal : 0;
	return scale;
}

INLINE void encode_q8(uint8_t *out, uint16_t *scale, const float *x, uint32_t n)
{
	float max = 0, inverse;

	for (uint32_t i = 0; i < n; i++)
		max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
	stored_scale(max / 127, scale, &inverse);
	for (uint32_t i = 0; i < n; i++)
		out[i] = (uint8_t)(int8_t)(int)round_even(clip(x[i] * inverse, -127, 127));
}

INLINE float q4_quant(float x, float inverse)
{
	return round_even(clip(x * inverse, -8, 7));
}

/* Squared errors of a group with each of the scales, added up in the order of values, so that they are the same everywhere. */
INLINE void q4_errors(float *errors, const float *x, uint32_t n, const float *scales,
		      const float *inverses)
{
	float sum[N_EXTREMES] = { 0 };

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < N_EXTREMES; k++) {
			const float d = x[i] - q4_quant(x[i], inverses[k]) * scales[k];

			sum[k] += d * d;
		}
	memcpy(errors, sum, sizeof(sum));
}

/*
 * The value of largest magnitude, the first of equals. As integers, of which the largest can be found many at a time: floats of one
 * sign are in the same order.
 */
INLINE float extreme(const float *x, uint32_t n)
{
	int32_t above = 0, below = 0;

	for (uint32_t i = 0; i < n; i++) {
		const int32_t plus = (int32_t)bits_of(x[i]), minus = (int32_t)bits_of(-x[i]);

		above = plus > above ? plus : above;
		below = minus > below ? minus : below;
	}
	if (above == below)
		for (uint32_t i = 0; i < n; i++)
			if ((int32_t)bits_of(fabsf(x[i])) == above)
				return above ? x[i] : 0;
	return above > below ? float_of((uint32_t)above) : -float_of((uint32_t)below);
}

/* The scale that leaves the least error, the first of equals; returns its inverse. */
INLINE float q4_scale(const float *x, uint32_t n, uint16_t *stored)
{
	const float max = extreme(x, n);
	float scales[N_EXTREMES], inverses[N_EXTREMES], errors[N_EXTREMES];
	uint16_t halves[N_EXTREMES];
	uint32_t best = 0;

	for (uint32_t k = 0; k < N_EXTREMES; k++)
		scales[k] = stored_scale(max / q4_extremes[k], &halves[k], &inverses[k]);
	q4_errors(errors, x, n, scales, inverses);
	for (uint32_t k = 1; k < N_EXTREMES; k++)
		best = errors[k] < errors[best] ? k : best;
	*stored = halves[best];
	return inverses[best];
}

INLINE void encode_q4(uint8_t *out, uint16_t *scale, const float *x, uint32_t n)
{
	const float inverse = q4_scale(x, n, scale);
	const uint32_t half = (n + 1) / 2;
	uint8_t q[KVQ_GROUP + 1];

	for (uint32_t i = 0; i < n; i++)
		q[i] = (uint8_t)((int)q4_quant(x[i], inverse) + 8);
	q[n] = 0;
	for (uint32_t i = 0; i < half; i++)
		out[i] = (uint8_t)(q[i] | q[i + half] << 4);
}

INLINE void decode_q4(float *x, const uint8_t *in, uint32_t n)
{
	const uint32_t half = (n + 1) / 2;

	for (uint32_t i = 0; i < half; i++)
		x[i] = (float)((in[i] & 15) - 8);
	for (uint32_t i = half; i < n; i++)
		x[i] = (float)((in[i - half] >> 4) - 8);
}

INLINE void encode_group(uint8_t *out, uint16_t *scale, const float *x, uint32_t n,
			 enum kvq_bits bits)
{
	if (bits == KVQ_Q8)
		encode_q8(out, scale, x, n);
	else
		encode_q4(out, scale, x, n);
}

INLINE void decode_group(float *x, const uint8_t *in, uint16_t stored, uint32_t n,
			 enum kvq_bits bits)
{
	const float scale = half_to_float(stored);

	if (bits == KVQ_Q8)
		for (uint32_t i = 0; i < n; i++)
			x[i] = (float)(int8_t)in[i];
	else
		decode_q4(x, in, n);
	for (uint32_t i = 0; i < n; i++)
		x[i] *= scale;
}

/* A full group's length is a constant, so that its loops are unrolled. */
CLONES static void encode_row(uint8_t *out, uint16_t *scales, const float *x, uint32_t d,
			      enum kvq_bits bits)
{
	const size_t step = KVQ_GROUP * (size_t)bits / 8;

	for (; d >= KVQ_GROUP; d -= KVQ_GROUP, x += KVQ_GROUP, out += step)
		encode_group(out, scales++, x, KVQ_GROUP, bits);
	if (d)
		encode_group(out, scales, x, d, bits);
}

CLONES static void decode_row(float *x, const uint8_t *in, const uint16_t *scales, uint32_t d,
			      enum kvq_bits bits)
{
	const size_t step = KVQ_GROUP * (size_t)bits / 8;

	for (; d >= KVQ_GROUP; d -= KVQ_GROUP, x += KVQ_GROUP, in += step)
		decode_group(x, in, *scales++, KVQ_GROUP, bits);
	if (d)
		decode_group(x, in, *scales, d, bits);
}

void kvq_encode(uint8_t *out, const uint16_t *in, uint32_t n_head_kv, uint32_t d,
		enum kvq_bits bits, int rotate)
{
	const size_t row_bytes = kvq_row_bytes(d, bits), n_rows = (size_t)n_head_kv * KVQ_TOKENS;
	const size_t total = kvq_half_bytes(n_head_kv, d, bits);
	uint8_t *scales = out + n_rows * row_bytes;
	const uint32_t groups = kvq_groups(d);
	uint16_t stored[KVQ_MAX_DIM / KVQ_GROUP];
	float row[KVQ_MAX_DIM];

	for (size_t i = 0; i < n_rows; i++) {
		f16_row_to_tame(in + i * d, row, d);
		if (rotate)
			kvq_rotate(row, d);
		encode_row(out + i * row_bytes, stored, row, d, bits);
		memcpy(scales + i * groups * sizeof(*stored), stored, groups * sizeof(*stored));
	}
	scales += n_rows * groups * sizeof(*stored);
	memset(scales, 0, (size_t)(out + total - scales));
}

void kvq_decode(uint16_t *out, const uint8_t *in, uint32_t n_head_kv, uint32_t d,
		enum kvq_bits bits, int rotate)
{
	const size_t row_bytes = kvq_row_bytes(d, bits), n_rows = (size_t)n_head_kv * KVQ_TOKENS;
	const uint8_t *scales = in + n_rows * row_bytes;
	const uint32_t groups = kvq_groups(d);
	uint16_t stored[KVQ_MAX_DIM / KVQ_GROUP];
	float row[KVQ_MAX_DIM];

	for (size_t i = 0; i < n_rows; i++) {
		memcpy(stored, scales + i * groups * sizeof(*stored), groups * sizeof(*stored));
		decode_row(row, in + i * row_bytes, stored, d, bits);
		if (rotate)
			kvq_rotate(row, d);
		f32_row_to_f16(row, out + i * d, d);
	}
}
