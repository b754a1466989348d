// SPDX-License-Identifier: MIT
#include "serve/weights_share.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compute/matmul.h"
#include "engine/packfile.h"
#include "kv/control.h"
#include "kv/hugemem.h"
#include "model/model.h"

struct weights_share {
	struct weights_share_opts opts;
	struct model *model;
	struct matrices *matrices;
	struct buffer *buffer;
	struct control *page;
	struct kv_hash key;
	uint32_t n_sections;
	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* of what follows */
	bool stopping;
	struct lslm_error why; /* there is nothing to share; code 0: there is */
};

__attribute__((format(printf, 2, 3))) static void say(struct weights_share *w, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_tell(w->opts.log, w->opts.arg, NULL, fmt, ap);
	va_end(ap);
}

/* --- memory --- */

static void drop_room(struct weights_share *w)
{
	buffer_close(w->buffer);
	control_close(w->page);
	w->buffer = NULL;
	w->page = NULL;
}

/* What an earlier process left; false: nothing that fits. */
static bool adopt_room(struct weights_share *w, uint64_t bytes)
{
	const struct courier_custody *k = w->opts.custody;
	int fds[2];

	if (!k || k->reclaim(k->arg, &w->key, &w->key, &fds[0], &fds[1]))
		return false;
	if (buffer_import(&w->buffer, fds[0], NULL))
		close(fds[0]);
	if (control_import(&w->page, fds[1], NULL))
		close(fds[1]);
	if (w->buffer && w->page && buffer_data(w->buffer) && control_is_writable(w->page) &&
	    buffer_size(w->buffer) >= bytes && control_n_stripes(w->page) == 1 &&
	    control_n_layer(w->page) == w->n_sections) {
		control_retry(w->page);
		return true;
	}
	drop_room(w);
	return false;
}

/* Without huge pages of the module there are still those of the twin, and small ones. */
static int new_room(struct weights_share *w, uint64_t bytes, struct lslm_error *err)
{
	int rc = buffer_create(&w->buffer, w->opts.backend, bytes, BUFFER_HUGE, err);

	return rc ? rc : control_create(&w->page, 1, w->n_sections, err);
}

static int describe_room(struct weights_share *w, struct hugemem *m, struct lslm_error *err)
{
	struct buffer_info info;
	int rc = buffer_query(w->buffer, &info, err);

	if (rc)
		return rc;
	*m = (struct hugemem){
		.data = buffer_data(w->buffer),
		.size = info.size,
		.kind = buffer_backend_name(info.backend),
		.small = *info.page_reason,
	};
	snprintf(m->why, sizeof(m->why), "%s", info.page_reason);
	return 0;
}

static int room(void *arg, const struct kv_hash *key, uint64_t bytes, uint32_t n_sections,
		struct hugemem *memory, uint8_t *have, struct lslm_error *err)
{
	struct weights_share *w = arg;
	const struct courier_custody *k = w->opts.custody;
	int rc = 0;

	w->key = *key;
	w->n_sections = n_sections;
	if (!adopt_room(w, bytes))
		rc = new_room(w, bytes, err);
	if (!rc)
		rc = describe_room(w, memory, err);
	if (rc)
		return rc;
	if (k)
		k->deposit(k->arg, key, key, buffer_fd(w->buffer), control_fd(w->page));
	for (uint32_t s = 0; s < n_sections; s++)
		have[s] = control_get(w->page, 0, s) == CONTROL_READY;
	return 0;
}

/* --- the thread --- */

/* Those that wait for more are told, unless it is this process that ends: then the next one brings it. */
static void give_up(struct weights_share *w, const struct lslm_error *why)
{
	bool stopping;

	pthread_mutex_lock(&w->lock);
	stopping = w->stopping;
	if (!stopping)
		error_set(&w->why, -EBADMSG, "%s", why->text);
	pthread_mutex_unlock(&w->lock);
	if (stopping)
		return;
	control_fail(w->page);
	say(w, "weights of %s are not shared: %s", w->opts.model, why->text);
}

static void *run(void *arg)
{
	struct weights_share *w = arg;
	struct matrices_stats stats;
	struct lslm_error err;
	int rc;

	for (uint32_t s = 0; s < w->n_sections; s++) {
		if (control_get(w->page, 0, s) == CONTROL_READY)
			continue;
		rc = matrices_need(w->matrices, s, &err);
		if (!rc)
			rc = matrices_check(w->matrices, s, &err);
		if (rc) {
			give_up(w, &err);
			return NULL;
		}
		control_set(w->page, 0, s, CONTROL_READY, CONTROL_FROM_DISK, KV_LEVEL_F16);
	}
	matrices_stats(w->matrices, &stats);
	say(w, "weights of %s: %llu MiB in %.2f s, %s", w->opts.model,
	    (unsigned long long)(stats.arrived >> 20), stats.seconds, stats.text);
	return NULL;
}

/* --- beginning and end --- */

static int open_all(struct weights_share *w, struct lslm_error *err)
{
	const struct matrices_share share = { .room = room, .arg = w };
	const struct matrices_opts o = { .load = w->opts.load, .share = &share };
	int rc;

	matmul_init();
	rc = model_open(&w->model, w->opts.model, err);
	return rc ? rc : matrices_open(&w->matrices, w->model, NULL, &o, err);
}

static void close_all(struct weights_share *w)
{
	matrices_close(w->matrices);
	if (w->model)
		model_close(w->model);
	drop_room(w);
	w->matrices = NULL;
	w->model = NULL;
}

static int start_thread(struct weights_share *w, struct lslm_error *err)
{
	sigset_t all, old;
	int rc;

	/* Signals are for the program's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	rc = -pthread_create(&w->thread, NULL, run, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	w->running = !rc;
	return rc ? error_sys(err, rc, "no thread to read weights") : 0;
}

int weights_share_start(struct weights_share **out, const struct weights_share_opts *opts,
			struct lslm_error *err)
{
	struct weights_share *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return error_sys(err, -ENOMEM, "%s", opts->model);
	w->opts = *opts;
	pthread_mutex_init(&w->lock, NULL);
	rc = open_all(w, &w->why);
	if (!rc)
		rc = start_thread(w, &w->why);
	if (rc) {
		w->why.code = rc;
		close_all(w);
		say(w, "weights of %s are not shared: %s", opts->model, w->why.text);
	}
	*out = w;
	return 0;
}

void weights_share_stop(struct weights_share *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_mutex_unlock(&w->lock);
	if (w->running) {
		matrices_give_up(w->matrices);
		pthread_join(w->thread, NULL);
	}
	close_all(w);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

int weights_share_open_fds(struct weights_share *w, struct kv_hash *key, int fds[2],
			   struct lslm_error *err)
{
	int rc;

	pthread_mutex_lock(&w->lock);
	rc = w->why.code ? error_set(err, w->why.code, "%s", w->why.text) : 0;
	pthread_mutex_unlock(&w->lock);
	if (rc)
		return rc;
	*key = w->key;
	fds[0] = buffer_ro_fd(w->buffer, err);
	if (fds[0] < 0)
		return fds[0];
	fds[1] = control_ro_fd(w->page, err);
	if (fds[1] >= 0)
		return 0;
	close(fds[0]);
	return fds[1];
}
