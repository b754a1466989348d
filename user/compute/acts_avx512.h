/* SPDX-License-Identifier: MIT */
/* What acts.c has for AVX-512, the same bits. Only where acts_has_avx512(). */
#ifndef LSLM_COMPUTE_ACTS_AVX512_H
#define LSLM_COMPUTE_ACTS_AVX512_H

#include <stdbool.h>
#include <stdint.h>

bool acts_has_avx512(void);

/* Row r of a tile of `rows`, n_blocks blocks of 32 columns. */
void acts_row_avx512(uint8_t *tile, const float *x, uint64_t n_blocks, uint32_t rows, uint32_t r);

#endif
