// SPDX-License-Identifier: GPL-2.0-only

#include <crypto/chacha20poly1305.h>
#include <linux/build_bug.h>
#include <linux/lockdep.h>
#include <linux/skbuff.h>
#include <linux/string.h>
#include <linux/timekeeping.h>

#include "binding.h"
#include "place.h"
#include "ring.h"
#include "session.h"
#include "trace.h"

static_assert((int)LSLM_WIRE_TAG == (int)CHACHA20POLY1305_AUTHTAG_SIZE);
static_assert((int)LSLM_WIRE_KEY_BYTES == (int)CHACHA20POLY1305_KEY_SIZE);

/* The header, read in place or copied to `copy`. NULL: it cannot be read. */
static const u8 *read_head(const struct lslm_packet *packet, u8 copy[LSLM_WIRE_HEADER])
{
	if (packet->linear)
		return packet->linear;
	if (skb_copy_bits(packet->skb, packet->offset, copy,
			  min_t(u32, packet->size, LSLM_WIRE_HEADER)))
		return NULL;
	return copy;
}

/* The whole datagram in one piece. NULL: it cannot be read. */
static const u8 *read_all(struct lslm_session *s, const struct lslm_packet *packet)
{
	if (packet->linear)
		return packet->linear;
	if (skb_copy_bits(packet->skb, packet->offset, s->scratch, packet->size))
		return NULL;
	return s->scratch;
}

/*
 * Where its payload goes: to its place, or to the scratch when it is only asked whether it is
 * authentic. The latter may be where it lies already, which the cipher allows.
 */
static u8 *target(struct lslm_session *s, const struct lslm_placement *p)
{
	if (p->verdict)
		return s->scratch + LSLM_WIRE_HEADER;
	return s->bindings[p->slot - s->rx.slots]->memory + p->header.offset;
}

/*
 * Authenticate, and only then write. head: the header that the decision was made by; a datagram in
 * pieces may say something else by now, and is read once more for the rest.
 */
static enum lslm_drop open_packet(struct lslm_session *s, const struct lslm_packet *packet,
				  const u8 *head, const struct lslm_placement *p)
{
	const u8 *data;

	if (p->key->cipher == LSLM_CIPHER_PLAIN && p->verdict)
		return LSLM_DROP_NONE;
	/* Nothing has to be looked at before it may be written: no detour. */
	if (p->key->cipher == LSLM_CIPHER_PLAIN && !packet->linear)
		return skb_copy_bits(packet->skb, packet->offset + LSLM_WIRE_HEADER, target(s, p),
				     p->length) ?
			       LSLM_DROP_MEMORY :
			       LSLM_DROP_NONE;
	data = read_all(s, packet);
	if (!data)
		return LSLM_DROP_MEMORY;
	if (p->key->cipher == LSLM_CIPHER_PLAIN) {
		memcpy(target(s, p), data + LSLM_WIRE_HEADER, p->length);
		return LSLM_DROP_NONE;
	}
	if (!chacha20poly1305_decrypt(target(s, p), data + LSLM_WIRE_HEADER,
				      p->length + LSLM_WIRE_TAG, head, LSLM_WIRE_HEADER,
				      p->header.counter, s->secrets[p->header.key]))
		return LSLM_DROP_FORGED;
	return LSLM_DROP_NONE;
}

static void tell_done(struct lslm_session *s, const struct lslm_placement *p, u64 now)
{
	struct lslm_done done = {
		.ns = now,
		.slot = p->header.slot,
		.generation = p->header.generation,
		.unit = p->unit,
		.flags = p->region_done ? LSLM_DONE_REGION : 0,
	};

	lslm_ring_push(s->ring, &done);
}

static enum lslm_drop place_locked(struct lslm_session *s, const struct lslm_packet *packet,
				   struct lslm_placement *p)
{
	struct lslm_receiver *rx = &s->rx;
	u64 now = ktime_get_ns();
	u8 copy[LSLM_WIRE_HEADER];
	struct lslm_progress progress;
	enum lslm_drop why;
	const u8 *head;

	lockdep_assert_held(&s->lock);
	head = read_head(packet, copy);
	if (!head) {
		rx->drops[LSLM_DROP_MEMORY]++;
		return LSLM_DROP_MEMORY;
	}
	why = lslm_place_check(rx, head, packet->size, now, p);
	if (why)
		return why;
	why = open_packet(s, packet, head, p);
	if (why) {
		rx->drops[why]++;
		return why;
	}
	why = lslm_place_commit(rx, p, now);
	progress.received = rx->received;
	progress.last_counter = rx->last_counter;
	progress.last_ns = rx->last_ns;
	progress.placed_bytes = rx->placed_bytes;
	lslm_ring_progress(s->ring, &progress);
	if (p->unit_done)
		tell_done(s, p, now);
	return why;
}

/* Tables of the region are looked at here, hence under the lock, and only if somebody listens. */
static void trace_done(struct lslm_session *s, const struct lslm_placement *p)
{
	const struct lslm_header *h = &p->header;
	const struct lslm_region *r;

	if (!trace_unit_done_enabled() && !trace_region_done_enabled())
		return;
	r = &p->slot->region;
	trace_unit_done(s->number, h->slot, h->generation, p->unit,
			r->start[p->unit + 1] - r->start[p->unit]);
	if (p->region_done)
		trace_region_done(s->number, h->slot, h->generation, r->length,
				  ktime_get_ns() - s->bindings[h->slot]->bound_ns);
}

enum lslm_drop lslm_place(struct lslm_session *s, const struct lslm_packet *packet,
			  enum lslm_via via)
{
	struct lslm_placement p = {};
	enum lslm_drop why;

	lockdep_assert_in_softirq();
	spin_lock(&s->lock);
	s->via[via]++;
	why = place_locked(s, packet, &p);
	if (p.unit_done)
		trace_done(s, &p);
	spin_unlock(&s->lock);
	if (why)
		trace_place_drop(s->number, &p.header, packet->size, via, why);
	else
		trace_place(s->number, &p.header, p.length, via);
	return why;
}
