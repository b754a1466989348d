// SPDX-License-Identifier: MIT
/* What an edge says, to the byte: written, read back, and every way to be wrong. */
#include "unit.h"

#include <sodium.h>

#include "net/report.h"
#include "net/seal.h"

static uint8_t bytes[REPORT_ROOM];

static struct report head(void)
{
	return (struct report){ .highest = 7,
				.highest_ns = 100,
				.now_ns = 130,
				.received = 5,
				.credit = 1 << 20,
				.chunk = 1344 };
}

/* Two wants: chunks 3, 4 and 9 of slot 2; chunk 0 of slot 1. */
static size_t two_wants(void)
{
	static const struct lslm_range a[] = { { 3, 2 }, { 9, 1 } }, b[] = { { 0, 1 } };
	const struct report_want wa = { .slot = 2, .generation = 6, .stripe = 11, .level = 0 };
	const struct report_want wb = { .slot = 1, .generation = 8, .stripe = 10, .level = 0 };
	struct report r = head();
	struct report_writer w;

	report_begin(&w, bytes, sizeof(bytes), &r);
	assert_int_equal(report_add(&w, &wa, a, 2), 2);
	assert_int_equal(report_add(&w, &wb, b, 1), 1);
	return report_end(&w);
}

static void hello__there_and_back(void **state)
{
	static const uint8_t want[] = { 0xc0, 5, 0, 0, 0, 0, 0, 0 };
	uint8_t p[HELLO_BYTES];
	uint32_t largest = 0;

	assert_int_equal(hello_put(p, 1472), HELLO_BYTES);
	assert_memory_equal(p, want, 8);
	assert_int_equal(hello_parse(&largest, p, 8), 0);
	assert_int_equal(largest, 1472);
	assert_int_equal(hello_parse(&largest, p, 7), -EINVAL);
	p[7] = 1;
	assert_int_equal(hello_parse(&largest, p, 8), -EINVAL);
}

/* As section 9 of docs/protocol.md has it. */
static void report__bytes(void **state)
{
	static const uint8_t want[] = {
		7,   0, 0,  0, 0,    0, 0, 0,
		100, 0, 0,  0, 0,    0, 0, 0, /* highest, when */
		130, 0, 0,  0, 0,    0, 0, 0,
		5,   0, 0,  0, 0,    0, 0, 0, /* now, received */
		0,   0, 16, 0, 0x40, 5, 0, 0,
		2,   0, 0,  0, 0,    0, 0, 0, /* credit, chunk, flags, w */
		2,   0, 0,  0, 6,    0, 0, 0,
		11,  0, 0,  0, 0,    0, 2, 0, /* the first want */
		3,   0, 0,  0, 2,    0, 0, 0,
		9,   0, 0,  0, 1,    0, 0, 0, /* its ranges */
		1,   0, 0,  0, 8,    0, 0, 0,
		10,  0, 0,  0, 0,    0, 1, 0, /* the second */
		0,   0, 0,  0, 1,    0, 0, 0,
	};

	assert_int_equal(two_wants(), sizeof(want));
	assert_memory_equal(bytes, want, sizeof(want));
}

static void report__there_and_back(void **state)
{
	size_t size = two_wants(), at = 0;
	struct report_want want;
	struct report r;

	assert_int_equal(report_parse(&r, bytes, size), 0);
	assert_int_equal(r.highest, 7);
	assert_int_equal(r.highest_ns, 100);
	assert_int_equal(r.now_ns, 130);
	assert_int_equal(r.received, 5);
	assert_int_equal(r.credit, 1 << 20);
	assert_int_equal(r.chunk, 1344);
	assert_int_equal(r.flags, 0);
	assert_int_equal(r.n_wants, 2);
	assert_true(report_next(&r, &at, &want));
	assert_int_equal(want.slot, 2);
	assert_int_equal(want.generation, 6);
	assert_int_equal(want.stripe, 11);
	assert_int_equal(want.n_ranges, 2);
	assert_int_equal(report_range(&want, 1).first, 9);
	assert_int_equal(report_range(&want, 1).count, 1);
	assert_true(report_next(&r, &at, &want));
	assert_int_equal(want.slot, 1);
	assert_int_equal(report_range(&want, 0).first, 0);
	assert_false(report_next(&r, &at, &want));
}

static void report__nothing_yet(void **state)
{
	struct report r = { .highest = 55, .highest_ns = 66, .now_ns = 9, .flags = REPORT_OVER };
	struct report_writer w;
	struct report got;

	report_begin(&w, bytes, sizeof(bytes), &r);
	assert_int_equal(report_end(&w), REPORT_HEAD);
	assert_int_equal(report_parse(&got, bytes, REPORT_HEAD), 0);
	assert_true(got.highest == REPORT_NONE);
	assert_int_equal(got.highest_ns, 0);
	assert_int_equal(got.flags, REPORT_OVER);
	assert_int_equal(got.n_wants, 0);
}

/* At every size the buffer may have: never past its end, always readable, and full. */
static void report_add__cuts(void **state)
{
	struct lslm_range ranges[8];
	struct report_want want = { .slot = 1 };
	struct report r = head(), got;
	struct report_writer w;
	uint32_t first;
	size_t size;

	for (uint32_t i = 0; i < 8; i++)
		ranges[i] = (struct lslm_range){ 3 * i, 2 };
	for (size_t room = REPORT_HEAD; room < 300; room++) {
		memset(bytes, 0xee, sizeof(bytes));
		report_begin(&w, bytes, room, &r);
		first = report_room(&w);
		assert_int_equal(report_add(&w, &want, ranges, 8), first < 8 ? first : 8);
		while (report_add(&w, &want, ranges, 8))
			;
		size = report_end(&w);
		assert_true(size <= room && room - size < REPORT_WANT + REPORT_RANGE);
		assert_int_equal(bytes[room], 0xee);
		assert_int_equal(report_parse(&got, bytes, size), 0);
	}
}

/* Until there is enough of both, but never past the room. */
static void report_limit__ends(void **state)
{
	static const struct {
		size_t size;
		uint64_t chunks;
		uint32_t n;
	} cases[] = {
		{ 0, 0, 0 },
		{ 0, 1, 1 },
		{ 0, 5, 1 },
		{ 0, 6, 2 },
		{ REPORT_HEAD, 0, 0 },
		{ REPORT_HEAD + 1, 0, 1 },
		{ REPORT_HEAD + 1, 11, 3 },
		{ REPORT_HEAD + 49, 5, 3 },
		{ 1000, 0, 4 },
		{ 0, UINT64_MAX, 4 },
	};
	const struct lslm_range range = { 7, 5 };
	struct report r = head();
	struct report_want want = { .slot = 1 };
	struct report_writer w;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		report_begin(&w, bytes, REPORT_HEAD + 4 * (REPORT_WANT + REPORT_RANGE), &r);
		report_limit(&w, cases[i].size, cases[i].chunks);
		while (report_room(&w))
			assert_int_equal(report_add(&w, &want, &range, 1), 1);
		assert_int_equal(report_add(&w, &want, &range, 1), 0);
		assert_int_equal(w.n_wants, cases[i].n);
	}
}

/* Of a want that is larger than a REPORT, or than what is needed now, the beginning: the rest is listed later. */
static void report_limit__cuts_a_want(void **state)
{
	static const struct {
		size_t room, size;
		uint64_t chunks;
		uint32_t n;
	} cases[] = {
		{ REPORT_ROOM, REPORT_ROOM, 0,
		  (REPORT_ROOM - REPORT_HEAD - REPORT_WANT) / REPORT_RANGE },
		{ REPORT_ROOM, 0, UINT64_MAX,
		  (REPORT_ROOM - REPORT_HEAD - REPORT_WANT) / REPORT_RANGE },
		{ REPORT_ROOM, 0, 1, 1 },
		{ REPORT_ROOM, 0, 11, 6 },
		{ REPORT_ROOM, REPORT_HEAD + REPORT_WANT, 0, 1 },
		{ REPORT_ROOM, REPORT_HEAD + REPORT_WANT + 5 * REPORT_RANGE, 0, 5 },
		{ REPORT_ROOM, REPORT_HEAD + REPORT_WANT + 5 * REPORT_RANGE, 21, 11 },
		{ 100, 0, 21, 4 },
	};
	struct lslm_range ranges[200];
	struct report_want want = { .slot = 1 }, is;
	struct report r = head(), got;
	struct report_writer w;
	size_t at;

	for (uint32_t i = 0; i < ARRAY_LEN(ranges); i++)
		ranges[i] = (struct lslm_range){ 4 * i, 2 };
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		report_begin(&w, bytes, cases[i].room, &r);
		report_limit(&w, cases[i].size, cases[i].chunks);
		assert_int_equal(report_add(&w, &want, ranges, ARRAY_LEN(ranges)), cases[i].n);
		assert_int_equal(report_parse(&got, bytes, report_end(&w)), 0);
		at = 0;
		assert_true(report_next(&got, &at, &is));
		assert_int_equal(is.n_ranges, cases[i].n);
		assert_int_equal(report_range(&is, cases[i].n - 1).first, 4 * (cases[i].n - 1));
		assert_false(report_next(&got, &at, &is));
		assert_int_equal(w.n_chunks, 2 * cases[i].n);
	}
}

static void report_parse__every_length(void **state)
{
	size_t size = two_wants();
	struct report r;

	for (size_t n = 0; n < sizeof(bytes); n++)
		if (n != size)
			assert_int_equal(report_parse(&r, bytes, n), -EINVAL);
}

static void report_parse__refuses(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
		const char *what;
	} cases[] = {
		{ 7, 0x80, "the counter of a control datagram" },
		{ 8, 131, "arrived after now" },
		{ 24, 0, "a counter, but nothing received" },
		{ 36, 0x41, "a chunk that is no multiple of 64" },
		{ 37, 0, "a chunk that is too small" },
		{ 38, 2, "a flag that there is not" },
		{ 39, 1, "another" },
		{ 40, 1, "bytes behind the last want" },
		{ 40, 3, "a want that is not there" },
		{ 43, 0x80, "very many" },
		{ 44, 1, "bytes that are zero" },
		{ 48 + 13, 1, "a byte that is zero" },
		{ 48 + 14, 0, "no range" },
		{ 48 + 14, 1, "a range too few" },
		{ 48 + 14, 4, "a range too many" },
		{ 48 + 15, 0xff, "very many" },
		{ 64 + 4, 0, "an empty range" },
		{ 64 + 4, 7, "a range that meets the next" },
		{ 72, 4, "a range that overlaps the one before" },
		{ 72 + 3, 0x80, "a chunk that no region has" },
		{ 72 + 7, 0xff, "a range beyond all regions" },
	};
	size_t size = two_wants();
	struct report r;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		two_wants();
		assert_int_equal(report_parse(&r, bytes, size), 0);
		bytes[cases[i].at] = cases[i].value;
		if (report_parse(&r, bytes, size) != -EINVAL)
			fail_msg("accepted: %s", cases[i].what);
	}
	two_wants();
	/* None yet, although five have come. */
	memset(bytes, 0xff, 8);
	assert_int_equal(report_parse(&r, bytes, size), -EINVAL);
}

/* Any other bit, length or key is refused. */
static void seal__there_and_back(void **state)
{
	const struct lslm_header h = { .opcode = LSLM_OP_REPORT,
				       .version = LSLM_WIRE_VERSION,
				       .session = 0x11223344,
				       .counter = LSLM_COUNTER_CONTROL | 5,
				       .generation = 1 };
	uint8_t key[LSLM_WIRE_KEY_BYTES], packet[128], again[128], out[80], text[80];

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)i;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(i * 7);
	assert_int_equal(seal_packet(packet, &h, text, sizeof(text), key), sizeof(packet));
	assert_memory_not_equal(packet + 32, text, sizeof(text));
	/* In place, too. */
	memcpy(again + 32, text, sizeof(text));
	seal_packet(again, &h, again + 32, sizeof(text), key);
	assert_memory_equal(packet, again, sizeof(packet));
	assert_int_equal(seal_open(out, packet, sizeof(packet), key), sizeof(text));
	assert_memory_equal(out, text, sizeof(text));
	for (size_t i = 0; i < sizeof(packet); i++) {
		packet[i] ^= 1;
		assert_int_equal(seal_open(out, packet, sizeof(packet), key), -EBADMSG);
		packet[i] ^= 1;
	}
	for (size_t n = 0; n < sizeof(packet); n++)
		assert_int_equal(seal_open(out, packet, n, key), -EBADMSG);
	key[31] ^= 1;
	assert_int_equal(seal_open(out, packet, sizeof(packet), key), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hello__there_and_back),
		cmocka_unit_test(report__bytes),
		cmocka_unit_test(report__there_and_back),
		cmocka_unit_test(report__nothing_yet),
		cmocka_unit_test(report_add__cuts),
		cmocka_unit_test(report_limit__ends),
		cmocka_unit_test(report_limit__cuts_a_want),
		cmocka_unit_test(report_parse__every_length),
		cmocka_unit_test(report_parse__refuses),
		cmocka_unit_test(seal__there_and_back),
	};

	return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
