/* SPDX-License-Identifier: MIT */
/*
 * What attention does with one block of keys or values: f16 as it stands in a segment, against a few rows of
 * floats. Chosen at run time: AVX-512, AVX2, plain C.
 */
#ifndef LSLM_COMPUTE_KVTILE_H
#define LSLM_COMPUTE_KVTILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	KVTILE_TOKENS = 64, /* of a block */
	KVTILE_LANES = 16, /* widths are multiples of it */
};

/* c[rows][n] = (or +=) a[rows][k] * b[k][n]; n is a multiple of KVTILE_LANES. */
struct kvtile_product {
	float *c;
	size_t ldc;
	const float *a;
	size_t lda;
	const void *b; /* floats; f16 for kvtile_values() */
	size_t ldb;
	uint32_t rows, n, k;
	bool add;
};

void kvtile_multiply(const struct kvtile_product *p);

/*
 * p[r][j] = sum_i q[r][i] * k[j][i] for n keys of d values at k, p: [rows][KVTILE_TOKENS]. Scores up to the next
 * multiple of 16 are written too, from whatever stands there: a block's memory is there for all of its tokens.
 * ready: scratch for KVTILE_TOKENS keys of floats, d rounded up to whole vectors. next, if not NULL: where the
 * same amount will be read soon.
 */
void kvtile_scores(float *p, const float *q, uint32_t rows, const uint16_t *k, uint32_t n,
		   uint32_t d, float *ready, const void *next);
/* kvtile_multiply() with f16 at b, of which ldb columns are there; the rest of n count as 0. */
void kvtile_values(const struct kvtile_product *p, float *ready, const void *next);

/*
 * Rows of an online softmax: p [rows][KVTILE_TOKENS] scores, acc [rows][width] sums of values weighted
 * relative to max [rows], sum [rows][KVTILE_LANES] of the weights: kvtile_total() is all of a row's.
 */
struct kvtile_weights {
	float *p, *acc, *max, *sum;
	uint32_t width; /* a multiple of KVTILE_LANES */
};

/*
 * Of rows first .. end - 1, turn the first n scores into weights relative to max, and the rest of the block into 0. max is
 * the largest score so far, or less than it by KVTILE_SLACK at most: it and what was summed before follow where it would be more.
 */
enum { KVTILE_SLACK = 8 };
void kvtile_weigh(const struct kvtile_weights *w, uint32_t first, uint32_t end, uint32_t n);
float kvtile_total(const float sum[KVTILE_LANES]);
/* y = x * factor; both may be the same. */
void kvtile_scale(float *y, const float *x, float factor, uint32_t n);

/* For tests: without AVX-512, or without AVX2 either; false gives all of them back. */
void kvtile_limit(bool no_avx512, bool no_avx2);

#endif
