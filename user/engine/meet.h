/* SPDX-License-Identifier: MIT */
/*
 * Meeting in the middle: the context's stripes stream in from the last one downwards, this side
 * computes them from the first one upwards, and the context is there where the two meet. With rates
 * s and c the time is n / (s + c), the optimum of all splits, without knowing either rate
 * beforehand: a dead stream lets the walk go on to the end, a fast one ends it near the head.
 *
 * The walk never depends on the stream and never asks why nothing comes. It goes in pieces of whole
 * stripes and looks at the tail between pieces, and within a piece between layers: rows that have
 * arrived meanwhile are dropped from it (engine_walk()). So nothing is lost when a piece
 * was too long but the work on rows that arrived while they were being computed.
 *
 * Size of a piece. With a gap of g tokens the two meet after g * c / (s + c) more tokens of this
 * side. The last piece should be just that: a longer one works on rows that will arrive, a shorter
 * one costs time, since small pieces run at a lower rate. So a piece is that, rounded up to whole
 * stripes, at most ENGINE_BATCH. Before there is any measurement the piece is one stripe: a stream
 * that brings everything within milliseconds must not find us in the middle of a long layer.
 *
 * Yielding. Both sides use the same processors, and a fast stream has to be decrypted, verified and
 * put in its place: computing would slow it down. So while the stream is more than MEET_YIELD times
 * as fast as the latest layers were, so that computing could save less than a ninth of the time,
 * the walk sleeps between two layers: as long as 2 layers take, then 4, up to MEET_NAP; the one
 * that it computes in between shows whether that still holds. A stream that falters is noticed by
 * its silence, after twice the time in which it had to bring a stripe to deserve this.
 */
#ifndef LSLM_ENGINE_MEET_H
#define LSLM_ENGINE_MEET_H

#include <stdint.h>

#include "engine/engine.h"
#include "engine/sequence.h"
#include "kv/control.h"
#include "net/delivery.h"

enum { MEET_YIELD = 8, MEET_NAP = 16 };

/* How fast the tail comes nearer, as seen by looking at it now and then. */
struct meet_stream {
	double rate; /* tokens per second; 0: not known, or nothing arrives */
	uint32_t tail; /* stripes */
	uint32_t changes; /* that were seen */
	double at; /* clock_seconds() of the last one, or of the start */
};

struct meet {
	struct engine *e;
	const int32_t *tokens; /* of the context, from position 0 */
	uint32_t n_stripes;
	/*
	 * What arrives, and who is told how far the walk is. NULL: nothing arrives; may be set to
	 * NULL between two walks, and the next one then goes on to the end.
	 */
	const struct control *control;
	struct delivery *delivery;

	/* Computed stripes, as private tokens; made by the first piece. NULL before. */
	struct sequence *head;
	_Atomic uint32_t n_head; /* how many; also read by threads that report */
	struct meet_stream stream;
	double compute_rate; /* tokens per second, of the pieces so far, the latest weighing half; 0: none */
	/* Of the piece at work. */
	uint32_t rows; /* that its latest layer began with */
	double layer_start;
	double layer_rate; /* as compute_rate, of the latest layers */
	uint32_t most; /* of meet_step() */
	uint32_t nap; /* how long the next sleep may be, in layers */
	double slept;
};

/*
 * Until computed head and arrived tail meet, which may be at once. Errors are those of
 * engine_walk().
 */
int meet_walk(struct meet *m, struct lslm_error *err);

/*
 * One piece of that, for who has other things to do between pieces. most: its tokens at most, a
 * multiple of KV_BLOCK_TOKENS; then it does not sleep either, and does nothing where it would have
 * slept. 0: as meet_walk() does. 1: they have met; 0: not yet; or an error.
 */
int meet_step(struct meet *m, uint32_t most, struct lslm_error *err);

/* Stripes computed so far: where the walk stands, or has met the tail. From any thread. */
uint32_t meet_head(const struct meet *m);

/* Tokens of the next piece, see above: a multiple of KV_BLOCK_TOKENS, at most gap; gap > 0. */
uint32_t meet_piece(uint32_t gap, double compute_rate, double stream_rate);

/*
 * The tail is there now: what that says about its rate. The newest change weighs half; the first
 * one, which waited for connections too, counts only until there is a second. Silence bounds the
 * rate from above.
 */
void meet_see(struct meet_stream *s, uint32_t tail, double now);

void meet_free(struct meet *m);

#endif
