/* SPDX-License-Identifier: MIT */
/*
 * Coders that evaluations compare: the levels (codec/codec.h), and what others do, for comparison.
 *
 *   f16, q8, q4, e, p
 *   q8_0      ggml's: 32 values of 8 bits and an f16 scale, max|x| / 127
 *   q4_0      ggml's: 32 values of 4 bits and an f16 scale, the value of largest magnitude / -8
 *   q4_0h     the same after a Hadamard transform of every head, of keys and of values
 *   q8_zstd   q8_0, its quants and scales apart, through zstd -3, a block at a time
 *
 * Each of the latter codes one block (one layer of a stripe) by itself. The bytes of a unit are what would travel.
 */
#ifndef LSLM_ENGINE_EVAL_CODER_H
#define LSLM_ENGINE_EVAL_CODER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/geometry.h"

/* What a coder took, summed over everything that it was given. */
struct eval_cost {
	uint64_t values;
	uint64_t payload; /* bytes of encoded units */
	uint64_t overhead; /* bytes of manifest: tokens, digests, lengths, signature */
	double encode_s, decode_s; /* processor time of one thread */
};

struct calibration;
struct eval_coder;

/* NULL for a name that is none. */
const struct eval_coder *eval_coder_find(const char *name);
/* Coders by number, NULL behind the last: all that there are. */
const struct eval_coder *eval_coder_at(uint32_t i);
const char *eval_coder_name(const struct eval_coder *c);
/* Does it need the model's calibration? */
bool eval_coder_needs_calibration(const struct eval_coder *c);

/*
 * Code the f16 stripes of the full blocks of n_tokens in place: what is left is what a receiver would have. cal: for level p, else ignored. tokens: their
 * ids, for the manifest's size. Stripes with E blocks are for levels only (-ENOTSUP). Costs are added to *cost.
 */
int eval_coder_run(const struct eval_coder *c, const struct kv_geometry *geo,
		   const struct calibration *cal, const int32_t *tokens, uint32_t n_tokens,
		   uint8_t *stripes, struct eval_cost *cost, struct lslm_error *err);

#endif
