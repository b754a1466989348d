/* SPDX-License-Identifier: MIT */
/*
 * The gate: what a forward pass may touch, and when.
 *
 * gate_enter() takes a hold on every shared buffer of a sequence, so that nothing
 * can purge or recycle it while the pass runs, and checks that the contents are
 * still those that were attached. gate_layer() waits until that layer of
 * every shared segment has arrived and been verified. gate_leave() lets go.
 */
#ifndef LSLM_ENGINE_GATE_H
#define LSLM_ENGINE_GATE_H

#include "engine/sequence.h"

/* -ESTALE when contents were lost since they were attached; nothing is held then. */
int gate_enter(struct sequence *s, struct lslm_error *err);
void gate_leave(struct sequence *s);

/* -EIO when this layer of a segment will not arrive. */
int gate_layer(const struct sequence *s, uint32_t layer, struct lslm_error *err);

#endif
