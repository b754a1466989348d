/* SPDX-License-Identifier: MIT */
/*
 * Holdings: duplicates of a courier's buffers and control pages, which outlive it.
 *
 * The supervisor takes what its courier reports (KEEP), and offers it to the courier's successor (HELD).
 * Nothing is mapped or looked at here. A place that a courier of a whole minute had no use for is dropped when
 * that courier ends, and the one that was used longest ago when there are more than SHELF_CONTEXTS.
 */
#ifndef LSLM_SERVE_HOLDINGS_H
#define LSLM_SERVE_HOLDINGS_H

#include "serve/channel.h"

struct holdings;

int holdings_create(struct holdings **out, struct lslm_error *err);
void holdings_destroy(struct holdings *h); /* NULL is allowed */

/* A message of the courier's; the descriptors are taken, whatever comes of it. -EPROTO: it is no KEEP. */
int holdings_take(struct holdings *h, const struct channel_message *m, const int *fds, int n);
/* All of them, then GO with this descriptor of the board. */
int holdings_offer(struct holdings *h, int channel, int board);
/* It was dropped. */
void holdings_forget(struct holdings *h, const struct kv_hash *key);
/* The courier has ended after so many seconds. */
void holdings_settle(struct holdings *h, double lived);
uint32_t holdings_count(const struct holdings *h);

#endif
