/* SPDX-License-Identifier: MIT */
/*
 * Attention over segments.
 *
 * A query attends to a list of segments, each with its own memory and origin
 * (streamed, read from disk, computed, private). Over segment i, for one query q:
 *
 *   lse_i  = log sum_j exp(q . k_j / sqrt(d))
 *   attn_i = sum_j exp(q . k_j / sqrt(d) - lse_i) v_j
 *
 * and the whole is out = sum_i softmax_i(lse) * attn_i, which equals attention over
 * the concatenated keys exactly (RelayAttention, arXiv 2402.14808). Sums are fp32. An
 * empty segment has lse = -inf and weight 0.
 *
 * Memory layout of a segment: kv/geometry.h; this file sees one layer of it.
 */
#ifndef LSLM_COMPUTE_ATTENTION_H
#define LSLM_COMPUTE_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"

/*
 * One layer of one segment. Block b of ATTENTION_BLOCK tokens has its keys at
 * base + b * stride and its values at that + value_offset, each
 * [kv_head][ATTENTION_BLOCK][head_dim] f16. Token j of the segment stands at position first + j. The
 * memory of the last block is there as a whole, whatever the tokens behind n_tokens hold.
 */
struct attention_segment {
	const uint8_t *base;
	size_t stride; /* bytes from one block to the next */
	size_t value_offset; /* bytes from a block's keys to its values */
	uint32_t first;
	uint32_t n_tokens;
};

enum { ATTENTION_BLOCK = 64 };

/*
 * m queries of consecutive positions pos .. pos + m - 1, q: [m][n_head][head_dim] after
 * RoPE, out: the same shape. A query sees every token at its own position or before.
 * Query head h uses key/value head h / (n_head / n_head_kv).
 */
struct attention {
	const struct attention_segment *segments;
	uint32_t n_segments;
	uint32_t n_head;
	uint32_t n_head_kv;
	uint32_t head_dim;
	const float *q;
	float *out;
	float *partials; /* attention_partials() floats, for parts of one query's keys */
	uint32_t m;
	uint32_t pos;
};

/* Floats of scratch per thread. */
size_t attention_scratch(uint32_t n_head, uint32_t n_head_kv, uint32_t head_dim);
/* Floats of partial results, for all threads together. */
size_t attention_partials(uint32_t n_head, uint32_t head_dim);

void attention_run(struct pool *pool, const struct attention *a, float *scratch,
		   size_t scratch_len);

/*
 * Merge (other, other_lse) into (out, lse): `rows` results of head_dim values each, with one lse per
 * row. Associative and commutative up to rounding.
 */
void attention_merge(float *out, float *lse, const float *other, const float *other_lse,
		     uint32_t rows, uint32_t head_dim);

#endif
