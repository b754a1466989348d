// SPDX-License-Identifier: MIT
#include "base/pool.h"

#include <linux/futex.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cpus.h"

/* About 20 us on current processors: longer than the gap between two parts of a layer. */
enum { SPINS = 4000 };

struct worker {
	struct pool *pool;
	pthread_t thread;
	unsigned int index;
};

/* Items that are left of what a thread was given: end << 32 | first. On a cache line of its own. */
struct range {
	_Alignas(64) _Atomic uint64_t items;
};

/*
 * One job at a time. The caller fills fn and arg, stores each thread's part of the items in `ranges` (release),
 * and adds one to `round`, which workers wait for. Whoever makes a range shorter by one (acquire) has that item,
 * and the job's fields; the caller changes them only when `done` says that every item is finished (release, acquire).
 * A thread takes its own items from the first on, and others' from the last. So a round does not wait for
 * workers that have not come: one whose core somebody else has finds nothing left, or the next job.
 */
struct pool {
	unsigned int n_threads; /* the caller included */
	struct worker *workers; /* n_threads - 1 */
	struct range *ranges; /* n_threads */

	pool_fn *fn;
	void *arg;
	uint32_t n_items;
	atomic_bool stop;
	atomic_uint sleepers; /* threads that may be in futex_wait */

	/* Each is waited for by some and written to by others: on cache lines of their own. */
	_Alignas(64) atomic_uint round;
	_Alignas(64) atomic_uint done; /* items */
};

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static void futex_wait(atomic_uint *word, unsigned int seen)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_all(atomic_uint *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Wait until *word differs from seen. */
static unsigned int await_change(struct pool *p, atomic_uint *word, unsigned int seen)
{
	unsigned int now;

	for (int i = 0; i < SPINS; i++) {
		now = atomic_load_explicit(word, memory_order_acquire);
		if (now != seen)
			return now;
		relax();
	}
	/* seq_cst orders this add before the wait's read of the word, against
	 * the waker's change of the word before its read of sleepers.
	 */
	atomic_fetch_add(&p->sleepers, 1);
	while ((now = atomic_load(word)) == seen)
		futex_wait(word, seen);
	atomic_fetch_sub(&p->sleepers, 1);
	return now;
}

/* seq_cst, as await_change() says. */
static void wake(struct pool *p, atomic_uint *word)
{
	if (atomic_load(&p->sleepers))
		futex_wake_all(word);
}

/* So many items: only the last one is waited for. */
static void finished(struct pool *p, uint32_t count)
{
	const uint32_t n = p->n_items; /* behind the addition it may be the next round's */

	if (atomic_fetch_add(&p->done, count) + count == n)
		wake(p, &p->done);
}

/* The first item of a range, or its last; false: none is left. */
static bool take(struct range *r, bool last, uint32_t *item)
{
	uint64_t items = atomic_load_explicit(&r->items, memory_order_relaxed);
	uint64_t rest;

	do {
		const uint32_t first = (uint32_t)items, end = (uint32_t)(items >> 32);

		if (first >= end)
			return false;
		*item = last ? end - 1 : first;
		rest = last ? items - (1ull << 32) : items + 1;
	} while (!atomic_compare_exchange_weak_explicit(
		&r->items, &items, rest, memory_order_acquire, memory_order_relaxed));
	return true;
}

static void work(struct pool *p, unsigned int thread)
{
	uint32_t item;

	for (unsigned int i = 0; i < p->n_threads; i++) {
		struct range *r = &p->ranges[(thread + i) % p->n_threads];
		uint32_t count = 0;

		for (; take(r, i > 0, &item); count++)
			p->fn(p->arg, item, thread);
		if (count)
			finished(p, count);
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct pool *p = w->pool;
	unsigned int round = 0;

	for (;;) {
		round = await_change(p, &p->round, round);
		if (atomic_load_explicit(&p->stop, memory_order_relaxed))
			return NULL;
		work(p, w->index);
	}
}

int pool_create(struct pool **out, unsigned int n_threads, struct lslm_error *err)
{
	struct pool *p;

	if (n_threads == 0) {
		n_threads = cpus_usable();
		n_threads = n_threads > POOL_MAX_THREADS ? POOL_MAX_THREADS : n_threads;
	}
	if (n_threads > POOL_MAX_THREADS)
		return error_set(err, -EINVAL, "%u threads: at most %d are supported", n_threads,
				 POOL_MAX_THREADS);
	p = aligned_alloc(_Alignof(struct pool), sizeof(*p));
	if (!p)
		return error_set(err, -ENOMEM, "thread pool: out of memory");
	memset(p, 0, sizeof(*p));
	p->n_threads = 1;
	p->workers = calloc(n_threads, sizeof(*p->workers));
	p->ranges = aligned_alloc(sizeof(*p->ranges), n_threads * sizeof(*p->ranges));
	if (!p->workers || !p->ranges) {
		pool_destroy(p);
		return error_set(err, -ENOMEM, "thread pool: out of memory");
	}
	memset(p->ranges, 0, n_threads * sizeof(*p->ranges));
	while (p->n_threads < n_threads) {
		struct worker *w = &p->workers[p->n_threads - 1];
		int rc;

		w->pool = p;
		w->index = p->n_threads;
		rc = pthread_create(&w->thread, NULL, worker_main, w);
		if (rc) {
			pool_destroy(p);
			return error_sys(err, -rc, "cannot start thread %u of %u", w->index,
					 n_threads);
		}
		p->n_threads++;
	}
	*out = p;
	return 0;
}

void pool_destroy(struct pool *p)
{
	if (!p)
		return;
	atomic_store(&p->stop, true);
	atomic_fetch_add(&p->round, 1);
	wake(p, &p->round);
	for (unsigned int i = 1; i < p->n_threads; i++)
		pthread_join(p->workers[i - 1].thread, NULL);
	free(p->workers);
	free(p->ranges);
	free(p);
}

unsigned int pool_threads(const struct pool *p)
{
	return p->n_threads;
}

/* Where the part of thread t of n begins. */
static uint64_t part(uint32_t n_items, unsigned int t, unsigned int n)
{
	return (uint64_t)n_items * t / n;
}

void pool_run(struct pool *p, uint32_t n_items, pool_fn *fn, void *arg)
{
	unsigned int seen;

	if (p->n_threads == 1 || n_items <= 1) {
		for (uint32_t item = 0; item < n_items; item++)
			fn(arg, item, 0);
		return;
	}
	p->fn = fn;
	p->arg = arg;
	p->n_items = n_items;
	atomic_store_explicit(&p->done, 0, memory_order_relaxed);
	for (unsigned int t = 0; t < p->n_threads; t++)
		atomic_store_explicit(&p->ranges[t].items,
				      part(n_items, t + 1, p->n_threads) << 32 |
					      part(n_items, t, p->n_threads),
				      memory_order_release);
	atomic_fetch_add(&p->round, 1);
	wake(p, &p->round);
	work(p, 0);
	while ((seen = atomic_load_explicit(&p->done, memory_order_acquire)) != n_items)
		await_change(p, &p->done, seen);
}
