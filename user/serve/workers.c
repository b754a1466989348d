// SPDX-License-Identifier: MIT
#include "serve/workers.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

enum { MAX_THREADS = 8 };

struct workers {
	pthread_t threads[MAX_THREADS];
	unsigned int n_threads;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t more;
	struct work *first, **last;
	bool stop;
};

static struct work *next(struct workers *all)
{
	struct work *w;

	pthread_mutex_lock(&all->lock);
	while (!all->first && !all->stop)
		pthread_cond_wait(&all->more, &all->lock);
	w = all->first;
	if (w) {
		all->first = w->next;
		if (!w->next)
			all->last = &all->first;
	}
	pthread_mutex_unlock(&all->lock);
	return w;
}

static void *run(void *arg)
{
	struct work *w;

	while ((w = next(arg)))
		w->run(w);
	return NULL;
}

int workers_open(struct workers **out, unsigned int n_threads, struct lslm_error *err)
{
	struct workers *all = calloc(1, sizeof(*all));
	int rc;

	if (!all)
		return error_sys(err, -ENOMEM, "workers");
	pthread_mutex_init(&all->lock, NULL);
	pthread_cond_init(&all->more, NULL);
	all->last = &all->first;
	for (; all->n_threads < n_threads && all->n_threads < MAX_THREADS; all->n_threads++) {
		rc = pthread_create(&all->threads[all->n_threads], NULL, run, all);
		if (rc) {
			workers_close(all);
			return error_sys(err, -rc, "workers");
		}
	}
	*out = all;
	return 0;
}

void workers_close(struct workers *all)
{
	if (!all)
		return;
	pthread_mutex_lock(&all->lock);
	all->stop = true;
	pthread_cond_broadcast(&all->more);
	pthread_mutex_unlock(&all->lock);
	for (unsigned int i = 0; i < all->n_threads; i++)
		pthread_join(all->threads[i], NULL);
	pthread_cond_destroy(&all->more);
	pthread_mutex_destroy(&all->lock);
	free(all);
}

void workers_add(struct workers *all, struct work *w)
{
	w->next = NULL;
	pthread_mutex_lock(&all->lock);
	*all->last = w;
	all->last = &w->next;
	pthread_cond_signal(&all->more);
	pthread_mutex_unlock(&all->lock);
}
