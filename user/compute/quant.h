/* SPDX-License-Identifier: MIT */
/*
 * Weight blocks to floats, one function for every tensor type.
 *
 * The block formats are those of ggml (field order, scale packing and rounding
 * as its files define them). A row is converted exactly: the float that the
 * format means, computed in fp32, so that this file is the reference for every
 * faster kernel.
 */
#ifndef LSLM_COMPUTE_QUANT_H
#define LSLM_COMPUTE_QUANT_H

#include <stddef.h>
#include <stdint.h>

#include "model/gguf.h"

/* dst[0..n) = the values of n elements at src; n is a multiple of the type's block. */
void quant_dequantize(enum gguf_type type, const void *src, float *dst, size_t n);

/* sum of w[i] * x[i] over a row of n elements, w in its type, x and the sum in fp32. */
float quant_dot(enum gguf_type type, const void *w, const float *x, size_t n);

/* IEEE half and bfloat16 conversions, round to nearest even. */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);

void f16_row_to_f32(const uint16_t *src, float *dst, size_t n);
void f32_row_to_f16(const float *src, uint16_t *dst, size_t n);

/* Magnitudes that encoders start from end here, so that nothing rounded up is infinite. */
enum { F16_TAME_LARGEST = 57344 };
/* Beyond the largest value they become it, and NaN zero: a model that makes those is broken anyway. */
void f16_row_to_tame(const uint16_t *src, float *dst, size_t n);

#endif
