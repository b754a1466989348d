/* SPDX-License-Identifier: MIT */
/*
 * Activations for the integer kernels: rows of floats, rounded to 8 bits in blocks of 32 columns.
 *
 * A block's step is its largest magnitude / 127, kept as a float. Rows stand in tiles of 1, 2, 4 or
 * ACTS_ROWS rows, block after block, so that a kernel walks one stream of memory; the last
 * tile is filled up with zero rows. A block of a tile of R rows is, in this order,
 *
 *   int8_t  q[R][32]
 *   float   step[R]
 *   float   sum[R]      step * sum of q: what a minimum is multiplied with
 *   int32_t eight[R]    - 8 * sum of q   |
 *   int32_t byte[R]     - 128 * sum of q | what an offset of the codes adds, to start from
 *   int32_t half[2][R]  - 32 * sum of q over 16 columns
 */
#ifndef LSLM_COMPUTE_ACTS_H
#define LSLM_COMPUTE_ACTS_H

#include <stddef.h>
#include <stdint.h>

enum {
	ACTS_ROWS = 8,
	ACTS_BLOCK = 32, /* columns */
	ACTS_BLOCK_BYTES = ACTS_BLOCK + 6 * 4, /* per row */
};

/* Tiles of m rows; how many rows tile t is laid out for; where it stands, from the first one. */
uint32_t acts_tiles(uint32_t m);
uint32_t acts_tile_rows(uint32_t m, uint32_t tile);
size_t acts_tile_offset(uint32_t tile, uint64_t n_in);

/* Bytes of m rows of n_in columns, n_in a multiple of 32. */
size_t acts_bytes(uint32_t m, uint64_t n_in);

/* Fill tile t of those at acts from x: [m][n_in]. */
void acts_fill(uint8_t *acts, const float *x, uint32_t m, uint64_t n_in, uint32_t tile);

/* What that does for row r of a tile of `rows`, n_blocks blocks of it, where nothing faster is to be had; for tests. */
void acts_row(uint8_t *tile, const float *x, uint64_t n_blocks, uint32_t rows, uint32_t r);

#endif
