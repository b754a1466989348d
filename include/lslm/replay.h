/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The replay window: each counter is accepted once, and none that lies too far back.
 *
 * A sliding bitmap as in RFC 6479: words are reused in a ring, and moving forward clears the
 * words that are entered, so that nothing is ever shifted. Pure; the caller locks.
 *
 * Check before authenticating (it is cheap), mark after: a forged datagram must not move the
 * window, or it could shut out genuine ones.
 */
#ifndef LSLM_REPLAY_H
#define LSLM_REPLAY_H

#include <linux/types.h>

enum {
	LSLM_REPLAY_WORDS = 128, /* a power of two */
	/* One word is always partly ahead of the newest counter. */
	LSLM_REPLAY_WINDOW = (LSLM_REPLAY_WORDS - 1) * 64,
};

struct lslm_replay {
	__u64 next; /* the newest counter accepted, plus one; 0: none yet */
	__u64 bits[LSLM_REPLAY_WORDS];
};

/* Non-zero when counter (below 2^63) was not seen and is not too old. */
static inline int lslm_replay_ok(const struct lslm_replay *r, __u64 counter)
{
	if (counter >= r->next)
		return 1;
	if (r->next - 1 - counter >= LSLM_REPLAY_WINDOW)
		return 0;
	return !(r->bits[counter / 64 % LSLM_REPLAY_WORDS] >> (counter % 64) & 1);
}

/* Of a counter that lslm_replay_ok() accepted. */
static inline void lslm_replay_mark(struct lslm_replay *r, __u64 counter)
{
	__u64 word = counter / 64, at;

	if (counter >= r->next) {
		/* The word of the newest so far, or "before the first" as word -1. */
		at = r->next ? (r->next - 1) / 64 : (__u64)-1;
		if (word - at > LSLM_REPLAY_WORDS)
			at = word - LSLM_REPLAY_WORDS;
		while (at != word)
			r->bits[++at % LSLM_REPLAY_WORDS] = 0;
		r->next = counter + 1;
	}
	r->bits[word % LSLM_REPLAY_WORDS] |= 1ULL << (counter % 64);
}

#endif
