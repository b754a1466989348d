/* SPDX-License-Identifier: MIT */
/*
 * Shares: who of several sources brings which stripes of one context.
 *
 * One source writes in place, as it does when it is alone (net/source.h): SHARES_DIRECT, the cloud's. The others, peers,
 * receive somewhere else, check there, and hand over what is right; only what the direct source has not claimed is taken from them, so
 * no byte of a place is ever written by two. Each claims stripes before it asks for them, about as many as it
 * brings in half a second at the speed seen so far, so that each gets the share that its speed is worth, and what a source
 * leaves when it ends is little. One that is so slow that the others will have brought all the rest before it has brought one stripe
 * is not given that one.
 *
 * A peer's claim is a courtesy: who has nothing else to do takes over what was claimed a while ago, and whoever
 * brings it first has brought it. What the direct source has claimed and does not bring can be recalled: it is
 * made to let go, and whoever recalled it inherits it.
 *
 * From any thread. Locks are held for memory and decoding only, never for the network.
 */
#ifndef LSLM_NET_SHARES_H
#define LSLM_NET_SHARES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct shares;

enum {
	SHARES_DIRECT, /* the source that writes in place */
	SHARES_PEER, /* the first of the others */
	SHARES_SOURCES = 17,
};

int shares_open(struct shares **out, uint32_t n_stripes, struct lslm_error *err);
/* NULL is allowed. */
void shares_close(struct shares *s);

/*
 * Peers come and go; without any the direct source gets whatever it asks for, however much that is. A source that joins has claimed
 * nothing and has no speed yet.
 */
void shares_join(struct shares *s, uint32_t source);
/* All that it has claimed is free, or its heir's. */
void shares_leave(struct shares *s, uint32_t source);
/* So many bytes have come from it. */
void shares_came(struct shares *s, uint32_t source, uint64_t bytes);
/* Whatever it has asked for has come, or will not. */
void shares_settle(struct shares *s, uint32_t source);

void shares_lock(struct shares *s);
void shares_unlock(struct shares *s);

/* The next four with the lock held. */

enum shares_answer {
	SHARES_NO, /* it is another's, or the source has asked for enough, or would be too late */
	SHARES_MINE, /* it was claimed before */
	SHARES_NEW,
};

/* May this source ask for the stripe? Then it is its own until it leaves. One may always be asked for. */
enum shares_answer shares_claim(struct shares *s, uint32_t source, uint32_t stripe);
/*
 * The same for one that found nothing free: what a peer claimed a while ago. What the direct source did, and has brought
 * nothing for a while, or did long ago, is recalled: then *recall is set, and the caller must make that source leave.
 */
enum shares_answer shares_take_over(struct shares *s, uint32_t source, uint32_t stripe,
				    bool *recall);
/* It asks for so many bytes of what it has claimed. */
void shares_ask(struct shares *s, uint32_t source, uint64_t bytes);
/* May a peer write this stripe? */
bool shares_is_open(const struct shares *s, uint32_t stripe);

/* Something has changed for those who wait: stripes are free, or here. */
void shares_tell(struct shares *s);
/* Wait for that, or for a tenth of a second. */
void shares_wait(struct shares *s);

#endif
