// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/pool.h"

struct job {
	atomic_uint calls[1000];
	atomic_uint bad_thread;
	unsigned int n_threads;
};

static void count(void *arg, uint32_t item, unsigned int thread)
{
	struct job *job = arg;

	atomic_fetch_add(&job->calls[item], 1);
	if (thread >= job->n_threads)
		atomic_fetch_add(&job->bad_thread, 1);
}

static void pool_run__calls_each_item_once(void **state)
{
	static const unsigned int threads[] = { 1, 2, 3, 8 };
	static const uint32_t items[] = { 0, 1, 2, 3, 7, 1000 };

	for (size_t t = 0; t < ARRAY_LEN(threads); t++) {
		struct lslm_error err;
		struct pool *pool;

		assert_ok(pool_create(&pool, threads[t], &err), &err);
		assert_int_equal(pool_threads(pool), threads[t]);
		for (size_t i = 0; i < ARRAY_LEN(items); i++) {
			struct job *job = calloc(1, sizeof(*job));

			job->n_threads = threads[t];
			pool_run(pool, items[i], count, job);
			for (uint32_t k = 0; k < 1000; k++)
				assert_int_equal(job->calls[k], k < items[i]);
			assert_int_equal(job->bad_thread, 0);
			free(job);
		}
		pool_destroy(pool);
	}
}

static void add(void *arg, uint32_t item, unsigned int thread)
{
	unsigned int *sum = arg;

	sum[item] += item + 1;
}

/* Many rounds, with pauses in which workers fall asleep: every round must be seen whole. */
static void pool_run__survives_sleeping_workers(void **state)
{
	unsigned int sum[5] = { 0 };
	struct lslm_error err;
	struct pool *pool;

	assert_ok(pool_create(&pool, 4, &err), &err);
	for (int round = 0; round < 2000; round++) {
		if (round % 100 == 0)
			usleep(1000);
		pool_run(pool, 5, add, sum);
	}
	for (unsigned int i = 0; i < 5; i++)
		assert_int_equal(sum[i], 2000 * (i + 1));
	pool_destroy(pool);
}

struct round {
	atomic_uint calls[64];
	uint32_t n;
};

static void mark(void *arg, uint32_t item, unsigned int thread)
{
	struct round *r = arg;

	/* A job of another round would have another length, or items that are done. */
	atomic_fetch_add(&r->calls[item < r->n ? item : 0], 1);
	if (item % 7 == 3)
		for (atomic_int spin = 0; spin < 200; spin++)
			;
}

/* More threads than processors, rounds of every length: late workers must not disturb what comes after. */
static void pool_run__late_workers_find_nothing(void **state)
{
	struct lslm_error err;
	struct pool *pool;

	assert_ok(pool_create(&pool, 7, &err), &err);
	for (uint32_t i = 0; i < 20000; i++) {
		struct round r = { .n = i * 13 % 64 + 1 };

		pool_run(pool, r.n, mark, &r);
		for (uint32_t k = 0; k < 64; k++)
			assert_int_equal(r.calls[k], k < r.n);
	}
	pool_destroy(pool);
}

enum { EACH = 4 };

struct meeting {
	atomic_uint there;
	unsigned int ran_by[EACH];
};

/* Nobody can take two items, as none ends before all threads have one. */
static void meet(void *arg, uint32_t item, unsigned int thread)
{
	struct meeting *m = arg;

	m->ran_by[item] = thread;
	atomic_fetch_add(&m->there, 1);
	while (atomic_load(&m->there) < EACH)
		sched_yield();
}

static void pool_run__gives_each_thread_its_part(void **state)
{
	struct lslm_error err;
	struct pool *pool;

	/* In a first round: a thread that still looks for leftovers of the round before may come upon another's part. */
	for (int round = 0; round < 100; round++) {
		struct meeting m = { 0 };

		assert_ok(pool_create(&pool, EACH, &err), &err);
		pool_run(pool, EACH, meet, &m);
		for (unsigned int i = 0; i < EACH; i++)
			assert_int_equal(m.ran_by[i], i);
		pool_destroy(pool);
	}
}

struct tail {
	atomic_uint done;
	uint32_t n;
};

/* The first item waits for all others, those of its own thread too. */
static void wait_for_rest(void *arg, uint32_t item, unsigned int thread)
{
	struct tail *t = arg;

	while (item == 0 && atomic_load(&t->done) < t->n - 1)
		sched_yield();
	atomic_fetch_add(&t->done, 1);
}

static void pool_run__a_thread_held_up_loses_one_item_only(void **state)
{
	struct lslm_error err;
	struct pool *pool;

	assert_ok(pool_create(&pool, 3, &err), &err);
	for (int round = 0; round < 100; round++) {
		struct tail t = { .n = 30 };

		pool_run(pool, t.n, wait_for_rest, &t);
		assert_int_equal(t.done, t.n);
	}
	pool_destroy(pool);
}

static void pool_create__refuses_too_many(void **state)
{
	struct lslm_error err;
	struct pool *pool;

	assert_int_equal(pool_create(&pool, POOL_MAX_THREADS + 1, &err), -EINVAL);
	assert_non_null(strstr(err.text, "257 threads"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pool_run__calls_each_item_once),
		cmocka_unit_test(pool_run__survives_sleeping_workers),
		cmocka_unit_test(pool_run__late_workers_find_nothing),
		cmocka_unit_test(pool_run__gives_each_thread_its_part),
		cmocka_unit_test(pool_run__a_thread_held_up_loses_one_item_only),
		cmocka_unit_test(pool_create__refuses_too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
