// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "serve/workers.h"

enum { N = 1000 };

static int order[N];
static atomic_int n_done;

struct item {
	struct work work;
	int number;
};

static void note(struct work *w)
{
	order[atomic_fetch_add(&n_done, 1)] = ((struct item *)w)->number;
}

static void run_some(unsigned int n_threads)
{
	static struct item items[N];
	struct workers *all;
	struct lslm_error err;

	atomic_store(&n_done, 0);
	assert_ok(workers_open(&all, n_threads, &err), &err);
	for (int i = 0; i < N; i++) {
		items[i] = (struct item){ { .run = note }, i };
		workers_add(all, &items[i].work);
	}
	/* Not before all of it is done. */
	workers_close(all);
	assert_int_equal(atomic_load(&n_done), N);
}

static void workers__one_keeps_the_order(void **state)
{
	run_some(1);
	for (int i = 0; i < N; i++)
		assert_int_equal(order[i], i);
}

static void workers__several_do_each_once(void **state)
{
	static bool seen[N];

	run_some(4);
	for (int i = 0; i < N; i++) {
		assert_false(seen[order[i]]);
		seen[order[i]] = true;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(workers__one_keeps_the_order),
		cmocka_unit_test(workers__several_do_each_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
