// SPDX-License-Identifier: MIT
/* The pure half of placement: replay window, regions, and the decision over one datagram. */
#include "unit.h"

#include "lslm/place.h"

/* ---- replay ---- */

enum { NEWEST_0 = 1 << 20 };

/* Each line in turn, on one window. */
static const struct {
	uint64_t counter;
	int ok;
} counters[] = {
	{ 0, 1 },
	{ 0, 0 },
	{ 1, 1 },
	{ 1, 0 },
	{ 9, 1 },
	{ 8, 1 },
	{ 7, 1 },
	{ 7, 0 },
	{ LSLM_REPLAY_WINDOW, 1 },
	{ LSLM_REPLAY_WINDOW - 1, 1 },
	{ LSLM_REPLAY_WINDOW - 1, 0 },
	{ LSLM_REPLAY_WINDOW, 0 },
	{ 0, 0 }, /* it was seen, and is just out of the window */
	{ 2, 1 },
	{ 2, 0 },
	{ LSLM_REPLAY_WINDOW + 16, 1 },
	{ 3, 0 },
	{ LSLM_REPLAY_WINDOW + 16, 0 },
	{ 16, 0 },
	{ 17, 1 },
	{ 17, 0 },
	{ NEWEST_0, 1 },
	{ NEWEST_0 - LSLM_REPLAY_WINDOW, 0 },
	{ NEWEST_0 - LSLM_REPLAY_WINDOW + 1, 1 },
	{ NEWEST_0 - LSLM_REPLAY_WINDOW + 1, 0 },
	{ NEWEST_0 + LSLM_REPLAY_WORDS * 64 - 1, 1 }, /* the ring of words, once round */
	{ NEWEST_0, 0 },
	{ NEWEST_0 + 64, 1 },
	{ NEWEST_0 + 64, 0 },
	{ NEWEST_0 + LSLM_REPLAY_WORDS * 64, 1 },
	{ NEWEST_0 + 65, 1 },
	{ 1ULL << 62, 1 },
	{ (1ULL << 63) - 1, 1 },
	{ (1ULL << 63) - 1, 0 },
	{ (1ULL << 63) - LSLM_REPLAY_WINDOW - 1, 0 },
	{ (1ULL << 63) - LSLM_REPLAY_WINDOW, 1 },
};

static void replay__window(void **state)
{
	struct lslm_replay r = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(counters); i++) {
		if (lslm_replay_ok(&r, counters[i].counter) != counters[i].ok)
			fail_msg("line %zu: counter %llu", i,
				 (unsigned long long)counters[i].counter);
		if (counters[i].ok)
			lslm_replay_mark(&r, counters[i].counter);
	}
}

/* Upwards, then downwards: all of the window, each once. */
static void replay__takes_each_once(void **state)
{
	struct lslm_replay r = { 0 };

	for (uint64_t c = 0; c < 3 * LSLM_REPLAY_WINDOW; c += 2) {
		assert_true(lslm_replay_ok(&r, c));
		lslm_replay_mark(&r, c);
	}
	for (uint64_t c = 3 * LSLM_REPLAY_WINDOW - 1; c-- > 2 * LSLM_REPLAY_WINDOW;) {
		assert_int_equal(lslm_replay_ok(&r, c), c % 2);
		if (c % 2)
			lslm_replay_mark(&r, c);
		assert_false(lslm_replay_ok(&r, c));
	}
	assert_false(lslm_replay_ok(&r, 2 * LSLM_REPLAY_WINDOW - 3));
}

/* ---- regions ---- */

static uint8_t memory[1 << 20] __attribute__((aligned(8)));

static void make_region(struct lslm_region *r, const uint32_t *units, uint32_t n, uint32_t chunk)
{
	uint32_t length = 0, n_chunks = 0;

	assert_true(lslm_region_fits(units, n, chunk, &length, &n_chunks));
	assert_true(lslm_region_bytes(n, n_chunks) <= sizeof(memory));
	memset(memory, 0, sizeof(memory));
	lslm_region_init(r, memory, units, n, chunk, n_chunks);
	assert_int_equal(r->length, length);
	assert_int_equal(r->n_chunks, n_chunks);
}

static void region_fits__limits(void **state)
{
	static uint32_t units[LSLM_REGION_UNITS_MAX + 1];
	static const struct {
		uint32_t n, bytes, chunk;
		int ok;
	} lines[] = {
		{ 0, 1, 256, 0 },
		{ 1, 0, 256, 0 },
		{ 1, 1, 256, 1 },
		{ 1, 1, 255, 0 },
		{ 1, 1, 192, 0 },
		{ 1, 1, 257, 0 },
		{ 1, 1, 0, 0 },
		{ 1, 1, LSLM_CHUNK_MAX, 1 },
		{ 1, 1, LSLM_CHUNK_MAX + 64, 0 },
		{ LSLM_REGION_UNITS_MAX, 256, 256, 1 },
		{ LSLM_REGION_UNITS_MAX + 1, 256, 256, 0 },
		{ 1, LSLM_REGION_BYTES_MAX, 256, 1 },
		{ 1, LSLM_REGION_BYTES_MAX + 1, 512, 0 },
		{ 2, LSLM_REGION_BYTES_MAX / 2, 256, 1 },
		{ 2, LSLM_REGION_BYTES_MAX / 2 - 1, 256, 1 },
		{ 4, UINT32_MAX, 512, 0 }, /* a sum that would wrap */
		{ 4096, 0xffffffffU / 4096 * 2, 512, 0 },
		{ 4096, 262144, 256, 1 },
	};
	uint32_t length = 0, n_chunks = 0;

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		for (uint32_t u = 0; u < lines[i].n; u++)
			units[u] = lines[i].bytes;
		if (!!lslm_region_fits(units, lines[i].n, lines[i].chunk, &length, &n_chunks) !=
		    lines[i].ok)
			fail_msg("line %zu", i);
		if (lines[i].ok)
			assert_int_equal(length, lines[i].n * lines[i].bytes);
	}
	/* Small units make many chunks of little. */
	for (uint32_t u = 0; u < LSLM_REGION_UNITS_MAX; u++)
		units[u] = 257;
	assert_true(lslm_region_fits(units, LSLM_REGION_UNITS_MAX, 256, &length, &n_chunks));
	assert_int_equal(n_chunks, 2 * LSLM_REGION_UNITS_MAX);
}

static const uint32_t shapes[][5] = {
	{ 1000, 1000, 1000 }, { 256, 256 },   { 255 },	     { 257, 1, 4096, 256, 2 },
	{ 1, 1, 1, 1, 1 },    { 65408, 3 },   { 512, 1024 }, { 300, 300, 301 },
	{ 768, 768, 768 },    { 2, 4000, 2 },
};

/* Every offset with every length that may fit: exactly the chunks are found. */
static void region_find__exactly_the_chunks(void **state)
{
	struct lslm_region r;
	uint32_t n, unit, chunk, found, offset, length;

	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		for (n = 0; n < 5 && shapes[i][n]; n++)
			;
		make_region(&r, shapes[i], n, 256);
		found = 0;
		for (uint32_t at = 0; at < r.length + 2; at++)
			for (uint32_t l = r.length > 9000 ? 254 : 0; l < 260; l++) {
				if (!lslm_region_find(&r, at, l, &unit, &chunk))
					continue;
				assert_int_equal(chunk, found++);
				lslm_region_chunk(&r, chunk, &offset, &length);
				assert_int_equal(offset, at);
				assert_int_equal(length, l);
				assert_true(at >= r.start[unit]);
				assert_true(at + l <= r.start[unit + 1]);
			}
		if (r.length <= 9000)
			assert_int_equal(found, r.n_chunks);
	}
}

static void region_find__far_out(void **state)
{
	static const uint64_t offsets[] = { 3000,	1ULL << 31,	  UINT32_MAX,
					    1ULL << 32, UINT64_MAX - 255, UINT64_MAX };
	static const uint32_t lengths[] = { 0, 1, 232, 256, UINT32_MAX };
	uint32_t unit, chunk;
	struct lslm_region r;

	make_region(&r, shapes[0], 3, 256);
	for (size_t i = 0; i < ARRAY_LEN(offsets); i++)
		for (size_t j = 0; j < ARRAY_LEN(lengths); j++)
			assert_false(lslm_region_find(&r, offsets[i], lengths[j], &unit, &chunk));
	assert_false(lslm_region_find(&r, 0, UINT32_MAX, &unit, &chunk));
	assert_true(lslm_region_find(&r, 0, 256, &unit, &chunk));
	assert_true(lslm_region_find(&r, 2768, 232, &unit, &chunk));
}

/* A stride through all chunks: each unit is done once, with its last chunk. */
static void region_mark__completes_units(void **state)
{
	struct lslm_region r;
	uint32_t n, unit = 0, chunk, offset, length, done, left[5];

	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		for (n = 0; n < 5 && shapes[i][n]; n++)
			left[n] = lslm_chunks_of(shapes[i][n], 256);
		make_region(&r, shapes[i], n, 256);
		done = 0;
		for (uint32_t c = r.n_chunks; c-- > 0;) {
			lslm_region_chunk(&r, c, &offset, &length);
			assert_true(lslm_region_find(&r, offset, length, &unit, &chunk));
			assert_false(lslm_region_has(&r, c));
			assert_int_equal(!!lslm_region_mark(&r, unit, c), !--left[unit]);
			done += !left[unit];
			assert_true(lslm_region_has(&r, c));
			assert_int_equal(r.units_missing, n - done);
			assert_int_equal(r.chunks_missing, c);
		}
		assert_int_equal(done, n);
	}
}

static void region_missing__lists_runs(void **state)
{
	static const uint32_t units[] = { 256 * 500 };
	struct lslm_range ranges[4];
	struct lslm_region r;

	make_region(&r, units, 1, 256);
	assert_int_equal(lslm_region_missing(&r, 0, ranges, 4), 1);
	assert_int_equal(ranges[0].first, 0);
	assert_int_equal(ranges[0].count, 500);
	for (uint32_t c = 0; c < 500; c++)
		if (c != 63 && c != 64 && c != 200 && c != 499)
			lslm_region_mark(&r, 0, c);
	assert_int_equal(lslm_region_missing(&r, 0, ranges, 4), 3);
	assert_int_equal(ranges[0].first, 63);
	assert_int_equal(ranges[0].count, 2);
	assert_int_equal(ranges[1].first, 200);
	assert_int_equal(ranges[2].first, 499);
	assert_int_equal(ranges[2].count, 1);
	assert_int_equal(lslm_region_missing(&r, 0, ranges, 2), 2);
	assert_int_equal(lslm_region_missing(&r, 64, ranges, 4), 3);
	assert_int_equal(ranges[0].first, 64);
	assert_int_equal(ranges[0].count, 1);
	assert_int_equal(lslm_region_missing(&r, 201, ranges, 4), 1);
	assert_int_equal(lslm_region_missing(&r, 500, ranges, 4), 0);
	assert_int_equal(lslm_region_missing(&r, UINT32_MAX, ranges, 4), 0);
}

static void region_skip_unit__is_complete(void **state)
{
	struct lslm_region r;
	struct lslm_range ranges[4];

	make_region(&r, shapes[3], 5, 256);
	lslm_region_skip_unit(&r, 2);
	lslm_region_skip_unit(&r, 2);
	assert_int_equal(r.units_missing, 4);
	assert_int_equal(r.chunks_missing, 2 + 1 + 1 + 1);
	assert_int_equal(lslm_region_missing(&r, 0, ranges, 4), 2);
	assert_int_equal(ranges[0].count, 3);
	assert_int_equal(ranges[1].first, 3 + 16);
	assert_int_equal(ranges[1].count, 2);
}

/* ---- the decision ---- */

static void header__goes_there_and_back(void **state)
{
	const struct lslm_header h = { 1,	   2,	       3,
				       4,	   0x05060708, 0x1112131415161718,
				       0x21222324, 0x31323334, 0x4142434445464748 };
	static const uint8_t bytes[LSLM_WIRE_HEADER] = {
		1,    2,    3,	  4,	8,    7,    6,	  5,	0x18, 0x17, 0x16,
		0x15, 0x14, 0x13, 0x12, 0x11, 0x24, 0x23, 0x22, 0x21, 0x34, 0x33,
		0x32, 0x31, 0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41,
	};
	uint8_t out[LSLM_WIRE_HEADER];
	struct lslm_header back;

	lslm_header_put(out, &h);
	assert_memory_equal(out, bytes, sizeof(bytes));
	lslm_header_get(&back, bytes);
	assert_memory_equal(&back, &h, sizeof(h));
}

static void place__first_reason_counts(void **state)
{
	static struct lslm_slot slots[2];
	struct lslm_receiver rx = { .session = 7, .n_slots = 2, .slots = slots };
	const struct lslm_header good = {
		.opcode = LSLM_OP_DATA, .version = 1, .key = 2, .session = 7, .generation = 3
	};
	/* All wrong at first; then one thing after the other is put right. */
	struct lslm_header h = { .opcode = LSLM_OP_DATA,
				 .version = 9,
				 .key = 1,
				 .session = 8,
				 .counter = 5,
				 .slot = 2,
				 .generation = 4,
				 .offset = 1 };
	struct lslm_placement p;
	uint8_t head[LSLM_WIRE_HEADER];
	const uint32_t size = 256 + LSLM_WIRE_OVERHEAD;

	make_region(&slots[0].region, shapes[1], 2, 256);
	slots[0].generation = 3;
	slots[0].bound = 1;
	rx.keys[2] = (struct lslm_rx_key){ .in_use = 1, .max_packets = 10, .expires_ns = 100 };
	lslm_replay_mark(&rx.keys[2].replay, 5);

#define CHECK(size, now) (lslm_header_put(head, &h), lslm_place_check(&rx, head, size, now, &p))
	assert_int_equal(CHECK(LSLM_WIRE_OVERHEAD, 0), LSLM_DROP_HEADER);
	assert_int_equal(CHECK(size, 0), LSLM_DROP_HEADER);
	h.version = 1;
	assert_int_equal(CHECK(size, 0), LSLM_DROP_SESSION);
	h.session = 7;
	assert_int_equal(CHECK(size, 0), LSLM_DROP_KEY);
	h.key = 2;
	assert_int_equal(CHECK(size, 100), LSLM_DROP_KEY);
	assert_int_equal(CHECK(size, 99), LSLM_DROP_REPLAY);
	h.counter = 10;
	assert_int_equal(CHECK(size, 99), LSLM_DROP_KEY);
	h.counter = 9;
	assert_int_equal(CHECK(size, 99), LSLM_DROP_NONE);
	assert_int_equal(p.verdict, LSLM_DROP_SLOT);
	h.slot = 1;
	CHECK(size, 0);
	assert_int_equal(p.verdict, LSLM_DROP_SLOT);
	h.slot = 0;
	CHECK(size, 0);
	assert_int_equal(p.verdict, LSLM_DROP_GENERATION);
	h.generation = 3;
	CHECK(size, 0);
	assert_int_equal(p.verdict, LSLM_DROP_BOUNDS);
	assert_int_equal(rx.received, 0);
	h = good;
	CHECK(size, 0);
	assert_int_equal(p.verdict, LSLM_DROP_NONE);
	assert_int_equal(lslm_place_commit(&rx, &p, 42), LSLM_DROP_NONE);
	assert_true(p.unit_done && !p.region_done);
	assert_int_equal(rx.last_ns, 42);
	h.counter = 1;
	CHECK(size, 0);
	assert_int_equal(p.verdict, LSLM_DROP_DUPLICATE);
	assert_int_equal(lslm_place_commit(&rx, &p, 43), LSLM_DROP_DUPLICATE);
	h.counter = 2;
	h.offset = 256;
	CHECK(size, 0);
	lslm_place_commit(&rx, &p, 44);
	assert_true(p.unit_done && p.region_done);
	slots[0].bound = 0;
	h.counter = 3;
	CHECK(size, 0);
	assert_int_equal(p.verdict, LSLM_DROP_GENERATION);
#undef CHECK
	assert_int_equal(rx.received, 3);
	assert_int_equal(rx.units_done, 2);
	assert_int_equal(rx.placed_bytes, 512);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(replay__window),
		cmocka_unit_test(replay__takes_each_once),
		cmocka_unit_test(region_fits__limits),
		cmocka_unit_test(region_find__exactly_the_chunks),
		cmocka_unit_test(region_find__far_out),
		cmocka_unit_test(region_mark__completes_units),
		cmocka_unit_test(region_missing__lists_runs),
		cmocka_unit_test(region_skip_unit__is_complete),
		cmocka_unit_test(header__goes_there_and_back),
		cmocka_unit_test(place__first_reason_counts),
	};

	return cmocka_run_group_tests_name("place", tests, NULL, NULL);
}
