// SPDX-License-Identifier: MIT
#include "serve/roster.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "net/courier_link.h"

enum { ROSTER_PAUSE_MS = 1000, ROSTER_TICK_MS = 20 };

/* One that is settled: attached, or refused by every engine. */
struct entry {
	struct kv_hash key;
	bool attached;
	uint32_t turn; /* of the link, when it was refused */
};

struct roster {
	struct roster_opts opts;
	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* of end */
	pthread_cond_t ended;
	bool end;
	struct entry entries[LINK_CONTEXTS * 4];
	uint32_t n;
};

enum { MAX_ENTRIES = LINK_CONTEXTS * 4 };

static void say(struct roster *r, const struct kv_hash *key, const char *what)
{
	struct lslm_error line;
	char hex[KV_HASH_TEXT];

	if (!r->opts.log)
		return;
	kv_hash_format(key, hex);
	snprintf(line.text, sizeof(line.text), "context %.12s: %s", hex, what);
	r->opts.log(r->opts.arg, line.text);
}

static struct entry *find(struct roster *r, const struct kv_hash *key)
{
	for (uint32_t i = 0; i < r->n; i++)
		if (kv_hash_equal(&r->entries[i].key, key))
			return &r->entries[i];
	return NULL;
}

static bool is_settled(struct roster *r, const struct kv_hash *key, uint32_t turn)
{
	const struct entry *e = find(r, key);

	return e && (e->attached || e->turn == turn);
}

static void settle(struct roster *r, const struct kv_hash *key, bool attached, uint32_t turn)
{
	struct entry *e = find(r, key);

	if (!e && r->n == MAX_ENTRIES)
		return;
	if (!e)
		e = &r->entries[r->n++];
	*e = (struct entry){ .key = *key, .attached = attached, .turn = turn };
}

static int attach_to(struct roster *r, uint32_t engine, const struct kv_hash *key,
		     struct lslm_error *err)
{
	const struct roster_opts *o = &r->opts;
	struct context *c;
	int ret = context_attach_linked(&c, o->engines[engine], o->link, key, o->trusted,
					o->n_trusted, &o->salt, err);

	if (ret)
		return ret;
	/* The context is somebody else's from then on. */
	*err = *context_miss(c);
	ret = o->attached(o->arg, engine, c, err);
	if (ret)
		context_close(c);
	return ret;
}

/* Will the next look be of another mind? */
static bool is_passing(int code)
{
	return code == -ENOTCONN || code == -EAGAIN || code == -ENXIO || code == -ENOMEM ||
	       code == -EPIPE || code == -ECONNRESET || code == -ETIMEDOUT;
}

static void attach(struct roster *r, const struct kv_hash *key, uint32_t turn)
{
	struct lslm_error why = { 0 };
	char text[256] = "attached";
	int ret = -ENOEXEC;

	/* -ENOEXEC: it is another model's. */
	for (uint32_t i = 0; i < r->opts.n_engines && ret == -ENOEXEC; i++)
		ret = attach_to(r, i, key, &why);
	if (is_passing(ret))
		return;
	if (!ret && why.code)
		snprintf(text, sizeof(text), "attached, and computed here: %.200s", why.text);
	say(r, key, ret ? why.text : text);
	settle(r, key, !ret, turn);
}

/* Returns whether it has seen all there is, and nothing is still to come. */
static bool look(struct roster *r)
{
	struct courier_entry e;
	struct kv_hash key;
	bool all = true;
	uint32_t i;
	int ret;

	for (i = 0; !(ret = courier_link_list(r->opts.link, i, &e, NULL)); i++) {
		const uint32_t turn = courier_link_turn(r->opts.link);

		memcpy(key.b, e.key, sizeof(key.b));
		if (e.has_key && e.state != COURIER_WAITING && !is_settled(r, &key, turn))
			attach(r, &key, turn);
		all &= e.state != COURIER_WAITING;
	}
	return all && i && ret == -ENOENT;
}

/* Whoever is ready before it has its contexts would compute them, or not know them by name. */
static void look_until_settled(struct roster *r)
{
	const struct timespec tick = { .tv_nsec = ROSTER_TICK_MS * 1000000L };
	const double until = clock_seconds() + r->opts.settle_ms * 1e-3;

	while (!look(r) && clock_seconds() < until)
		nanosleep(&tick, NULL);
}

static bool pause_is_over(struct roster *r)
{
	struct timespec until;
	bool end;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ROSTER_PAUSE_MS / 1000;
	pthread_mutex_lock(&r->lock);
	while (!r->end && !pthread_cond_timedwait(&r->ended, &r->lock, &until))
		;
	end = r->end;
	pthread_mutex_unlock(&r->lock);
	return !end;
}

static void *run(void *arg)
{
	struct roster *r = arg;

	while (pause_is_over(r)) {
		look(r);
		courier_link_look(r->opts.link);
	}
	return NULL;
}

int roster_start(struct roster **out, const struct roster_opts *opts, struct lslm_error *err)
{
	struct roster *r = calloc(1, sizeof(*r));
	pthread_condattr_t attr;
	int ret;

	if (!r)
		return error_sys(err, -ENOMEM, "roster");
	r->opts = *opts;
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->ended, &attr);
	pthread_condattr_destroy(&attr);
	look_until_settled(r);
	ret = -pthread_create(&r->thread, NULL, run, r);
	r->running = !ret;
	if (ret) {
		roster_stop(r);
		return error_sys(err, ret, "cannot start the roster's thread");
	}
	*out = r;
	return 0;
}

void roster_stop(struct roster *r)
{
	if (!r)
		return;
	if (r->running) {
		pthread_mutex_lock(&r->lock);
		r->end = true;
		pthread_cond_signal(&r->ended);
		pthread_mutex_unlock(&r->lock);
		pthread_join(r->thread, NULL);
	}
	pthread_cond_destroy(&r->ended);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
