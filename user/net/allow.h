/* SPDX-License-Identifier: MIT */
/*
 * The senders that this process expects data from: steering's allow list (net/steer.h), for sessions of many
 * threads. An address is on it as long as one session receives from there.
 */
#ifndef LSLM_NET_ALLOW_H
#define LSLM_NET_ALLOW_H

#include <stdint.h>

#include "base/error.h"

struct allow;
struct steer;

/* rate, burst: of each sender, as in steer_peer(). The steering outlives it, and only it tells senders. */
int allow_open(struct allow **out, struct steer *steer, uint64_t rate, uint64_t burst,
	       struct lslm_error *err);
/* NULL: nothing happens. */
void allow_close(struct allow *a);

/*
 * From any thread. Everybody who adds an address removes it once, if adding it was no failure; errors are
 * steer_peer()'s, and -ENOMEM. Without a list (NULL) both do nothing.
 */
int allow_add(struct allow *a, const char *address, struct lslm_error *err);
void allow_remove(struct allow *a, const char *address);

#endif
