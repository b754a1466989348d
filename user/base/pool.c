// SPDX-License-Identifier: MIT
#include "base/pool.h"

#include <linux/futex.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* About 20 us on current processors: longer than the gap between two parts of a layer. */
enum { SPINS = 4000 };

struct worker {
	struct pool *pool;
	pthread_t thread;
	unsigned int index;
};

/*
 * One job at a time. The caller fills fn, arg, n_items and next, then adds one to
 * `round` (release); a worker that sees a new round (acquire) sees the job. Each worker
 * adds one to `done` (release) when it has found no item left; the caller waits
 * for all of them (acquire) and only then may the job's fields change again.
 */
struct pool {
	unsigned int n_threads; /* the caller included */
	struct worker *workers; /* n_threads - 1 */

	pool_fn *fn;
	void *arg;
	uint32_t n_items;
	atomic_uint next;

	atomic_uint round;
	atomic_uint done;
	atomic_uint sleepers; /* workers that may be in futex_wait on round */
	atomic_bool stop;
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

static void work(struct pool *p, unsigned int thread)
{
	for (;;) {
		uint32_t item = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);

		if (item >= p->n_items)
			return;
		p->fn(p->arg, item, thread);
	}
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

static void change(struct pool *p, atomic_uint *word)
{
	atomic_fetch_add(word, 1);
	if (atomic_load(&p->sleepers))
		futex_wake_all(word);
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
		change(p, &p->done);
	}
}

static unsigned int allowed_cpus(void)
{
	cpu_set_t set;
	int n = 1;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = CPU_COUNT(&set);
	return n < 1 ? 1 : n > POOL_MAX_THREADS ? POOL_MAX_THREADS : (unsigned int)n;
}

int pool_create(struct pool **out, unsigned int n_threads, struct lslm_error *err)
{
	struct pool *p;

	if (n_threads == 0)
		n_threads = allowed_cpus();
	if (n_threads > POOL_MAX_THREADS)
		return error_set(err, -EINVAL, "%u threads: at most %d are supported", n_threads,
				 POOL_MAX_THREADS);
	p = calloc(1, sizeof(*p));
	if (!p)
		return error_set(err, -ENOMEM, "thread pool: out of memory");
	p->n_threads = 1;
	p->workers = calloc(n_threads, sizeof(*p->workers));
	if (!p->workers) {
		free(p);
		return error_set(err, -ENOMEM, "thread pool: out of memory");
	}
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
	change(p, &p->round);
	for (unsigned int i = 1; i < p->n_threads; i++)
		pthread_join(p->workers[i - 1].thread, NULL);
	free(p->workers);
	free(p);
}

unsigned int pool_threads(const struct pool *p)
{
	return p->n_threads;
}

void pool_run(struct pool *p, uint32_t n_items, pool_fn *fn, void *arg)
{
	unsigned int seen;

	p->fn = fn;
	p->arg = arg;
	p->n_items = n_items;
	atomic_store_explicit(&p->next, 0, memory_order_relaxed);
	if (p->n_threads == 1 || n_items <= 1) {
		work(p, 0);
		return;
	}
	atomic_store_explicit(&p->done, 0, memory_order_relaxed);
	change(p, &p->round);
	work(p, 0);
	while ((seen = atomic_load_explicit(&p->done, memory_order_acquire)) != p->n_threads - 1)
		await_change(p, &p->done, seen);
}
