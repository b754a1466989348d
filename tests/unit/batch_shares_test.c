// SPDX-License-Identifier: MIT
/* Who has how many places of a batch's queue. */
#include "engine/batch_shares.h"

#include "unit.h"

/* How many it gets. */
static uint32_t fill(struct batch_shares *s, uint32_t tenant)
{
	uint32_t n = 0;

	while (!batch_shares_take(s, tenant, NULL))
		n++;
	assert_int_equal(batch_shares_take(s, tenant, NULL), -EAGAIN);
	return n;
}

static void give(struct batch_shares *s, uint32_t tenant, uint32_t n)
{
	while (n--)
		batch_shares_give(s, tenant);
}

static void batch_shares__leave_places_for_others(void **state)
{
	struct batch_shares s = { .max = 240, .shared = true };

	assert_int_equal(fill(&s, 7), 120);
	/* Who comes then has half of what is left, and so on: nobody finds none. */
	assert_int_equal(fill(&s, 8), 60);
	assert_int_equal(fill(&s, 9), 30);
	give(&s, 8, 60);
	give(&s, 9, 30);
	/* One that has more than that now gets no more until it has less. */
	assert_int_equal(fill(&s, 8), 60);
	assert_int_equal(fill(&s, 7), 0);
	give(&s, 7, 120);
	give(&s, 8, 60);
	/* Of two that come at the same time each has a third. */
	for (int i = 0; i < 240; i++) {
		batch_shares_take(&s, 7, NULL);
		batch_shares_take(&s, 8, NULL);
	}
	assert_int_equal(s.n, 160);
	give(&s, 7, 80);
	give(&s, 8, 80);
	assert_int_equal(s.n, 0);
	assert_int_equal(s.n_tenants, 0);
	batch_shares_free(&s);
}

/* More tenants than places: each has one, and the last one goes to who has none. */
static void batch_shares__end_with_the_places(void **state)
{
	struct batch_shares s = { .max = 5, .shared = true };

	for (uint32_t t = 0; t < 5; t++)
		assert_int_equal(batch_shares_take(&s, t, NULL), 0);
	assert_int_equal(batch_shares_take(&s, 5, NULL), -EAGAIN);
	give(&s, 3, 1);
	assert_int_equal(batch_shares_take(&s, 4, NULL), -EAGAIN);
	assert_int_equal(batch_shares_take(&s, 5, NULL), 0);
	batch_shares_free(&s);
}

static void batch_shares__are_all_for_one_where_nothing_is_shared(void **state)
{
	struct batch_shares s = { .max = 9 };

	assert_int_equal(fill(&s, 0), 9);
	batch_shares_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(batch_shares__leave_places_for_others),
		cmocka_unit_test(batch_shares__end_with_the_places),
		cmocka_unit_test(batch_shares__are_all_for_one_where_nothing_is_shared),
	};

	return cmocka_run_group_tests_name("batch_shares", tests, NULL, NULL);
}
