// SPDX-License-Identifier: MIT
/* The circuit breaker, with a clock that the test moves. */
#include "net/breaker.h"
#include "unit/unit.h"

static double now;

/* As many failures as open it. */
static void open_it(struct breaker *b)
{
	for (int i = 1; i < BREAKER_FAILURES; i++)
		assert_false(breaker_failed(b, now));
	assert_int_equal(b->state, BREAKER_CLOSED);
	assert_true(breaker_failed(b, now));
	assert_int_equal(b->state, BREAKER_OPEN);
}

/* Until a probe is due; how long that took. */
static double wait_for_probe(struct breaker *b)
{
	const double began = now;

	assert_false(breaker_begin_probe(b, now));
	now = b->probe_at - 1e-3;
	assert_false(breaker_begin_probe(b, now));
	assert_int_equal(b->state, BREAKER_OPEN);
	now = b->probe_at;
	assert_true(breaker_begin_probe(b, now));
	assert_int_equal(b->state, BREAKER_HALF_OPEN);
	return now - began;
}

static void breaker__opens_after_failures_in_a_row(void **state)
{
	struct breaker b;

	breaker_init(&b, 1);
	/* Never in a row. */
	for (int i = 0; i < 10; i++) {
		for (int k = 1; k < BREAKER_FAILURES; k++)
			assert_false(breaker_failed(&b, now));
		assert_false(breaker_answered(&b));
	}
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_int_equal(b.opened, 0);
	now = 100;
	open_it(&b);
	assert_int_equal(b.opened, 1);
	assert_true(b.opened_at == 100);
	/* Those that were under way change nothing. */
	for (int i = 0; i < 10; i++)
		assert_false(breaker_failed(&b, now + 1000));
	assert_int_equal(b.opened, 1);
	assert_true(b.opened_at == 100);
	assert_true(b.probe_at <= 100 + BREAKER_FIRST_S);
}

static void breaker__sends_one_probe_at_a_time(void **state)
{
	struct breaker b;

	breaker_init(&b, 2);
	assert_false(breaker_begin_probe(&b, now));
	open_it(&b);
	wait_for_probe(&b);
	for (int i = 0; i < 10; i++)
		assert_false(breaker_begin_probe(&b, now += 1000));
	assert_int_equal(b.probes, 1);
	assert_false(breaker_failed(&b, now));
	assert_int_equal(b.state, BREAKER_HALF_OPEN);
	breaker_probe_failed(&b, now);
	assert_int_equal(b.state, BREAKER_OPEN);
	wait_for_probe(&b);
	assert_int_equal(b.probes, 2);
	assert_true(breaker_probe_answered(&b));
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_int_equal(b.opened, 1);
}

/* 1, 2, 4, ... 60 s, of each a half at least, and never more. */
static void breaker__pauses_grow_to_a_bound(void **state)
{
	struct breaker b;

	for (uint64_t seed = 0; seed < 100; seed++) {
		double most = BREAKER_FIRST_S;

		breaker_init(&b, seed);
		open_it(&b);
		for (int i = 0; i < 12; i++) {
			const double waited = wait_for_probe(&b);

			if (waited > most + 1e-9 || waited < most / 2 - 1e-9)
				fail_msg("pause %d is %f s of %f", i, waited, most);
			breaker_probe_failed(&b, now);
			most = 2 * most < BREAKER_LAST_S ? 2 * most : BREAKER_LAST_S;
		}
		assert_int_equal(b.probes, 12);
	}
}

/* Who lost the same server does not come back as one: quarters of the range are hit about equally often. */
static void breaker__draws_lots(void **state)
{
	uint32_t hits[4] = { 0 };
	struct breaker b;

	for (uint64_t seed = 0; seed < 400; seed++) {
		breaker_init(&b, seed);
		now = 0;
		open_it(&b);
		hits[(int)((b.probe_at - BREAKER_FIRST_S / 2) / (BREAKER_FIRST_S / 2) * 4)]++;
	}
	for (int i = 0; i < 4; i++)
		assert_in_range(hits[i], 60, 140);
}

/* One that answers probes only is not asked as often as one that was back. */
static void breaker__starts_over_with_a_real_answer_only(void **state)
{
	struct breaker b;
	double most = BREAKER_FIRST_S;

	breaker_init(&b, 3);
	for (int i = 0; i < 5; i++) {
		open_it(&b);
		assert_true(wait_for_probe(&b) >= most / 2 - 1e-9);
		assert_true(breaker_probe_answered(&b));
		most *= 2;
	}
	assert_int_equal(b.opened, 5);
	assert_false(breaker_answered(&b));
	open_it(&b);
	assert_true(wait_for_probe(&b) <= BREAKER_FIRST_S + 1e-9);
}

/* A reply that was under way all the time: the server is there, whatever the probe says of a moment ago. */
static void breaker__closes_by_a_late_answer(void **state)
{
	struct breaker b;

	breaker_init(&b, 4);
	open_it(&b);
	assert_true(breaker_answered(&b));
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_false(breaker_begin_probe(&b, now + 1000));
	open_it(&b);
	wait_for_probe(&b);
	assert_true(breaker_answered(&b));
	breaker_probe_failed(&b, now);
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_false(breaker_probe_answered(&b));
	/* Failures before it opened do not count any more. */
	open_it(&b);
}

static void breaker__goes_on_where_another_process_was(void **state)
{
	struct breaker b;

	breaker_init(&b, 5);
	now = 7;
	breaker_reopen(&b, now);
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_true(breaker_begin_probe(&b, now));
	breaker_probe_failed(&b, now);
	assert_true(wait_for_probe(&b) <= BREAKER_FIRST_S + 1e-9);
	assert_true(breaker_probe_answered(&b));
	assert_int_equal(b.opened, 0);
	assert_int_equal(b.probes, 2);
}

static void breaker__names_its_states(void **state)
{
	assert_string_equal(breaker_state_name(BREAKER_CLOSED), "closed");
	assert_string_equal(breaker_state_name(BREAKER_OPEN), "open");
	assert_string_equal(breaker_state_name(BREAKER_HALF_OPEN), "half-open");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(breaker__opens_after_failures_in_a_row),
		cmocka_unit_test(breaker__sends_one_probe_at_a_time),
		cmocka_unit_test(breaker__pauses_grow_to_a_bound),
		cmocka_unit_test(breaker__draws_lots),
		cmocka_unit_test(breaker__starts_over_with_a_real_answer_only),
		cmocka_unit_test(breaker__closes_by_a_late_answer),
		cmocka_unit_test(breaker__goes_on_where_another_process_was),
		cmocka_unit_test(breaker__names_its_states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
