// SPDX-License-Identifier: MIT
#include "serve/pubqueue.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One text on its way; lives as long as somebody waits for it. */
struct job {
	struct job *next;
	struct kv_hash what; /* of text, raw and title */
	unsigned int users;
	bool done;
	int ret;
	struct kv_hash key;
	struct lslm_error err;
};

struct pubqueue {
	struct store *store;
	pubqueue_fn *compute;
	void *arg;
	pthread_mutex_t turn; /* held while computing */
	pthread_mutex_t lock; /* protects jobs and everything in them */
	pthread_cond_t finished;
	struct job *jobs;
};

int pubqueue_open(struct pubqueue **out, struct store *store, pubqueue_fn *compute, void *arg,
		  struct lslm_error *err)
{
	struct pubqueue *p = calloc(1, sizeof(*p));

	if (!p)
		return error_sys(err, -ENOMEM, "publishing queue");
	p->store = store;
	p->compute = compute;
	p->arg = arg;
	pthread_mutex_init(&p->turn, NULL);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->finished, NULL);
	*out = p;
	return 0;
}

void pubqueue_close(struct pubqueue *p)
{
	if (!p)
		return;
	pthread_cond_destroy(&p->finished);
	pthread_mutex_destroy(&p->lock);
	pthread_mutex_destroy(&p->turn);
	free(p);
}

static struct kv_hash name_job(const char *text, size_t len, bool raw, const char *title)
{
	crypto_generichash_state st;
	uint8_t head[2] = { raw, title != NULL };
	struct kv_hash what;

	crypto_generichash_init(&st, NULL, 0, sizeof(what.b));
	crypto_generichash_update(&st, head, sizeof(head));
	/* With its NUL, so that title and text cannot run into each other. */
	if (title)
		crypto_generichash_update(&st, (const uint8_t *)title, strlen(title) + 1);
	crypto_generichash_update(&st, (const uint8_t *)text, len);
	crypto_generichash_final(&st, what.b, sizeof(what.b));
	return what;
}

/* The job of this name, found or new; the caller is one of its users. */
static struct job *join(struct pubqueue *p, const struct kv_hash *what, bool *mine)
{
	struct job *j;

	pthread_mutex_lock(&p->lock);
	for (j = p->jobs; j; j = j->next)
		if (!j->done && kv_hash_equal(&j->what, what))
			break;
	*mine = !j;
	if (!j) {
		j = calloc(1, sizeof(*j));
		if (j) {
			j->what = *what;
			j->next = p->jobs;
			p->jobs = j;
		}
	}
	if (j)
		j->users++;
	pthread_mutex_unlock(&p->lock);
	return j;
}

static void leave(struct pubqueue *p, struct job *j)
{
	struct job **at;

	if (--j->users)
		return;
	for (at = &p->jobs; *at != j; at = &(*at)->next)
		;
	*at = j->next;
	free(j);
}

static int compute(struct pubqueue *p, const char *text, size_t len, bool raw, const char *title,
		   struct kv_hash *key, struct lslm_error *err)
{
	char path[PATH_MAX];
	int ret;

	store_incoming(p->store, path);
	pthread_mutex_lock(&p->turn);
	ret = p->compute(p->arg, text, len, raw, title, path, key, err);
	pthread_mutex_unlock(&p->turn);
	if (ret < 0) {
		unlink(path);
		return ret;
	}
	return store_add(p->store, path, key, err);
}

int pubqueue_publish(struct pubqueue *p, const char *text, size_t len, bool raw, const char *title,
		     struct kv_hash *key, struct lslm_error *err)
{
	struct kv_hash what = name_job(text, len, raw, title), got = { 0 };
	struct lslm_error why = { 0 };
	struct job *j;
	int ret = 0;
	bool mine;

	j = join(p, &what, &mine);
	if (!j)
		return error_sys(err, -ENOMEM, "publish");
	if (mine)
		ret = compute(p, text, len, raw, title, &got, &why);

	pthread_mutex_lock(&p->lock);
	if (mine) {
		j->ret = ret;
		j->key = got;
		j->err = why;
		j->done = true;
		pthread_cond_broadcast(&p->finished);
	}
	while (!j->done)
		pthread_cond_wait(&p->finished, &p->lock);
	ret = j->ret;
	*key = j->key;
	if (ret < 0 && err)
		*err = j->err;
	leave(p, j);
	pthread_mutex_unlock(&p->lock);
	return ret;
}

unsigned int pubqueue_users(struct pubqueue *p)
{
	unsigned int n = 0;

	pthread_mutex_lock(&p->lock);
	for (const struct job *j = p->jobs; j; j = j->next)
		n += j->users;
	pthread_mutex_unlock(&p->lock);
	return n;
}
