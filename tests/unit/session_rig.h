/* SPDX-License-Identifier: MIT */
/*
 * What the tests of a session share: every backend over real sockets (the module's, the twin's with
 * io_uring, over IPv4 and IPv6, and the twin's without io_uring), a session with its buffer, and a
 * simulated sender that can say anything. After each hostile datagram the whole buffer is compared with
 * what should be in it, and every counter with what should be counted.
 */
#ifndef LSLM_TESTS_SESSION_RIG_H
#define LSLM_TESTS_SESSION_RIG_H

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/seal.h"
#include "net/session.h"
#include "unit/no_io_uring.h"
#include "unit/unit.h"

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

static inline const struct variant *variant_of(void **state)
{
	return ((struct run *)*state)->variant;
}

/* ---- a session and its sender ---- */

static inline int socket_on(int family, struct sockaddr_storage *at, socklen_t *size)
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

static inline void note_done(void *arg, const struct session_done *done)
{
	struct rig *r = arg;

	if (done->unit < UNITS)
		r->done_units |= 1u << done->unit;
	r->done_times++;
	r->last_done = *done;
}

static inline void note_control(void *arg, uint8_t *packet, size_t size)
{
	struct rig *r = arg;

	r->controls++;
	r->control_size = size;
	r->control_first = packet[0];
}

static inline void note_overflow(void *arg)
{
	((struct rig *)arg)->overflows++;
}

static const struct session_ops ops = {
	.control = note_control,
	.done = note_done,
	.overflow = note_overflow,
};

static inline struct session_region region_at(const struct rig *r, uint64_t base)
{
	return (struct session_region){
		.buffer = r->buffer,
		.base = base,
		.chunk = CHUNK,
		.n_units = UNITS,
		.unit_bytes = UNIT_BYTES,
	};
}

static inline void bind_slot(struct rig *r, uint32_t slot, uint32_t *generation)
{
	struct session_region region = region_at(r, BASE);

	assert_ok(session_bind(r->s, slot, &region, generation, &err), &err);
}

static inline void set_key(struct rig *r, uint32_t key, uint64_t max_packets, uint32_t lifetime_s)
{
	assert_ok(session_key(r->s, key, LSLM_CIPHER_CHACHA20POLY1305, r->secret, max_packets,
			      lifetime_s, &err),
		  &err);
}

/* A session with a key and a region in slot 0, and a socket to send to it. */
static inline struct rig *rig_open(void **state)
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

static inline void check_buffer(const struct rig *r)
{
	assert_int_equal(memcmp(buffer_ro_data(r->buffer), r->want, SIZE), 0);
}

static inline void rig_close(struct rig *r)
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
static inline void drain(struct rig *r)
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

static inline void settle(struct rig *r)
{
	drain(r);
	r->seen = r->stats;
}

static inline void send_bytes(struct rig *r, const void *data, size_t size)
{
	assert_int_equal(send(r->peer, data, size, 0), size);
	if (size && *(const uint8_t *)data != LSLM_OP_DATA)
		r->controls_sent++;
	else
		r->sent++;
	if ((r->sent + r->controls_sent) % WINDOW == 0 || size > 4096)
		drain(r);
}

static inline uint8_t byte_at(uint64_t offset, uint32_t salt)
{
	return (uint8_t)(offset * 131 + offset / 251 + salt);
}

static inline struct lslm_header header_for(const struct rig *r, uint64_t offset)
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

static inline void chunk_at(uint32_t chunk, uint64_t *offset, uint32_t *length)
{
	uint32_t within = chunk % UNIT_CHUNKS * CHUNK;

	*offset = (uint64_t)(chunk / UNIT_CHUNKS) * UNIT_BYTES + within;
	*length = UNIT_BYTES - within < CHUNK ? UNIT_BYTES - within : CHUNK;
}

/* A datagram as the header says, whose payload is byte_at() from its offset on. */
static inline size_t make(const struct rig *r, uint8_t *packet, const struct lslm_header *h,
			  size_t length, uint32_t salt)
{
	uint8_t payload[1 << 16];

	for (size_t i = 0; i < length; i++)
		payload[i] = byte_at(h->offset + i, salt);
	return seal_packet(packet, h, payload, length, r->secret);
}

static inline void send_as(struct rig *r, const struct lslm_header *h, size_t length, uint32_t salt)
{
	uint8_t packet[(1 << 16) + LSLM_WIRE_OVERHEAD];

	r->counter = h->counter + 1;
	send_bytes(r, packet, make(r, packet, h, length, salt));
}

/* A good datagram, and what it should do to the buffer. */
static inline void send_chunk(struct rig *r, uint32_t chunk, uint32_t salt)
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
static inline void expect_drops(struct rig *r, enum lslm_drop why, uint64_t n)
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

static inline uint32_t missing(struct rig *r)
{
	struct lslm_range ranges[CHUNKS];
	int n = session_missing(r->s, 0, r->generation, 0, ranges, CHUNKS);
	uint32_t sum = 0;

	assert_true(n >= 0);
	for (int i = 0; i < n; i++)
		sum += ranges[i].count;
	return sum;
}

/* ---- cases ---- */

struct rig_case {
	const char *name;
	CMUnitTestFunction run;
	enum {
		RIG_WHERE_IT_IS, /* for each variant that is there */
		RIG_EVERYWHERE, /* for each variant, absent ones too */
		RIG_ONCE, /* for no variant, after all others */
	} when;
};

#define RIG_CASE(f)   \
	{             \
#f, f \
	}

static inline bool rig_is_there(const struct variant *v)
{
	int fd = socket(v->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct session *s;
	int ret = session_open(&s, v->backend, v->buffers, fd, 1, NULL);

	if (!ret)
		session_close(s);
	close(fd);
	return !ret;
}

/* Is it one of those that LSLM_TEST_BACKENDS="kernel twin" says must be there? */
static inline bool rig_must_be_there(const struct variant *v)
{
	const char *must = getenv("LSLM_TEST_BACKENDS");

	return must && strstr(must, v->backend == SESSION_KERNEL ? "kernel" : "twin");
}

static inline int rig_run_variants(const char *group, const struct variant *variants,
				   size_t n_variants, const struct rig_case *cases, size_t n_cases)
{
	struct run *runs = calloc(n_variants * n_cases, sizeof(*runs));
	struct CMUnitTest *tests = calloc((n_variants + 1) * n_cases, sizeof(*tests));
	size_t n = 0, n_runs = 0;
	int failed = 0;

	for (size_t i = 0; i < n_variants; i++) {
		const struct variant *v = &variants[i];
		bool there = rig_is_there(v);

		failed += !there && rig_must_be_there(v);
		for (size_t j = 0; j < n_cases; j++) {
			struct run *r = &runs[n_runs];

			if (cases[j].when == RIG_ONCE ||
			    (cases[j].when == RIG_WHERE_IT_IS && !there))
				continue;
			r->variant = v;
			snprintf(r->name, sizeof(r->name), "%s %s", v->name, cases[j].name);
			tests[n++] = (struct CMUnitTest){ r->name, cases[j].run, NULL, NULL, r };
			n_runs++;
		}
	}
	for (size_t j = 0; j < n_cases; j++)
		if (cases[j].when == RIG_ONCE)
			tests[n++] = (struct CMUnitTest){ cases[j].name, cases[j].run };
	failed += _cmocka_run_group_tests(group, tests, n, NULL, NULL);
	free(tests);
	free(runs);
	return failed;
}

/* All variants; what main() returns. One that must be there and is not is a failure. */
static inline int rig_run(const char *name, const struct rig_case *cases, size_t n_cases)
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
	char without[80];
	int failed = rig_run_variants(name, open_house, ARRAY_LEN(open_house), cases, n_cases);

	snprintf(without, sizeof(without), "%s without io_uring", name);
	if (!forbid_io_uring())
		failed += rig_run_variants(without, shut, ARRAY_LEN(shut), cases, n_cases);
	return failed;
}

#endif
