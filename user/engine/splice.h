/* SPDX-License-Identifier: MIT */
/*
 * One model's context for another of the same shape: a fine-tune's for its base, say.
 *
 * All layers are taken as they are but for a contiguous run [first, end), which the receiving model computes itself. A run from layer 0
 * begins with the tokens; one that begins above needs the hidden state there, n_embd values of f16 per token, from the model
 * whose layers are taken (DroidSpeak, arXiv 2411.02820). Layers, never tokens, are mixed.
 */
#ifndef LSLM_ENGINE_SPLICE_H
#define LSLM_ENGINE_SPLICE_H

#include <stdint.h>

#include "engine/engine.h"

struct splice_run {
	uint32_t first, end; /* layers; first == end: none is computed */
};

/* -ENOEXEC with a line where the two do not have the same shape. */
int splice_check(struct engine *from, struct engine *to, struct lslm_error *err);

/* The full blocks of n tokens; out: their stripes. */
int splice_make(struct engine *from, struct engine *to, const int32_t *tokens, uint32_t n,
		struct splice_run run, uint8_t *out, struct lslm_error *err);

/* Bytes per token at f16 that travel: the layers that are taken, and the hidden state where there is one. */
uint32_t splice_bytes(const struct engine *to, struct splice_run run);

#endif
