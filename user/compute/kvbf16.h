/* SPDX-License-Identifier: MIT */
/*
 * Attention's products with a block of f16 keys or values that, as the queries and weights they meet, are rounded to bf16
 * first, two of which the processor multiplies and adds in the time of one float; sums are fp32. Only where kvbf16_fast().
 *
 * What rounding costs: each factor is within 2^-8 of itself, so that a score is off by 2^-7 of sum_i |q_i k_i| at most
 * and what values come to by 2^-7 of the largest one, on top of what scores do. Each row gets the same bits whatever other rows there are.
 */
#ifndef LSLM_COMPUTE_KVBF16_H
#define LSLM_COMPUTE_KVBF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compute/kvtile.h"

/* AVX-512 with BF16, and d a multiple of 16. */
bool kvbf16_fast(uint32_t d);
/* For people: how contexts of f16 are multiplied here, and why. */
const char *kvbf16_describe(uint32_t d);

/*
 * As kvtile_scores(), of queries that are bf16 already (dense_round()), [rows][d] of them. ready: scratch for a block of
 * floats. Scores up to the next multiple of 16 are written too.
 */
void kvbf16_scores(float *p, const uint16_t *q, uint32_t rows, const uint16_t *k, uint32_t n,
		   uint32_t d, float *ready, const char *next);
/*
 * As kvtile_weigh(), but the block's weights take half of their row of p, as bf16, and the sum is that of weights so
 * rounded.
 */
void kvbf16_weigh(const struct kvtile_weights *w, uint32_t first, uint32_t end, uint32_t n);

/* acc[r][i] += sum_j p[r][j] v[j][i] for n values of d elements at v; p as kvbf16_weigh() leaves it. */
struct kvbf16_values {
	float *acc; /* [rows][d] */
	const float *p; /* [rows][KVTILE_TOKENS] */
	const uint16_t *v;
	uint32_t rows, n, d;
};

/* ready and next: as above. */
void kvbf16_values(const struct kvbf16_values *t, float *ready, const char *next);

/* For tests: without; false gives it back. */
void kvbf16_limit(bool no_bf16);

#endif
