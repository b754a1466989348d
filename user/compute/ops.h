/* SPDX-License-Identifier: MIT */
/*
 * The small operations between products, on fp32 rows.
 */
#ifndef LSLM_COMPUTE_OPS_H
#define LSLM_COMPUTE_OPS_H

#include <stddef.h>
#include <stdint.h>

/* y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019). x and y may be the same. */
void ops_rms_norm(float *y, const float *x, const float *weight, size_t n, float eps);

/* x += y */
void ops_add(float *x, const float *y, size_t n);

/* gate = silu(gate) * up, silu(z) = z / (1 + exp(-z)) (Shazeer 2020, SwiGLU). */
void ops_swiglu(float *gate, const float *up, size_t n);

/*
 * Angles of rotary embedding (Su et al. 2021) for a position: pair i turns by
 * pos * scale * base^(-2i/dims) / factors[i]. cs receives dims values, cos and sin of
 * pair i at 2i and 2i + 1. factors may be NULL.
 */
void ops_rope_angles(float *cs, double pos, uint32_t dims, double base, double scale,
		     const float *factors);

/* Turn the first `dims` values of a head; pairs are (2i, 2i+1) or, with halves, (i, i + dims/2). */
void ops_rope_turn(float *head, const float *cs, uint32_t dims, int halves);

/* log(sum(exp(x))) of n values, in double. */
double ops_log_sum_exp(const float *x, size_t n);

#endif
