// SPDX-License-Identifier: MIT
#include "net/keeper.h"

#include <linux/ioprio.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/manifest_cache.h"

enum { FIRST_PAUSE_MS = 1000, LAST_PAUSE_MS = 60000 };

struct stripe {
	const struct manifest_level *level;
	const uint8_t *data;
};

struct keeper {
	struct keeper_opts opts;
	struct stripe *stripes; /* [n_stripes] written before their bit is set */
	const uint8_t *data; /* of the manifest, likewise: bit n_stripes */
	size_t size;

	pthread_t thread;
	sem_t work; /* up for each stripe that was added, and for the end */
	atomic_bool end;
	_Atomic uint64_t *added; /* [n_stripes / 64 + 1] bits of what waits */

	pthread_mutex_t lock; /* of failure */
	struct lslm_error failure;
};

/* The number of what waits, taken; -1 when there is nothing. */
static int64_t take(struct keeper *k)
{
	for (uint32_t i = 0; i <= k->opts.manifest->n_stripes / 64; i++) {
		uint64_t bits = atomic_load(&k->added[i]);

		if (!bits)
			continue;
		atomic_fetch_and(&k->added[i], ~(bits & -bits));
		return i * 64 + (int64_t)__builtin_ctzll(bits);
	}
	return -1;
}

static void add(struct keeper *k, uint32_t number)
{
	atomic_fetch_or(&k->added[number / 64], 1ull << number % 64);
}

static int save(struct keeper *k, uint32_t number, struct lslm_error *why)
{
	const struct manifest *m = k->opts.manifest;
	const struct stripe *s = &k->stripes[number];

	if (number == m->n_stripes)
		return manifest_cache_put(&m->key, k->data, k->size, why);
	return stripe_store_save(k->opts.store, m, s->level, number, s->data, why);
}

/* What is too large is so the next time too; all else may pass. */
static bool is_final(int code)
{
	return code == -EFBIG;
}

/* Told once, and once more when it is over. */
static void note(struct keeper *k, const struct lslm_error *why)
{
	bool news;

	pthread_mutex_lock(&k->lock);
	news = why ? !k->failure.code : k->failure.code;
	if (news && why)
		k->failure = *why;
	else if (news)
		k->failure.code = 0;
	pthread_mutex_unlock(&k->lock);
	if (news && k->opts.told)
		k->opts.told(k->opts.arg, why);
}

/* Returns how long the next pause is. What was added meanwhile is found without its count. */
static int rest(struct keeper *k, int ms)
{
	const struct timespec until = clock_after_ms(ms);

	while (!atomic_load(&k->end) &&
	       (!sem_clockwait(&k->work, CLOCK_MONOTONIC, &until) || errno == EINTR))
		;
	return ms < LAST_PAUSE_MS / 2 ? 2 * ms : LAST_PAUSE_MS;
}

/* Either may be refused, and then it runs like any other thread. */
static void step_back(void)
{
	const pid_t self = gettid();

	setpriority(PRIO_PROCESS, (id_t)self, 19);
	syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, self, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}

static void *keep(void *arg)
{
	struct keeper *k = arg;
	struct lslm_error why = { 0 };
	int pause = FIRST_PAUSE_MS, ret;
	bool lost = false; /* something will not be tried again */
	int64_t number;

	step_back();
	for (;;) {
		number = take(k);
		if (number < 0) {
			if (!lost)
				note(k, NULL);
			if (atomic_load(&k->end))
				return NULL;
			while (sem_wait(&k->work))
				;
			continue;
		}
		ret = save(k, (uint32_t)number, &why);
		if (!ret) {
			pause = FIRST_PAUSE_MS;
			continue;
		}
		note(k, &why);
		if (is_final(ret) || atomic_load(&k->end)) {
			lost = true;
			continue;
		}
		add(k, (uint32_t)number);
		pause = rest(k, pause);
	}
}

/* With every signal blocked: a file size limit's, above all, would be delivered to it. */
static int start_thread(struct keeper *k)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&k->thread, NULL, keep, k);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -ret;
}

static void destroy(struct keeper *k)
{
	sem_destroy(&k->work);
	pthread_mutex_destroy(&k->lock);
	free(k->stripes);
	free(k->added);
	free(k);
}

int keeper_start(struct keeper **out, const struct keeper_opts *opts, struct lslm_error *err)
{
	const uint32_t n = opts->manifest->n_stripes;
	struct keeper *k = calloc(1, sizeof(*k));
	int ret;

	if (!k)
		return error_sys(err, -ENOMEM, "keeper of stripes");
	k->opts = *opts;
	sem_init(&k->work, 0, 0);
	pthread_mutex_init(&k->lock, NULL);
	k->added = calloc((size_t)n / 64 + 1, sizeof(*k->added));
	k->stripes = calloc((size_t)n + 1, sizeof(*k->stripes));
	ret = k->added && k->stripes ? start_thread(k) : -ENOMEM;
	if (ret < 0) {
		destroy(k);
		return error_sys(err, ret, "keeper of stripes");
	}
	*out = k;
	return 0;
}

void keeper_add(struct keeper *k, uint32_t stripe, const struct manifest_level *lv,
		const uint8_t *data)
{
	k->stripes[stripe] = (struct stripe){ lv, data };
	add(k, stripe);
	sem_post(&k->work);
}

void keeper_add_manifest(struct keeper *k, const uint8_t *data, size_t size)
{
	k->data = data;
	k->size = size;
	add(k, k->opts.manifest->n_stripes);
	sem_post(&k->work);
}

void keeper_failure(struct keeper *k, struct lslm_error *why)
{
	pthread_mutex_lock(&k->lock);
	*why = k->failure;
	pthread_mutex_unlock(&k->lock);
}

void keeper_finish(struct keeper *k)
{
	if (!k)
		return;
	atomic_store(&k->end, true);
	sem_post(&k->work);
	pthread_join(k->thread, NULL);
	destroy(k);
}
