// SPDX-License-Identifier: MIT
/* Shares: a stripe is one source's, what a source leaves is another's, and nobody takes more than it can bring. */
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/shares.h"
#include "unit/unit.h"

enum { N = 40, A = SHARES_PEER, B = SHARES_PEER + 1, D = SHARES_DIRECT };

static struct shares *s;

static int setup(void **state)
{
	struct lslm_error err = { 0 };

	assert_ok(shares_open(&s, N, &err), &err);
	shares_join(s, D);
	return 0;
}

static int teardown(void **state)
{
	shares_close(s);
	return 0;
}

/* Locked as sinks do it. */
static enum shares_answer claim(uint32_t source, uint32_t stripe, uint64_t bytes)
{
	enum shares_answer answer;

	shares_lock(s);
	answer = shares_claim(s, source, stripe);
	if (answer == SHARES_NEW)
		shares_ask(s, source, bytes);
	shares_unlock(s);
	return answer;
}

static enum shares_answer take_over(uint32_t source, uint32_t stripe, bool *recall)
{
	enum shares_answer answer;

	shares_lock(s);
	answer = shares_take_over(s, source, stripe, recall);
	shares_unlock(s);
	return answer;
}

static bool is_open(uint32_t stripe)
{
	bool open;

	shares_lock(s);
	open = shares_is_open(s, stripe);
	shares_unlock(s);
	return open;
}

static void shares__one_alone_has_all(void **state)
{
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(claim(D, i, 1 << 20), SHARES_NEW);
	assert_int_equal(claim(D, 7, 0), SHARES_MINE);
	for (uint32_t i = 0; i < N; i++)
		assert_false(is_open(i));
}

static void shares__a_stripe_is_one_sources(void **state)
{
	shares_join(s, A);
	shares_join(s, B);
	assert_int_equal(claim(D, 0, 1000), SHARES_NEW);
	assert_int_equal(claim(A, 0, 1000), SHARES_NO);
	assert_int_equal(claim(A, 1, 1000), SHARES_NEW);
	assert_int_equal(claim(A, 1, 1000), SHARES_MINE);
	assert_int_equal(claim(B, 1, 1000), SHARES_NO);
	assert_int_equal(claim(D, 1, 1000), SHARES_NO);
	assert_false(is_open(0));
	assert_true(is_open(1));
	assert_true(is_open(2));
}

/* Large stripes: one at a time, until it has come, whatever its size. */
static void shares__asks_for_one_while_the_speed_is_unknown(void **state)
{
	shares_join(s, A);
	for (uint32_t source = D; source <= A; source++) {
		assert_int_equal(claim(source, source * 10, 1 << 20), SHARES_NEW);
		assert_int_equal(claim(source, source * 10 + 1, 1 << 20), SHARES_NO);
		assert_int_equal(claim(source, source * 10, 1 << 20), SHARES_MINE);
		shares_came(s, source, 1 << 20);
		assert_int_equal(claim(source, source * 10 + 1, 1 << 20), SHARES_NEW);
		/* It will not come: that is no reason never to ask again. */
		assert_int_equal(claim(source, source * 10 + 2, 1 << 20), SHARES_NO);
		shares_settle(s, source);
		assert_int_equal(claim(source, source * 10 + 2, 1 << 20), SHARES_NEW);
	}
}

/* Small ones are many. */
static void shares__asks_for_some_of_small_ones(void **state)
{
	uint32_t n = 0;

	shares_join(s, A);
	while (n < N && claim(A, n, 8 << 10) == SHARES_NEW)
		n++;
	assert_int_equal(n, 8);
}

static void shares__what_is_left_is_free(void **state)
{
	shares_join(s, A);
	claim(D, 0, 10);
	claim(A, 1, 10);
	shares_leave(s, D);
	assert_true(is_open(0));
	assert_int_equal(claim(A, 0, 10), SHARES_NEW);
	shares_leave(s, A);
	shares_join(s, D);
	assert_int_equal(claim(D, 0, 10), SHARES_NEW);
	assert_int_equal(claim(D, 1, 10), SHARES_NEW);
	/* There are no peers any more: no limit. */
	for (uint32_t i = 2; i < N; i++)
		assert_int_equal(claim(D, i, 1 << 20), SHARES_NEW);
}

/* A second is what a claim is respected for: longer than that, whatever the machine does. */
static void grow_old(void)
{
	nanosleep(&(struct timespec){ .tv_sec = 1, .tv_nsec = 50000000 }, NULL);
}

static void shares__old_claims_of_peers_are_taken_over(void **state)
{
	bool recall = false;

	shares_join(s, A);
	shares_join(s, B);
	claim(A, 3, 10);
	claim(A, 4, 10);
	grow_old();
	assert_int_equal(take_over(B, 3, &recall), SHARES_NEW);
	assert_int_equal(take_over(D, 4, NULL), SHARES_NEW);
	assert_false(recall);
	assert_true(is_open(3));
	/* That it writes in place must be known to whoever had it before. */
	assert_false(is_open(4));
	assert_int_equal(claim(A, 3, 10), SHARES_NO);
}

static void shares__the_direct_source_is_asked_to_let_go(void **state)
{
	bool recall = false;

	shares_join(s, A);
	shares_join(s, B);
	claim(D, 5, 10);
	claim(D, 6, 10);
	grow_old();
	assert_int_equal(take_over(A, 5, &recall), SHARES_NO);
	assert_true(recall);
	assert_false(is_open(5));
	shares_leave(s, D);
	shares_join(s, D);
	/* It inherits: even the source that let go of it is too late. */
	assert_int_equal(claim(D, 5, 10), SHARES_NO);
	assert_int_equal(claim(B, 5, 10), SHARES_NO);
	assert_int_equal(claim(A, 5, 10), SHARES_MINE);
	assert_int_equal(claim(B, 6, 10), SHARES_NEW);
}

/* An heir that is gone inherits nothing. */
static void shares__a_dead_heir_inherits_nothing(void **state)
{
	bool recall = false;

	shares_join(s, A);
	claim(D, 5, 10);
	grow_old();
	take_over(A, 5, &recall);
	assert_true(recall);
	shares_leave(s, A);
	shares_leave(s, D);
	shares_join(s, D);
	assert_int_equal(claim(D, 5, 10), SHARES_NEW);
}

/* The last stripes are not given to one beside whom the others are done before it has brought one. */
static void shares__the_slow_get_none_of_the_last(void **state)
{
	enum shares_answer answer;
	double begun;

	shares_join(s, A);
	for (uint32_t i = 0; i < 10; i++)
		claim(i % 2 ? A : D, i, 1000);
	/* Twenty times as much in the same time. */
	begun = clock_seconds();
	nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	shares_came(s, D, 5000);
	shares_came(s, A, 100000);
	/* Thirty are left: A needs longer for all of them than the other one for this. */
	assert_int_equal(claim(D, 10, 1000), SHARES_NEW);
	for (uint32_t i = 11; i < N - 2; i++) {
		shares_settle(s, A);
		assert_int_equal(claim(A, i, 1000), SHARES_NEW);
	}
	shares_settle(s, D);
	shares_came(s, A, 1);
	answer = claim(D, N - 1, 1000);
	/* Where this process was not run for half a second, A was silent, or slow: that proves nothing. */
	if (clock_seconds() - begun > 0.4)
		return;
	assert_int_equal(answer, SHARES_NO);
	assert_int_equal(claim(A, N - 1, 1000), SHARES_NEW);
	/* Not counted on any more when it has been silent, or is gone. */
	shares_leave(s, A);
	assert_int_equal(claim(D, N - 2, 1000), SHARES_NEW);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(shares__one_alone_has_all, setup, teardown),
		cmocka_unit_test_setup_teardown(shares__a_stripe_is_one_sources, setup, teardown),
		cmocka_unit_test_setup_teardown(shares__asks_for_one_while_the_speed_is_unknown,
						setup, teardown),
		cmocka_unit_test_setup_teardown(shares__asks_for_some_of_small_ones, setup,
						teardown),
		cmocka_unit_test_setup_teardown(shares__what_is_left_is_free, setup, teardown),
		cmocka_unit_test_setup_teardown(shares__old_claims_of_peers_are_taken_over, setup,
						teardown),
		cmocka_unit_test_setup_teardown(shares__the_direct_source_is_asked_to_let_go, setup,
						teardown),
		cmocka_unit_test_setup_teardown(shares__the_slow_get_none_of_the_last, setup,
						teardown),
		cmocka_unit_test_setup_teardown(shares__a_dead_heir_inherits_nothing, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
