/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * Whether a DATA datagram may be placed, and where: the decision of every receiver.
 *
 *   lslm_place_check()   header, session, key, replay; finds the place
 *   the caller authenticates, writing to the place only on success
 *   lslm_place_commit()  replay, bitmap, completion
 *
 * The order decides what a counter means. What anybody can send without a key is refused before
 * authentication and counted as HEADER, SESSION, KEY or REPLAY, or after it as FORGED. SLOT,
 * GENERATION, BOUNDS and DUPLICATE are said of authentic datagrams only: for these `verdict` is
 * kept in the placement, the caller authenticates without writing to the region, and
 * lslm_place_commit() returns the verdict.
 *
 * Pure: no locking, no clock, no cipher. The caller serialises all calls for one receiver.
 */
#ifndef LSLM_PLACE_H
#define LSLM_PLACE_H

#include <linux/lslm.h>

#include "lslm/region.h"
#include "lslm/replay.h"
#include "lslm/wire.h"

/* One receiving key, and the counters it has seen. */
struct lslm_rx_key {
	__u32 cipher; /* enum lslm_cipher; LSLM_CIPHER_NONE and !in_use: no key here */
	__u32 in_use;
	__u64 max_packets; /* counters from here on are refused */
	__u64 expires_ns; /* on the caller's clock */
	struct lslm_replay replay;
};

struct lslm_slot {
	__u32 generation; /* in force, or of the last thing bound here */
	__u32 bound;
	struct lslm_region region;
};

struct lslm_receiver {
	__u32 session;
	__u32 n_slots;
	struct lslm_slot *slots;
	struct lslm_rx_key keys[LSLM_WIRE_KEYS];
	/* Authentic datagrams: for the peer's congestion control. */
	__u64 received;
	__u64 last_counter; /* the highest: a sender goes on counting when it changes keys */
	__u64 last_ns; /* when it came */
	__u64 placed_packets;
	__u64 placed_bytes;
	__u64 units_done;
	__u64 drops[LSLM_DROP_COUNT];
};

struct lslm_placement {
	struct lslm_header header;
	struct lslm_rx_key *key;
	struct lslm_slot *slot; /* NULL unless verdict is LSLM_DROP_NONE */
	enum lslm_drop verdict;
	__u32 length; /* of the payload, without tag */
	__u32 unit;
	__u32 chunk;
	/* By lslm_place_commit(). */
	__u32 unit_done;
	__u32 region_done;
};

static inline enum lslm_drop lslm_place_find(struct lslm_receiver *rx, struct lslm_placement *p)
{
	const struct lslm_header *h = &p->header;
	struct lslm_slot *slot;

	if (h->slot >= rx->n_slots)
		return LSLM_DROP_SLOT;
	slot = &rx->slots[LSLM_NOSPEC(h->slot, rx->n_slots)];
	if (h->generation != slot->generation)
		return slot->generation ? LSLM_DROP_GENERATION : LSLM_DROP_SLOT;
	if (!slot->bound)
		return LSLM_DROP_GENERATION;
	if (!lslm_region_find(&slot->region, h->offset, p->length, &p->unit, &p->chunk))
		return LSLM_DROP_BOUNDS;
	if (lslm_region_has(&slot->region, p->chunk))
		return LSLM_DROP_DUPLICATE;
	p->slot = slot;
	return LSLM_DROP_NONE;
}

/*
 * head: the first LSLM_WIRE_HEADER bytes of a datagram of `size` bytes; read them only when the
 * datagram has so many (size says it). Anything but LSLM_DROP_NONE: counted, nothing more to do.
 */
static inline enum lslm_drop lslm_place_check(struct lslm_receiver *rx, const __u8 *head,
					      __u32 size, __u64 now_ns, struct lslm_placement *p)
{
	enum lslm_drop why = LSLM_DROP_NONE;
	struct lslm_header *h = &p->header;

	p->slot = (struct lslm_slot *)0;
	p->unit_done = 0;
	p->region_done = 0;
	if (size <= LSLM_WIRE_OVERHEAD || size > LSLM_CHUNK_MAX + LSLM_WIRE_OVERHEAD) {
		rx->drops[LSLM_DROP_HEADER]++;
		return LSLM_DROP_HEADER;
	}
	lslm_header_get(h, head);
	p->length = size - LSLM_WIRE_OVERHEAD;
	p->key = &rx->keys[h->key % LSLM_WIRE_KEYS];
	if (h->opcode != LSLM_OP_DATA || h->version != LSLM_WIRE_VERSION || h->flags ||
	    h->key >= LSLM_WIRE_KEYS || h->counter & LSLM_COUNTER_CONTROL)
		why = LSLM_DROP_HEADER;
	else if (h->session != rx->session)
		why = LSLM_DROP_SESSION;
	else if (!p->key->in_use || now_ns >= p->key->expires_ns ||
		 h->counter >= p->key->max_packets)
		why = LSLM_DROP_KEY;
	else if (!lslm_replay_ok(&p->key->replay, h->counter))
		why = LSLM_DROP_REPLAY;
	if (why) {
		rx->drops[why]++;
		return why;
	}
	p->verdict = lslm_place_find(rx, p);
	return LSLM_DROP_NONE;
}

/* The tag was wrong. */
static inline void lslm_place_forged(struct lslm_receiver *rx)
{
	rx->drops[LSLM_DROP_FORGED]++;
}

/*
 * The tag was right and, if the verdict is LSLM_DROP_NONE, the payload is in its place. Returns
 * the verdict, which is counted.
 */
static inline enum lslm_drop lslm_place_commit(struct lslm_receiver *rx, struct lslm_placement *p,
					       __u64 now_ns)
{
	lslm_replay_mark(&p->key->replay, p->header.counter);
	rx->received++;
	if (p->header.counter >= rx->last_counter) {
		rx->last_counter = p->header.counter;
		rx->last_ns = now_ns;
	}
	if (p->verdict) {
		rx->drops[p->verdict]++;
		return p->verdict;
	}
	rx->placed_packets++;
	rx->placed_bytes += p->length;
	p->unit_done = lslm_region_mark(&p->slot->region, p->unit, p->chunk);
	p->region_done = p->unit_done && !p->slot->region.units_missing;
	rx->units_done += p->unit_done;
	return LSLM_DROP_NONE;
}

#endif
