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
#include <unistd.h>

struct stripe {
	const struct manifest_level *level;
	const uint8_t *data;
};

struct keeper {
	struct stripe_store *store;
	const struct manifest *manifest;
	struct stripe *stripes; /* [n_stripes] written before their bit is set */

	pthread_t thread;
	sem_t work; /* up for each stripe that was added, and for the end */
	atomic_bool end;
	_Atomic uint64_t *added; /* [(n_stripes + 63) / 64] bits of stripes that wait */

	pthread_mutex_t lock; /* of failure */
	struct lslm_error failure;
};

/* A stripe that waits, taken; n_stripes when there is none. */
static uint32_t take(struct keeper *k)
{
	const uint32_t n = k->manifest->n_stripes;

	for (uint32_t i = 0; i < (n + 63) / 64; i++) {
		uint64_t bits = atomic_load(&k->added[i]);

		if (!bits)
			continue;
		atomic_fetch_and(&k->added[i], ~(bits & -bits));
		return i * 64 + (uint32_t)__builtin_ctzll(bits);
	}
	return n;
}

static void save(struct keeper *k, uint32_t stripe)
{
	const struct stripe *s = &k->stripes[stripe];
	struct lslm_error why = { 0 };

	if (!stripe_store_save(k->store, k->manifest, s->level, stripe, s->data, &why))
		return;
	pthread_mutex_lock(&k->lock);
	if (!k->failure.code)
		k->failure = why;
	pthread_mutex_unlock(&k->lock);
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
	uint32_t stripe;

	step_back();
	for (;;) {
		while (sem_wait(&k->work))
			;
		stripe = take(k);
		if (stripe < k->manifest->n_stripes)
			save(k, stripe);
		else if (atomic_load(&k->end))
			return NULL;
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

int keeper_start(struct keeper **out, struct stripe_store *store, const struct manifest *m,
		 struct lslm_error *err)
{
	struct keeper *k = calloc(1, sizeof(*k));
	int ret;

	if (!k)
		return error_sys(err, -ENOMEM, "keeper of stripes");
	k->store = store;
	k->manifest = m;
	sem_init(&k->work, 0, 0);
	pthread_mutex_init(&k->lock, NULL);
	k->added = calloc((m->n_stripes + 63) / 64, sizeof(*k->added));
	k->stripes = calloc((size_t)m->n_stripes + 1, sizeof(*k->stripes));
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
	atomic_fetch_or(&k->added[stripe / 64], 1ull << stripe % 64);
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
