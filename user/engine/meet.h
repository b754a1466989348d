/* SPDX-License-Identifier: MIT */
/*
 * Meeting in the middle: the context's stripes stream in from the last one downwards, this side
 * computes them from the first one upwards, and the context is there where the two meet. With rates s
 * and c the time is n / (s + c), the optimum of all splits, without knowing either rate beforehand: a
 * dead stream lets the walk go on to the end, a fast one ends it near the head.
 *
 * The walk never waits for the stream and never asks why nothing comes. It goes in pieces of whole
 * stripes and looks at the tail between pieces, and within a piece between layers: rows that have
 * arrived meanwhile are dropped from it (engine_walk()). So nothing is lost when a piece
 * was too long but the work on rows that arrived while they were being computed.
 *
 * Size of a piece. With a gap of g tokens the two meet after g * c / (s + c) more tokens
 * of this side. The last piece should be just that: a longer one works on rows that will arrive,
 * a shorter one costs time, since small pieces run at a lower rate. So a piece is
 * that, rounded up to whole stripes, at most ENGINE_BATCH. Both rates are those of the pieces so far, the
 * latest weighing half. Before there is any measurement the piece is one stripe: a stream that
 * brings everything within milliseconds must not find us in the middle of a long layer.
 */
#ifndef LSLM_ENGINE_MEET_H
#define LSLM_ENGINE_MEET_H

#include <stdint.h>

#include "engine/engine.h"
#include "engine/sequence.h"
#include "kv/control.h"
#include "net/delivery.h"

struct meet {
	struct engine *e;
	const int32_t *tokens; /* of the context, from position 0 */
	uint32_t n_stripes;
	/*
	 * What arrives, and who is told how far the walk is. NULL: nothing arrives; may be set to NULL
	 * between two walks, and the next one then goes on to the end.
	 */
	const struct control *control;
	struct delivery *delivery;

	/* Computed stripes, as private tokens; made by the first piece. NULL before. */
	struct sequence *head;
	/* Tokens per second; 0: not known, or nothing arrives. */
	double compute_rate;
	double stream_rate;
};

/* Until computed head and arrived tail meet, which may be at once. Errors are those of engine_walk(). */
int meet_walk(struct meet *m, struct lslm_error *err);

/* Stripes computed so far: where the walk stands, or has met the tail. */
uint32_t meet_head(const struct meet *m);

/* Tokens of the next piece, see above: a multiple of KV_BLOCK_TOKENS, at most gap; gap > 0. */
uint32_t meet_piece(uint32_t gap, double compute_rate, double stream_rate);

void meet_free(struct meet *m);

#endif
