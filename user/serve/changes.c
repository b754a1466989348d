// SPDX-License-Identifier: MIT
#include "serve/changes.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "serve/pins.h"

/* Should a word about a drop be lost. */
enum { LOOK_MS = 2000 };

struct changes {
	struct changes_opts opts;
	pthread_t thread;
	bool running;
	struct pins pins;
	int end; /* eventfd */
};

/* ---- dropping ---- */

/* Of many at once the supervisor may not have read the first ones: none is lost. */
static void answer(struct changes *c, struct channel_message *m)
{
	struct pollfd p[2] = {
		{ .fd = c->end, .events = POLLIN },
		{ .fd = c->opts.channel, .events = POLLOUT },
	};

	m->op = CHANNEL_CHANGED;
	while (custody_say(c->opts.custody, m) == -EAGAIN && !p[0].revents)
		poll(p, 2, -1);
}

static void drop_dropped(struct changes *c)
{
	struct channel_message m = { .value = CHANNEL_DROP };

	while (shelf_has_dropped(c->opts.shelf, &m.key)) {
		shelf_drop(c->opts.shelf, &m.key);
		/* Nothing of it is kept any more, so what the supervisor has of it is of no use. */
		answer(c, &m);
	}
}

/* ---- attaching ---- */

/*
 * By the first token to which it is there. That the cloud does not take one of them is no word about the context; and whose that is,
 * nobody else is told.
 */
static int find_in_cloud(struct changes *c, const char *name, const struct shelf_whose *whose,
			 struct kv_hash *key, char *source, size_t size, struct lslm_error *err)
{
	struct lslm_error why;
	int ret = -EACCES, one = ret;

	for (uint32_t i = 0; i < c->opts.n_lists && (one == -ENOENT || one == -EACCES); i++) {
		one = cloud_list_find(c->opts.lists[i], name, whose, key, source, size, &why);
		if (ret == -ENOENT && one == -EACCES)
			continue;
		ret = one;
		if (ret)
			*err = why;
	}
	return ret;
}

/* Where it comes from: *source, and whether that is the cloud. */
static int find(struct changes *c, const char *name, const struct shelf_whose *whose,
		struct kv_hash *key, char *source, size_t size, bool *of_cloud,
		struct lslm_error *err)
{
	struct shelf_found f;
	int ret = shelf_find(c->opts.shelf, name, whose, &f);

	*of_cloud = false;
	*key = f.key;
	if (ret == -ENOTUNIQ)
		return error_set(err, ret, "several contexts are named so; give the key");
	if (!ret && f.there)
		return error_set(err, -EEXIST, "this context is attached already");
	if (!ret) {
		snprintf(source, size, "%s", f.source);
		*of_cloud = c->opts.n_lists && cloud_list_owns(c->opts.lists[0], source);
		return 0;
	}
	if (!c->opts.n_lists)
		return error_set(err, -ENOENT,
				 "no such context was given at the start, and there is no cloud");
	*of_cloud = true;
	return find_in_cloud(c, name, whose, key, source, size, err);
}

static void attach(struct changes *c, struct channel_message *m)
{
	struct lslm_error why = { 0 };
	char source[SHELF_SOURCE_BYTES];
	const struct shelf_whose whose = { m->flags & CHANNEL_ANY_SALT, m->digest };
	bool of_cloud;
	int ret = find(c, m->text, &whose, &m->key, source, sizeof(source), &of_cloud, &why);

	m->flags = 0;
	if (!ret) {
		ret = shelf_make_room(c->opts.shelf, &whose, &m->digest);
		if (ret == -ENOSPC)
			error_set(
				&why, ret,
				"there is no room for it: all contexts are pinned or were named at the start");
		else if (ret)
			m->flags |= CHANNEL_MADE_ROOM;
	}
	if (ret >= 0)
		ret = shelf_ask(c->opts.shelf, source, &why);
	if (!ret && of_cloud)
		m->flags |= CHANNEL_OF_CLOUD;
	m->code = ret;
	snprintf(m->text, sizeof(m->text), "%s", ret ? why.text : "");
	answer(c, m);
}

/* Of before this courier, where the cloud's are not all kept anyway. */
static void attach_again(struct changes *c)
{
	struct board_choice b;
	char source[SHELF_SOURCE_BYTES];

	for (uint32_t i = 0; c->opts.n_lists && !board_list(c->opts.board, i, &b); i++) {
		if (!(b.flags & BOARD_ATTACHED))
			continue;
		cloud_list_url(c->opts.lists[0], &b.key, source, sizeof(source));
		shelf_add(c->opts.shelf, source, NULL);
	}
}

/* ---- pinning ---- */

static void pin(struct changes *c, struct channel_message *m)
{
	struct lslm_error why = { 0 };

	m->code = pins_add(&c->pins, &m->key, &why);
	snprintf(m->text, sizeof(m->text), "%s", m->code ? why.text : "");
	answer(c, m);
}

/* Of before this supervisor, which does not know them yet. */
static void tell_pins(struct changes *c)
{
	struct lslm_error line;

	if (c->pins.beyond && c->opts.log) {
		error_set(
			&line, -ENOSPC,
			"%zu contexts are pinned in the store, %d of which can be remembered: room stays set aside for the others until their KEY/pinned is removed there",
			c->pins.n + c->pins.beyond, BOARD_CHOICES);
		c->opts.log(c->opts.arg, line.text);
	}
	for (size_t i = 0; i < c->pins.n; i++) {
		struct channel_message m = { .value = CHANNEL_PIN, .key = c->pins.keys[i] };

		if (!board_knows(c->opts.board, &m.key))
			answer(c, &m);
	}
}

/* ---- the thread ---- */

/* False: the supervisor is gone, and this process with it. */
static bool hear(struct changes *c)
{
	struct channel_message m;
	int fds[CHANNEL_FDS], n;

	if (channel_receive(c->opts.channel, &m, fds, &n))
		return false;
	channel_close_fds(fds, n);
	if (m.op == CHANNEL_CHANGE && m.value == CHANNEL_ATTACH)
		attach(c, &m);
	else if (m.op == CHANNEL_CHANGE && m.value == CHANNEL_PIN)
		pin(c, &m);
	else if (m.op == CHANNEL_CHANGE)
		pins_heed(&c->pins, &m.key);
	return true;
}

static void *run(void *arg)
{
	struct changes *c = arg;
	struct pollfd p[2] = {
		{ .fd = c->end, .events = POLLIN },
		{ .fd = c->opts.channel, .events = POLLIN },
	};

	for (;;) {
		drop_dropped(c);
		pins_follow(&c->pins);
		if (poll(p, 2, LOOK_MS) < 0)
			continue;
		if (p[0].revents)
			return NULL;
		/* What was dropped before it is settled before it: the words come in their order. */
		drop_dropped(c);
		if (p[1].revents && !hear(c))
			p[1].fd = -1;
	}
}

int changes_start(struct changes **out, const struct changes_opts *opts, struct lslm_error *err)
{
	struct changes *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return error_sys(err, -ENOMEM, "changes");
	c->opts = *opts;
	c->end = eventfd(0, EFD_CLOEXEC);
	ret = c->end < 0 ? -errno : 0;
	attach_again(c);
	pins_open(&c->pins, opts->store, opts->shelf, opts->board);
	tell_pins(c);
	if (!ret)
		ret = -pthread_create(&c->thread, NULL, run, c);
	c->running = !ret;
	if (ret) {
		changes_stop(c);
		return error_sys(err, ret, "cannot start a thread");
	}
	*out = c;
	return 0;
}

void changes_stop(struct changes *c)
{
	if (!c)
		return;
	if (c->running) {
		eventfd_write(c->end, 1);
		pthread_join(c->thread, NULL);
	}
	if (c->end >= 0)
		close(c->end);
	free(c);
}
