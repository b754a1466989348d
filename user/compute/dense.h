/* SPDX-License-Identifier: MIT */
/*
 * Products with weights that are floats, F32, F16 or BF16 (or become them row by row), for fewer rows of activations than a library call is
 * worth: a few rows of weights against a few of activations at a time, sums in registers, weights converted there.
 *
 * Where the processor multiplies bf16 itself (AVX-512 BF16) and the weights are, activations can be
 * rounded to bf16 too, as llama.cpp does: twice the rate of floats, for any number of rows.
 */
#ifndef LSLM_COMPUTE_DENSE_H
#define LSLM_COMPUTE_DENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/gguf.h"

/* y[i][o] = (or +=) sum_k x[i][k] * w[o][k] for m rows i and n outputs o. */
struct dense {
	enum gguf_type type;
	const void *w; /* [n][n_in] of the type */
	const float *x; /* [m][n_in] */
	const uint16_t *rounded; /* x as bf16, or NULL */
	uint32_t n_in, n, m;
	bool add;
	float *y;
	size_t stride; /* floats from one row of y to the next */
};

/* scratch: n_in floats. rounded must be NULL unless dense_has_bf16(). */
void dense_multiply(const struct dense *d, float *scratch);

bool dense_has_bf16(void);
/* n floats to bf16, to nearest even. */
void dense_round(uint16_t *dst, const float *src, size_t n);

/* For tests: without AVX-512; false gives it back. */
void dense_limit(bool no_avx512);

#endif
