// SPDX-License-Identifier: MIT
/*
 * The same cases against every backend of a session, over real sockets: the module's, the twin's
 * with io_uring, over IPv4 and IPv6, and the twin's without io_uring. LSLM_TEST_BACKENDS="kernel twin"
 * names those that must be there; without it one that is absent is one skipped case.
 *
 * The peer is simulated by a sender that can say anything. After each hostile datagram the whole
 * buffer is compared with what should be in it, and every counter with what should be counted.
 */
#include "unit.h"

#include <arpa/inet.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <sodium.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "lslm/replay.h"
#include "net/seal.h"
#include "net/session.h"
#include "no_io_uring.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum {
	SLOTS = 8,
	CHUNK = 512,
	UNITS = 3,
	UNIT_BYTES = 4 * CHUNK + 192, /* the last chunk of a unit is a short one */
	UNIT_CHUNKS = 5,
	CHUNKS = UNITS * UNIT_CHUNKS,
	REGION = UNITS * UNIT_BYTES,
	BASE = 777, /* the region starts anywhere in the buffer */
	SIZE = 1 << 17,
	LARGEST = 65507, /* payload of UDP over IPv4 */
	WINDOW = 16, /* datagrams that fit any socket's buffer */
};

static struct lslm_error err;

struct variant {
	const char *name;
	enum session_backend backend;
	enum buffer_backend buffers;
	int family;
};

/* One case of one variant. */
struct run {
	const struct variant *variant;
	char name[80];
};

struct rig {
	struct session *s;
	struct buffer *buffer;
	uint8_t *want; /* what the buffer should hold */
	int socket, peer;
	uint8_t secret[LSLM_WIRE_KEY_BYTES];
	uint32_t generation; /* of slot 0 */
	uint64_t counter; /* of the next datagram */
	uint64_t sent, controls_sent;
	uint64_t controls;
	size_t control_size;
	uint8_t control_first;
	uint32_t done_units, done_times, overflows;
	struct session_done last_done;
	struct session_stats stats, seen; /* now, and when it was last looked at */
};

static const struct variant *variant_of(void **state)
{
	return ((struct run *)*state)->variant;
}

/* ---- the rig ---- */

static int socket_on(int family, struct sockaddr_storage *at, socklen_t *size)
{
	struct sockaddr_in6 *six = (void *)at;
	struct sockaddr_in *four = (void *)at;
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0), room = 4 << 20;

	assert_true(fd >= 0);
	memset(at, 0, sizeof(*at));
	at->ss_family = (sa_family_t)family;
	*size = family == AF_INET ? sizeof(*four) : sizeof(*six);
	if (family == AF_INET)
		four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		six->sin6_addr = in6addr_loopback;
	assert_int_equal(bind(fd, (void *)at, *size), 0);
	assert_int_equal(getsockname(fd, (void *)at, size), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	return fd;
}

static void note_done(void *arg, const struct session_done *done)
{
	struct rig *r = arg;

	if (done->unit < UNITS)
		r->done_units |= 1u << done->unit;
	r->done_times++;
	r->last_done = *done;
}

static void note_control(void *arg, uint8_t *packet, size_t size)
{
	struct rig *r = arg;

	r->controls++;
	r->control_size = size;
	r->control_first = packet[0];
}

static void note_overflow(void *arg)
{
	((struct rig *)arg)->overflows++;
}

static const struct session_ops ops = {
	.control = note_control,
	.done = note_done,
	.overflow = note_overflow,
};

static void bind_slot(struct rig *r, uint32_t slot, uint32_t *generation)
{
	struct session_region region = {
		.buffer = r->buffer,
		.base = BASE,
		.chunk = CHUNK,
		.n_units = UNITS,
		.unit_bytes = UNIT_BYTES,
	};

	assert_ok(session_bind(r->s, slot, &region, generation, &err), &err);
}

static void set_key(struct rig *r, uint32_t key, uint64_t max_packets, uint32_t lifetime_s)
{
	assert_ok(session_key(r->s, key, LSLM_CIPHER_CHACHA20POLY1305, r->secret, max_packets,
			      lifetime_s, &err),
		  &err);
}

/* A session with a key and a region in slot 0, and a socket to send to it. */
static struct rig *rig_open(void **state)
{
	const struct variant *v = variant_of(state);
	struct sockaddr_storage at, unused;
	struct rig *r = calloc(1, sizeof(*r));
	socklen_t size, unused_size;

	r->socket = socket_on(v->family, &at, &size);
	r->peer = socket_on(v->family, &unused, &unused_size);
	assert_int_equal(connect(r->peer, (void *)&at, size), 0);
	assert_ok(buffer_create(&r->buffer, v->buffers, SIZE, 0, &err), &err);
	r->want = malloc(SIZE);
	memset(r->want, 0xa5, SIZE);
	memset(buffer_data(r->buffer), 0xa5, SIZE);
	memset(r->secret, 0x17, sizeof(r->secret));
	assert_ok(session_open(&r->s, v->backend, v->buffers, r->socket, SLOTS, &err), &err);
	set_key(r, 1, 1ULL << 48, 3600);
	bind_slot(r, 0, &r->generation);
	return r;
}

static void check_buffer(const struct rig *r)
{
	assert_int_equal(memcmp(buffer_ro_data(r->buffer), r->want, SIZE), 0);
}

static void rig_close(struct rig *r)
{
	check_buffer(r);
	session_close(r->s);
	check_buffer(r);
	buffer_close(r->buffer);
	close(r->socket);
	close(r->peer);
	free(r->want);
	free(r);
}

/* Until everything that was sent has been looked at. */
static void drain(struct rig *r)
{
	double deadline = clock_seconds() + 20;
	const struct session_stats *st = &r->stats;

	do {
		assert_true(clock_seconds() < deadline);
		assert_ok(session_poll(r->s, 10000000, &ops, r, &err), &err);
		assert_int_equal(session_stats(r->s, &r->stats), 0);
	} while (st->by_encap + st->by_tc + st->by_xdp + st->by_ring < r->sent ||
		 r->controls < r->controls_sent || r->done_times + st->overflows < st->units);
}

static void settle(struct rig *r)
{
	drain(r);
	r->seen = r->stats;
}

static void send_bytes(struct rig *r, const void *data, size_t size)
{
	assert_int_equal(send(r->peer, data, size, 0), size);
	if (size && *(const uint8_t *)data != LSLM_OP_DATA)
		r->controls_sent++;
	else
		r->sent++;
	if ((r->sent + r->controls_sent) % WINDOW == 0 || size > 4096)
		drain(r);
}

static uint8_t byte_at(uint64_t offset, uint32_t salt)
{
	return (uint8_t)(offset * 131 + offset / 251 + salt);
}

static struct lslm_header header_for(const struct rig *r, uint64_t offset)
{
	return (struct lslm_header){
		.opcode = LSLM_OP_DATA,
		.version = LSLM_WIRE_VERSION,
		.key = 1,
		.session = session_number(r->s),
		.counter = r->counter,
		.generation = r->generation,
		.offset = offset,
	};
}

static void chunk_at(uint32_t chunk, uint64_t *offset, uint32_t *length)
{
	uint32_t within = chunk % UNIT_CHUNKS * CHUNK;

	*offset = (uint64_t)(chunk / UNIT_CHUNKS) * UNIT_BYTES + within;
	*length = UNIT_BYTES - within < CHUNK ? UNIT_BYTES - within : CHUNK;
}

/* A datagram as the header says, whose payload is byte_at() from its offset on. */
static size_t make(const struct rig *r, uint8_t *packet, const struct lslm_header *h, size_t length,
		   uint32_t salt)
{
	uint8_t payload[1 << 16];

	for (size_t i = 0; i < length; i++)
		payload[i] = byte_at(h->offset + i, salt);
	return seal_packet(packet, h, payload, length, r->secret);
}

static void send_as(struct rig *r, const struct lslm_header *h, size_t length, uint32_t salt)
{
	uint8_t packet[(1 << 16) + LSLM_WIRE_OVERHEAD];

	r->counter = h->counter + 1;
	send_bytes(r, packet, make(r, packet, h, length, salt));
}

/* A good datagram, and what it should do to the buffer. */
static void send_chunk(struct rig *r, uint32_t chunk, uint32_t salt)
{
	struct lslm_header h;
	uint64_t offset;
	uint32_t length;

	chunk_at(chunk, &offset, &length);
	h = header_for(r, offset);
	for (uint32_t i = 0; i < length; i++)
		r->want[BASE + offset + i] = byte_at(offset + i, salt);
	send_as(r, &h, length, salt);
}

/* Since the last look n datagrams were dropped for this reason, and nothing else happened. */
static void expect_drops(struct rig *r, enum lslm_drop why, uint64_t n)
{
	struct session_stats before = r->seen;

	settle(r);
	for (int i = 0; i < LSLM_DROP_COUNT; i++)
		if (r->seen.drops[i] != before.drops[i] + (i == (int)why ? n : 0))
			fail_msg("%s: %llu more, not %llu", session_drop_name((enum lslm_drop)i),
				 (unsigned long long)(r->seen.drops[i] - before.drops[i]),
				 (unsigned long long)(i == (int)why ? n : 0));
	assert_int_equal(r->seen.placed, before.placed);
	assert_int_equal(r->seen.units, before.units);
	check_buffer(r);
}

static uint32_t missing(struct rig *r)
{
	struct lslm_range ranges[CHUNKS];
	int n = session_missing(r->s, 0, r->generation, 0, ranges, CHUNKS);
	uint32_t sum = 0;

	assert_true(n >= 0);
	for (int i = 0; i < n; i++)
		sum += ranges[i].count;
	return sum;
}

/* ---- placing ---- */

static void place__completes_units(void **state)
{
	struct rig *r = rig_open(state);

	assert_int_equal(missing(r), CHUNKS);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		send_chunk(r, i, 1);
		settle(r);
		check_buffer(r);
		assert_int_equal(r->done_times, (i + 1) / UNIT_CHUNKS);
	}
	assert_int_equal(r->done_units, 7);
	assert_int_equal(r->last_done.slot, 0);
	assert_int_equal(r->last_done.unit, UNITS - 1);
	assert_int_equal(r->last_done.generation, r->generation);
	assert_int_equal(missing(r), 0);
	assert_int_equal(r->stats.placed, CHUNKS);
	assert_int_equal(r->stats.received, CHUNKS);
	assert_int_equal(r->stats.placed_bytes, REGION);
	assert_int_equal(r->stats.units, UNITS);
	rig_close(r);
}

static void place__takes_any_order(void **state)
{
	struct rig *r = rig_open(state);
	struct lslm_range ranges[2];

	/* 7 and 15 have no common divisor: every chunk once. */
	for (uint32_t i = 0; i < CHUNKS - 1; i++)
		send_chunk(r, (i * 7 + 3) % CHUNKS, 2);
	settle(r);
	check_buffer(r);
	assert_int_equal(session_missing(r->s, 0, r->generation, 0, ranges, 2), 1);
	assert_int_equal(ranges[0].count, 1);
	assert_int_equal(ranges[0].first, ((CHUNKS - 1) * 7 + 3) % CHUNKS);
	assert_int_equal(session_missing(r->s, 0, r->generation, ranges[0].first + 1, ranges, 2),
			 0);
	send_chunk(r, ((CHUNKS - 1) * 7 + 3) % CHUNKS, 2);
	settle(r);
	assert_int_equal(r->done_units, 7);
	assert_int_equal(r->done_times, UNITS);
	rig_close(r);
}

/* A counter that arrives late is no replay. */
static void place__takes_late_counters(void **state)
{
	struct rig *r = rig_open(state);

	for (uint32_t i = 0; i < CHUNKS; i++) {
		r->counter = 1000 + (i % 2 ? i - 1 : i + 1);
		send_chunk(r, i, 3);
	}
	settle(r);
	assert_int_equal(r->stats.placed, CHUNKS);
	rig_close(r);
}

static void place__leaves_done_units_alone(void **state)
{
	struct rig *r = rig_open(state);
	struct lslm_header h;
	const uint64_t done = 1 << 1;
	struct session_region region = {
		.buffer = r->buffer,
		.base = BASE,
		.chunk = CHUNK,
		.n_units = UNITS,
		.unit_bytes = UNIT_BYTES,
		.done = &done,
	};

	assert_ok(session_bind(r->s, 0, &region, &r->generation, &err), &err);
	assert_int_equal(missing(r), 2 * UNIT_CHUNKS);
	h = header_for(r, UNIT_BYTES);
	send_as(r, &h, CHUNK, 4);
	expect_drops(r, LSLM_DROP_DUPLICATE, 1);
	for (uint32_t i = 0; i < CHUNKS; i++)
		if (i / UNIT_CHUNKS != 1)
			send_chunk(r, i, 4);
	settle(r);
	assert_int_equal(r->done_units, 5);
	assert_int_equal(missing(r), 0);
	rig_close(r);
}

static void place__takes_the_largest_chunk(void **state)
{
	struct rig *r = rig_open(state);
	struct session_region region = {
		.buffer = r->buffer,
		.base = SIZE - LSLM_CHUNK_MAX - 1,
		.chunk = LSLM_CHUNK_MAX,
		.n_units = 1,
		.unit_bytes = LSLM_CHUNK_MAX + 1,
	};
	struct lslm_header h;

	assert_ok(session_bind(r->s, 0, &region, &r->generation, &err), &err);
	for (size_t i = 0; i < region.unit_bytes; i++)
		r->want[region.base + i] = byte_at(i, 5);
	h = header_for(r, 0);
	send_as(r, &h, LSLM_CHUNK_MAX, 5);
	h = header_for(r, LSLM_CHUNK_MAX);
	send_as(r, &h, 1, 5);
	settle(r);
	assert_int_equal(r->done_times, 1);
	rig_close(r);
}

/* What the sender's kernel, or the receiver's, has glued together. */
static void place__takes_runs_apart(void **state)
{
	struct rig *r = rig_open(state);
	uint8_t run[CHUNKS * (CHUNK + LSLM_WIRE_OVERHEAD)];
	int segment = CHUNK + LSLM_WIRE_OVERHEAD;
	size_t size = 0;

	for (uint32_t unit = 0; unit < UNITS; unit++)
		for (uint32_t i = 0; i < UNIT_CHUNKS - 1; i++) {
			struct lslm_header h = header_for(r, unit * UNIT_BYTES + i * CHUNK);

			size += make(r, run + size, &h, CHUNK, 6);
			r->counter++;
			r->sent++;
			for (uint64_t at = h.offset; at < h.offset + CHUNK; at++)
				r->want[BASE + at] = byte_at(at, 6);
		}
	assert_int_equal(setsockopt(r->peer, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)),
			 0);
	assert_int_equal(send(r->peer, run, size, 0), size);
	segment = 0;
	setsockopt(r->peer, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment));
	settle(r);
	assert_int_equal(r->stats.placed, UNITS * (UNIT_CHUNKS - 1));
	check_buffer(r);
	for (uint32_t unit = 0; unit < UNITS; unit++)
		send_chunk(r, unit * UNIT_CHUNKS + UNIT_CHUNKS - 1, 6);
	settle(r);
	assert_int_equal(r->done_units, 7);
	rig_close(r);
}

/* ---- what is not placed ---- */

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

static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

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

/* ---- keys ---- */

static void key__refuses_bad_arguments(void **state)
{
	static const struct {
		uint32_t key, cipher;
		uint64_t max_packets;
		uint32_t lifetime_s;
		int want;
	} bad[] = {
		{ 4, 1, 1, 1, -EINVAL },	{ 0, 3, 1, 1, -EINVAL },
		{ 0, 1, 0, 1, -EINVAL },	{ 0, 1, (1ULL << 48) + 1, 1, -EINVAL },
		{ 0, 1, 1, 0, -EINVAL },	{ 0, 1, 1, 86401, -EINVAL },
		{ 0, 1, 1ULL << 48, 86400, 0 }, { 0, 2, 1, 1, -EOPNOTSUPP },
	};
	struct rig *r = rig_open(state);

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(session_key(r->s, bad[i].key, bad[i].cipher, r->secret,
					     bad[i].max_packets, bad[i].lifetime_s, &err),
				 bad[i].want);
	/* What failed has changed nothing. */
	send_chunk(r, 0, 14);
	settle(r);
	assert_int_equal(r->stats.placed, 1);
	rig_close(r);
}

static void key__ends_by_count(void **state)
{
	struct rig *r = rig_open(state);
	struct lslm_header h;

	set_key(r, 1, 10, 3600);
	r->counter = 9;
	send_chunk(r, 0, 15);
	settle(r);
	assert_int_equal(r->stats.placed, 1);
	h = header_for(r, CHUNK);
	send_as(r, &h, CHUNK, 15);
	expect_drops(r, LSLM_DROP_KEY, 1);
	rig_close(r);
}

static void key__ends_by_time(void **state)
{
	struct rig *r = rig_open(state);
	struct timespec tick = { .tv_nsec = 50000000 };
	struct lslm_header h;

	set_key(r, 1, 1ULL << 48, 1);
	do {
		nanosleep(&tick, NULL);
		h = header_for(r, REGION);
		send_as(r, &h, CHUNK, 16);
		settle(r);
	} while (!r->stats.drops[LSLM_DROP_KEY] && h.counter < 400);
	h = header_for(r, 0);
	send_as(r, &h, CHUNK, 16);
	expect_drops(r, LSLM_DROP_KEY, 1);
	rig_close(r);
}

/* The next pair of keys: both in use, then the old one is removed. */
static void key__changes(void **state)
{
	struct rig *r = rig_open(state);
	struct lslm_header h;
	uint64_t offset;
	uint32_t length;

	send_chunk(r, 0, 17);
	settle(r);
	memset(r->secret, 0x71, sizeof(r->secret));
	set_key(r, 2, 1ULL << 48, 3600);
	for (uint32_t i = 1; i < 4; i++) {
		chunk_at(i, &offset, &length);
		h = header_for(r, offset);
		h.key = 2;
		for (uint32_t j = 0; j < length; j++)
			r->want[BASE + offset + j] = byte_at(offset + j, 17);
		send_as(r, &h, length, 17);
	}
	settle(r);
	assert_int_equal(r->stats.placed, 4);
	/* Under the old number the new secret is a forgery, and the old one still good. */
	h = header_for(r, 0);
	send_as(r, &h, CHUNK, 17);
	expect_drops(r, LSLM_DROP_FORGED, 1);
	memset(r->secret, 0x17, sizeof(r->secret));
	h = header_for(r, 0);
	send_as(r, &h, CHUNK, 17);
	expect_drops(r, LSLM_DROP_DUPLICATE, 1);
	assert_ok(session_key(r->s, 1, LSLM_CIPHER_NONE, NULL, 0, 0, &err), &err);
	h = header_for(r, 0);
	send_as(r, &h, CHUNK, 17);
	expect_drops(r, LSLM_DROP_KEY, 1);
	rig_close(r);
}

/* ---- regions ---- */

static void bind__refuses_bad_arguments(void **state)
{
	static const uint64_t all = 7;
	static const struct {
		struct session_region region;
		uint32_t slot;
		int want;
	} bad[] = {
		{ { 0, 0, 512, 1, 512 }, SLOTS, -EINVAL },
		{ { 0, 0, 512, 0, 512 }, 0, -EINVAL },
		{ { 0, 0, 512, 4097, 1 }, 0, -EINVAL },
		{ { 0, 0, 512, 1, 0 }, 0, -EINVAL },
		{ { 0, 0, 192, 1, 512 }, 0, -EINVAL },
		{ { 0, 0, 480, 1, 512 }, 0, -EINVAL },
		{ { 0, 0, LSLM_CHUNK_MAX + 64, 1, 512 }, 0, -EINVAL },
		{ { 0, 0, 512, 3, 512, &all }, 0, -EINVAL },
		{ { 0, SIZE, 512, 1, 1 }, 0, -ERANGE },
		{ { 0, UINT64_MAX, 512, 1, 1 }, 0, -ERANGE },
		{ { 0, 0, 512, 1, SIZE + 1 }, 0, -ERANGE },
		{ { 0, 1, 512, 4, SIZE / 4 }, 0, -ERANGE },
	};
	struct rig *r = rig_open(state);
	uint32_t generation;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct session_region region = bad[i].region;

		region.buffer = r->buffer;
		assert_int_equal(session_bind(r->s, bad[i].slot, &region, &generation, &err),
				 bad[i].want);
	}
	/* What was bound is bound. */
	send_chunk(r, 0, 18);
	settle(r);
	assert_int_equal(r->stats.placed, 1);
	rig_close(r);
}

static void bind__needs_a_buffer_to_write(void **state)
{
	struct rig *r = rig_open(state);
	struct session_region region = { .chunk = CHUNK, .n_units = 1, .unit_bytes = CHUNK };
	int fd = buffer_ro_fd(r->buffer, &err);
	uint32_t generation;

	assert_ok(buffer_import(&region.buffer, fd, &err), &err);
	assert_int_equal(session_bind(r->s, 1, &region, &generation, &err), -EACCES);
	buffer_close(region.buffer);
	rig_close(r);
}

static void bind__holds_the_buffer(void **state)
{
	struct rig *r = rig_open(state);
	struct session_region region = {
		.buffer = r->buffer, .chunk = CHUNK, .n_units = 1, .unit_bytes = CHUNK
	};
	uint32_t generation;

	assert_int_equal(buffer_purge(r->buffer, NULL, &err), -EBUSY);
	assert_int_equal(session_unbind(r->s, 0), 0);
	assert_ok(buffer_purge(r->buffer, NULL, &err), &err);
	assert_int_equal(session_bind(r->s, 1, &region, &generation, &err), -ESTALE);
	assert_ok(buffer_will_need(r->buffer, NULL, NULL, &err), &err);
	assert_ok(session_bind(r->s, 1, &region, &generation, &err), &err);
	memset(r->want, 0, SIZE);
	rig_close(r);
}

static void unbind__stops_writes(void **state)
{
	struct rig *r = rig_open(state);
	struct lslm_range range;
	struct lslm_header h, late;
	uint32_t first = r->generation;

	send_chunk(r, 0, 19);
	settle(r);
	assert_int_equal(session_unbind(r->s, 0), 0);
	assert_int_equal(session_unbind(r->s, 0), -ENOENT);
	assert_int_equal(session_unbind(r->s, SLOTS), -EINVAL);
	assert_int_equal(session_missing(r->s, 0, first, 0, &range, 1), -ESTALE);
	for (uint32_t generation = 0; generation < first + 3; generation++) {
		h = header_for(r, CHUNK);
		h.generation = generation;
		send_as(r, &h, CHUNK, 19);
	}
	expect_drops(r, LSLM_DROP_GENERATION, first + 3);
	/* Bound anew: late datagrams of the first time are late, and the chunks are missing again. */
	bind_slot(r, 0, &r->generation);
	assert_true(r->generation > first);
	assert_int_equal(missing(r), CHUNKS);
	late = header_for(r, CHUNK);
	late.generation = first;
	send_as(r, &late, CHUNK, 19);
	expect_drops(r, LSLM_DROP_GENERATION, 1);
	send_chunk(r, 0, 20);
	settle(r);
	assert_int_equal(r->stats.placed, 2);
	rig_close(r);
}

/* Without unbinding first, and while datagrams for the first binding wait in the socket. */
static void bind__replaces(void **state)
{
	struct rig *r = rig_open(state);
	uint32_t first = r->generation;
	struct lslm_header h;

	bind_slot(r, 0, &r->generation);
	assert_true(r->generation > first);
	h = header_for(r, 0);
	h.generation = first;
	send_as(r, &h, CHUNK, 21);
	expect_drops(r, LSLM_DROP_GENERATION, 1);
	for (uint32_t i = 0; i < CHUNKS; i++)
		send_chunk(r, i, 21);
	settle(r);
	assert_int_equal(r->done_units, 7);
	rig_close(r);
}

/* Two regions of one buffer, filled by turns. */
static void bind__many_slots(void **state)
{
	struct rig *r = rig_open(state);
	struct session_region region = {
		.buffer = r->buffer,
		.base = BASE + REGION,
		.chunk = CHUNK,
		.n_units = UNITS,
		.unit_bytes = UNIT_BYTES,
	};
	uint32_t second, length;
	struct lslm_header h;
	uint64_t offset;

	assert_ok(session_bind(r->s, 5, &region, &second, &err), &err);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		send_chunk(r, i, 22);
		chunk_at(i, &offset, &length);
		h = header_for(r, offset);
		h.slot = 5;
		h.generation = second;
		for (uint32_t j = 0; j < length; j++)
			r->want[region.base + offset + j] = byte_at(offset + j, 23);
		send_as(r, &h, length, 23);
	}
	settle(r);
	assert_int_equal(r->stats.units, 2 * UNITS);
	rig_close(r);
}

/* ---- the rest ---- */

static void control__passes(void **state)
{
	static const uint8_t opcodes[] = { 0, LSLM_OP_PROBE, LSLM_OP_HELLO, LSLM_OP_REPORT, 255 };
	static const size_t sizes[] = { 1, 31, 48, 1400, 8952, LARGEST };
	struct rig *r = rig_open(state);
	uint8_t packet[LARGEST] = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(opcodes); i++)
		for (size_t j = 0; j < ARRAY_LEN(sizes); j++) {
			packet[0] = opcodes[i];
			send_bytes(r, packet, sizes[j]);
			expect_drops(r, LSLM_DROP_NONE, 0);
			assert_int_equal(r->control_first, opcodes[i]);
			assert_int_equal(r->control_size, sizes[j]);
		}
	assert_int_equal(r->controls, ARRAY_LEN(opcodes) * ARRAY_LEN(sizes));
	assert_int_equal(r->stats.received, 0);
	rig_close(r);
}

/* More units than the completion ring of the module has entries, and nobody looks meanwhile. */
static void overflow__is_told(void **state)
{
	enum { MANY = 2100, RING = 4096 };
	struct rig *r = rig_open(state);
	bool kernel = variant_of(state)->backend == SESSION_KERNEL;
	double deadline = clock_seconds() + 60;
	uint8_t packet[1 + LSLM_WIRE_OVERHEAD];
	uint32_t generation[2];
	struct lslm_range range;

	for (uint32_t slot = 0; slot < 2; slot++) {
		struct session_region region = { r->buffer, slot * MANY, CHUNK, MANY, 1 };

		assert_ok(session_bind(r->s, slot, &region, &generation[slot], &err), &err);
	}
	for (uint32_t i = 0; i < 2 * MANY; i++) {
		struct lslm_header h = header_for(r, i % MANY);

		h.slot = i / MANY;
		h.generation = generation[h.slot];
		r->want[i] = byte_at(h.offset, 28);
		make(r, packet, &h, 1, 28);
		r->counter++;
		r->sent++;
		assert_int_equal(send(r->peer, packet, sizeof(packet), 0), sizeof(packet));
		/* The module needs no poll to place. */
		while (kernel && i % WINDOW == 0 && r->stats.by_encap < r->sent) {
			assert_true(clock_seconds() < deadline);
			assert_int_equal(session_stats(r->s, &r->stats), 0);
		}
		if (!kernel && i % WINDOW == 0)
			drain(r);
	}
	settle(r);
	assert_int_equal(r->stats.placed, 2 * MANY);
	assert_int_equal(r->done_times, kernel ? RING : 2 * MANY);
	assert_int_equal(r->stats.overflows, kernel ? 2 * MANY - RING : 0);
	assert_int_equal(r->overflows, kernel);
	for (uint32_t slot = 0; slot < 2; slot++)
		assert_int_equal(session_missing(r->s, slot, generation[slot], 0, &range, 1), 0);
	rig_close(r);
}

static void unbind_at_once(void *arg, const struct session_done *done)
{
	struct rig *r = arg;

	note_done(arg, done);
	assert_int_equal(session_unbind(r->s, 0), r->done_times == 1 ? 0 : -ENOENT);
}

/* While others of its region wait to be looked at. */
static void done__may_unbind(void **state)
{
	static const struct session_ops unbind = { .done = unbind_at_once };
	struct rig *r = rig_open(state);
	double deadline = clock_seconds() + 20;

	for (uint32_t i = 0; i < UNIT_CHUNKS; i++)
		send_chunk(r, i, 29);
	for (uint32_t i = 0; i < 6; i++) {
		struct lslm_header h = header_for(r, REGION);

		send_as(r, &h, CHUNK, 29);
	}
	do {
		assert_true(clock_seconds() < deadline);
		assert_ok(session_poll(r->s, 10000000, &unbind, r, &err), &err);
		assert_int_equal(session_stats(r->s, &r->stats), 0);
	} while (r->stats.received < r->sent || !r->done_times);
	assert_int_equal(r->stats.placed, UNIT_CHUNKS);
	assert_int_equal(r->stats.drops[LSLM_DROP_GENERATION] + r->stats.drops[LSLM_DROP_BOUNDS],
			 6);
	rig_close(r);
}

static void progress__says_what_came(void **state)
{
	struct rig *r = rig_open(state);
	struct session_progress p;
	struct lslm_header h;
	uint64_t before = clock_ns(), first_ns;

	session_progress(r->s, &p);
	assert_int_equal(p.received, 0);
	r->counter = 40;
	send_chunk(r, 0, 24);
	settle(r);
	session_progress(r->s, &p);
	assert_int_equal(p.received, 1);
	assert_int_equal(p.last_counter, 40);
	assert_int_equal(p.placed_bytes, CHUNK);
	assert_true(p.last_ns >= before && p.last_ns <= clock_ns());
	first_ns = p.last_ns;
	/* An earlier one, which has no place either: received, but nothing newer. */
	h = header_for(r, REGION);
	h.counter = 39;
	send_as(r, &h, CHUNK, 24);
	expect_drops(r, LSLM_DROP_BOUNDS, 1);
	session_progress(r->s, &p);
	assert_int_equal(p.received, 2);
	assert_int_equal(p.last_counter, 40);
	assert_int_equal(p.last_ns, first_ns);
	rig_close(r);
}

static void *wake_soon(void *arg)
{
	struct timespec tick = { .tv_nsec = 20000000 };

	nanosleep(&tick, NULL);
	session_wake(arg);
	return NULL;
}

static void wake__ends_a_poll(void **state)
{
	struct rig *r = rig_open(state);
	double start = clock_seconds();
	pthread_t thread;

	session_wake(r->s);
	assert_ok(session_poll(r->s, 60000000000, &ops, r, &err), &err);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pthread_create(&thread, NULL, wake_soon, r->s), 0);
		assert_ok(session_poll(r->s, 60000000000, &ops, r, &err), &err);
		pthread_join(thread, NULL);
	}
	assert_true(clock_seconds() - start < 50);
	/* Nothing is there: a poll ends by itself. */
	assert_ok(session_poll(r->s, 1000000, &ops, r, &err), &err);
	assert_ok(session_poll(r->s, 0, &ops, r, &err), &err);
	rig_close(r);
}

static void *receive_all(void *arg)
{
	struct rig *r = arg;

	for (uint32_t i = 0; i < CHUNKS / 2; i++)
		send_chunk(r, i, 25);
	settle(r);
	return NULL;
}

/* Polled here, by another thread, here again while a third one lives, and closed by this one. */
static void poll__moves_between_threads(void **state)
{
	struct rig *r = rig_open(state);
	pthread_t thread;

	send_chunk(r, CHUNKS - 1, 25);
	settle(r);
	assert_int_equal(pthread_create(&thread, NULL, receive_all, r), 0);
	pthread_join(thread, NULL);
	for (uint32_t i = CHUNKS / 2; i < CHUNKS - 1; i++)
		send_chunk(r, i, 25);
	settle(r);
	assert_int_equal(r->done_units, 7);
	rig_close(r);
}

/* Once the session is over the socket is an ordinary one. */
static void close__gives_the_socket_back(void **state)
{
	uint8_t packet[CHUNK + LSLM_WIRE_OVERHEAD];
	struct rig *r = rig_open(state);
	const struct variant *v = variant_of(state);
	struct lslm_header h = header_for(r, 0);
	size_t size = make(r, packet, &h, CHUNK, 26);
	struct timeval limit = { .tv_sec = 20 };

	session_poll(r->s, 0, &ops, r, &err);
	session_close(r->s);
	setsockopt(r->socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	assert_int_equal(send(r->peer, packet, size, 0), size);
	assert_int_equal(recv(r->socket, packet, sizeof(packet), 0), size);
	assert_ok(session_open(&r->s, v->backend, v->buffers, r->socket, SLOTS, &err), &err);
	set_key(r, 1, 1ULL << 48, 3600);
	bind_slot(r, 0, &r->generation);
	send_chunk(r, 0, 26);
	settle(r);
	assert_int_equal(r->stats.placed, 1);
	rig_close(r);
}

static void open__refuses_bad_arguments(void **state)
{
	const struct variant *v = variant_of(state);
	struct sockaddr_storage at;
	struct session *s = NULL;
	socklen_t size;
	int fd = socket_on(v->family, &at, &size);

	assert_int_equal(session_open(&s, v->backend, v->buffers, fd, 0, &err), -EINVAL);
	assert_int_equal(session_open(&s, v->backend, v->buffers, fd, 65537, &err), -EINVAL);
	assert_null(s);
	assert_ok(session_open(&s, v->backend, v->buffers, fd, 65536, &err), &err);
	assert_int_not_equal(session_number(s), 0);
	session_close(s);
	close(fd);
}

static void backend__is_there(void **state)
{
	const struct variant *v = variant_of(state);
	const char *must = getenv("LSLM_TEST_BACKENDS");
	struct sockaddr_storage at;
	struct session *s;
	socklen_t size;
	int fd = socket_on(v->family, &at, &size), ret;

	ret = session_open(&s, v->backend, v->buffers, fd, SLOTS, &err);
	close(fd);
	if (ret) {
		assert_int_equal(ret, -ENODEV);
		if (must && strstr(must, v->backend == SESSION_KERNEL ? "kernel" : "twin"))
			fail_msg("%s", err.text);
		print_message("# %s\n", err.text);
		skip();
	}
	print_message("# %s\n", session_backend_reason(s));
	assert_string_equal(session_backend_name(s),
			    v->backend == SESSION_KERNEL ? "kernel" : "twin");
	assert_ptr_equal(strstr(session_backend_reason(s), session_backend_name(s)),
			 session_backend_reason(s));
	if (strstr(v->name, "recvmmsg"))
		assert_non_null(strstr(session_backend_reason(s), "recvmmsg (io_uring: "));
	session_close(s);
}

static void auto__says_why(void **state)
{
	struct sockaddr_storage at;
	struct session *s;
	socklen_t size;
	int fd = socket_on(AF_INET, &at, &size);

	assert_int_equal(session_open(&s, SESSION_KERNEL, BUFFER_MEMFD, fd, 1, &err), -ENODEV);
	assert_ok(session_open(&s, SESSION_AUTO, BUFFER_MEMFD, fd, 1, &err), &err);
	assert_string_equal(session_backend_name(s), "twin");
	assert_non_null(strstr(session_backend_reason(s), "the buffers are memfd"));
	session_close(s);
	/* Whatever it takes, it says so. */
	assert_ok(session_open(&s, SESSION_AUTO, BUFFER_AUTO, fd, 1, &err), &err);
	print_message("# %s\n", session_backend_reason(s));
	assert_ptr_equal(strstr(session_backend_reason(s), session_backend_name(s)),
			 session_backend_reason(s));
	if (buffer_backend_active() == BUFFER_MEMFD)
		assert_string_equal(session_backend_name(s), "twin");
	session_close(s);
	close(fd);
}

static const struct {
	const char *name;
	CMUnitTestFunction run;
} cases[] = {
#define CASE(f)       \
	{             \
#f, f \
	}
	CASE(place__completes_units),
	CASE(place__takes_any_order),
	CASE(place__takes_late_counters),
	CASE(place__leaves_done_units_alone),
	CASE(place__takes_the_largest_chunk),
	CASE(place__takes_runs_apart),
	CASE(drop__for_each_reason),
	CASE(drop__generation_of_nothing),
	CASE(drop__forged_at_every_byte),
	CASE(drop__truncated_at_every_byte),
	CASE(drop__oversized),
	CASE(drop__duplicates_and_replays),
	CASE(hostile__changes_no_byte),
	CASE(key__refuses_bad_arguments),
	CASE(key__ends_by_count),
	CASE(key__ends_by_time),
	CASE(key__changes),
	CASE(bind__refuses_bad_arguments),
	CASE(bind__needs_a_buffer_to_write),
	CASE(bind__holds_the_buffer),
	CASE(unbind__stops_writes),
	CASE(bind__replaces),
	CASE(bind__many_slots),
	CASE(control__passes),
	CASE(overflow__is_told),
	CASE(done__may_unbind),
	CASE(progress__says_what_came),
	CASE(wake__ends_a_poll),
	CASE(poll__moves_between_threads),
	CASE(close__gives_the_socket_back),
	CASE(open__refuses_bad_arguments),
#undef CASE
};

static bool is_there(const struct variant *v)
{
	int fd = socket(v->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct session *s;
	int ret = session_open(&s, v->backend, v->buffers, fd, 1, NULL);

	if (!ret)
		session_close(s);
	close(fd);
	return !ret;
}

static int run_all(const char *group, const struct variant *variants, size_t n_variants)
{
	size_t most = n_variants * (ARRAY_LEN(cases) + 1) + 1, n = 0;
	struct run *runs = calloc(most, sizeof(*runs));
	struct CMUnitTest *tests = calloc(most, sizeof(*tests));
	int ret;

	for (size_t i = 0; i < n_variants; i++) {
		const struct variant *v = &variants[i];
		bool there = is_there(v);

		for (size_t j = 0; j < (there ? ARRAY_LEN(cases) + 1 : 1); j++, n++) {
			runs[n].variant = v;
			snprintf(runs[n].name, sizeof(runs[n].name), "%s %s", v->name,
				 j ? cases[j - 1].name : "backend__is_there");
			tests[n] = (struct CMUnitTest){ runs[n].name,
							j ? cases[j - 1].run : backend__is_there,
							NULL, NULL, &runs[n] };
		}
	}
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(auto__says_why);
	ret = _cmocka_run_group_tests(group, tests, n, NULL, NULL);
	free(tests);
	free(runs);
	return ret;
}

int main(void)
{
	static const struct variant open_house[] = {
		{ "kernel", SESSION_KERNEL, BUFFER_KERNEL, AF_INET },
		{ "kernel ipv6", SESSION_KERNEL, BUFFER_KERNEL, AF_INET6 },
		{ "twin", SESSION_TWIN, BUFFER_MEMFD, AF_INET },
		{ "twin ipv6", SESSION_TWIN, BUFFER_MEMFD, AF_INET6 },
	};
	static const struct variant shut[] = {
		{ "twin recvmmsg", SESSION_TWIN, BUFFER_MEMFD, AF_INET },
		{ "twin recvmmsg ipv6", SESSION_TWIN, BUFFER_MEMFD, AF_INET6 },
	};
	int failed = run_all("session", open_house, ARRAY_LEN(open_house));

	if (!forbid_io_uring())
		failed += run_all("session without io_uring", shut, ARRAY_LEN(shut));
	return failed;
}
