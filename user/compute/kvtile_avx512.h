/* SPDX-License-Identifier: MIT */
/* What kvtile.c has for AVX-512. Only where kvtile_has_avx512(), and for d a multiple of 16. */
#ifndef LSLM_COMPUTE_KVTILE_AVX512_H
#define LSLM_COMPUTE_KVTILE_AVX512_H

#include "compute/kvtile.h"

/* Up to so many rows, keys and values are turned into floats again for every few rows; for more, once. */
enum { KVTILE_FEW = 8 };

bool kvtile_has_avx512(void);

/* As kvtile_scores() and kvtile_values(). ready: room for a block of floats. */
void kvtile_scores_avx512(float *p, const float *q, uint32_t rows, const uint16_t *k, uint32_t n,
			  uint32_t d, float *ready, const char *next);
void kvtile_values_avx512(const struct kvtile_product *t, float *ready, const char *next);
void kvtile_weigh_avx512(const struct kvtile_weights *w, uint32_t first, uint32_t end, uint32_t n);

#endif
