/* SPDX-License-Identifier: MIT */
/*
 * Which layer of a larger model is like which layer of a smaller one, and the linear map between them.
 *
 * From rows (codec/rows.h) of both models on the same tokens, sums of products are kept, from which follow
 *
 *   similarity   linear CKA (Kornblith et al. 2019): ||Y'X||^2 / (||X'X|| ||Y'Y||), columns centred; 0 to 1, for any two widths
 *   assignment   m(j), non-decreasing in j, that maximises the sum over j of similarity(m(j), j): a dynamic programme
 *   ridge        the W and bias that minimise ||X W + bias - Y||^2 + lambda * (mean variance of X) * tokens * ||W||^2
 *
 * Memory: 8 bytes * (layers * widths of one model + those of the other)^2 / 2, about.
 */
#ifndef LSLM_CODEC_ALIGN_H
#define LSLM_CODEC_ALIGN_H

#include <stdint.h>

#include "base/error.h"

struct align;

/* Layers and width of the rows of the larger model (x) and of the smaller one (y). */
int align_create(struct align **out, uint32_t n_from, uint32_t width_from, uint32_t n_to,
		 uint32_t width_to, struct lslm_error *err);
void align_destroy(struct align *a);

/* n more tokens: x [n_from][n][width_from], y [n_to][n][width_to]. */
void align_add(struct align *a, const float *x, const float *y, uint32_t n);

/* Layer i of the larger and j of the smaller model; 0 where one of them never varies. */
double align_similarity(const struct align *a, uint32_t i, uint32_t j);

/* s: [n_from][n_to]; m: [n_to]. Of equals the lowest layers. */
void align_assign(const double *s, uint32_t n_from, uint32_t n_to, uint32_t *m);

/*
 * From layer i to columns first .. first + n of layer j. w: [width_from][n], bias: [n]. *fit: the share of the variance that the map
 * explains on the same tokens. -EDOM where X'X is singular; a larger lambda helps.
 */
int align_ridge(const struct align *a, uint32_t i, uint32_t j, uint32_t first, uint32_t n,
		double lambda, float *w, float *bias, double *fit, struct lslm_error *err);

#endif
