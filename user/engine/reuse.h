/* SPDX-License-Identifier: MIT */
/*
 * The layers of a run (kv/run.h), computed for a context whose other layers another model of the same shape has made.
 *
 * In pieces from the first token on, out of the hidden state that came in E blocks, or of the tokens where the run begins with layer 0. Of its
 * last layer only keys and values are made. What is computed is this model's, of what stands before it.
 */
#ifndef LSLM_ENGINE_REUSE_H
#define LSLM_ENGINE_REUSE_H

#include <stdint.h>

#include "engine/engine.h"
#include "engine/sequence.h"
#include "kv/run.h"

struct reuse {
	struct engine *e;
	struct kv_run run;
	const int32_t *tokens; /* of the context */
	uint32_t n; /* a multiple of KV_BLOCK_TOKENS */
	struct sequence *seq; /* of the run's layers only; its length says how far it is */
	uint16_t *hidden; /* [ENGINE_BATCH][run.hidden] f16 */
};

/* -ENOEXEC where the run is none of this model's. tokens must outlive it. Close it, whatever comes of it. */
int reuse_open(struct reuse *r, struct engine *e, const struct kv_run *run, const int32_t *tokens,
	       uint32_t n, struct lslm_error *err);
void reuse_close(struct reuse *r);

/* Tokens of the next piece, at most `most` (0: ENGINE_BATCH), in whole blocks; 0: there is none left. */
uint32_t reuse_next(const struct reuse *r, uint32_t most);
/* The hidden state of block number i of the next piece, as it lies in memory at that level. */
void reuse_take(struct reuse *r, uint32_t i, enum kv_level level, const uint8_t *block);
/* Compute that piece, of so many tokens; all of its blocks were taken where there is a hidden state. */
int reuse_compute(struct reuse *r, uint32_t tokens, struct lslm_error *err);

#endif
