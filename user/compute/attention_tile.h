/* SPDX-License-Identifier: MIT */
/*
 * The inside of attention: up to ATTENTION_TILE queries of one key/value head against runs of blocks, with an online
 * softmax (Milakov and Gimelshein 2018).
 */
#ifndef LSLM_COMPUTE_ATTENTION_TILE_H
#define LSLM_COMPUTE_ATTENTION_TILE_H

#include <stddef.h>
#include <stdint.h>

#include "compute/attention.h"

enum { ATTENTION_TILE = 64 };

/*
 * Rows are queries times heads of the group; row = query * group + head in group. acc [rows][width] are sums of values, max
 * [rows] and sum [rows][KVTILE_LANES] their largest score and the sum of weights relative to it (compute/kvtile.h). The rest is scratch.
 */
struct attention_tile {
	const struct attention *a;
	uint32_t kv_head;
	uint32_t group; /* query heads per key/value head */
	uint32_t n_queries;
	uint32_t rows;
	uint32_t width; /* head_dim, rounded up to whole vectors */
	uint32_t row[ATTENTION_TILE]; /* of a query in a->q */
	uint32_t pos[ATTENTION_TILE]; /* its position */
	float *acc, *max, *sum;
	float *q, *p;
	float *rotated; /* q as q4 keys are */
	float *integers[ATTENTION_Q4 + 1]; /* q or rotated for kvint.h, by format */
	float *rounded; /* q as bf16, half a float each */
	float *ready; /* a block of floats, of all tiles of a thread */
	uint32_t formats; /* bit f: there are segments of format f */
};

/* Floats that up to ATTENTION_TILE queries of one head take, or any number of heads of so many queries together. */
size_t attention_tile_scratch(uint32_t group, uint32_t head_dim);

/*
 * Begin with nothing seen; a, kv_head, group, formats, the queries and their number are set. Tiles that share scratch begin at
 * different rows of it.
 */
void attention_tile_begin(struct attention_tile *t, float *scratch, uint32_t first_row);

/*
 * Blocks first .. end - 1 of a segment, for tiles of the same queries and neighbouring key/value heads. Few rows take first all
 * keys of a block, then all values, which is the order of memory. Each block asks for the one behind it, also the last: where
 * this thread goes on, and too far away for the processor to run ahead by itself.
 */
void attention_tile_blocks(struct attention_tile *tiles, uint32_t n_tiles,
			   const struct attention_segment *s, uint32_t first, uint32_t end);

#endif
