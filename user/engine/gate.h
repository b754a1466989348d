/* SPDX-License-Identifier: MIT */
/*
 * The gate: what a forward pass may touch, and when.
 *
 * gate_enter() takes a hold on every shared buffer of its sequences, one for those that share it,
 * so that nothing can purge or recycle it while the pass runs, and checks that the contents are
 * still those that were attached. gate_layer() waits until that layer of every shared segment has
 * arrived and been verified. gate_leave() lets go.
 */
#ifndef LSLM_ENGINE_GATE_H
#define LSLM_ENGINE_GATE_H

#include "engine/engine.h"

/*
 * -ESTALE when contents were lost since they were attached; nothing is held then. *at: of which
 * part.
 */
int gate_enter(const struct engine_part *parts, uint32_t n, uint32_t *at, struct lslm_error *err);
void gate_leave(const struct engine_part *parts, uint32_t n);

/* -EIO when this layer of a segment will not arrive. */
int gate_layer(const struct engine_part *parts, uint32_t n, uint32_t layer, uint32_t *at,
	       struct lslm_error *err);

#endif
