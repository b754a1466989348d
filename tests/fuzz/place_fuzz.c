// SPDX-License-Identifier: MIT
/*
 * What a receiver decides over datagrams of any contents, against a second, naive account of the
 * same rules: docs/protocol.md, section 9, in the order of its checks.
 *
 * Input: how the region is cut (chunk, units), then records of one byte each of kind and of what it needs.
 * A datagram is its 32 bytes of header, of which some are made right so that the later checks are
 * reached, and its size; whether its tag is right is the record's to say.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lslm/place.h"

enum {
	SLOTS = 3,
	UNITS = 6,
	CHUNKS = 4096,
	SEEN = 512,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *at;
	size_t left;
};

/* The naive account of a slot and of a key. */
struct slot_model {
	uint32_t units[UNITS], n_units, chunk;
	uint32_t chunks[UNITS]; /* that have come */
	bool come[CHUNKS];
	bool bound;
	uint32_t generation;
	void *memory;
};

struct key_model {
	bool in_use;
	uint64_t max_packets, expires_ns;
	uint64_t seen[SEEN];
	uint32_t n_seen;
	uint64_t newest;
};

struct model {
	struct slot_model slots[SLOTS];
	struct key_model keys[LSLM_WIRE_KEYS];
	uint64_t drops[LSLM_DROP_COUNT];
	uint64_t received, placed, now_ns;
};

static uint32_t take(struct input *in, unsigned int bytes)
{
	uint32_t v = 0;

	for (unsigned int i = 0; i < bytes && in->left; i++, in->left--)
		v |= (uint32_t)*in->at++ << 8 * i;
	return v;
}

static void demand(bool what)
{
	if (!what)
		abort();
}

/* The chunk that starts at offset and has this length, by counting from the beginning. */
static bool find(const struct slot_model *s, uint64_t offset, uint32_t length, uint32_t *unit,
		 uint32_t *chunk)
{
	uint64_t at = 0;

	*chunk = 0;
	for (*unit = 0; *unit < s->n_units; ++*unit)
		for (uint32_t done = 0, n; done < s->units[*unit]; done += n, at += n, ++*chunk) {
			n = s->units[*unit] - done;
			n = n < s->chunk ? n : s->chunk;
			if (at == offset)
				return n == length;
		}
	return false;
}

static bool fresh(const struct key_model *k, uint64_t counter)
{
	for (uint32_t i = 0; i < k->n_seen; i++)
		if (k->seen[i] == counter)
			return false;
	return !k->n_seen || counter > k->newest || k->newest - counter < 8128;
}

static enum lslm_drop before_tag(const struct model *m, const struct lslm_header *h, uint32_t size,
				 uint32_t session)
{
	const struct key_model *k = &m->keys[h->key % LSLM_WIRE_KEYS];

	if (size < 49 || size > 65456 || h->opcode != 1 || h->version != 1 || h->key > 3 ||
	    h->flags || h->counter >> 63)
		return LSLM_DROP_HEADER;
	if (h->session != session)
		return LSLM_DROP_SESSION;
	if (!k->in_use || m->now_ns >= k->expires_ns || h->counter >= k->max_packets)
		return LSLM_DROP_KEY;
	return fresh(k, h->counter) ? LSLM_DROP_NONE : LSLM_DROP_REPLAY;
}

static enum lslm_drop after_tag(const struct model *m, const struct lslm_header *h, uint32_t length,
				uint32_t *unit, uint32_t *chunk)
{
	const struct slot_model *s = &m->slots[h->slot % SLOTS];

	if (h->slot >= SLOTS || (!s->generation && h->generation))
		return LSLM_DROP_SLOT;
	if (h->generation != s->generation || !s->bound)
		return LSLM_DROP_GENERATION;
	if (!find(s, h->offset, length, unit, chunk))
		return LSLM_DROP_BOUNDS;
	return s->come[*chunk] ? LSLM_DROP_DUPLICATE : LSLM_DROP_NONE;
}

static void bind_slot(struct model *m, struct lslm_receiver *rx, struct input *in)
{
	uint32_t i = take(in, 1) % SLOTS, length, n_chunks;
	struct slot_model *s = &m->slots[i];
	struct lslm_slot *slot = &rx->slots[i];
	uint32_t generation = s->generation + 1;
	uint32_t skip = take(in, 1);
	bool unbind = take(in, 1) % 4 == 0;

	free(s->memory);
	memset(s, 0, sizeof(*s));
	s->generation = slot->generation = generation;
	slot->bound = 0;
	if (unbind)
		return;
	s->chunk = take(in, 1) % 9 * 64;
	s->n_units = take(in, 1) % (UNITS + 1);
	for (uint32_t u = 0; u < s->n_units; u++)
		s->units[u] = take(in, 2) >> take(in, 1) % 16;
	if (!lslm_region_fits(s->units, s->n_units, s->chunk, &length, &n_chunks))
		return;
	demand(s->chunk >= 256 && n_chunks <= CHUNKS);
	s->memory = calloc(1, lslm_region_bytes(s->n_units, n_chunks));
	lslm_region_init(&slot->region, s->memory, s->units, s->n_units, s->chunk, n_chunks);
	s->bound = slot->bound = 1;
	for (uint32_t u = 0; u < s->n_units; u++) {
		if (!(skip >> u & 1))
			continue;
		lslm_region_skip_unit(&slot->region, u);
		s->chunks[u] = lslm_chunks_of(s->units[u], s->chunk);
		for (uint32_t c = slot->region.first[u]; c < slot->region.first[u + 1]; c++)
			s->come[c] = true;
	}
}

static void set_key(struct model *m, struct lslm_receiver *rx, struct input *in)
{
	uint32_t i = take(in, 1) % LSLM_WIRE_KEYS;
	struct key_model *k = &m->keys[i];

	memset(k, 0, sizeof(*k));
	memset(&rx->keys[i], 0, sizeof(rx->keys[i]));
	k->in_use = rx->keys[i].in_use = take(in, 1) % 4 != 0;
	k->max_packets = rx->keys[i].max_packets = 1ULL << take(in, 1) % 64;
	k->expires_ns = rx->keys[i].expires_ns = m->now_ns + take(in, 2);
}

/* Right where `wrong` has no bit: so that mutations reach every check. */
static void repair(const struct model *m, struct lslm_header *h, uint32_t *size, uint32_t wrong,
		   uint32_t session)
{
	const struct slot_model *s;
	uint64_t at = 0;

	if (!(wrong & 1)) {
		h->opcode = h->version = 1;
		h->flags = 0;
		h->key %= LSLM_WIRE_KEYS;
		h->counter &= ~LSLM_COUNTER_CONTROL;
	}
	if (!(wrong & 2))
		h->session = session;
	if (!(wrong & 4))
		h->counter %= 20000;
	if (!(wrong & 8))
		h->slot %= SLOTS;
	s = &m->slots[h->slot % SLOTS];
	if (!(wrong & 16))
		h->generation = s->generation;
	if (wrong & 32 || !s->bound)
		return;
	/* The chunk that the offset's first bytes number within a unit. */
	for (uint32_t u = 0; u < s->n_units; u++) {
		uint32_t within = (uint32_t)h->offset % 64 * s->chunk;

		if (u == (h->offset >> 8) % s->n_units && within < s->units[u]) {
			*size = s->units[u] - within < s->chunk ? s->units[u] - within : s->chunk;
			*size += LSLM_WIRE_OVERHEAD;
			h->offset = at + within;
			return;
		}
		at += s->units[u];
	}
}

static void note_authentic(struct model *m, const struct lslm_header *h)
{
	struct key_model *k = &m->keys[h->key];

	k->seen[k->n_seen++] = h->counter;
	if (h->counter > k->newest)
		k->newest = h->counter;
	m->received++;
}

static void place(struct model *m, struct lslm_receiver *rx, struct input *in)
{
	uint8_t head[LSLM_WIRE_HEADER], again[LSLM_WIRE_HEADER];
	uint32_t wrong = take(in, 1), size = take(in, 2) + (wrong >> 7), unit = 0, chunk = 0;
	bool forged = wrong & 64;
	struct slot_model *s;
	struct lslm_placement p;
	struct lslm_header h;
	enum lslm_drop want;

	for (size_t i = 0; i < sizeof(head); i++)
		head[i] = (uint8_t)take(in, 1);
	lslm_header_get(&h, head);
	lslm_header_put(again, &h);
	demand(!memcmp(head, again, sizeof(head)));
	repair(m, &h, &size, wrong, rx->session);
	lslm_header_put(head, &h);
	if (m->keys[h.key % LSLM_WIRE_KEYS].n_seen == SEEN)
		return;
	want = before_tag(m, &h, size, rx->session);
	demand(lslm_place_check(rx, head, size, m->now_ns, &p) == want);
	if (!want && forged) {
		lslm_place_forged(rx);
		want = LSLM_DROP_FORGED;
	} else if (!want) {
		want = after_tag(m, &h, size - LSLM_WIRE_OVERHEAD, &unit, &chunk);
		demand(p.verdict == want);
		demand(lslm_place_commit(rx, &p, m->now_ns) == want);
		note_authentic(m, &h);
		if (!want) {
			s = &m->slots[h.slot];
			demand(p.unit == unit && p.chunk == chunk);
			s->come[chunk] = true;
			demand(!!p.unit_done ==
			       (++s->chunks[unit] == lslm_chunks_of(s->units[unit], s->chunk)));
			m->placed++;
			return;
		}
	}
	m->drops[want]++;
}

/* At the end both accounts agree, chunk by chunk. */
static void compare(const struct model *m, const struct lslm_receiver *rx)
{
	for (uint32_t i = 0; i < SLOTS; i++) {
		const struct lslm_region *r = &rx->slots[i].region;
		struct lslm_range range;
		uint32_t missing = 0, at = 0, offset, length;

		if (!m->slots[i].bound)
			continue;
		while (lslm_region_missing(r, at, &range, 1)) {
			demand(range.first >= at && range.count);
			for (; at < range.first; at++)
				demand(m->slots[i].come[at]);
			for (; at < range.first + range.count; at++, missing++) {
				demand(!m->slots[i].come[at]);
				lslm_region_chunk(r, at, &offset, &length);
				demand(length && offset + length <= r->length);
			}
		}
		for (; at < r->n_chunks; at++)
			demand(m->slots[i].come[at]);
		demand(missing == r->chunks_missing);
	}
	demand(!memcmp(m->drops, rx->drops, sizeof(m->drops)));
	demand(m->received == rx->received && m->placed == rx->placed_packets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lslm_slot slots[SLOTS] = { 0 };
	struct lslm_receiver rx = { .session = 0x5e55, .n_slots = SLOTS, .slots = slots };
	struct model *m = calloc(1, sizeof(*m));
	struct input in = { data, size };

	while (in.left) {
		uint32_t kind = take(&in, 1);

		if (kind % 16 == 0)
			bind_slot(m, &rx, &in);
		else if (kind % 16 == 1)
			set_key(m, &rx, &in);
		else if (kind % 16 == 2)
			m->now_ns += take(&in, 2);
		else
			place(m, &rx, &in);
	}
	compare(m, &rx);
	for (int i = 0; i < SLOTS; i++)
		free(m->slots[i].memory);
	free(m);
	return 0;
}
