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
 * Keys or values of a block: f16 as they stand, for up to KVBF16_FEW rows, or what kvbf16_round_keys() or kvbf16_round_values()
 * have made of them, which pays for more.
 */
enum { KVBF16_FEW = 6 };

struct kvbf16_block {
	const uint16_t *x;
	uint32_t n, d; /* so many, of d elements */
	bool rounded;
	const char *
		next; /* if not NULL: where the same amount will be read soon; of what is not rounded */
};

/* What they make takes up to KVTILE_TOKENS * d of `to`. */
void kvbf16_round_keys(uint16_t *to, const struct kvbf16_block *k);
void kvbf16_round_values(uint16_t *to, const struct kvbf16_block *v);

/*
 * As kvtile_scores(), of queries that are bf16 already (dense_round()), [rows][d] of them. Scores up to the next multiple
 * of 16 are written too.
 */
void kvbf16_scores(float *p, const uint16_t *q, uint32_t rows, const struct kvbf16_block *k);
/*
 * As kvtile_weigh(), but the block's weights take half of their row of p, as bf16, and the sum is that of weights so
 * rounded.
 */
void kvbf16_weigh(const struct kvtile_weights *w, uint32_t first, uint32_t end, uint32_t n);

/* acc[r][i] += sum_j p[r][j] v[j][i] for [rows][d] of acc and [rows][KVTILE_TOKENS] of p, which is as kvbf16_weigh() leaves it. */
void kvbf16_values(float *acc, const float *p, uint32_t rows, const struct kvbf16_block *v);

/* For tests: without; false gives it back. */
void kvbf16_limit(bool no_bf16);

#endif
