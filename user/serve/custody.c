// SPDX-License-Identifier: MIT
#include "serve/custody.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "serve/shelf.h"

struct place {
	struct kv_hash key, digest;
	int fds[CHANNEL_FDS];
};

struct custody {
	struct courier_custody ops;
	int channel;
	pthread_mutex_t lock; /* of what follows, and of sending */
	struct place held[SHELF_CONTEXTS];
	uint32_t n;
};

static int reclaim(void *arg, const struct kv_hash *key, const struct kv_hash *digest, int *buffer,
		   int *control)
{
	struct custody *c = arg;
	int ret = -ENOENT;

	pthread_mutex_lock(&c->lock);
	for (uint32_t i = 0; i < c->n && ret; i++) {
		struct place *p = &c->held[i];

		if (!kv_hash_equal(&p->key, key) || !kv_hash_equal(&p->digest, digest))
			continue;
		*buffer = p->fds[0];
		*control = p->fds[1];
		*p = c->held[--c->n];
		ret = 0;
	}
	pthread_mutex_unlock(&c->lock);
	return ret;
}

/* Pins of before may have filled the channel; the supervisor reads on, and never waits for this process. */
static int say_for_sure(struct custody *c, struct channel_message *m, const int *fds, int n)
{
	struct pollfd p = { .fd = c->channel, .events = POLLOUT };
	int ret;

	for (;;) {
		pthread_mutex_lock(&c->lock);
		ret = channel_send(c->channel, m, fds, n);
		pthread_mutex_unlock(&c->lock);
		if (ret != -EAGAIN)
			return ret;
		poll(&p, 1, -1);
	}
}

/* What cannot be told, as the supervisor is gone, is of no use to it. */
static void deposit(void *arg, const struct kv_hash *key, const struct kv_hash *digest, int buffer,
		    int control)
{
	struct channel_message m = { .op = CHANNEL_KEEP, .key = *key, .digest = *digest };
	const int fds[CHANNEL_FDS] = { buffer, control };

	say_for_sure(arg, &m, fds, CHANNEL_FDS);
}

/* 1: there may be more. */
static int take(struct custody *c, struct board **board, struct lslm_error *err)
{
	struct channel_message m;
	int fds[CHANNEL_FDS], n;
	int ret = channel_receive(c->channel, &m, fds, &n);

	if (ret)
		return error_sys(err, ret, "the supervisor");
	if (m.op == CHANNEL_GO && n == 1) {
		ret = board_open(board, fds[0], err);
		if (ret)
			close(fds[0]);
		return ret;
	}
	if (m.op != CHANNEL_HELD || n != CHANNEL_FDS || c->n == SHELF_CONTEXTS) {
		channel_close_fds(fds, n);
		return error_set(err, -EPROTO, "the supervisor says what it should not");
	}
	c->held[c->n] = (struct place){ .key = m.key, .digest = m.digest };
	memcpy(c->held[c->n++].fds, fds, sizeof(c->held[0].fds));
	return 1;
}

int custody_open(struct custody **out, int channel, struct board **board, struct lslm_error *err)
{
	struct custody *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return error_sys(err, -ENOMEM, "custody");
	c->ops = (struct courier_custody){ .reclaim = reclaim, .deposit = deposit, .arg = c };
	c->channel = channel;
	pthread_mutex_init(&c->lock, NULL);
	while ((ret = take(c, board, err)) > 0)
		;
	if (ret) {
		custody_close(c);
		return ret;
	}
	*out = c;
	return 0;
}

void custody_close(struct custody *c)
{
	if (!c)
		return;
	while (c->n)
		channel_close_fds(c->held[--c->n].fds, CHANNEL_FDS);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

const struct courier_custody *custody_ops(const struct custody *c)
{
	return &c->ops;
}

int custody_say(struct custody *c, struct channel_message *m)
{
	int ret;

	pthread_mutex_lock(&c->lock);
	ret = channel_send(c->channel, m, NULL, 0);
	pthread_mutex_unlock(&c->lock);
	return ret;
}

int custody_ready(struct custody *c, struct lslm_error *err)
{
	struct channel_message m = { .op = CHANNEL_READY };
	int ret = say_for_sure(c, &m, NULL, 0);

	return ret ? error_sys(err, ret, "the supervisor") : 0;
}
