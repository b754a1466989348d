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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"

/* How keys and values lie in a block and are multiplied: attention reads each in place. */
enum attention_format {
	ATTENTION_F16,
	ATTENTION_Q8, /* compute/kvq.h */
	ATTENTION_Q4, /* likewise; its keys are rotated, so queries are turned for it */
	/* f16 in memory; in products it, queries and weights are rounded to bf16 where that is fast (compute/kvbf16.h). */
	ATTENTION_ROUNDED,
};

/*
 * One layer of one segment. Block b of ATTENTION_BLOCK tokens has its keys at
 * base + b * stride and its values at that + value_offset, each
 * [kv_head][ATTENTION_BLOCK][head_dim] in the segment's format. Token j of the segment stands at
 * position first + j. The memory of the last block is there as a whole, whatever the tokens behind
 * n_tokens hold. Where the blocks are not evenly spaced, as those of a pool are not, `blocks` lists
 * them instead of base and stride.
 */
struct attention_segment {
	enum attention_format format;
	const uint8_t *base;
	size_t stride; /* bytes from one block to the next */
	const uint8_t *const *blocks; /* keys of each block; NULL: base and stride say it */
	size_t blocks_offset; /* added to each of them: where in it this layer begins */
	size_t value_offset; /* bytes from a block's keys to its values */
	uint32_t first;
	uint32_t n_tokens;
};

enum { ATTENTION_BLOCK = 64 };

/*
 * One sequence of a batch: m queries of consecutive positions pos .. pos + m - 1 over its own list of
 * segments. A query sees every token at its own position or before.
 */
struct attention_member {
	const struct attention_segment *segments;
	uint32_t n_segments;
	uint32_t m;
	uint32_t pos;
};

/*
 * q: [sum of m][n_head][head_dim] after RoPE, member after member; out: the same shape. Query head h
 * uses key/value head h / (n_head / n_head_kv). Where members of one query each, or of any number if the first segment is
 * ATTENTION_ROUNDED and that is fast here, begin with the same segments (same memory, same n_tokens, all of it before their
 * positions, and others behind them), up to four of those are read once for all of them, as products of matrices.
 *
 * A member gets the same bits whatever else is in the batch, and with any number of threads.
 */
struct attention {
	const struct attention_member *members;
	uint32_t n_members;
	uint32_t n_head;
	uint32_t n_head_kv;
	uint32_t head_dim;
	const float *q;
	float *out;
	float *partials; /* attention_partials() floats */
	bool apart; /* read for each member by itself, to measure what reading once is worth */
};

/* Floats of scratch per thread. */
size_t attention_scratch(uint32_t n_head, uint32_t n_head_kv, uint32_t head_dim);
/* Floats of results over parts of keys, for all threads together. */
size_t attention_partials(uint32_t n_head, uint32_t head_dim);

void attention_run(struct pool *pool, const struct attention *a, float *scratch,
		   size_t scratch_len);

#endif
