// SPDX-License-Identifier: MIT
/* Whose turn it is. */
#include "unit/unit.h"

#include <stdlib.h>

#include "engine/batch_queue.h"

static struct lslm_error err;

static bool ready(void *arg, const struct batch_request *r)
{
	return r != arg;
}

static void add(struct batch_queue *q, struct batch_request *r, uint32_t tenant)
{
	*r = (struct batch_request){ .tenant = tenant };
	assert_ok(batch_queue_reserve(q, &err), &err);
	batch_queue_add(q, r);
}

static struct batch_request *run_next(struct batch_queue *q)
{
	struct batch_request *r = batch_queue_next(q, ready, NULL);

	assert_non_null(r);
	batch_queue_take(q, r, true);
	return r;
}

/*
 * The tenant whose last turn is longest ago has two running; the other one, who has just had his
 * turn, has none any more.
 */
static void batch_queue__the_fewest_running_come_first(void **state)
{
	struct batch_queue q = { 0 };
	struct batch_request busy[3], quick[2];

	for (int i = 0; i < 3; i++)
		add(&q, &busy[i], 1);
	assert_ptr_equal(run_next(&q), &busy[0]);
	assert_ptr_equal(run_next(&q), &busy[1]);
	add(&q, &quick[0], 2);
	assert_ptr_equal(run_next(&q), &quick[0]);
	add(&q, &quick[1], 2);
	batch_queue_leave(&q, &quick[0], false);
	/* In order of arrival and of turns it would be the busy one's. */
	assert_ptr_equal(run_next(&q), &quick[1]);
	assert_ptr_equal(run_next(&q), &busy[2]);
	assert_null(batch_queue_next(&q, ready, NULL));
	batch_queue_free(&q);
}

static void batch_queue__of_equal_ones_the_turn_longest_ago(void **state)
{
	struct batch_queue q = { 0 };
	struct batch_request a[2], b[2];

	for (int i = 0; i < 2; i++)
		add(&q, &a[i], 1);
	for (int i = 0; i < 2; i++)
		add(&q, &b[i], 2);
	assert_ptr_equal(run_next(&q), &a[0]);
	assert_ptr_equal(run_next(&q), &b[0]);
	assert_ptr_equal(run_next(&q), &a[1]);
	assert_ptr_equal(run_next(&q), &b[1]);
	batch_queue_free(&q);
}

static void batch_queue__who_ran_already_comes_first(void **state)
{
	struct batch_queue q = { 0 };
	struct batch_request old, older, fresh;

	add(&q, &older, 1);
	add(&q, &old, 1);
	older.order = 1;
	old.order = 2;
	run_next(&q);
	run_next(&q);
	add(&q, &fresh, 2);
	batch_queue_leave(&q, &old, true);
	batch_queue_leave(&q, &older, true);
	assert_int_equal(q.n, 3);
	assert_ptr_equal(run_next(&q), &older);
	assert_ptr_equal(run_next(&q), &old);
	assert_ptr_equal(run_next(&q), &fresh);
	batch_queue_free(&q);
}

static void batch_queue__nobody_waits_for_one_that_is_not_ready(void **state)
{
	struct batch_queue q = { 0 };
	struct batch_request first, second;

	add(&q, &first, 1);
	add(&q, &second, 1);
	assert_ptr_equal(batch_queue_next(&q, ready, &first), &second);
	batch_queue_take(&q, &second, false);
	assert_null(batch_queue_next(&q, ready, &first));
	assert_ptr_equal(batch_queue_next(&q, ready, NULL), &first);
	batch_queue_free(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(batch_queue__the_fewest_running_come_first),
		cmocka_unit_test(batch_queue__of_equal_ones_the_turn_longest_ago),
		cmocka_unit_test(batch_queue__who_ran_already_comes_first),
		cmocka_unit_test(batch_queue__nobody_waits_for_one_that_is_not_ready),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
