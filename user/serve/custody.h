/* SPDX-License-Identifier: MIT */
/*
 * Custody, the courier's side: what the supervisor (serve/holdings.h) kept of the courier before, and the
 * report of what this one uses. It is net/courier.h's struct courier_custody over the channel.
 */
#ifndef LSLM_SERVE_CUSTODY_H
#define LSLM_SERVE_CUSTODY_H

#include "net/courier.h"
#include "serve/board.h"
#include "serve/channel.h"

struct custody;

/* Waits for everything that was held, and for the board: *board is the caller's. The channel stays the caller's and outlives the custody. */
int custody_open(struct custody **out, int channel, struct board **board, struct lslm_error *err);
void custody_close(struct custody *c); /* NULL is allowed */

/* For courier_opts; lives as long as the custody. From any thread; a deposit waits until the channel takes it. */
const struct courier_custody *custody_ops(const struct custody *c);
/* Engines can come now. Waits likewise. */
int custody_ready(struct custody *c, struct lslm_error *err);
/* Says this to the supervisor; from any thread. Does not wait: -EAGAIN. */
int custody_say(struct custody *c, struct channel_message *m);

#endif
