// SPDX-License-Identifier: MIT
/*
 * Very many hostile datagrams: forged, replayed, truncated, out of range, stale and misdirected,
 * in random order and with random contents. No byte of any buffer may change, and each must be
 * counted under its reason. hostile_test [COUNT]; 100000 when it is not given.
 *
 * Genuine regions are bound meanwhile, some of their chunks have come, and one neighbour buffer
 * is bound by nobody. Over loopback, IPv4 and IPv6 in turn. A part of the datagrams is authentic
 * (replays aside): the sender may be the one that lies.
 */
#include <time.h>

#include <sodium.h>

#include "session.h"

enum { CHUNK = 1344, CHUNKS = 64, UNITS = 4, BYTES = CHUNK * CHUNKS, BATCH = 64 };
enum { SIZE = CHUNK + LSLM_WIRE_OVERHEAD };

/* In the order in which they are drawn. */
enum kind {
	NOISE, /* opcode DATA, then anything */
	FORGED,
	TRUNCATED,
	REPLAYED,
	WRONG_SESSION,
	WRONG_KEY,
	STALE,
	WRONG_SLOT,
	OUT_OF_RANGE,
	DUPLICATE,
	KINDS
};

static uint64_t state = 88172645463325252ULL;

/* Numbers that are the same in each run. */
static uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

struct attack {
	struct session s;
	uint32_t generation, old_generation;
	uint8_t packet[SIZE];
	uint8_t data[CHUNK];
	uint64_t want[LSLM_DROP_COUNT];
};

static void noise(struct attack *a, struct lslm_header *h)
{
	for (size_t i = 0; i < SIZE; i += 8) {
		const uint64_t x = draw();

		memcpy(a->packet + i, &x, 8);
	}
	a->packet[0] = LSLM_OP_DATA;
	/* Random words are no header of this version, but for one in 2^56. */
	a->packet[1] = LSLM_WIRE_VERSION + 1 + draw() % 254;
	a->want[LSLM_DROP_HEADER]++;
}

/* The header says all the right things, the tag does not. */
static void forge(struct attack *a, struct lslm_header *h)
{
	h->offset = (CHUNKS / 2 + draw() % (CHUNKS / 2)) * CHUNK;
	h->counter = a->s.counter + draw() % 1000;
	lslm_header_put(a->packet, h);
	a->packet[LSLM_WIRE_HEADER + draw() % (CHUNK + LSLM_WIRE_TAG)]++;
	a->want[LSLM_DROP_FORGED]++;
}

static void out_of_range(struct lslm_header *h)
{
	switch (draw() % 4) {
	case 0:
		h->offset = BYTES + draw() % 65536 * CHUNK;
		break;
	case 1:
		h->offset = draw() | 1ULL << 63;
		break;
	case 2:
		h->offset += 1 + draw() % (CHUNK - 1);
		break;
	default:
		h->offset += 1ULL << (32 + draw() % 31);
	}
}

/* Authentic, with one lie in it. */
static void lie(struct attack *a, struct lslm_header *h, enum kind kind)
{
	size_t size = CHUNK;

	h->counter = a->s.counter++;
	h->offset = (CHUNKS / 2 + draw() % (CHUNKS / 2)) * CHUNK;
	switch (kind) {
	case STALE:
		h->generation = draw() & 1 ? a->old_generation : (uint32_t)draw() | 1U << 31;
		a->want[LSLM_DROP_GENERATION]++;
		break;
	case WRONG_SLOT:
		h->slot = 2 + draw() % UINT32_MAX / 2;
		a->want[LSLM_DROP_SLOT]++;
		break;
	case OUT_OF_RANGE:
		out_of_range(h);
		a->want[LSLM_DROP_BOUNDS]++;
		break;
	default:
		h->offset = draw() % (CHUNKS / 2) * CHUNK;
		a->want[LSLM_DROP_DUPLICATE]++;
	}
	seal_packet(a->packet, h, a->data, size, a->s.secret);
}

static size_t make(struct attack *a, enum kind kind)
{
	struct lslm_header h = { .opcode = LSLM_OP_DATA,
				 .version = LSLM_WIRE_VERSION,
				 .session = a->s.number,
				 .counter = a->s.counter,
				 .slot = 1,
				 .generation = a->generation,
				 .offset = BYTES - CHUNK };

	switch (kind) {
	case NOISE:
		noise(a, &h);
		return SIZE;
	case FORGED:
		forge(a, &h);
		return SIZE;
	case TRUNCATED:
		lslm_header_put(a->packet, &h);
		a->want[LSLM_DROP_HEADER]++;
		return 1 + draw() % LSLM_WIRE_OVERHEAD;
	case REPLAYED:
		h.counter = draw() % (CHUNKS / 2);
		lslm_header_put(a->packet, &h);
		a->want[LSLM_DROP_REPLAY]++;
		return SIZE;
	case WRONG_SESSION:
		h.session += 1 + draw() % (UINT32_MAX - 1);
		lslm_header_put(a->packet, &h);
		a->want[LSLM_DROP_SESSION]++;
		return SIZE;
	case WRONG_KEY:
		h.key = 1 + draw() % 3;
		lslm_header_put(a->packet, &h);
		a->want[LSLM_DROP_KEY]++;
		return SIZE;
	default:
		lie(a, &h, kind);
		return SIZE;
	}
}

/* Send count of them, BATCH at a time: loopback's queue has room for so many. */
static bool send_all(struct attack *a, long count)
{
	for (long i = 0; i < count; i++) {
		const size_t size = make(a, draw() % KINDS);

		send_raw(&a->s, a->packet, size);
		if (i % BATCH == BATCH - 1 && !session_await(&a->s))
			return false;
	}
	return session_await(&a->s);
}

static void digest(uint8_t out[32], const void *p, size_t bytes)
{
	crypto_generichash(out, 32, p, bytes, NULL, 0);
}

static void check_counters(const struct attack *a, uint64_t genuine)
{
	const struct lslm_session_stats stats = session_stats(a->s.fd);
	static const char *const names[] = { "none",   "header",    "session", "key",
					     "replay", "forged",    "slot",    "generation",
					     "bounds", "duplicate", "memory" };
	uint64_t sum = 0;

	for (int i = 1; i < LSLM_DROP_COUNT; i++) {
		is(stats.out_drops[i], a->want[i], "each one of reason %s is counted", names[i]);
		sum += stats.out_drops[i];
	}
	is(stats.out_placed, genuine, "nothing more was placed");
	is(sum + genuine, a->s.sent, "none is missing");
	is(stats.out_passed, 0, "none was left to recv()");
}

static void attack(int dev, int family, long count)
{
	struct attack *a = calloc(1, sizeof(*a));
	const size_t bytes = BYTES + 8192;
	const int buffer = buf_create(dev, bytes, 0), neighbour = buf_create(dev, bytes, 0);
	uint8_t *p = buf_map(buffer, bytes, PROT_READ | PROT_WRITE), before[32], after[32];
	uint8_t *q = buf_map(neighbour, bytes, PROT_READ | PROT_WRITE), other[32];

	fill_pattern(p, bytes, 1);
	fill_pattern(q, bytes, 2);
	fill_pattern(a->data, CHUNK, 3);
	a->s = session_open(dev, family, 2, 64);
	a->old_generation = region_bind(a->s.fd, 1, buffer, 4096, CHUNK, UNITS, BYTES / UNITS);
	a->generation = region_bind(a->s.fd, 1, buffer, 4096, CHUNK, UNITS, BYTES / UNITS);
	for (int i = 0; i < CHUNKS / 2; i++)
		send_chunk(&a->s, 1, a->generation, i * CHUNK, a->data, CHUNK);
	digest(before, p, bytes);
	digest(other, q, bytes);

	ok(send_all(a, count), "%ld hostile datagrams over IPv%d", count,
	   family == AF_INET ? 4 : 6);
	digest(after, p, bytes);
	ok(!memcmp(before, after, 32), "the buffer has the digest it had");
	digest(after, q, bytes);
	ok(!memcmp(other, after, 32), "and so has its neighbour");
	check_counters(a, CHUNKS / 2);

	for (int i = CHUNKS / 2; i < CHUNKS; i++)
		send_chunk(&a->s, 1, a->generation, i * CHUNK, a->data, CHUNK);
	is(session_stats(a->s.fd).out_units, UNITS, "what is genuine is placed after all that");
	session_close(&a->s);
	munmap(p, bytes);
	munmap(q, bytes);
	close(buffer);
	close(neighbour);
	free(a);
}

int main(int argc, char **argv)
{
	const long count = argc > 1 ? atol(argv[1]) : 100000;
	const int dev = dev_open();

	attack(dev, AF_INET, count / 2);
	attack(dev, AF_INET6, count / 2);
	close(dev);
	return tap_done();
}
