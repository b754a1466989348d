/* SPDX-License-Identifier: MIT */
/* What levels e and p share: values to integers and back, nibbles, and the choice of a step. */
#ifndef LSLM_CODEC_STEPS_H
#define LSLM_CODEC_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Steps are f16 numbers of which only the upper bits are used: eight to an octave, numbered from 0. */
enum {
	STEPS = 31 << 3,
	STEPS_LARGEST = 28 << 3, /* 2^13 */
	STEPS_MAX_CHANNELS =
		16384, /* values of a token in a layer (n_head_kv * head_dim) that e and p take */
};

/* The smallest step that holds values of this magnitude in RANS_MAX_VALUE; the smallest that is no less than a value. */
uint32_t steps_holding(float largest);
uint32_t steps_at_least(float value);
/* What columns of these sums of squares cost at a step, in units of 2^-8 of a bit per value, summed over the columns. */
uint64_t steps_cost(const float *squares, size_t n, uint32_t number);

/* Add the squares of rows of n columns to those of each column; returns the largest magnitude. */
float steps_measure(float *squares, const float *x, size_t rows, size_t columns);

uint16_t steps_half(uint32_t number);
float steps_value(uint32_t number);
/* Is it the half of a step that steps_choose() returns? */
bool steps_valid(uint16_t half);

/*
 * The smallest step for which columns of these sums of squares cost no more than bits, in units of 2^-8 of a bit per value, summed
 * over the columns, and no value exceeds RANS_MAX_VALUE steps.
 */
uint32_t steps_choose(const float *squares, size_t n, float largest, uint64_t cost);

/* q[i] = x[i] * inverse to the nearest, within +-RANS_MAX_VALUE. */
void steps_quantise(int16_t *q, const float *x, float inverse, size_t n);
/* x[i] = v[i] * scale as f16. */
void steps_restore(uint16_t *x, const int16_t *v, float scale, size_t n);

/* Classes, two to a byte, the first in the low half; number `at` is the first one of n. */
void steps_put_classes(uint8_t *out, size_t at, const uint8_t *classes, uint32_t n);
void steps_get_classes(uint8_t *classes, const uint8_t *in, size_t at, uint32_t n);

#endif
