/* SPDX-License-Identifier: MIT */
/*
 * Quantised matrices, laid out for the integer kernels.
 *
 * A panel is PACK_ROWS rows of the matrix. Its elements are codes: the small unsigned integers
 * that the type stores, so that value = scale * (code - offset), or scale * code - minimum where
 * the type has minima. All 32 columns have a run of code bytes that the kernels read in
 * 64-byte words; word g of codes holds, for row r and j in 0..3, the code of column 4 g + j at byte
 * 4 r + j: what one multiply-add instruction takes, 16 rows wide.
 *
 *   Q8_0                8 words of bytes (q + 128)
 *   Q4_0, Q4_1, Q4_K    4 words: columns 0..15 in the low nibbles, 16..31 in the high ones
 *   Q5_0, Q5_1, Q5_K    the same, then 1 word with bit g of a byte for word g
 *   Q6_K                the same, then 2 words with bits 2 g, 2 g + 1 for columns 0..15, and 16..31
 *
 * Before the codes of `span` columns stand their scales, 16 rows side by side, as exact as in the file, in whole words:
 *
 *   _0         64 columns   d f16[2][16], for 32 columns each
 *   _1         32           d f16[16], m f16[16] (to be added)
 *   Q4_K Q5_K  256          d f16[16], dmin f16[16], scale u8[8][16], min u8[8][16]
 *   Q6_K       256          d f16[16], scale i8[16][16] (each for 16 columns), 32 bytes of nothing
 *
 * What is left of the columns makes a shorter run, with scales of the same size. Everything stands in the order in which it is
 * read, from the first panel to the last: that is what a processor reads fastest (compute/gemm_vnni.c).
 *
 * A panel takes the bytes of its rows in the file, and 1 % (Q6_K) or 3 % more for the K types. Rows behind
 * the last one have scale 0. Panels follow each other, each at a multiple of 64 bytes.
 */
#ifndef LSLM_COMPUTE_PACK_H
#define LSLM_COMPUTE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/gguf.h"

enum {
	PACK_ROWS = 16,
	PACK_COLUMNS = 32,
	PACK_WORD = 64,
	PACK_NIBBLES = 4 * PACK_WORD, /* bytes of nibbles for 32 columns */
	PACK_K_SCALES = 64 + 2 * 8 * PACK_ROWS,
	PACK_Q6_SCALES = 32 + 16 * PACK_ROWS + 32,
	PACK_HALVES = 2 * PACK_ROWS, /* bytes of one f16 for each row */
};

/* Bytes of codes for 32 columns of a panel, of scales for `span` columns, both multiples of PACK_WORD. */
struct pack_layout {
	uint16_t codes;
	uint16_t scales;
	uint16_t span;
};

/* By type, all zero for those that cannot be packed; here, so that kernels have them as constants. */
static const struct pack_layout pack_layouts[] = {
	[GGUF_Q8_0] = { 8 * PACK_WORD, PACK_WORD, 64 },
	[GGUF_Q4_0] = { PACK_NIBBLES, PACK_WORD, 64 },
	[GGUF_Q4_1] = { PACK_NIBBLES, 64, 32 },
	[GGUF_Q5_0] = { PACK_NIBBLES + PACK_WORD, PACK_WORD, 64 },
	[GGUF_Q5_1] = { PACK_NIBBLES + PACK_WORD, 64, 32 },
	[GGUF_Q4_K] = { PACK_NIBBLES, PACK_K_SCALES, 256 },
	[GGUF_Q5_K] = { PACK_NIBBLES + PACK_WORD, PACK_K_SCALES, 256 },
	[GGUF_Q6_K] = { PACK_NIBBLES + 2 * PACK_WORD, PACK_Q6_SCALES, 256 },
};

static inline const struct pack_layout *pack_layout(enum gguf_type type)
{
	return &pack_layouts[type];
}

/* Inlined into functions of any instruction set. */
#define PACK_INLINE static inline __attribute__((always_inline))

/* Does a smallest value stand beside each scale? */
PACK_INLINE bool pack_has_min(enum gguf_type type)
{
	return type == GGUF_Q4_1 || type == GGUF_Q5_1 || type == GGUF_Q4_K || type == GGUF_Q5_K;
}

/* Where the halves of block b (32 columns) begin in the scales of its run: they are its own where a run has two blocks. */
PACK_INLINE uint32_t pack_halves_at(enum gguf_type type, uint32_t b)
{
	return pack_layout(type)->span == 64 ? b * PACK_HALVES : 0;
}

/* Blocks of the next run, of so many that are left. */
PACK_INLINE uint32_t pack_run_blocks(const struct pack_layout *l, uint32_t left)
{
	return left < l->span / PACK_COLUMNS ? left : l->span / PACK_COLUMNS;
}

/* Can the type be packed? Floats cannot. */
bool pack_possible(enum gguf_type type);

/* Bytes of one panel, and of a whole matrix; n_in is a multiple of the type's block. */
size_t pack_panel_bytes(enum gguf_type type, uint64_t n_in);
size_t pack_bytes(enum gguf_type type, uint64_t n_in, uint64_t n_out);

/* Pack n rows (1..PACK_ROWS), which stand at `rows` as in the file. */
void pack_panel(uint8_t *panel, enum gguf_type type, const void *rows, uint64_t n_in,
		unsigned int n);

#endif
