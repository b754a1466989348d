// SPDX-License-Identifier: MIT
/*
 * What sessions do with datagrams: genuine ones land in their place and nowhere else, each other
 * one is counted under its reason and changes nothing. Over loopback, through the socket's hook.
 * Run as root with the module loaded; hostile_test.c sends many more.
 */
#include <netinet/udp.h>
#include <pthread.h>
#include <sys/uio.h>

#include "session.h"

enum { CHUNK = 512 };

static int dev;
static size_t page;

static int polled(const struct session *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1 ? p.revents : 0;
}

static uint64_t drops(const struct session *s, enum lslm_drop why)
{
	return session_stats(s->fd).out_drops[why];
}

/* Units of unequal lengths, and a buffer that the region begins in the middle of a page of. */
static const uint32_t units[] = { 2000, 512, 1, 70000 };
enum { N_UNITS = 4, LENGTH = 2000 + 512 + 1 + 70000, BASE = 5000 };

static int64_t bind_units(const struct session *s, int buffer, uint32_t chunk, const uint64_t *done)
{
	struct lslm_region_bind arg = { .size = sizeof(arg),
					.slot = 1,
					.buffer = buffer,
					.base = BASE,
					.chunk = chunk,
					.n_units = N_UNITS,
					.units = (uintptr_t)units,
					.done = (uintptr_t)done };
	int ret = call(s->fd, LSLM_REGION_BIND, &arg);

	return ret ? ret : (int64_t)arg.out_generation;
}

/* Send the whole of the region, unit by unit. */
static bool send_units(struct session *s, uint32_t generation, uint32_t chunk, const uint8_t *data)
{
	uint32_t start = 0;
	bool all = true;

	for (int i = 0; i < N_UNITS; i++) {
		for (uint32_t at = 0; at < units[i]; at += chunk) {
			const uint32_t left = units[i] - at;

			all &= send_chunk(s, 1, generation, start + at, data + start + at,
					  left < chunk ? left : chunk);
		}
		start += units[i];
	}
	return all;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	while (n && !*p)
		p++, n--;
	return !n;
}

static void check_ring(const struct session *s, uint32_t generation)
{
	int good = 0;

	is(s->ring->producer, N_UNITS, "one entry for each unit");
	for (uint32_t i = 0; i < N_UNITS; i++) {
		const volatile struct lslm_done *d = &s->entries[i];

		good += d->unit == i && d->slot == 1 && d->generation == generation && d->ns &&
			d->flags == (i == N_UNITS - 1 ? LSLM_DONE_REGION : 0);
	}
	is(good, N_UNITS, "which says which it was, and whether it was the last");
	is(s->ring->sequence % 2, 0, "the ring's figures are whole");
	is(s->ring->placed_bytes, LENGTH, "placed bytes");
	is(s->ring->received, s->sent, "received datagrams");
	is(s->ring->last_counter, s->counter - 1, "the highest counter");
	ok(s->ring->last_ns > 0, "and when it came");
}

/* chunk: of the datagrams, up to the largest that there can be. */
static void test_place(int family, uint32_t flags, uint32_t chunk, const char *name)
{
	struct session s = session_open(dev, family, 2, 64);
	const size_t bytes = 4 << 20;
	const int buffer = buf_create(dev, bytes, flags);
	uint8_t *p = buf_map(buffer, bytes, PROT_READ);
	static uint8_t data[LENGTH];
	const int64_t g = bind_units(&s, buffer, chunk, NULL);
	struct lslm_session_stats stats;

	if (!ok(buffer >= 0 && p && g > 0, "%s: a bound region", name))
		return;
	fill_pattern(data, LENGTH, chunk);
	is(polled(&s), 0, "nothing to poll for");
	ok(send_units(&s, g, chunk, data), "%s: every datagram is seen", name);
	ok(!memcmp(p + BASE, data, LENGTH), "%s: the bytes are where they belong", name);
	ok(all_zero(p, BASE) && all_zero(p + BASE + LENGTH, bytes - BASE - LENGTH),
	   "%s: and nowhere else", name);
	is(polled(&s), POLLIN, "poll() says so");
	check_ring(&s, g);
	s.consumer->position = N_UNITS;
	is(polled(&s), 0, "until the entries are taken");
	stats = session_stats(s.fd);
	is(stats.out_placed, s.sent, "each was placed");
	is(stats.out_by_encap, s.sent, "by the socket");
	is(stats.out_placed_bytes, LENGTH, "and so many bytes");
	is(stats.out_units, N_UNITS, "in so many units");
	munmap(p, bytes);
	session_close(&s);
	close(buffer);
}

/* An IPv6 socket that takes IPv4 too. */
static void test_mapped_address(void)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	struct sockaddr_in four = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(any);
	struct session s = { .ring_entries = 64, .socket = socket(AF_INET6, SOCK_DGRAM, 0) };
	uint8_t data[CHUNK] = { 3 };

	if (bind(s.socket, (void *)&any, sizeof(any)) ||
	    getsockname(s.socket, (void *)&any, &length))
		bail("bind");
	s.sender = socket(AF_INET, SOCK_DGRAM, 0);
	four.sin_port = any.sin6_port;
	if (connect(s.sender, (void *)&four, sizeof(four)))
		bail("connect");
	s.fd = session_create(dev, s.socket, 2, 64, &s.number);
	session_map(&s);
	ok(send_chunk(&s, 0, 1, 0, data, CHUNK), "IPv4 to an IPv6 socket reaches its session");
	is(drops(&s, LSLM_DROP_KEY), 1, "which has no key");
	session_close(&s);
}

/* One send() of many datagrams, as a sender on the same machine makes them. */
static void test_batch(void)
{
	enum { N = 8, SIZE = CHUNK + LSLM_WIRE_OVERHEAD };
	struct session s = session_open(dev, AF_INET, 1, 64);
	const int buffer = buf_create(dev, N * CHUNK, 0), segment = SIZE, on = 1;
	const int64_t g = region_bind(s.fd, 0, buffer, 0, CHUNK, 1, N * CHUNK);
	uint8_t *p = buf_map(buffer, N * CHUNK, PROT_READ), data[N * CHUNK], batch[N * SIZE];

	fill_pattern(data, sizeof(data), 5);
	for (int i = 0; i < N; i++) {
		const struct lslm_header h = next_header(&s, 0, g, i * CHUNK);

		seal_packet(batch + i * SIZE, &h, data + i * CHUNK, CHUNK, s.secret);
	}
	if (setsockopt(s.socket, SOL_UDP, UDP_GRO, &on, sizeof(on)) ||
	    setsockopt(s.sender, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)))
		bail("UDP_SEGMENT");
	is(send(s.sender, batch, sizeof(batch), 0), sizeof(batch), "many datagrams in one send()");
	s.sent = N;
	ok(session_await(&s), "are seen one by one");
	ok(!memcmp(p, data, sizeof(data)), "and placed");
	munmap(p, N * CHUNK);
	session_close(&s);
	close(buffer);
}

static void test_control_passes(void)
{
	struct session s = session_open(dev, AF_INET6, 1, 64);
	uint8_t packet[100] = { LSLM_OP_PROBE, LSLM_WIRE_VERSION }, got[128];

	for (int i = 0; i < 4; i++) {
		static const uint8_t opcodes[] = { LSLM_OP_PROBE, LSLM_OP_REPORT, 0, 255 };

		packet[0] = opcodes[i];
		send(s.sender, packet, sizeof(packet), 0);
		ok(receive(s.socket, got, sizeof(got)) == sizeof(packet) &&
			   !memcmp(got, packet, sizeof(packet)),
		   "opcode %u reaches recv() as it was sent", opcodes[i]);
	}
	is(send(s.sender, packet, 0, 0), 0, "an empty datagram");
	is(receive(s.socket, got, sizeof(got)), 0, "reaches recv() too");
	is(session_stats(s.fd).out_passed, 5, "they are counted");
	is(session_stats(s.fd).out_by_encap, 0, "as no data");
	session_close(&s);
}

/* What is wrong with a datagram, and what it has to be counted as. */
struct fault {
	const char *name;
	enum lslm_drop why;
	void (*spoil)(struct lslm_header *h, size_t *size);
};

static void another_version(struct lslm_header *h, size_t *size)
{
	h->version++;
}

static void with_flags(struct lslm_header *h, size_t *size)
{
	h->flags = 1;
}

static void no_such_key(struct lslm_header *h, size_t *size)
{
	h->key = 4;
}

static void control_counter(struct lslm_header *h, size_t *size)
{
	h->counter |= LSLM_COUNTER_CONTROL;
}

static void another_session(struct lslm_header *h, size_t *size)
{
	h->session ^= 1;
}

static void unset_key(struct lslm_header *h, size_t *size)
{
	h->key = 3;
}

static void same_counter(struct lslm_header *h, size_t *size)
{
	h->counter = 0;
}

static void high_slot(struct lslm_header *h, size_t *size)
{
	h->slot = UINT32_MAX;
}

static void empty_slot(struct lslm_header *h, size_t *size)
{
	h->slot = 0;
}

static void old_generation(struct lslm_header *h, size_t *size)
{
	h->generation--;
}

static void new_generation(struct lslm_header *h, size_t *size)
{
	h->generation++;
}

static void behind_region(struct lslm_header *h, size_t *size)
{
	h->offset = LENGTH;
}

static void far_behind(struct lslm_header *h, size_t *size)
{
	h->offset = UINT64_MAX - 100;
}

static void beyond_32_bits(struct lslm_header *h, size_t *size)
{
	h->offset += 1ULL << 32;
}

static void not_at_a_chunk(struct lslm_header *h, size_t *size)
{
	h->offset = 64;
}

static void too_short(struct lslm_header *h, size_t *size)
{
	*size = CHUNK - 1;
}

static void over_two_units(struct lslm_header *h, size_t *size)
{
	h->offset = 3 * CHUNK; /* the first unit ends there after 464 bytes */
}

static const struct fault faults[] = {
	{ "another version", LSLM_DROP_HEADER, another_version },
	{ "flags", LSLM_DROP_HEADER, with_flags },
	{ "key 4", LSLM_DROP_HEADER, no_such_key },
	{ "a control counter", LSLM_DROP_HEADER, control_counter },
	{ "another session", LSLM_DROP_SESSION, another_session },
	{ "a key that is not set", LSLM_DROP_KEY, unset_key },
	{ "a counter once more", LSLM_DROP_REPLAY, same_counter },
	{ "a slot that is not there", LSLM_DROP_SLOT, high_slot },
	{ "a slot never bound", LSLM_DROP_SLOT, empty_slot },
	{ "an older generation", LSLM_DROP_GENERATION, old_generation },
	{ "a later generation", LSLM_DROP_GENERATION, new_generation },
	{ "behind the region", LSLM_DROP_BOUNDS, behind_region },
	{ "far behind the region", LSLM_DROP_BOUNDS, far_behind },
	{ "an offset of more than 32 bits", LSLM_DROP_BOUNDS, beyond_32_bits },
	{ "not at a chunk", LSLM_DROP_BOUNDS, not_at_a_chunk },
	{ "shorter than its chunk", LSLM_DROP_BOUNDS, too_short },
	{ "across two units", LSLM_DROP_BOUNDS, over_two_units },
};

/* A datagram of the first chunk with one thing wrong, and nothing else. */
static void test_fault(struct session *s, int64_t g, const struct fault *f, const uint8_t *data)
{
	struct lslm_header h = next_header(s, 1, g, 0);
	const uint64_t before = drops(s, f->why);
	size_t size = CHUNK;

	f->spoil(&h, &size);
	ok(send_sealed(s, &h, data, size) && drops(s, f->why) == before + 1, "%s is counted",
	   f->name);
}

static void test_forged(struct session *s, int64_t g, const uint8_t *data)
{
	static const int at[] = { 16,
				  20,
				  24,
				  LSLM_WIRE_HEADER,
				  CHUNK / 2,
				  CHUNK + LSLM_WIRE_HEADER,
				  CHUNK + LSLM_WIRE_OVERHEAD - 1 };
	const int n = sizeof(at) / sizeof(*at);
	const uint64_t before = drops(s, LSLM_DROP_FORGED);
	uint8_t packet[CHUNK + LSLM_WIRE_OVERHEAD], secret[32] = { 9 };
	struct lslm_header h = next_header(s, 1, g, 0);

	for (int i = 0; i < n; i++) {
		seal_packet(packet, &h, data, CHUNK, s->secret);
		packet[at[i]] ^= 0x10;
		send_raw(s, packet, sizeof(packet));
	}
	seal_packet(packet, &h, data, CHUNK, secret);
	send_raw(s, packet, sizeof(packet));
	session_await(s);
	is(drops(s, LSLM_DROP_FORGED), before + n + 1, "a changed bit anywhere, or another key");
	/* None of them may have used up the counter. */
	send_sealed(s, &h, data, CHUNK);
	is(session_stats(s->fd).out_placed, 2, "the genuine one is placed after that");
}

static void test_sizes(struct session *s)
{
	static uint8_t packet[LSLM_CHUNK_MAX + LSLM_WIRE_OVERHEAD + 64];
	const struct lslm_header h = next_header(s, 1, 1, 0);
	const uint64_t before = drops(s, LSLM_DROP_HEADER);

	lslm_header_put(packet, &h);
	send_raw(s, packet, 1);
	send_raw(s, packet, LSLM_WIRE_HEADER);
	send_raw(s, packet, LSLM_WIRE_OVERHEAD);
	send_raw(s, packet, 65507 < sizeof(packet) ? 65507 : sizeof(packet));
	session_await(s);
	is(drops(s, LSLM_DROP_HEADER), before + 4, "DATA too short or too long");
}

static void test_drops(void)
{
	struct session s = session_open(dev, AF_INET, 2, 64);
	const size_t bytes = 128 << 10;
	const int buffer = buf_create(dev, bytes, 0);
	uint8_t *p = buf_map(buffer, bytes, PROT_READ), data[CHUNK];
	const int64_t old = bind_units(&s, buffer, CHUNK, NULL),
		      g = bind_units(&s, buffer, CHUNK, NULL);
	uint64_t sum = 0;

	memset(data, 0xaa, sizeof(data));
	ok(old > 0 && g > old, "a region bound twice");
	/* The counter 0 is used, and a chunk is there, which nothing later may touch. */
	send_chunk(&s, 1, g, CHUNK, data, CHUNK);
	for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++)
		test_fault(&s, g, &faults[i], data);
	test_sizes(&s);
	ok(all_zero(p, BASE + CHUNK) && all_zero(p + BASE + 2 * CHUNK, bytes - BASE - 2 * CHUNK),
	   "none of them has changed anything");
	test_forged(&s, g, data);
	send_chunk(&s, 1, g, 0, data, CHUNK);
	is(drops(&s, LSLM_DROP_DUPLICATE), 1, "a chunk that has come already");
	region_unbind(s.fd, 1);
	send_chunk(&s, 1, g, 2 * CHUNK, data, CHUNK);
	send_chunk(&s, 1, g + 1, 2 * CHUNK, data, CHUNK);
	is(drops(&s, LSLM_DROP_GENERATION), 4, "too late for a region that is unbound");
	for (int i = 1; i < LSLM_DROP_COUNT; i++)
		sum += drops(&s, i);
	is(sum + session_stats(s.fd).out_placed, s.sent, "every datagram is counted exactly once");
	munmap(p, bytes);
	session_close(&s);
	close(buffer);
}

static void test_done_units(void)
{
	struct session s = session_open(dev, AF_INET, 2, 64);
	const int buffer = buf_create(dev, 128 << 10, 0);
	uint8_t *p = buf_map(buffer, 128 << 10, PROT_READ);
	static uint8_t data[LENGTH];
	const uint64_t done = 1 << 0 | 1 << 3 | 1 << 5;
	const int64_t g = bind_units(&s, buffer, CHUNK, &done);
	struct lslm_range r[4];
	uint32_t missing = 0;

	memset(data, 0x55, sizeof(data));
	is(region_missing(s.fd, 1, g, 0, r, 4, &missing), 1, "what is done is not missing");
	ok(r[0].first == 4 && r[0].count == 2 && missing == 2, "but what is between it");
	send_units(&s, g, CHUNK, data);
	is(session_stats(s.fd).out_placed, 2, "only that is placed");
	ok(all_zero(p, BASE + 2000) && all_zero(p + BASE + 2513, 70000),
	   "and nothing else touched");
	is(s.entries[1].flags, LSLM_DONE_REGION, "the last missing unit completes the region");
	munmap(p, 128 << 10);
	session_close(&s);
	close(buffer);
}

static void test_keys(void)
{
	struct session s = session_open(dev, AF_INET, 1, 64);
	const uint32_t cipher = LSLM_CIPHER_CHACHA20POLY1305;
	const int buffer = buf_create(dev, page, 0);
	const int64_t g = region_bind(s.fd, 0, buffer, 0, 256, 1, page);
	uint8_t data[256] = { 1 };
	struct lslm_header h;

	send_chunk(&s, 0, g, 0, data, 256);
	session_key(s.fd, 1, cipher, s.secret, 1ULL << 48, 3600);
	h = next_header(&s, 0, g, 256);
	h.key = 1;
	send_sealed(&s, &h, data, 256);
	is(session_stats(s.fd).out_placed, 2, "two keys at once");
	h.key = 0;
	h.offset = 512;
	send_sealed(&s, &h, data, 256);
	is(session_stats(s.fd).out_placed, 3, "with counters of their own");
	session_key(s.fd, 0, LSLM_CIPHER_NONE, NULL, 0, 0);
	send_chunk(&s, 0, g, 768, data, 256);
	is(drops(&s, LSLM_DROP_KEY), 1, "a key that was removed");
	session_key(s.fd, 0, cipher, s.secret, s.counter + 1, 3600);
	send_chunk(&s, 0, g, 768, data, 256);
	send_chunk(&s, 0, g, 1024, data, 256);
	is(session_stats(s.fd).out_placed, 4, "a key takes its last counter");
	is(drops(&s, LSLM_DROP_KEY), 2, "and no more");
	session_key(s.fd, 0, cipher, s.secret, 1ULL << 48, 1);
	usleep(1100000);
	send_chunk(&s, 0, g, 1024, data, 256);
	is(drops(&s, LSLM_DROP_KEY), 3, "a key that has expired");
	session_close(&s);
	close(buffer);
}

static void test_overflow(void)
{
	enum { UNITS = 100 };
	struct session s = session_open(dev, AF_INET, 1, 64);
	const int buffer = buf_create(dev, UNITS * 256, 0);
	int64_t g = region_bind(s.fd, 0, buffer, 0, 256, UNITS, 256);
	uint8_t data[256] = { 1 };

	for (int i = 0; i < 80; i++)
		send_chunk(&s, 0, g, i * 256, data, 256);
	is(s.ring->producer, 64, "a full ring takes no more entries");
	is(s.ring->overflows, 16, "and counts those that are lost");
	is(session_stats(s.fd).out_units, 80, "nothing but the entry is lost");
	is(session_stats(s.fd).out_overflows, 16, "the statistics say so too");
	s.consumer->position = 10;
	send_chunk(&s, 0, g, 80 * 256, data, 256);
	is(s.ring->producer, 65, "entries are written again when there is room");
	is(s.entries[0].unit, 80, "where the first one was");
	is(polled(&s), POLLIN, "there are entries");
	/* Nonsense from the consumer must do no harm. */
	s.consumer->position = 1 << 20;
	send_chunk(&s, 0, g, 81 * 256, data, 256);
	s.consumer->position = UINT64_MAX - 5;
	send_chunk(&s, 0, g, 82 * 256, data, 256);
	is(s.ring->producer, 65, "an impossible position counts as full");
	is(session_stats(s.fd).out_placed, 83, "and data is placed all the same");
	s.consumer->position = 65;
	send_chunk(&s, 0, g, 83 * 256, data, 256);
	is(s.ring->producer, 66, "a sensible one is believed again");
	session_close(&s);
	close(buffer);
}

static void *wait_in_poll(void *arg)
{
	const struct session *s = arg;
	struct pollfd p = { .fd = s->fd, .events = POLLIN };

	return (void *)(intptr_t)(poll(&p, 1, 60000) == 1 && p.revents == POLLIN);
}

static void test_wakes(void)
{
	struct session s = session_open(dev, AF_INET, 1, 64);
	const int buffer = buf_create(dev, page, 0);
	const int64_t g = region_bind(s.fd, 0, buffer, 0, 256, 16, 256);
	uint8_t data[256] = { 1 };
	pthread_t thread;
	void *woken = NULL;

	if (pthread_create(&thread, NULL, wait_in_poll, &s))
		bail("pthread_create");
	usleep(20000);
	send_chunk(&s, 0, g, 0, data, 256);
	pthread_join(thread, &woken);
	ok(woken, "poll() wakes when a unit is complete");
	session_close(&s);
	close(buffer);
}

static bool trace_has(const char *text)
{
	char line[512];
	bool found = false;
	FILE *f = fopen("/sys/kernel/tracing/trace", "r");

	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, text);
	if (f)
		fclose(f);
	return found;
}

static void test_trace(void)
{
	static const char *const want[] = {
		"session_create: session=", "region_bind: session=",	 "via=encap",
		"reason=duplicate",	    "unit_done: session=",	 "region_done: session=",
		"region_unbind: session=",  "session_destroy: session=",
	};
	const int buffer = buf_create(dev, page, 0);
	uint8_t data[256] = { 1 };
	struct session s;
	int64_t g;

	write_text("/sys/kernel/tracing/trace", "");
	write_text("/sys/kernel/tracing/events/lslm/enable", "1");
	s = session_open(dev, AF_INET, 1, 64);
	g = region_bind(s.fd, 0, buffer, 0, 256, 1, 256);
	send_chunk(&s, 0, g, 0, data, 256);
	send_chunk(&s, 0, g, 0, data, 256);
	region_unbind(s.fd, 0);
	session_close(&s);
	write_text("/sys/kernel/tracing/events/lslm/enable", "0");
	for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++)
		ok(trace_has(want[i]), "trace: %s", want[i]);
	close(buffer);
}

int main(void)
{
	page = sysconf(_SC_PAGESIZE);
	dev = dev_open();
	test_place(AF_INET, 0, CHUNK, "IPv4");
	test_place(AF_INET6, 0, 1344, "IPv6");
	test_place(AF_INET, 0, LSLM_CHUNK_MAX, "the largest datagrams");
	if (dev_has(dev, LSLM_FEATURE_HUGE))
		test_place(AF_INET6, LSLM_BUF_HUGE, 8896, "2 MiB pages");
	else
		skip("GET_INFO says that huge pages are off", "2 MiB pages");
	test_mapped_address();
	test_batch();
	test_control_passes();
	test_drops();
	test_done_units();
	test_keys();
	test_overflow();
	test_wakes();
	test_trace();
	close(dev);
	return tap_done();
}
