// SPDX-License-Identifier: MIT
#include "serve/errands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"

enum { MAX_WAITING = 64 };

/* An engine that waits for the courier's answer. */
struct waiting {
	pid_t engine;
	uint32_t verb;
	uint32_t serial;
	double until;
};

struct errands {
	struct board *board;
	struct holdings *holdings;
	void (*log)(void *arg, const char *line);
	void *arg;
	struct waiting all[MAX_WAITING];
	uint32_t n;
	uint32_t serial; /* the last one */
	bool full; /* the board is, and that was said */
};

int errands_create(struct errands **out, struct board *board, struct holdings *holdings,
		   void (*log)(void *arg, const char *line), void *arg, struct lslm_error *err)
{
	struct errands *e = calloc(1, sizeof(*e));

	if (!e)
		return error_sys(err, -ENOMEM, "errands");
	e->board = board;
	e->holdings = holdings;
	e->log = log;
	e->arg = arg;
	*out = e;
	return 0;
}

void errands_destroy(struct errands *e)
{
	free(e);
}

static void say(const struct errands *e, const struct kv_hash *key, const char *what)
{
	char hex[KV_HASH_TEXT], line[64];

	if (!e->log)
		return;
	kv_hash_format(key, hex);
	snprintf(line, sizeof(line), "context %.12s: %s by an admin", hex, what);
	e->log(e->arg, line);
}

static void refuse(struct channel_message *m, int code, const char *why)
{
	m->code = code;
	snprintf(m->text, sizeof(m->text), "%s", why);
}

/* ---- from engines ---- */

static bool too_many(struct errand_count *count)
{
	const double now = clock_seconds();

	if (now - count->since > ERRANDS_MAX_S)
		*count = (struct errand_count){ .since = now };
	return ++count->n > ERRANDS_MAX;
}

/* What is settled here. */
static void choose(struct errands *e, struct channel_message *m, uint32_t clear, uint32_t set,
		   const char *what)
{
	if (board_choose(e->board, &m->key, clear, set))
		refuse(m, -ENOSPC, "more contexts were pinned and dropped than can be remembered");
	else
		say(e, &m->key, what);
}

/* The courier looks at the board itself; being told only makes it do so now. */
static int nudge(enum channel_verb verb, const struct kv_hash *key, int courier)
{
	struct channel_message told = { .op = CHANNEL_CHANGE, .value = verb, .key = *key };

	return courier < 0 ? 0 : channel_send(courier, &told, NULL, 0);
}

static void drop(struct errands *e, struct channel_message *m, int courier)
{
	choose(e, m, BOARD_PINNED | BOARD_ATTACHED, BOARD_DROPPED, "dropped");
	if (m->code)
		return;
	holdings_forget(e->holdings, &m->key);
	nudge(CHANNEL_DROP, &m->key, courier);
}

/* A courier that does not hear of it might take it for a pin that is yet to come, and keep its room. */
static void unpin(struct errands *e, struct channel_message *m, int courier)
{
	struct board_choice was;

	board_choice(e->board, &m->key, &was);
	board_choose(e->board, &m->key, BOARD_PINNED, 0);
	if (nudge(CHANNEL_UNPIN, &m->key, courier) == -EAGAIN) {
		board_choose(e->board, &m->key, 0, was.flags & BOARD_PINNED);
		refuse(m, -EAGAIN, "the courier does not listen just now; try again in a moment");
	} else {
		say(e, &m->key, "unpinned");
	}
}

static bool is_waiting(const struct errands *e, pid_t engine)
{
	for (uint32_t i = 0; i < e->n; i++)
		if (e->all[i].engine == engine)
			return true;
	return false;
}

/* 1: it cannot be done, and *m says so. */
static int pass_on(struct errands *e, pid_t engine, struct channel_message *m, int courier)
{
	struct channel_message told = { .op = CHANNEL_CHANGE, .value = m->value, .key = m->key };
	int ret = courier < 0 || e->n == MAX_WAITING ? -ENOTCONN : 0;

	told.serial = ++e->serial ? e->serial : ++e->serial;
	memcpy(told.text, m->text, sizeof(told.text));
	told.digest = m->digest;
	told.flags = m->flags & CHANNEL_ANY_SALT;
	if (!ret)
		ret = channel_send(courier, &told, NULL, 0);
	if (ret) {
		refuse(m, -ENOTCONN, "there is no courier just now; try again in a moment");
		return 1;
	}
	e->all[e->n++] =
		(struct waiting){ engine, m->value, told.serial, clock_seconds() + ERRAND_S };
	return 0;
}

int errands_take(struct errands *e, pid_t engine, struct errand_count *count,
		 struct channel_message *m, int courier)
{
	if (m->value < CHANNEL_ATTACH || m->value >= CHANNEL_VERBS || is_waiting(e, engine))
		return -EPROTO;
	m->op = CHANNEL_CHANGED;
	m->code = 0;
	utf8_clean(m->text);
	if (too_many(count)) {
		refuse(m, -EAGAIN, "contexts are changed too often; try again in a moment");
		return 1;
	}
	switch (m->value) {
	case CHANNEL_ATTACH:
		return pass_on(e, engine, m, courier);
	case CHANNEL_PIN:
		/* What the next courier has no room for in its store is pinned all the same. */
		if (courier >= 0)
			return pass_on(e, engine, m, courier);
		choose(e, m, 0, BOARD_PINNED, "pinned");
		return 1;
	case CHANNEL_UNPIN:
		unpin(e, m, courier);
		return 1;
	default:
		drop(e, m, courier);
		return 1;
	}
}

/* ---- from the courier ---- */

static void take_out(struct errands *e, uint32_t i)
{
	e->all[i] = e->all[--e->n];
}

/* Of those that its store remembers nobody hears who could do something about it: said once. */
static void tell_full(struct errands *e)
{
	char line[160];

	if (e->log && !e->full) {
		snprintf(
			line, sizeof(line),
			"not all that is pinned in the store is remembered: %d keys were pinned, attached or dropped",
			BOARD_CHOICES);
		e->log(e->arg, line);
	}
	e->full = true;
}

/* Dropped since the courier was asked, it has no use for a pin; the courier takes that back when it hears of the drop. */
static void settle_pin(struct errands *e, struct channel_message *m, int courier)
{
	struct board_choice c;

	board_choice(e->board, &m->key, &c);
	if (c.flags & BOARD_DROPPED) {
		refuse(m, -ENOENT, "this context was dropped meanwhile");
		return;
	}
	choose(e, m, 0, BOARD_PINNED, "pinned");
	if (m->code && m->serial)
		nudge(CHANNEL_UNPIN, &m->key, courier);
	else if (m->code)
		tell_full(e);
}

/* What it has done holds, whether or not somebody waits for it still. */
static void settle(struct errands *e, struct channel_message *m, int courier)
{
	const uint32_t set = m->flags & CHANNEL_OF_CLOUD ? BOARD_ATTACHED : 0;

	/* Before it, and of before: what it keeps from now on comes later. */
	if (m->value == CHANNEL_DROP)
		holdings_forget(e->holdings, &m->key);
	if (m->flags & CHANNEL_MADE_ROOM) {
		board_choose(e->board, &m->digest, BOARD_ATTACHED, BOARD_DROPPED);
		holdings_forget(e->holdings, &m->digest);
		say(e, &m->digest, "dropped to make room for one that was asked for");
	}
	if (m->value == CHANNEL_PIN && !m->code)
		settle_pin(e, m, courier);
	if (m->value == CHANNEL_ATTACH && !m->code &&
	    board_choose(e->board, &m->key, BOARD_DROPPED, set))
		refuse(m, -ENOSPC,
		       "more contexts were attached and dropped than can be remembered");
	else if (m->value == CHANNEL_ATTACH && !m->code)
		say(e, &m->key, "attached");
}

int errands_answer(struct errands *e, struct channel_message *m, int courier, pid_t *engine)
{
	if (m->value != CHANNEL_ATTACH && m->value != CHANNEL_DROP && m->value != CHANNEL_PIN)
		return -EPROTO;
	settle(e, m, courier);
	for (uint32_t i = 0; i < e->n; i++) {
		if (!m->serial || e->all[i].serial != m->serial)
			continue;
		*engine = e->all[i].engine;
		take_out(e, i);
		return 1;
	}
	return 0;
}

/* ---- time ---- */

int errands_overdue(struct errands *e, bool lost, struct channel_message *m, pid_t *engine)
{
	const double now = clock_seconds();

	for (uint32_t i = 0; i < e->n; i++) {
		if (!lost && e->all[i].until > now)
			continue;
		*m = (struct channel_message){ .op = CHANNEL_CHANGED, .value = e->all[i].verb };
		if (lost)
			refuse(m, -ENOTCONN, "the courier was restarted meanwhile; try again");
		else
			refuse(m, -ETIMEDOUT, "the courier does not answer");
		*engine = e->all[i].engine;
		take_out(e, i);
		return 1;
	}
	return 0;
}

double errands_next(const struct errands *e)
{
	double next = 0;

	for (uint32_t i = 0; i < e->n; i++)
		if (next <= 0 || e->all[i].until < next)
			next = e->all[i].until;
	return next;
}
