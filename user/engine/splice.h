/* SPDX-License-Identifier: MIT */
/*
 * One model's context for another of the same shape: a fine-tune's for its base, say.
 *
 * All layers are taken as they are but for a run of them (kv/run.h), which the receiving model computes itself (DroidSpeak, arXiv
 * 2411.02820). Layers, never tokens, are mixed. Whatever is made here goes the way that it would travel.
 */
#ifndef LSLM_ENGINE_SPLICE_H
#define LSLM_ENGINE_SPLICE_H

#include <stdint.h>

#include "engine/engine.h"
#include "engine/eval_coder.h"
#include "kv/run.h"

/* -ENOEXEC with a line where the two do not have the same shape. */
int splice_check(struct engine *from, struct engine *to, struct lslm_error *err);

/* Layers first .. end - 1 of a model: with the hidden state that they begin with. */
struct kv_run splice_run(const struct engine *to, uint32_t first, uint32_t end);

/*
 * What travels of the full blocks of n tokens, at f16: stripes of kv_run_geometry(), E blocks and the layers outside the run.
 * progress: told from time to time with tokens done; NULL for none.
 */
int splice_send(struct engine *from, const int32_t *tokens, uint32_t n, const struct kv_run *run,
		uint8_t *out, void (*progress)(void *arg, uint32_t done, uint32_t total), void *arg,
		struct lslm_error *err);

/* Of stripes with all layers those outside the run; E blocks stay as they are. */
void splice_take(const struct kv_geometry *model, const struct kv_run *run, uint32_t n_stripes,
		 const uint8_t *stripes, uint8_t *out);

/*
 * The full blocks of n tokens as they are used: all layers. level: one of the levels, at which what travels does, E blocks included, and
 * what that costs is added to *cost; NULL: at f16.
 */
int splice_make(struct engine *from, struct engine *to, const int32_t *tokens, uint32_t n,
		const struct kv_run *run, const struct eval_coder *level, struct eval_cost *cost,
		uint8_t *out, struct lslm_error *err);

/* Bytes per token at that level that travel: the layers that are taken, and the hidden state where there is one. */
uint32_t splice_bytes(const struct engine *to, const struct kv_run *run, enum kv_level level);

#endif
