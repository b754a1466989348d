/* SPDX-License-Identifier: MIT */
/*
 * Pins, as the courier keeps them: room that is set aside in the stripe store (kv/stripe_store.h) for what the board says is pinned.
 *
 * The store remembers them over restarts, also of the supervisor, which is told. One that the board does not say any more, since it was
 * unpinned or dropped, is taken back. Of one thread.
 */
#ifndef LSLM_SERVE_PINS_H
#define LSLM_SERVE_PINS_H

#include "serve/shelf.h"

struct pins {
	struct stripe_store *store; /* NULL: none, and nothing is set aside */
	struct shelf *shelf;
	const struct board *board;
	struct kv_hash keys[BOARD_CHOICES]; /* that it is set aside for */
	bool said[BOARD_CHOICES]; /* the board has said so, or was to */
	size_t n;
	size_t beyond; /* the store has so many more, which nobody here can remember */
};

/* What the store has of before; all three outlive it. */
void pins_open(struct pins *p, struct stripe_store *store, struct shelf *shelf,
	       const struct board *board);
/*
 * Before the board says so. -EDQUOT: the store has no room for it; -EAGAIN: its manifest is not here yet; -ENOSPC: more than
 * BOARD_CHOICES would be pinned.
 */
int pins_add(struct pins *p, const struct kv_hash *key, struct lslm_error *err);
/* The supervisor has heard of this one: what the board says of it holds. */
void pins_heed(struct pins *p, const struct kv_hash *key);
void pins_follow(struct pins *p);

#endif
