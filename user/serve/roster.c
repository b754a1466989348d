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
#include "serve/board.h"

enum { ROSTER_PAUSE_MS = 1000, ROSTER_TICK_MS = 20, ROSTER_UNTOLD_MS = 60000 };

/* One that is settled: attached, or refused by every engine. */
struct entry {
	struct kv_hash key;
	uint32_t engine; /* that has it, if it is attached */
	uint32_t drops; /* of the board, when it was settled */
	uint32_t turn; /* of the link, when it was refused */
	int code; /* 0: attached; else why it was refused */
	bool pinned;
};

struct roster {
	struct roster_opts opts;
	pthread_t thread;
	bool running;
	bool told;
	double answered; /* when the courier first listed all it had; 0: it has not */
	pthread_mutex_t
		lock; /* of what follows; the thread alone writes to entries, and reads them without it */
	pthread_cond_t changed;
	bool end;
	bool now; /* look at once */
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

	return e && (!e->code || e->turn == turn);
}

static void settle(struct roster *r, const struct entry *settled)
{
	struct entry *e = find(r, &settled->key);

	pthread_mutex_lock(&r->lock);
	if (!e && r->n < MAX_ENTRIES)
		e = &r->entries[r->n++];
	if (e)
		*e = *settled;
	pthread_mutex_unlock(&r->lock);
}

static int attach_to(struct roster *r, uint32_t engine, const struct kv_hash *key,
		     struct lslm_error *err)
{
	const struct roster_opts *o = &r->opts;
	struct context *c;
	int ret = context_attach_linked(&c, o->engines[engine], o->link, key, o->trusted,
					o->n_trusted, o->salts, o->n_salts, err);

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
	return code == -ENOENT || code == -ENOTCONN || code == -EAGAIN || code == -ENXIO ||
	       code == -ENOMEM || code == -EPIPE || code == -ECONNRESET || code == -ETIMEDOUT;
}

static void attach(struct roster *r, const struct board_choice *c, uint32_t turn)
{
	struct entry e = { .key = c->key, .drops = c->drops, .turn = turn, .code = -ENOEXEC };
	struct lslm_error why = { 0 };
	char text[256] = "attached";

	/* -ENOEXEC: it is another model's. */
	for (uint32_t i = 0; i < r->opts.n_engines && e.code == -ENOEXEC; i++) {
		e.code = attach_to(r, i, &c->key, &why);
		e.engine = i;
	}
	if (is_passing(e.code))
		return;
	if (!e.code && why.code)
		snprintf(text, sizeof(text), "attached, and computed here: %.200s", why.text);
	say(r, &c->key, e.code ? why.text : text);
	settle(r, &e);
}

/* ---- what admins chose ---- */

static void forget(struct roster *r, uint32_t i)
{
	const struct entry e = r->entries[i];

	pthread_mutex_lock(&r->lock);
	r->entries[i] = r->entries[--r->n];
	pthread_mutex_unlock(&r->lock);
	if (e.code)
		return;
	r->opts.dropped(r->opts.arg, e.engine, &e.key);
	courier_link_forget(r->opts.link, &e.key);
	say(r, &e.key, "dropped");
}

static void follow_board(struct roster *r)
{
	struct board_choice c;

	for (uint32_t i = r->n; i-- > 0;) {
		struct entry *e = &r->entries[i];
		bool pinned;

		board_choice(r->opts.board, &e->key, &c);
		pinned = c.flags & BOARD_PINNED;
		if (c.drops != e->drops) {
			forget(r, i);
		} else if (!e->code && pinned != e->pinned) {
			e->pinned = pinned;
			r->opts.pinned(r->opts.arg, e->engine, &e->key, pinned);
		}
	}
}

/* ---- looking ---- */

/* ret: behind the last context; known: each of them is. */
static void tell_once(struct roster *r, int ret, bool known)
{
	const int limit = r->opts.untold_ms ? r->opts.untold_ms : ROSTER_UNTOLD_MS;
	const double now = clock_seconds();

	if (r->told || !courier_list_has_ended(ret))
		return;
	if (r->answered <= 0)
		r->answered = now;
	/* A cloud may say a word now and then for ever, and a context be in want of memory. */
	if ((ret != -ENOENT || !known) && now - r->answered < limit * 1e-3)
		return;
	r->told = true;
	r->opts.told(r->opts.arg);
}

/* Returns whether it has seen all there is, and nothing is still to come. */
static bool look(struct roster *r)
{
	struct courier_entry e;
	struct board_choice c;
	struct kv_hash key;
	bool all = true, known = true;
	uint32_t i;
	int ret;

	follow_board(r);
	for (i = 0; !(ret = courier_link_list(r->opts.link, i, &e, NULL)); i = e.index + 1) {
		const uint32_t turn = courier_link_turn(r->opts.link);
		const bool waiting = e.state == COURIER_WAITING;

		memcpy(key.b, e.key, sizeof(key.b));
		board_choice(r->opts.board, &key, &c);
		if (e.has_key && !waiting && !(c.flags & BOARD_DROPPED) &&
		    !is_settled(r, &key, turn))
			attach(r, &c, turn);
		all &= !waiting;
		/* One that cannot be had for now is not waited for. */
		known &= waiting ? *e.why != 0 :
				   (c.flags & BOARD_DROPPED) || is_settled(r, &key, turn);
	}
	tell_once(r, ret, known);
	/* The pins of those that are new. */
	follow_board(r);
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
	const struct timespec until = clock_after_ms(ROSTER_PAUSE_MS);
	bool end;

	pthread_mutex_lock(&r->lock);
	while (!r->end && !r->now && !pthread_cond_timedwait(&r->changed, &r->lock, &until))
		;
	r->now = false;
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
	int ret;

	if (!r)
		return error_sys(err, -ENOMEM, "roster");
	r->opts = *opts;
	pthread_mutex_init(&r->lock, NULL);
	clock_cond_init(&r->changed);
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

/* What became of what the board says now. */
static int settled_as(struct roster *r, const struct kv_hash *key)
{
	const struct entry *e;
	struct board_choice c;
	int ret;

	board_choice(r->opts.board, key, &c);
	pthread_mutex_lock(&r->lock);
	e = find(r, key);
	ret = e && e->drops == c.drops ? e->code : -ETIMEDOUT;
	/* Whatever it does just now may have begun too early. */
	r->now = ret == -ETIMEDOUT;
	pthread_cond_signal(&r->changed);
	pthread_mutex_unlock(&r->lock);
	return ret;
}

int roster_await(struct roster *r, const struct kv_hash *key, int ms)
{
	const struct timespec tick = { .tv_nsec = ROSTER_TICK_MS * 1000000L };
	const double until = clock_seconds() + ms * 1e-3;
	int ret;

	while ((ret = settled_as(r, key)) == -ETIMEDOUT && clock_seconds() < until)
		nanosleep(&tick, NULL);
	return ret;
}

void roster_stop(struct roster *r)
{
	if (!r)
		return;
	if (r->running) {
		pthread_mutex_lock(&r->lock);
		r->end = true;
		pthread_cond_signal(&r->changed);
		pthread_mutex_unlock(&r->lock);
		pthread_join(r->thread, NULL);
	}
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
