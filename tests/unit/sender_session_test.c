// SPDX-License-Identifier: MIT
/*
 * A session of the cloud against an edge written from the specification (tests/placement.h), without
 * sockets: time is simulated, and what the link does to each datagram is decided here.
 */
#include "unit.h"

#include <fcntl.h>
#include <unistd.h>

#include "net/sender_session.h"
#include "placement.h"
#include "synthetic.h"

#define MS     1000000ULL
#define SECOND (1000 * MS)

enum {
	EDGE = 77, /* its session number; the cloud's is 1000 */
	DELAY_MS = 10, /* each way */
	REPORT_EVERY_MS = 5,
	IN_FLIGHT = 1 << 14,
};

struct packet {
	uint64_t due;
	bool to_cloud;
	size_t size;
	uint8_t *data;
};

static struct {
	struct synthetic shape;
	struct lskv *file;
	struct sender_limits limits;
	struct sender_stats stats;
	struct sender_session *s;
	struct placement edge;
	struct dgram_endpoint from;
	struct sender_pair pair;
	struct dgram_out out;
	uint64_t now;
	/* The link. */
	struct packet wire[IN_FLIGHT];
	uint32_t head, tail;
	uint64_t random;
	double loss;
	uint32_t mtu; /* UDP payload; 0: any */
	uint64_t lost;
	bool silent; /* the edge reports nothing */
} x;

static char dir[] = "/tmp/lslm-session-XXXXXX";
static char path[64];

static int setup(void **state)
{
	if (sodium_init() < 0 || !mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/context.lskv", dir);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static struct dgram_endpoint host(uint8_t last, uint16_t port)
{
	struct dgram_endpoint e = { 0 };

	e.peer.v4 = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(0x0a000000u | last),
	};
	return e;
}

static void next_pair(void)
{
	uint64_t wait;

	assert_int_equal(sender_session_pair(x.s, &x.pair, x.now, &wait), 0);
	placement_key(&x.edge, x.pair.key, x.pair.to_edge, x.pair.to_cloud, x.pair.max_packets);
}

/* granted_to: the host that asked; 0: not known. */
static void begin_as(const struct synthetic *shape, uint8_t granted_to)
{
	const struct kv_geometry geo = { shape->n_layer, shape->n_head_kv, shape->head_dim };
	struct dgram_endpoint granted = host(granted_to, 0);
	struct lslm_error err = { 0 };
	struct kv_hash key;

	memset(&x, 0, sizeof(x));
	x.shape = *shape;
	x.random = 1;
	x.now = 100 * SECOND;
	x.from = host(1, 5000);
	x.limits = (struct sender_limits){ 1ULL << 32, 3600, 10 * SECOND, 60 * SECOND };
	assert_ok(synthetic_write(shape, path, &key, &err), &err);
	assert_ok(lskv_open(&x.file, path, &err), &err);
	x.s = calloc(1, sizeof(*x.s));
	sender_session_init(x.s, x.file, EDGE, granted_to ? &granted.peer.any : NULL, &x.limits,
			    &x.stats, x.now);
	placement_init(&x.edge, &geo, shape->n_tokens / KV_BLOCK_TOKENS, EDGE);
	x.edge.cloud = 1000;
	next_pair();
}

static void begin(void)
{
	static const struct synthetic shape = {
		.n_layer = 3, .n_head_kv = 2, .head_dim = 64, .n_tokens = 64 * 5
	};

	begin_as(&shape, 1);
}

static void end(void)
{
	for (; x.head != x.tail; x.head++)
		free(x.wire[x.head % IN_FLIGHT].data);
	sender_session_fini(x.s);
	free(x.s);
	placement_free(&x.edge);
	lskv_close(x.file);
}

/* ---- what the edge sends, delivered at once ---- */

static enum sender_drop deliver(uint8_t *packet, size_t size)
{
	struct lslm_header h;

	lslm_header_get(&h, packet);
	return sender_session_receive(x.s, &h, packet, size, &x.from, x.now);
}

static enum sender_drop hello(uint32_t largest)
{
	uint8_t packet[2048];

	return deliver(packet, placement_hello(&x.edge, packet, largest));
}

static enum sender_drop report(bool ask)
{
	uint8_t packet[2048];

	return deliver(packet, placement_report(&x.edge, packet, x.now, ask, 0));
}

/* A REPORT of any contents. */
static enum sender_drop report_raw(const uint8_t *payload, size_t size)
{
	struct lslm_header h = placement_header(&x.edge, LSLM_OP_REPORT, ++x.edge.report);
	uint8_t packet[4096];

	return deliver(packet, seal_packet(packet, &h, payload, size, x.edge.to_cloud[x.edge.key]));
}

/* What the cloud sends now; the edge takes it at once. Returns how many DATA. */
static uint32_t take_now(void)
{
	uint64_t before = x.stats.sent;
	uint32_t n = 0;
	size_t at;

	do {
		sender_session_send(x.s, &x.out, x.now);
		n = x.out.n;
		at = 0;
		for (uint32_t i = 0; i < x.out.n; at += x.out.sizes[i++])
			placement_take(&x.edge, x.out.data + at, x.out.sizes[i], x.now);
		x.out.n = 0;
		x.out.used = 0;
	} while (n);
	return (uint32_t)(x.stats.sent - before);
}

/* ---- a link ---- */

static double draw(void)
{
	x.random = x.random * 6364136223846793005ULL + 1442695040888963407ULL;
	return (double)(x.random >> 11) * 0x1p-53;
}

static void put(const uint8_t *data, size_t size, bool to_cloud)
{
	struct packet *p = &x.wire[x.tail++ % IN_FLIGHT];

	assert_true(x.tail - x.head < IN_FLIGHT);
	*p = (struct packet){ x.now + DELAY_MS * MS, to_cloud, size, malloc(size) };
	memcpy(p->data, data, size);
}

static void link_deliver(void)
{
	for (; x.head != x.tail && x.wire[x.head % IN_FLIGHT].due <= x.now; x.head++) {
		struct packet *p = &x.wire[x.head % IN_FLIGHT];

		if (p->to_cloud)
			assert_int_equal(deliver(p->data, p->size), SENDER_DROP_NONE);
		else
			placement_take(&x.edge, p->data, p->size, x.now);
		free(p->data);
	}
}

static void link_send(void)
{
	size_t at;

	do {
		sender_session_send(x.s, &x.out, x.now);
		at = 0;
		for (uint32_t i = 0; i < x.out.n; at += x.out.sizes[i++]) {
			if (x.mtu && x.out.sizes[i] > x.mtu)
				continue;
			if (draw() < x.loss)
				x.lost++;
			else
				put(x.out.data + at, x.out.sizes[i], false);
		}
		x.out.n = 0;
		x.out.used = 0;
	} while (at);
}

static void run_ms(uint32_t ms)
{
	uint8_t packet[2048];

	for (uint32_t i = 0; i < ms; i++, x.now += MS) {
		link_deliver();
		if (!x.silent && (x.now / MS) % REPORT_EVERY_MS == 0)
			put(packet, placement_report(&x.edge, packet, x.now, x.edge.chunk, 0),
			    true);
		link_send();
	}
}

static void run_to_end(void)
{
	for (int i = 0; i < 1000 && placement_missing(&x.edge); i++)
		run_ms(100);
	assert_int_equal(placement_missing(&x.edge), 0);
}

static void check_contents(void)
{
	size_t size = (size_t)x.edge.unit_bytes * x.edge.n_units;
	uint8_t *want = malloc(size);

	for (uint32_t s = 0; s < x.edge.rx.n_slots; s++) {
		synthetic_stripe(&x.shape, s, want);
		assert_memory_equal(x.edge.memory[s], want, size);
	}
	free(want);
}

/* ---- cases ---- */

static void session__whole_context_arrives(void **state)
{
	static const struct synthetic shapes[] = {
		{ .n_layer = 3, .n_head_kv = 2, .head_dim = 64, .n_tokens = 64 * 5 + 3 },
		{ .n_layer = 2, .n_head_kv = 1, .head_dim = 4, .n_tokens = 64 * 3 },
		{ .n_layer = 7, .n_head_kv = 3, .head_dim = 48, .n_tokens = 64 * 2 },
	};
	static const uint32_t chunks[] = { 256, 1152, 1344, 8896, LSLM_CHUNK_MAX };

	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		for (size_t j = 0; j < ARRAY_LEN(chunks); j++) {
			uint64_t n;

			begin_as(&shapes[i], 1);
			assert_int_equal(placement_bind(&x.edge, chunks[j]), 0);
			n = placement_missing(&x.edge);
			run_to_end();
			check_contents();
			/* Each of them once. */
			assert_int_equal(x.stats.sent, n);
			assert_int_equal(x.stats.again, 0);
			assert_int_equal(x.edge.rx.received, n);
			end();
		}
	}
}

/* With a fixed delay and no reordering, what is sent again are the lost ones and no others. */
static void session__only_lost_ones_are_sent_again(void **state)
{
	static const double losses[] = { 0.01, 0.05, 0.2, 0.5 };

	for (size_t i = 0; i < ARRAY_LEN(losses); i++) {
		uint64_t n;

		begin();
		placement_bind(&x.edge, 1152);
		n = placement_missing(&x.edge);
		x.loss = losses[i];
		run_to_end();
		check_contents();
		print_message("# %g: %lu chunks, %lu lost, %lu again\n", losses[i], n, x.lost,
			      x.stats.again);
		assert_true(x.lost > 0);
		assert_int_equal(x.stats.again, x.lost);
		assert_int_equal(x.stats.sent, n + x.lost);
		assert_int_equal(x.edge.rx.drops[LSLM_DROP_DUPLICATE], 0);
		end();
	}
}

/* Stripe 3 is wanted before stripe 1, and of it the second half first. */
static void session__order_is_that_of_the_wants(void **state)
{
	static const struct lslm_range late[] = { { 8, 4 } }, early[] = { { 1, 2 }, { 5, 1 } };
	static const uint32_t want[][2] = { { 3, 8 }, { 3, 9 }, { 3, 10 }, { 3, 11 },
					    { 1, 1 }, { 1, 2 }, { 1, 5 } };
	uint8_t payload[REPORT_ROOM];
	struct report_writer w;
	struct report r = { .highest = REPORT_NONE, .credit = 1 << 20, .chunk = 4096 };
	struct report_want a, b;

	begin();
	placement_bind(&x.edge, 4096);
	a = (struct report_want){ .slot = 3, .generation = 1, .stripe = 3 };
	b = (struct report_want){ .slot = 1, .generation = 1, .stripe = 1 };
	report_begin(&w, payload, sizeof(payload), &r);
	report_add(&w, &a, late, 1);
	report_add(&w, &b, early, 2);
	assert_int_equal(report_raw(payload, report_end(&w)), SENDER_DROP_NONE);
	sender_session_send(x.s, &x.out, x.now);
	assert_int_equal(x.out.n, ARRAY_LEN(want));
	for (uint32_t i = 0; i < x.out.n; i++) {
		/* 4096 and the header; no block has a shorter end here. */
		placement_take(&x.edge, x.out.data + i * (4096 + LSLM_WIRE_OVERHEAD),
			       4096 + LSLM_WIRE_OVERHEAD, x.now);
		assert_int_equal(x.edge.last_data, i);
		assert_int_equal(x.edge.last_slot, want[i][0]);
		assert_int_equal(x.edge.last_chunk, want[i][1]);
	}
	end();
}

/* Nothing but what was paid for, until a REPORT; and nothing at all to a stranger. */
static void session__amplification(void **state)
{
	uint64_t got = 0, sent = 0;

	/* Granted to another host than the one that speaks. */
	begin_as(&(struct synthetic){ 1, 1, 64, 64, 0, 0 }, 9);
	for (int i = 0; i < 60; i++) {
		assert_int_equal(hello(8952), SENDER_DROP_NONE);
		got += HELLO_BYTES + LSLM_WIRE_OVERHEAD;
		x.now += 100 * MS;
		sender_session_send(x.s, &x.out, x.now);
		sent += x.out.used;
		x.out.n = 0;
		x.out.used = 0;
		assert_true(sent <= 3 * got);
		/* It does not ask to be called for what it may not do. */
		assert_true(sender_session_due(x.s, x.now) > x.now);
	}
	assert_true(sent >= 1200);
	assert_int_equal(report(false), SENDER_DROP_NONE);
	assert_int_equal(hello(8952), SENDER_DROP_NONE);
	x.now += 100 * MS;
	take_now();
	assert_int_equal(x.edge.probes, 8);
	end();
}

static void session__probes(void **state)
{
	static const struct {
		uint32_t largest, probes, size;
	} cases[] = {
		{ 0, 0, 0 },	   { 1199, 0, 0 },    { 1200, 1, 1200 }, { 1399, 3, 1352 },
		{ 1472, 6, 1472 }, { 4095, 6, 1472 }, { 9000, 8, 8952 }, { UINT32_MAX, 8, 8952 },
	};

	begin();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		x.edge.probes = x.edge.probe_size = 0;
		assert_int_equal(hello(cases[i].largest), SENDER_DROP_NONE);
		x.now += 100 * MS;
		take_now();
		assert_int_equal(x.edge.probes, cases[i].probes);
		assert_int_equal(x.edge.probe_size, cases[i].size);
		if (cases[i].probes)
			assert_int_equal(x.edge.probe, x.edge.hello);
		/* Once. */
		x.now += 100 * MS;
		take_now();
		assert_int_equal(x.edge.probes, cases[i].probes);
	}
	assert_int_equal(x.stats.probes, 32);
	/* Many HELLOs in a moment are one. */
	for (int i = 0; i < 100; i++)
		hello(8952);
	take_now();
	x.now += 19 * MS;
	hello(8952);
	take_now();
	assert_int_equal(x.stats.probes, 40);
	end();
}

/* The path gets narrower: what was bound with large chunks never comes, with small ones it does. */
static void session__smaller_chunks(void **state)
{
	begin();
	placement_bind(&x.edge, 1408);
	run_ms(30);
	assert_true(x.edge.rx.received > 0);
	x.mtu = 1300;
	run_ms(2000);
	assert_true(placement_missing(&x.edge) > 0);
	placement_bind(&x.edge, 1216);
	x.edge.rx.drops[LSLM_DROP_GENERATION] = 0;
	run_to_end();
	check_contents();
	end();
}

static bool is_at(uint8_t last, uint16_t port)
{
	struct dgram_endpoint e = host(last, port);

	return !memcmp(&x.s->at, &e, sizeof(e));
}

static void session__follows_the_address(void **state)
{
	uint8_t late[2048], early[2048];
	size_t size, early_size;

	begin();
	placement_bind(&x.edge, 1152);
	early_size = placement_report(&x.edge, early, x.now, true, 0);
	assert_int_equal(report(true), SENDER_DROP_NONE);
	assert_true(is_at(1, 5000));
	assert_true(take_now() > 0);

	/* Forged and replayed ones move nothing. */
	x.from = host(66, 6);
	size = placement_report(&x.edge, late, x.now, true, 0);
	late[40] ^= 1;
	assert_int_equal(deliver(late, size), SENDER_DROP_FORGED);
	assert_true(is_at(1, 5000));
	/* Nor does an authentic one that is older than what came last. */
	assert_int_equal(deliver(early, early_size), SENDER_DROP_STALE);
	assert_true(is_at(1, 5000));

	/* Another port of the same host: at once. */
	x.from = host(1, 5001);
	x.now += 20 * MS;
	assert_int_equal(report(true), SENDER_DROP_NONE);
	assert_true(is_at(1, 5001));
	x.now += 20 * MS;
	assert_true(take_now() > 0);

	/* Another host: a little first, and all when it says that this has come. */
	x.from = host(2, 5000);
	x.now += 20 * MS;
	assert_int_equal(report(true), SENDER_DROP_NONE);
	assert_true(is_at(2, 5000));
	assert_false(x.s->proved);
	for (int i = 0; i < 20 && !x.s->proved; i++) {
		x.now += 20 * MS;
		assert_true(take_now() <= 1);
		assert_int_equal(report(true), SENDER_DROP_NONE);
	}
	assert_true(x.s->proved);
	run_to_end();
	check_contents();
	end();
}

static void session__refuses(void **state)
{
	static const struct {
		size_t at;
		uint8_t flip;
		enum sender_drop want;
	} cases[] = {
		{ 2, 1, SENDER_DROP_KEY }, /* key 1 */
		{ 2, 3, SENDER_DROP_KEY },	  { 8, 1, SENDER_DROP_FORGED }, /* the counter */
		{ 12, 0x80, SENDER_DROP_KEY }, /* beyond what the key is for */
		{ 16, 1, SENDER_DROP_FORGED },	  { 20, 1, SENDER_DROP_FORGED },
		{ 31, 0x80, SENDER_DROP_FORGED }, { 32, 1, SENDER_DROP_FORGED },
		{ 90, 1, SENDER_DROP_FORGED },
	};
	uint8_t packet[2048], copy[2048];
	size_t size;

	begin();
	placement_bind(&x.edge, 1152);
	size = placement_report(&x.edge, packet, x.now, true, 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		memcpy(copy, packet, size);
		copy[cases[i].at] ^= cases[i].flip;
		assert_int_equal(deliver(copy, size), cases[i].want);
	}
	for (size_t n = LSLM_WIRE_OVERHEAD; n < size; n++) {
		memcpy(copy, packet, n);
		assert_int_equal(deliver(copy, n), SENDER_DROP_FORGED);
	}
	/* Whatever it was, nobody is known. */
	assert_false(x.s->known);
	assert_int_equal(take_now(), 0);
	memcpy(copy, packet, size);
	assert_int_equal(deliver(copy, size), SENDER_DROP_NONE);
	memcpy(copy, packet, size);
	assert_int_equal(deliver(copy, size), SENDER_DROP_REPLAY);
	/* A counter too far behind. */
	x.edge.counter += 10000;
	assert_int_equal(report(true), SENDER_DROP_NONE);
	x.edge.counter -= 9000;
	assert_int_equal(report(true), SENDER_DROP_REPLAY);
	end();
}

/* Authentic and absurd. */
static void session__absurd_reports(void **state)
{
	/* 5 stripes of 3 blocks of 32768 bytes: 87 chunks of 1152 each. */
	static const struct {
		uint32_t slot, stripe, first, count;
		uint8_t level;
		uint16_t chunk;
		enum sender_drop want;
	} cases[] = {
		{ 0, 0, 0, 87, 0, 1152, SENDER_DROP_NONE },
		{ UINT32_MAX, 4, 86, 1, 0, 1152, SENDER_DROP_NONE },
		{ 0, 0, 0, 88, 0, 1152, SENDER_DROP_CONTENT },
		{ 0, 0, 87, 1, 0, 1152, SENDER_DROP_CONTENT },
		{ 0, 0, UINT32_MAX, 2, 0, 1152, SENDER_DROP_CONTENT },
		{ 0, 0, 1, UINT32_MAX, 0, 1152, SENDER_DROP_CONTENT },
		{ 0, 0, 0, 0, 0, 1152, SENDER_DROP_CONTENT },
		{ 0, 5, 0, 1, 0, 1152, SENDER_DROP_CONTENT },
		{ 0, UINT32_MAX, 0, 1, 0, 1152, SENDER_DROP_CONTENT },
		{ 0, 0, 0, 1, 1, 1152, SENDER_DROP_CONTENT },
		{ 0, 0, 0, 1, 255, 1152, SENDER_DROP_CONTENT },
		{ 0, 0, 0, 1, 0, 0, SENDER_DROP_CONTENT },
		{ 0, 0, 0, 1, 0, 192, SENDER_DROP_CONTENT },
		{ 0, 0, 0, 1, 0, 1153, SENDER_DROP_CONTENT },
		{ 0, 0, 0, 1, 0, 65472, SENDER_DROP_CONTENT },
		{ 0, 0, 0, 3, 0, 65408, SENDER_DROP_NONE },
		{ 0, 0, 0, 4, 0, 65408, SENDER_DROP_CONTENT },
	};
	uint8_t payload[REPORT_ROOM], many[2048] = { 0 };
	struct report_writer w;

	begin();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct report r = { .highest = REPORT_NONE,
				    .credit = UINT32_MAX,
				    .chunk = cases[i].chunk };
		struct report_want want = { .slot = cases[i].slot,
					    .generation = 3,
					    .stripe = cases[i].stripe,
					    .level = cases[i].level };
		struct lslm_range range = { cases[i].first, cases[i].count };

		report_begin(&w, payload, sizeof(payload), &r);
		report_add(&w, &want, &range, 1);
		if (report_raw(payload, report_end(&w)) != cases[i].want)
			fail_msg("case %zu", i);
	}
	/* Datagrams that were never sent have arrived. */
	{
		struct report r = { .highest = 5, .received = 1, .credit = 1, .chunk = 1152 };

		report_begin(&w, payload, sizeof(payload), &r);
		assert_int_equal(report_raw(payload, report_end(&w)), SENDER_DROP_CONTENT);
	}
	assert_int_equal(report_raw(many, 0), SENDER_DROP_CONTENT);
	assert_int_equal(report_raw(many, REPORT_HEAD), SENDER_DROP_CONTENT);
	assert_int_equal(report_raw(many, SENDQUEUE_REPORT + 1), SENDER_DROP_CONTENT);
	assert_int_equal(take_now() > 0, 1);
	end();
}

/* The same chunks, listed as often as they fit: each is sent once, and the pass ends. */
static void session__greedy_report(void **state)
{
	struct report r = { .highest = REPORT_NONE, .credit = 1 << 30, .chunk = 256 };
	struct lslm_range all = { 0, 3 * 128 };
	uint8_t payload[REPORT_ROOM];
	struct report_writer w;

	/* Blocks of 128 chunks, of one stripe. */
	begin_as(&(struct synthetic){ 3, 2, 64, 64, 0, 0 }, 1);
	report_begin(&w, payload, sizeof(payload), &r);
	for (uint32_t i = 0; report_room(&w); i++) {
		struct report_want want = { .slot = 0, .generation = 1, .stripe = 0 };

		report_add(&w, &want, &all, 1);
	}
	assert_int_equal(report_raw(payload, report_end(&w)), SENDER_DROP_NONE);
	placement_bind(&x.edge, 256);
	for (int i = 0; i < 200; i++, x.now += MS)
		take_now();
	/* The first window; nothing was reported that would open it. */
	assert_true(x.stats.sent <= 20);
	assert_int_equal(x.edge.rx.drops[LSLM_DROP_DUPLICATE], 0);
	run_to_end();
	check_contents();
	assert_int_equal(x.edge.rx.drops[LSLM_DROP_DUPLICATE], 0);
	end();
}

static void session__no_report_no_data(void **state)
{
	uint64_t sent;

	begin_as(&(struct synthetic){ 3, 2, 64, 64 * 100, 0, 0 }, 1);
	placement_bind(&x.edge, 256);
	run_ms(100);
	assert_true(x.stats.sent > 0);
	x.silent = true;
	run_ms(1100);
	sent = x.stats.sent;
	run_ms(20000);
	assert_int_equal(x.stats.sent, sent);
	assert_true(sender_session_due(x.s, x.now) == CONGESTION_NEVER);
	assert_false(sender_session_ended(x.s, x.now));
	x.silent = false;
	run_to_end();
	check_contents();
	end();
}

static void session__pause(void **state)
{
	uint64_t sent;

	begin_as(&(struct synthetic){ 3, 2, 64, 64 * 100, 0, 0 }, 1);
	placement_bind(&x.edge, 256);
	run_ms(100);
	assert_true(placement_missing(&x.edge) > 0);
	x.silent = true;
	run_ms(2 * DELAY_MS);
	assert_int_equal(report(false), SENDER_DROP_NONE);
	sent = x.stats.sent;
	for (int i = 0; i < 50; i++, x.now += 10 * MS)
		assert_int_equal(take_now(), 0);
	assert_int_equal(x.stats.sent, sent);
	x.silent = false;
	run_to_end();
	end();
}

static void session__ends(void **state)
{
	uint8_t packet[2048];

	begin();
	placement_bind(&x.edge, 1152);
	assert_false(sender_session_ended(x.s, x.now + 60 * SECOND));
	assert_true(sender_session_ended(x.s, x.now + 60 * SECOND + 1));
	x.now += 59 * SECOND;
	assert_int_equal(report(true), SENDER_DROP_NONE);
	x.now += 59 * SECOND;
	assert_false(sender_session_ended(x.s, x.now));
	/* Its last word. */
	assert_int_equal(deliver(packet,
				 placement_report(&x.edge, packet, x.now, true, REPORT_OVER)),
			 SENDER_DROP_NONE);
	assert_true(sender_session_ended(x.s, x.now));
	assert_int_equal(take_now(), 0);
	end();
}

/* Somebody makes the file shorter while it is read. */
static void session__file_cut_short(void **state)
{
	begin();
	placement_bind(&x.edge, 1152);
	run_ms(40);
	assert_true(x.stats.sent > 0);
	assert_int_equal(truncate(path, 5000), 0);
	run_ms(100);
	assert_true(sender_session_ended(x.s, x.now));
	assert_int_equal(x.stats.unreadable, 1);
	assert_true(sender_session_due(x.s, x.now) == CONGESTION_NEVER);
	assert_int_equal(x.out.n, 0);
	end();
}

/* Removed while it is read: the session has its file open. */
static void session__file_removed(void **state)
{
	begin();
	placement_bind(&x.edge, 1152);
	run_ms(30);
	unlink(path);
	run_to_end();
	check_contents();
	end();
}

/* ---- keys ---- */

static void session__renews_keys(void **state)
{
	uint8_t first[2048];
	size_t first_size;
	uint64_t wait;

	begin_as(&(struct synthetic){ 3, 2, 64, 64 * 200, 0, 0 }, 1);
	placement_bind(&x.edge, 1152);
	/* So that there is something left to send. */
	x.edge.credit = 200 * 1152;
	for (uint8_t k = 1; k < 7; k++) {
		run_ms(100);
		assert_true(placement_missing(&x.edge) > 0);
		first_size = placement_report(&x.edge, first, x.now, true, 0);
		next_pair();
		assert_int_equal(x.pair.key, k % 4);
		/* Until something comes with the new key, the old one is used. */
		x.edge.key = (uint8_t)((k - 1) % 4);
		run_ms(50);
		assert_int_equal(x.s->sending, (k - 1) % 4);
		x.edge.key = k % 4;
		run_ms(50);
		assert_int_equal(x.s->sending, k % 4);
		x.silent = true;
		run_ms(2 * DELAY_MS);
		/* Two are in use. */
		assert_int_equal(sender_session_pair(x.s, &x.pair, x.now, &wait), -EAGAIN);
		assert_true(wait > 9 * SECOND && wait < 10 * SECOND);
		assert_true(x.s->keys[(k - 1) % 4].in_use);
		/* What was under way with the old key still counts, for ten seconds. */
		x.now += wait - 1;
		assert_int_equal(deliver(first, first_size), SENDER_DROP_STALE);
		x.edge.key = (uint8_t)((k - 1) % 4);
		assert_int_equal(report(true), SENDER_DROP_NONE);
		x.now += 1;
		assert_int_equal(report(true), SENDER_DROP_KEY);
		assert_true(
			sodium_is_zero((void *)&x.s->keys[(k - 1) % 4], sizeof(struct sender_key)));
		x.edge.key = k % 4;
		x.silent = false;
	}
	run_to_end();
	check_contents();
	assert_int_equal(x.edge.rx.drops[LSLM_DROP_FORGED], 0);
	end();
}

/* The reply with a pair got lost: the next one takes its place. */
static void session__replaces_an_unused_pair(void **state)
{
	struct sender_pair lost;
	uint64_t wait;

	begin();
	lost = x.pair;
	assert_int_equal(lost.key, 0);
	next_pair();
	assert_int_equal(x.pair.key, 0);
	assert_memory_not_equal(lost.to_edge, x.pair.to_edge, 32);
	placement_bind(&x.edge, 1152);
	assert_int_equal(report(true), SENDER_DROP_NONE);
	assert_int_equal(sender_session_pair(x.s, &lost, x.now, &wait), 0);
	assert_int_equal(lost.key, 1);
	next_pair();
	assert_int_equal(x.pair.key, 1);
	memcpy(x.edge.to_cloud[1], lost.to_cloud, 32);
	assert_int_equal(report(true), SENDER_DROP_FORGED);
	memcpy(x.edge.to_cloud[1], x.pair.to_cloud, 32);
	assert_int_equal(report(true), SENDER_DROP_NONE);
	run_to_end();
	end();
}

static void session__keys_end(void **state)
{
	begin_as(&(struct synthetic){ 3, 2, 64, 64 * 400, 0, 0 }, 1);
	placement_bind(&x.edge, 256);
	/* By time: nothing is received or sent with it any more. */
	run_ms(50);
	x.now += 3600 * SECOND - 100 * MS;
	assert_int_equal(report(true), SENDER_DROP_NONE);
	x.now += 200 * MS;
	assert_int_equal(take_now(), 0);
	assert_int_equal(report(true), SENDER_DROP_KEY);
	end();

	/* By count: not one datagram more. The edge would refuse it. */
	begin_as(&(struct synthetic){ 3, 2, 64, 64 * 400, 0, 0 }, 1);
	x.limits.key_packets = 1000;
	next_pair();
	placement_bind(&x.edge, 256);
	run_ms(3000);
	assert_int_equal(x.stats.sent, 1000);
	assert_int_equal(x.edge.rx.received, 1000);
	assert_int_equal(x.edge.rx.drops[LSLM_DROP_KEY], 0);
	next_pair();
	assert_int_equal(x.pair.max_packets, 2000);
	run_ms(3000);
	assert_int_equal(x.stats.sent, 2000);
	assert_int_equal(x.edge.rx.received, 2000);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(session__whole_context_arrives),
		cmocka_unit_test(session__only_lost_ones_are_sent_again),
		cmocka_unit_test(session__order_is_that_of_the_wants),
		cmocka_unit_test(session__amplification),
		cmocka_unit_test(session__probes),
		cmocka_unit_test(session__smaller_chunks),
		cmocka_unit_test(session__follows_the_address),
		cmocka_unit_test(session__refuses),
		cmocka_unit_test(session__absurd_reports),
		cmocka_unit_test(session__greedy_report),
		cmocka_unit_test(session__no_report_no_data),
		cmocka_unit_test(session__pause),
		cmocka_unit_test(session__ends),
		cmocka_unit_test(session__file_cut_short),
		cmocka_unit_test(session__file_removed),
		cmocka_unit_test(session__renews_keys),
		cmocka_unit_test(session__replaces_an_unused_pair),
		cmocka_unit_test(session__keys_end),
	};

	return cmocka_run_group_tests_name("sender_session", tests, setup, teardown);
}
