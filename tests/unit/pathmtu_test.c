// SPDX-License-Identifier: MIT
/* Rounds of HELLOs and PROBEs on a clock of the test's own. */
#include "unit.h"

#include "net/pathmtu.h"

#define MS 1000000ULL

static const uint32_t sizes[] = { 1200, 1232, 1352, 1400, 1452, 1472, 4096, 8952 };

/* PROBEs that answer a HELLO on a path that takes datagrams up to `most`. */
static void answer(struct pathmtu *p, uint32_t number, uint32_t most, uint64_t now)
{
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		if (sizes[i] <= most && sizes[i] <= p->largest)
			assert_true(pathmtu_probe(p, number, sizes[i], now));
}

static void pathmtu_chunk__of_each_size(void **state)
{
	static const uint32_t want[] = { 1152, 1152, 1280, 1344, 1344, 1408, 4032, 8896 };

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		assert_int_equal(pathmtu_chunk(sizes[i]), want[i]);
}

static void pathmtu_init__takes_any_interface(void **state)
{
	static const struct {
		uint32_t mtu, top;
	} cases[] = { { 0, 1200 },    { 1199, 1200 }, { 1200, 1200 },
		      { 1231, 1200 }, { 1472, 1472 }, { 1473, 1472 },
		      { 8951, 4096 }, { 8952, 8952 }, { 65507, 8952 } };
	struct pathmtu p;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		pathmtu_init(&p, cases[i].mtu);
		assert_int_equal(p.top, cases[i].top);
		assert_true(p.largest >= 1200 && p.largest <= 8952);
		assert_true(pathmtu_due(&p) == PATHMTU_NEVER);
		assert_int_equal(pathmtu_hello(&p, 0), 0);
		assert_false(pathmtu_decide(&p, 0));
	}
}

/* The largest that can come ends the round at once. */
static void pathmtu_decide__at_once(void **state)
{
	struct pathmtu p;

	pathmtu_init(&p, 1472);
	pathmtu_ask(&p, 100 * MS);
	assert_true(pathmtu_due(&p) == 100 * MS);
	assert_int_equal(pathmtu_hello(&p, 100 * MS), 1);
	assert_int_equal(pathmtu_hello(&p, 100 * MS), 0);
	assert_true(pathmtu_due(&p) == 200 * MS);
	assert_false(pathmtu_decide(&p, 110 * MS));
	answer(&p, 1, 1472, 130 * MS);
	assert_true(p.rtt_ns == 30 * MS);
	assert_true(pathmtu_decide(&p, 130 * MS));
	assert_int_equal(p.chunk, 1408);
	assert_false(pathmtu_decide(&p, 130 * MS));
	assert_true(pathmtu_due(&p) == PATHMTU_NEVER);
}

/* Without it, the others are waited for: half a round trip, but 20 ms at least. */
static void pathmtu_decide__settles(void **state)
{
	static const uint64_t rtts[] = { 2 * MS, 40 * MS, 90 * MS };
	struct pathmtu p;

	for (size_t i = 0; i < ARRAY_LEN(rtts); i++) {
		uint64_t at = rtts[i], wait = at / 2 > 20 * MS ? at / 2 : 20 * MS;

		pathmtu_init(&p, 1472);
		pathmtu_ask(&p, 0);
		pathmtu_hello(&p, 0);
		answer(&p, 1, 1400, at);
		assert_true(pathmtu_due(&p) == (at + wait < 100 * MS ? at + wait : 100 * MS));
		assert_false(pathmtu_decide(&p, at + wait - 1));
		assert_true(pathmtu_decide(&p, at + wait));
		assert_int_equal(p.chunk, 1344);
	}
}

/* At 1 Mbit/s they come 11 ms after each other: the round goes on as long as they get larger. */
static void pathmtu_decide__waits_for_a_thin_link(void **state)
{
	struct pathmtu p;
	uint64_t now = 0;

	pathmtu_init(&p, 8952);
	pathmtu_ask(&p, 0);
	pathmtu_hello(&p, 0);
	for (int i = 0; i < 6; i++) {
		now += 11 * MS;
		assert_false(pathmtu_decide(&p, now));
		assert_true(pathmtu_probe(&p, 1, sizes[i], now));
	}
	assert_true(p.rtt_ns == 11 * MS);
	/* None that is smaller. */
	assert_true(pathmtu_probe(&p, 1, 1200, now + 11 * MS));
	assert_true(pathmtu_due(&p) == now + 20 * MS);
	assert_false(pathmtu_decide(&p, now + 20 * MS - 1));
	assert_true(pathmtu_decide(&p, now + 20 * MS));
	assert_int_equal(p.chunk, 1408);
}

static void pathmtu_hello__again_and_again(void **state)
{
	static const uint64_t want[] = { 0, 100, 300, 700, 1100, 1500, 1900 };
	struct pathmtu p;

	pathmtu_init(&p, 1472);
	pathmtu_ask(&p, 0);
	for (size_t i = 0; i < ARRAY_LEN(want); i++) {
		assert_true(pathmtu_due(&p) == want[i] * MS);
		if (want[i])
			assert_int_equal(pathmtu_hello(&p, want[i] * MS - 1), 0);
		assert_int_equal(pathmtu_hello(&p, want[i] * MS), i + 1);
		/* Asking twice is asking once. */
		pathmtu_ask(&p, want[i] * MS);
	}
	/* An answer to an earlier one counts, and tells the round trip. */
	assert_true(pathmtu_probe(&p, 6, 1232, 1900 * MS + 50 * MS));
	assert_true(p.rtt_ns == 450 * MS);
}

static void pathmtu_probe__lies(void **state)
{
	struct pathmtu p;

	pathmtu_init(&p, 1472);
	assert_false(pathmtu_probe(&p, 0, 1200, 0));
	pathmtu_ask(&p, 0);
	pathmtu_hello(&p, 0);
	assert_false(pathmtu_probe(&p, 0, 1200, MS));
	assert_false(pathmtu_probe(&p, 2, 1200, MS));
	assert_false(pathmtu_probe(&p, UINT32_MAX, 1200, MS));
	assert_false(pathmtu_probe(&p, 1, 4096, MS));
	assert_false(pathmtu_probe(&p, 1, 1201, MS));
	assert_false(pathmtu_probe(&p, 1, 0, MS));
	assert_int_equal(p.best, 0);
	assert_false(pathmtu_decide(&p, 1000 * MS));
	assert_true(pathmtu_probe(&p, 1, 1200, MS));
	assert_true(pathmtu_decide(&p, 1000 * MS));
	/* After its end a round has no answers, and the next one has none of the last. */
	assert_false(pathmtu_probe(&p, 1, 1200, MS));
	pathmtu_ask(&p, 2000 * MS);
	assert_int_equal(pathmtu_hello(&p, 2000 * MS), 2);
	assert_false(pathmtu_probe(&p, 1, 1200, 2001 * MS));
}

static struct pathmtu in_use(uint32_t most)
{
	struct pathmtu p;

	pathmtu_init(&p, most);
	pathmtu_ask(&p, 0);
	pathmtu_hello(&p, 0);
	answer(&p, 1, most, MS);
	assert_true(pathmtu_decide(&p, MS));
	pathmtu_ask(&p, 1000 * MS);
	assert_int_equal(pathmtu_hello(&p, 1000 * MS), 2);
	return p;
}

/* A lost PROBE is no narrower path: only a second HELLO's answers make it one. */
static void pathmtu_decide__needs_two_witnesses(void **state)
{
	struct pathmtu p = in_use(1472);

	answer(&p, 2, 1232, 1002 * MS);
	assert_false(pathmtu_decide(&p, 1090 * MS));
	assert_true(pathmtu_due(&p) == 1100 * MS);
	assert_int_equal(pathmtu_hello(&p, 1100 * MS), 3);
	answer(&p, 3, 1232, 1102 * MS);
	assert_false(pathmtu_decide(&p, 1103 * MS));
	assert_true(pathmtu_decide(&p, 1122 * MS));
	assert_int_equal(p.chunk, 1152);
}

static void pathmtu_decide__false_alarm(void **state)
{
	struct pathmtu p = in_use(1472);

	answer(&p, 2, 1232, 1002 * MS);
	pathmtu_hello(&p, 1100 * MS);
	answer(&p, 3, 1472, 1102 * MS);
	assert_true(pathmtu_decide(&p, 1102 * MS));
	assert_int_equal(p.chunk, 1408);
	/* The same when data comes after all. */
	pathmtu_ask(&p, 2000 * MS);
	pathmtu_hello(&p, 2000 * MS);
	answer(&p, 4, 1232, 2002 * MS);
	pathmtu_calm(&p);
	assert_false(pathmtu_decide(&p, 9000 * MS));
	assert_int_equal(p.chunk, 1408);
	assert_true(pathmtu_due(&p) == PATHMTU_NEVER);
}

/* Not more than what can be counted, however long nobody answers. */
static void pathmtu_probe__after_many_hellos(void **state)
{
	struct pathmtu p = in_use(1472);
	uint32_t i;

	for (i = 3; i < 103; i++)
		assert_int_equal(pathmtu_hello(&p, i * 1000 * MS), i);
	assert_true(pathmtu_probe(&p, 40, 1232, 200000 * MS));
	assert_true(p.rtt_ns == MS);
	for (i = 95; i < 103; i++)
		assert_true(pathmtu_probe(&p, i, 1232, 200000 * MS));
	assert_int_equal(__builtin_popcount(p.answered), 1);
	assert_true(pathmtu_probe(&p, 4, 1232, 200000 * MS));
	assert_true(pathmtu_decide(&p, 200100 * MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pathmtu_chunk__of_each_size),
		cmocka_unit_test(pathmtu_init__takes_any_interface),
		cmocka_unit_test(pathmtu_decide__at_once),
		cmocka_unit_test(pathmtu_decide__settles),
		cmocka_unit_test(pathmtu_decide__waits_for_a_thin_link),
		cmocka_unit_test(pathmtu_hello__again_and_again),
		cmocka_unit_test(pathmtu_probe__lies),
		cmocka_unit_test(pathmtu_decide__needs_two_witnesses),
		cmocka_unit_test(pathmtu_decide__false_alarm),
		cmocka_unit_test(pathmtu_probe__after_many_hellos),
	};

	return cmocka_run_group_tests_name("pathmtu", tests, NULL, NULL);
}
