// SPDX-License-Identifier: MIT
#include "serve/pubqueue.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hex.h"

/* One text on its way, or its end. Freed when nobody waits for it and it is not among the kept. */
struct job {
	struct job *next; /* older jobs come first */
	char id[PUBQUEUE_ID];
	struct kv_hash name; /* of everything in what */
	struct pubqueue_text what; /* owned; its texts are gone once it has ended */
	unsigned int users;
	struct pubqueue_status status;
};

struct pubqueue {
	struct store *store;
	pubqueue_fn *compute;
	void *arg;
	pthread_t thread;
	pthread_mutex_t lock; /* protects what follows and every job */
	pthread_cond_t changed; /* a job came, or ended */
	struct job *jobs;
	bool closing;
};

/* ---- jobs; the lock is held ---- */

static bool has_ended(const struct job *j)
{
	return j->status.state >= PUBQUEUE_STORED;
}

static void drop_text(struct job *j)
{
	free((char *)j->what.text);
	free((char *)j->what.title);
	free((char *)j->what.model);
	free((char *)j->what.map);
	j->what.text = j->what.title = j->what.model = j->what.map = NULL;
}

static void free_job(struct job *j)
{
	drop_text(j);
	free(j);
}

/* Forget the oldest of those that have ended, as far as there are too many. */
static void forget(struct pubqueue *p)
{
	unsigned int ended = 0;

	for (const struct job *j = p->jobs; j; j = j->next)
		ended += has_ended(j);
	for (struct job **at = &p->jobs; ended > PUBQUEUE_KEPT && *at;) {
		struct job *j = *at;

		if (!has_ended(j) || j->users) {
			at = &j->next;
			continue;
		}
		*at = j->next;
		free_job(j);
		ended--;
	}
}

static struct kv_hash name_of(const struct pubqueue_text *t)
{
	const char *const texts[] = { t->title, t->model, t->map };
	const uint8_t head[] = { t->raw, t->title != NULL, t->model != NULL, t->map != NULL };
	crypto_generichash_state st;
	struct kv_hash name;

	crypto_generichash_init(&st, NULL, 0, sizeof(name.b));
	crypto_generichash_update(&st, head, sizeof(head));
	crypto_generichash_update(&st, t->salt.b, sizeof(t->salt.b));
	/* With their NULs, so that they cannot run into each other or the text. */
	for (int i = 0; i < 3; i++)
		if (texts[i])
			crypto_generichash_update(&st, (const uint8_t *)texts[i],
						  strlen(texts[i]) + 1);
	crypto_generichash_update(&st, (const uint8_t *)t->text, t->len);
	crypto_generichash_final(&st, name.b, sizeof(name.b));
	return name;
}

/* Whether it could be had; NULL stays NULL. */
static bool copy_text(const char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return *to || !from;
}

static struct job *new_job(const struct pubqueue_text *what, const struct kv_hash *name)
{
	struct job *j = calloc(1, sizeof(*j));
	uint8_t number[(PUBQUEUE_ID - 1) / 2];

	if (!j)
		return NULL;
	j->name = *name;
	j->what = *what;
	j->what.text = malloc(what->len ? what->len : 1);
	j->what.title = j->what.model = j->what.map = NULL;
	if (!j->what.text || !copy_text(&j->what.title, what->title) ||
	    !copy_text(&j->what.model, what->model) || !copy_text(&j->what.map, what->map)) {
		free_job(j);
		return NULL;
	}
	memcpy((char *)j->what.text, what->text, what->len);
	randombytes_buf(number, sizeof(number));
	hex_format(j->id, number, sizeof(number));
	return j;
}

/* The job of this text that is under way, or a new one. */
static int join(struct pubqueue *p, const struct pubqueue_text *what, struct job **out,
		struct lslm_error *err)
{
	const struct kv_hash name = name_of(what);
	unsigned int waiting = 0;
	struct job **at, *j;

	for (at = &p->jobs; *at; at = &(*at)->next) {
		j = *at;
		waiting += j->status.state == PUBQUEUE_QUEUED;
		if (!has_ended(j) && kv_hash_equal(&j->name, &name)) {
			*out = j;
			return 0;
		}
	}
	if (waiting >= PUBQUEUE_WAITING)
		return error_set(err, -EAGAIN,
				 "%d texts are waiting to be computed; try again later",
				 PUBQUEUE_WAITING);
	j = new_job(what, &name);
	if (!j)
		return error_sys(err, -ENOMEM, "publish");
	*at = j;
	pthread_cond_broadcast(&p->changed);
	*out = j;
	return 0;
}

/* ---- computing ---- */

/* A job in the hands of the engine. */
struct work {
	struct pubqueue *queue;
	struct job *job;
	bool found; /* in the store */
};

static void on_progress(void *arg, uint32_t done, uint32_t total)
{
	struct work *w = arg;

	pthread_mutex_lock(&w->queue->lock);
	w->job->status.done = done;
	w->job->status.total = total;
	pthread_mutex_unlock(&w->queue->lock);
}

static bool on_key(void *arg, const struct kv_hash *key)
{
	struct work *w = arg;

	w->found = store_has(w->queue->store, key);
	return w->found;
}

static int compute(struct pubqueue *p, struct job *j, struct kv_hash *key, struct lslm_error *err)
{
	struct work w = { .queue = p, .job = j };
	const struct pubqueue_work work = { &w, on_progress, on_key };
	char path[PATH_MAX];
	int ret;

	store_incoming(p->store, path);
	ret = p->compute(p->arg, &j->what, path, &work, key, err);
	if (!ret && !w.found)
		return store_add(p->store, path, key, j->what.quota, err);
	unlink(path);
	return ret;
}

static struct job *next_job(struct pubqueue *p)
{
	struct job *j = p->jobs;

	while (j && j->status.state != PUBQUEUE_QUEUED)
		j = j->next;
	return j;
}

static void *work(void *arg)
{
	struct pubqueue *p = arg;

	pthread_mutex_lock(&p->lock);
	while (!p->closing) {
		struct job *j = next_job(p);
		struct lslm_error err = { 0 };
		struct kv_hash key = { 0 };
		int ret;

		if (!j) {
			pthread_cond_wait(&p->changed, &p->lock);
			continue;
		}
		j->status.state = PUBQUEUE_COMPUTING;
		pthread_mutex_unlock(&p->lock);
		ret = compute(p, j, &key, &err);
		pthread_mutex_lock(&p->lock);
		j->status.state = ret < 0 ? PUBQUEUE_FAILED : PUBQUEUE_STORED;
		j->status.key = key;
		j->status.err = err;
		drop_text(j);
		forget(p);
		pthread_cond_broadcast(&p->changed);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* ---- calls ---- */

int pubqueue_open(struct pubqueue **out, struct store *store, pubqueue_fn *fn, void *arg,
		  struct lslm_error *err)
{
	struct pubqueue *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return error_sys(err, -ENOMEM, "publishing queue");
	p->store = store;
	p->compute = fn;
	p->arg = arg;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	rc = pthread_create(&p->thread, NULL, work, p);
	if (rc) {
		free(p);
		return error_sys(err, -rc, "publishing queue");
	}
	*out = p;
	return 0;
}

void pubqueue_close(struct pubqueue *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->closing = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	while (p->jobs) {
		struct job *j = p->jobs;

		p->jobs = j->next;
		free_job(j);
	}
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

int pubqueue_publish(struct pubqueue *p, const struct pubqueue_text *what, struct kv_hash *key,
		     struct lslm_error *err)
{
	struct job *j;
	int ret;

	pthread_mutex_lock(&p->lock);
	ret = join(p, what, &j, err);
	if (!ret) {
		j->users++;
		while (!has_ended(j))
			pthread_cond_wait(&p->changed, &p->lock);
		ret = j->status.state == PUBQUEUE_FAILED ? j->status.err.code : 0;
		*key = j->status.key;
		if (ret && err)
			*err = j->status.err;
		j->users--;
		forget(p);
	}
	pthread_mutex_unlock(&p->lock);
	return ret;
}

int pubqueue_submit(struct pubqueue *p, const struct pubqueue_text *what, char id[PUBQUEUE_ID],
		    struct lslm_error *err)
{
	struct job *j;
	int ret;

	pthread_mutex_lock(&p->lock);
	ret = join(p, what, &j, err);
	if (!ret)
		memcpy(id, j->id, PUBQUEUE_ID);
	pthread_mutex_unlock(&p->lock);
	return ret;
}

int pubqueue_look(struct pubqueue *p, const char *id, const struct kv_hash *salt,
		  struct pubqueue_status *out)
{
	unsigned int before = 0;
	int ret = -ENOENT;

	pthread_mutex_lock(&p->lock);
	for (const struct job *j = p->jobs; j; j = j->next) {
		if (!strcmp(j->id, id) && kv_hash_equal(&j->what.salt, salt)) {
			*out = j->status;
			out->before = before;
			ret = 0;
			break;
		}
		before += !has_ended(j);
	}
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
