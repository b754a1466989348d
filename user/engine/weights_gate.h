/* SPDX-License-Identifier: MIT */
/*
 * The gate between weights that are arriving and a pass that wants them.
 *
 * Weights come in sections, in order of need: layers 0 to n - 2, then the output matrix, n - 1. A
 * loader's thread asks weights_gate_next() what to read and where to put it, and says when it is there; the
 * engine asks weights_gate_need() for each section as it comes to it, and waits no longer than for that one.
 *
 * Memory may be smaller than the model. Then the first `pinned` layers and the output stay, and
 * the others take turns in `slots` places, every pass from the disk again: that reads the least
 * there is to read, where keeping the latest sections would keep just those needed last. A section may be used until the
 * next one is needed. A pass may end early, or leave out the output: what the next one needs is
 * then read at once, and what was read in vain is dropped.
 *
 * One loader, one user; the first error ends both.
 */
#ifndef LSLM_ENGINE_WEIGHTS_GATE_H
#define LSLM_ENGINE_WEIGHTS_GATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { WEIGHTS_GATE_MAX = 1025, WEIGHTS_GATE_SLOTS = 64 };

/* Where a section goes. */
struct weights_turn {
	uint32_t section;
	int32_t slot; /* -1: its own place */
	uint64_t number; /* of the turn, for weights_gate_loaded() */
};

struct weights_gate {
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint32_t n, pinned, slots;
	_Atomic uint8_t here[WEIGHTS_GATE_MAX]; /* of what stays */
	uint32_t next; /* of what stays, to be read; in order, the output last */
	/*
	 * Turns of the streamed layers, counted over all passes: turn q is layer pinned + q % (n - 1 - pinned), in
	 * slot q % slots. first <= the one in use; loaded: all before it are there or dropped; started likewise.
	 */
	uint64_t first, loaded, started;
	bool slot_done[WEIGHTS_GATE_SLOTS];
	bool in_use; /* turn `first`, by the engine */
	bool stop;
	struct lslm_error failed; /* code 0: not */
	double waited; /* seconds that the engine did */
};

/* n >= 2 sections. slots 0 with pinned = n - 1: all stay. Else 2 <= slots <= WEIGHTS_GATE_SLOTS. */
void weights_gate_init(struct weights_gate *g, uint32_t n, uint32_t pinned, uint32_t slots);
void weights_gate_destroy(struct weights_gate *g);

/*
 * The engine's side. *turn says where the section is. -ENOTRECOVERABLE with the loader's line, now and for
 * ever, when it will not come.
 */
int weights_gate_need(struct weights_gate *g, uint32_t section, struct weights_turn *turn,
		      struct lslm_error *err);

/*
 * The loader's side. 1: a turn to read. 0: none for now; with wait only when it is to stop. -1: everything
 * has been handed out and stays.
 */
int weights_gate_next(struct weights_gate *g, bool wait, struct weights_turn *turn);
void weights_gate_loaded(struct weights_gate *g, const struct weights_turn *turn);
void weights_gate_fail(struct weights_gate *g, const struct lslm_error *why);
/* From outside: the loader finds no more work. */
void weights_gate_stop(struct weights_gate *g);
bool weights_gate_stopped(struct weights_gate *g);

#endif
