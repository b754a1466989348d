// SPDX-License-Identifier: MIT
/* What a session does not place: one datagram for each reason, and hostile ones in masses. */
#include "session_rig.h"

#include "base/random.h"
#include "lslm/replay.h"

static void as_it_is(struct lslm_header *h)
{
}

static void other_version(struct lslm_header *h)
{
	h->version = 2;
}

static void some_flags(struct lslm_header *h)
{
	h->flags = 0x80;
}

static void fifth_key(struct lslm_header *h)
{
	h->key = LSLM_WIRE_KEYS;
}

static void control_counter(struct lslm_header *h)
{
	h->counter |= LSLM_COUNTER_CONTROL;
}

static void other_session(struct lslm_header *h)
{
	h->session++;
}

static void no_such_key(struct lslm_header *h)
{
	h->key = 2;
}

static void slot_beyond(struct lslm_header *h)
{
	h->slot = SLOTS;
}

static void slot_far_beyond(struct lslm_header *h)
{
	h->slot = UINT32_MAX;
}

static void slot_never_bound(struct lslm_header *h)
{
	h->slot = SLOTS - 1;
}

static void slot_never_bound_0(struct lslm_header *h)
{
	h->slot = SLOTS - 1;
	h->generation = 0;
}

static void older(struct lslm_header *h)
{
	h->generation--;
}

static void newer(struct lslm_header *h)
{
	h->generation++;
}

static void beside_a_chunk(struct lslm_header *h)
{
	h->offset++;
}

static void at_the_end(struct lslm_header *h)
{
	h->offset = REGION;
}

static void straddling(struct lslm_header *h)
{
	h->offset = UNIT_BYTES - CHUNK;
}

static void wrapping(struct lslm_header *h)
{
	h->offset = UINT64_MAX - 63;
}

static void next_4_gib(struct lslm_header *h)
{
	h->offset = 1ULL << 32;
}

static const struct {
	enum lslm_drop why;
	void (*change)(struct lslm_header *h);
	uint32_t length;
} drops[] = {
	{ LSLM_DROP_HEADER, other_version, CHUNK },  { LSLM_DROP_HEADER, some_flags, CHUNK },
	{ LSLM_DROP_HEADER, fifth_key, CHUNK },	     { LSLM_DROP_HEADER, control_counter, CHUNK },
	{ LSLM_DROP_HEADER, as_it_is, 0 },	     { LSLM_DROP_SESSION, other_session, CHUNK },
	{ LSLM_DROP_KEY, no_such_key, CHUNK },	     { LSLM_DROP_SLOT, slot_beyond, CHUNK },
	{ LSLM_DROP_SLOT, slot_far_beyond, CHUNK },  { LSLM_DROP_SLOT, slot_never_bound, CHUNK },
	{ LSLM_DROP_GENERATION, older, CHUNK },	     { LSLM_DROP_GENERATION, newer, CHUNK },
	{ LSLM_DROP_BOUNDS, beside_a_chunk, CHUNK }, { LSLM_DROP_BOUNDS, at_the_end, CHUNK },
	{ LSLM_DROP_BOUNDS, straddling, CHUNK },     { LSLM_DROP_BOUNDS, wrapping, CHUNK },
	{ LSLM_DROP_BOUNDS, next_4_gib, CHUNK },     { LSLM_DROP_BOUNDS, as_it_is, CHUNK - 1 },
	{ LSLM_DROP_BOUNDS, as_it_is, CHUNK + 1 },   { LSLM_DROP_BOUNDS, as_it_is, 1 },
	{ LSLM_DROP_BOUNDS, as_it_is, UNIT_BYTES },
};

static void drop__for_each_reason(void **state)
{
	struct rig *r = rig_open(state);

	for (size_t i = 0; i < ARRAY_LEN(drops); i++) {
		struct lslm_header h = header_for(r, 0);

		drops[i].change(&h);
		send_as(r, &h, drops[i].length, 7);
		r->counter &= ~LSLM_COUNTER_CONTROL;
		expect_drops(r, drops[i].why, 1);
	}
	/* And the right one is placed. */
	send_chunk(r, 0, 7);
	settle(r);
	assert_int_equal(r->stats.placed, 1);
	rig_close(r);
}

/* Nothing at all was ever bound to the slot: no generation is that of nothing. */
static void drop__generation_of_nothing(void **state)
{
	struct rig *r = rig_open(state);
	struct lslm_header h = header_for(r, 0);
	uint64_t dropped;

	slot_never_bound_0(&h);
	send_as(r, &h, CHUNK, 8);
	settle(r);
	dropped = r->stats.drops[LSLM_DROP_SLOT] + r->stats.drops[LSLM_DROP_GENERATION];
	assert_int_equal(dropped, 1);
	rig_close(r);
}

static void drop__forged_at_every_byte(void **state)
{
	uint8_t packet[CHUNK + LSLM_WIRE_OVERHEAD];
	struct rig *r = rig_open(state);
	struct lslm_header h = header_for(r, 0);
	size_t size = make(r, packet, &h, CHUNK, 9);

	/* The counter moves no window: afterwards the genuine one is taken. */
	for (size_t i = LSLM_WIRE_HEADER; i < size; i++) {
		packet[i] ^= 1 << i % 8;
		send_bytes(r, packet, size);
		packet[i] ^= 1 << i % 8;
	}
	expect_drops(r, LSLM_DROP_FORGED, size - LSLM_WIRE_HEADER);
	/* Of the header: slot, generation, offset, and a counter that is not its own. */
	for (size_t i = 8; i < LSLM_WIRE_HEADER; i++) {
		if (i == 14 || i == 15) /* no counter of DATA under this key */
			continue;
		packet[i] ^= 2;
		send_bytes(r, packet, size);
		packet[i] ^= 2;
	}
	expect_drops(r, LSLM_DROP_FORGED, LSLM_WIRE_HEADER - 10);
	send_chunk(r, 0, 9);
	settle(r);
	assert_int_equal(r->stats.placed, 1);
	rig_close(r);
}

static void drop__truncated_at_every_byte(void **state)
{
	uint8_t packet[CHUNK + LSLM_WIRE_OVERHEAD];
	struct rig *r = rig_open(state);
	struct lslm_header h = header_for(r, 0);
	size_t size = make(r, packet, &h, CHUNK, 10);

	for (size_t n = 0; n <= LSLM_WIRE_OVERHEAD; n++)
		send_bytes(r, packet, n);
	expect_drops(r, LSLM_DROP_HEADER, LSLM_WIRE_OVERHEAD + 1);
	for (size_t n = LSLM_WIRE_OVERHEAD + 1; n < size; n++)
		send_bytes(r, packet, n);
	expect_drops(r, LSLM_DROP_FORGED, size - LSLM_WIRE_OVERHEAD - 1);
	rig_close(r);
}

static void drop__oversized(void **state)
{
	static const size_t sizes[] = { LSLM_CHUNK_MAX + LSLM_WIRE_OVERHEAD + 1, LARGEST };
	struct rig *r = rig_open(state);
	struct lslm_header h = header_for(r, 0);
	uint8_t packet[1 << 16];

	make(r, packet, &h, LSLM_CHUNK_MAX, 11);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		send_bytes(r, packet, sizes[i]);
		expect_drops(r, LSLM_DROP_HEADER, 1);
	}
	/* As large as a datagram may be, but no chunk of this region. */
	send_bytes(r, packet, LSLM_CHUNK_MAX + LSLM_WIRE_OVERHEAD);
	expect_drops(r, LSLM_DROP_BOUNDS, 1);
	rig_close(r);
}

static void drop__duplicates_and_replays(void **state)
{
	uint8_t packet[CHUNK + LSLM_WIRE_OVERHEAD];
	struct rig *r = rig_open(state);
	struct lslm_header h = header_for(r, 0);
	size_t size = make(r, packet, &h, CHUNK, 12);

	send_chunk(r, 0, 12);
	settle(r);
	send_bytes(r, packet, size);
	expect_drops(r, LSLM_DROP_REPLAY, 1);
	/* The chunk again, under a counter of its own and with other bytes. */
	h = header_for(r, 0);
	send_as(r, &h, CHUNK, 13);
	expect_drops(r, LSLM_DROP_DUPLICATE, 1);
	/* A counter that was authentic is used up, whatever became of it. */
	send_bytes(r, packet, make(r, packet, &h, CHUNK, 13));
	expect_drops(r, LSLM_DROP_REPLAY, 1);
	/* Both sides of the window's edge. */
	h.counter = 100000;
	send_as(r, &h, CHUNK, 13);
	expect_drops(r, LSLM_DROP_DUPLICATE, 1);
	h.counter = 100000 - LSLM_REPLAY_WINDOW;
	send_as(r, &h, CHUNK, 13);
	expect_drops(r, LSLM_DROP_REPLAY, 1);
	h.counter = 100000 - LSLM_REPLAY_WINDOW + 1;
	send_as(r, &h, CHUNK, 13);
	expect_drops(r, LSLM_DROP_DUPLICATE, 1);
	rig_close(r);
}

/* ---- hostile, in masses ---- */

/* A datagram of 512 bytes of payload that must not be placed, and the reason. */
struct hostile {
	uint8_t packet[CHUNK + LSLM_WIRE_OVERHEAD];
	size_t size;
	enum lslm_drop why;
};

/* Made with the key: what a peer that lies would send. */
static void make_lie(struct rig *r, struct hostile *h, uint64_t random)
{
	static const enum lslm_drop whys[] = { LSLM_DROP_SLOT, LSLM_DROP_GENERATION,
					       LSLM_DROP_GENERATION, LSLM_DROP_BOUNDS,
					       LSLM_DROP_DUPLICATE };
	struct lslm_header header = header_for(r, random >> 8 & 0xffff);

	h->why = whys[random % ARRAY_LEN(whys)];
	if (h->why == LSLM_DROP_SLOT)
		header.slot = 2 + (uint32_t)(random >> 32);
	if (h->why == LSLM_DROP_GENERATION)
		header.generation += 1 + (uint32_t)(random >> 40);
	if (h->why == LSLM_DROP_GENERATION && random % ARRAY_LEN(whys) == 2) {
		/* What was right until the slot was unbound. */
		header.slot = 1;
		header.generation = 1;
		header.offset = 0;
	}
	if (h->why == LSLM_DROP_BOUNDS)
		header.offset = random | 1; /* where no chunk starts */
	if (h->why == LSLM_DROP_DUPLICATE)
		header.offset = (random >> 8) % (UNIT_CHUNKS - 1) * CHUNK;
	h->size = make(r, h->packet, &header, CHUNK, (uint32_t)random);
	r->counter++;
}

/* Made without the key. */
static void make_forgery(struct rig *r, struct hostile *h, uint64_t random)
{
	struct lslm_header header = header_for(r, random >> 8 & 0xffff);

	h->why = LSLM_DROP_FORGED;
	h->size = sizeof(h->packet);
	header.counter += random >> 24 & 0xffffff;
	switch (random % 8) {
	case 0:
		header.session ^= 1u << (random >> 56) % 32;
		h->why = LSLM_DROP_SESSION;
		break;
	case 1:
		header.key = (random >> 56) % 2 ? 0 : 3;
		h->why = LSLM_DROP_KEY;
		break;
	case 2:
		header.version ^= 1u << (random >> 56) % 8;
		h->why = LSLM_DROP_HEADER;
		break;
	case 3: /* cut */
		h->size = 1 + (random >> 32) % (sizeof(h->packet) - 1);
		h->why = h->size <= LSLM_WIRE_OVERHEAD ? LSLM_DROP_HEADER : LSLM_DROP_FORGED;
		break;
	default:
		header.slot = (uint32_t)(random >> 56) % 2;
		header.offset = (random >> 32) % CHUNKS * CHUNK;
		break;
	}
	lslm_header_put(h->packet, &header);
	/* What is under it may be of a genuine one. */
	h->packet[LSLM_WIRE_HEADER + (random >> 16) % CHUNK] ^= 1 + (random >> 48) % 255;
}

static uint64_t hostile_count(const struct variant *v)
{
	const char *n = getenv("LSLM_TEST_HOSTILE");

	if (n)
		return strtoull(n, NULL, 10);
#ifdef __SANITIZE_ADDRESS__
	return 20000;
#else
	return strcmp(v->name, "twin") ? 20000 : 1000000;
#endif
}

static void hostile__changes_no_byte(void **state)
{
	const uint64_t count = hostile_count(variant_of(state));
	uint64_t want[LSLM_DROP_COUNT] = { 0 }, seed = 20240229, random;
	struct rig *r = rig_open(state);
	struct hostile h = { .size = 0 };
	uint8_t replay[sizeof(h.packet)];
	uint32_t generation;

	/* The first unit has come, the rest is missing; slot 1 was bound once. */
	bind_slot(r, 1, &generation);
	assert_int_equal(session_unbind(r->s, 1), 0);
	assert_int_equal(generation, 1);
	for (uint32_t i = 0; i < UNIT_CHUNKS; i++)
		send_chunk(r, i, 27);
	make_lie(r, &h, 0);
	memcpy(replay, h.packet, sizeof(replay));
	send_bytes(r, replay, sizeof(replay));
	settle(r);
	want[h.why] = 1;
	for (uint64_t i = 0; i < count; i++) {
		random = random_next(&seed);
		if (random >> 62 == 0)
			make_lie(r, &h, random);
		else if (random >> 62 == 1)
			h = (struct hostile){ .size = sizeof(replay), .why = LSLM_DROP_REPLAY };
		else
			make_forgery(r, &h, random);
		send_bytes(r, h.why == LSLM_DROP_REPLAY ? replay : h.packet, h.size);
		want[h.why]++;
		if (i % 4096 == 0)
			check_buffer(r);
	}
	settle(r);
	check_buffer(r);
	for (int i = 0; i < LSLM_DROP_COUNT; i++)
		assert_int_equal(r->stats.drops[i], want[i]);
	assert_int_equal(r->stats.placed, UNIT_CHUNKS);
	/* And the window has not moved out of the sender's reach. */
	for (uint32_t i = UNIT_CHUNKS; i < CHUNKS; i++)
		send_chunk(r, i, 27);
	settle(r);
	assert_int_equal(r->done_units, 7);
	rig_close(r);
}

int main(void)
{
	static const struct rig_case cases[] = {
		RIG_CASE(drop__for_each_reason),
		RIG_CASE(drop__generation_of_nothing),
		RIG_CASE(drop__forged_at_every_byte),
		RIG_CASE(drop__truncated_at_every_byte),
		RIG_CASE(drop__oversized),
		RIG_CASE(drop__duplicates_and_replays),
		RIG_CASE(hostile__changes_no_byte),
	};

	return rig_run("session, dropping", cases, ARRAY_LEN(cases));
}
