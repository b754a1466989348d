// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include "engine/meet.h"

static void meet_piece__is_a_stripe_before_anything_is_known(void **state)
{
	assert_int_equal(meet_piece(4096, 0, 0), 64);
	assert_int_equal(meet_piece(64, 0, 1000), 64);
}

static void meet_piece__ends_where_both_meet(void **state)
{
	assert_int_equal(meet_piece(512, 100, 100), 256);
	assert_int_equal(meet_piece(512, 300, 100), 384);
	/* A little more than whole stripes is one more, a hair more is none. */
	assert_int_equal(meet_piece(512, 100, 99), 320);
	assert_int_equal(meet_piece(512, 100, 99.999), 256);
	/* However fast the stream, no less than a stripe; however slow, no more than a batch. */
	assert_int_equal(meet_piece(4096, 1, 1e9), 64);
	assert_int_equal(meet_piece(64, 100, 0), 64);
	assert_int_equal(meet_piece(1 << 20, 100, 0), ENGINE_BATCH);
}

/* Never more than there is, and always whole stripes. */
static void meet_piece__stays_within_the_gap(void **state)
{
	for (uint32_t gap = 64; gap <= 2048; gap += 64)
		for (double rate = 0; rate < 3000; rate += 37) {
			const uint32_t n = meet_piece(gap, 250, rate);

			assert_true(n >= 64 && n <= gap && n % 64 == 0);
		}
}

static void assert_rate(const struct meet_stream *s, double rate)
{
	assert_true(s->rate >= rate * 0.999 && s->rate <= rate * 1.001);
}

static void meet_see__measures_from_change_to_change(void **state)
{
	struct meet_stream s = { .tail = 100, .at = 10 };

	meet_see(&s, 100, 11);
	assert_rate(&s, 0);
	meet_see(&s, 99, 12); /* 64 tokens in 2 s, a handshake among them */
	assert_rate(&s, 32);
	meet_see(&s, 97, 12.5);
	assert_rate(&s, 256);
	meet_see(&s, 96, 13);
	assert_rate(&s, (256 + 128) / 2.0);
	assert_int_equal(s.tail, 96);
}

static void meet_see__takes_silence_for_slowness(void **state)
{
	struct meet_stream s = { .rate = 640, .tail = 50, .changes = 9, .at = 0 };

	meet_see(&s, 50, 0.1);
	assert_rate(&s, 640);
	meet_see(&s, 50, 0.2);
	assert_rate(&s, 640);
	meet_see(&s, 50, 2);
	assert_rate(&s, 64);
	meet_see(&s, 50, 200);
	assert_rate(&s, 0.64);
	/* And forgives it. */
	meet_see(&s, 40, 201);
	meet_see(&s, 30, 202);
	meet_see(&s, 20, 203);
	assert_true(s.rate > 400);
}

static void meet_see__ignores_a_clock_that_stands(void **state)
{
	struct meet_stream s = { .tail = 50, .at = 5 };

	meet_see(&s, 10, 5);
	assert_rate(&s, 0);
	assert_int_equal(s.tail, 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(meet_piece__is_a_stripe_before_anything_is_known),
		cmocka_unit_test(meet_piece__ends_where_both_meet),
		cmocka_unit_test(meet_piece__stays_within_the_gap),
		cmocka_unit_test(meet_see__measures_from_change_to_change),
		cmocka_unit_test(meet_see__takes_silence_for_slowness),
		cmocka_unit_test(meet_see__ignores_a_clock_that_stands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
