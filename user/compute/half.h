/* SPDX-License-Identifier: MIT */
/*
 * Half precision in plain integer arithmetic, to be inlined into other loops. Whole
 * rows are faster through f16_row_to_f32() and f32_row_to_f16() of compute/quant.h,
 * which use the processor's own conversion where it has one; the values are the same.
 */
#ifndef LSLM_COMPUTE_HALF_H
#define LSLM_COMPUTE_HALF_H

#include <stdint.h>
#include <string.h>

/* Inlined into each clone of the caller, where loops become that instruction set's. */
#define INLINE static inline __attribute__((always_inline))

INLINE float float_of(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

INLINE uint32_t bits_of(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	return bits;
}

/*
 * Exponent and mantissa move to a float's places and the biases differ by 112. A
 * subnormal half is an integer count of 2^-24. Infinity and NaN need the float's own
 * top exponent. Masks, not branches, so that loops over it vectorise.
 */
INLINE float half_to_float(uint16_t h)
{
	uint32_t magnitude = h & 0x7fff;
	uint32_t normal = (magnitude << 13) + (112u << 23);
	uint32_t tiny = bits_of((float)(int)magnitude * 0x1p-24f);
	uint32_t is_tiny = -(uint32_t)(magnitude < 1u << 10);
	uint32_t is_large = -(uint32_t)(magnitude >= 31u << 10);
	uint32_t bits = (normal & ~is_tiny) | (tiny & is_tiny) | (is_large & 0x7f800000);

	return float_of(bits | (uint32_t)(h & 0x8000) << 16);
}

/*
 * Three ranges. Below 2^-14 adding 1/2 makes the adder round to multiples of
 * 2^-24, a half's smallest step. Between, rounding is an integer addition whose
 * carry may run into the exponent, up to infinity. From 2^16 up it is infinity, or a
 * NaN that stays one.
 */
INLINE uint16_t float_to_half(float f)
{
	uint32_t bits = bits_of(f), magnitude = bits & 0x7fffffff;
	uint32_t tiny = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
	uint32_t normal = (magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13;
	uint32_t large = magnitude > 0x7f800000 ? 0x7e00 | (magnitude >> 13 & 0x3ff) : 0x7c00;
	uint32_t h = magnitude < 0x38800000 ? tiny : magnitude < 0x47800000 ? normal : large;

	return (uint16_t)(h | (bits >> 16 & 0x8000));
}

#endif
