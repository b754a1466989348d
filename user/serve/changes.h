/* SPDX-License-Identifier: MIT */
/*
 * Changes: what admins chose about contexts (serve/board.h), carried out by the courier.
 *
 * A thread that hears the supervisor: it drops what the board says was dropped, attaches what an admin names, as
 * the shelf or the cloud's list knows it, and has the stripe store set room aside for what is pinned (serve/pins.h). Nothing that an admin or an engine says is sent anywhere: names are compared here, and
 * only what the cloud itself lists is asked of it.
 */
#ifndef LSLM_SERVE_CHANGES_H
#define LSLM_SERVE_CHANGES_H

#include "serve/cloud_list.h"
#include "serve/custody.h"

struct changes;

struct changes_opts {
	int channel;
	struct custody *custody; /* to answer by */
	struct board *board;
	struct shelf *shelf;
	/* Of the cloud, one for each token that it is asked by; n_lists 0: there is no cloud. */
	struct cloud_list *const *lists;
	uint32_t n_lists;
	struct stripe_store *store; /* NULL: none */
	void (*log)(void *arg, const char *line); /* NULL: no log */
	void *arg;
};

/* All that opts names outlives it. Waits for the supervisor to read what the store remembers of pins. */
int changes_start(struct changes **out, const struct changes_opts *opts, struct lslm_error *err);
void changes_stop(struct changes *c); /* NULL is allowed */

#endif
