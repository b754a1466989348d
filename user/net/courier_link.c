// SPDX-License-Identifier: MIT
#include "net/courier_link.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

struct courier_link {
	struct courier_link_opts opts;
	pthread_mutex_t lock; /* of what follows */
	struct courier_client *client; /* NULL: none */
	double tried; /* when a connection was */
	uint32_t turn;
	/* Of this connection, as far as they were listed: a number keeps its meaning as long as it. */
	struct kv_hash keys[LINK_CONTEXTS];
	bool known[LINK_CONTEXTS];
};

int courier_link_open(struct courier_link **out, const struct courier_link_opts *opts,
		      struct lslm_error *err)
{
	struct courier_link *l = calloc(1, sizeof(*l));

	if (!l)
		return error_sys(err, -ENOMEM, "link");
	l->opts = *opts;
	pthread_mutex_init(&l->lock, NULL);
	*out = l;
	return 0;
}

void courier_link_close(struct courier_link *l)
{
	if (!l)
		return;
	courier_client_close(l->client);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* Under the lock, like all that follows: there is a connection afterwards, or an error. */
static int connect_if_needed(struct courier_link *l, struct lslm_error *err)
{
	const double now = clock_seconds();
	int fd;

	if (l->client && !courier_client_is_over(l->client, NULL))
		return 0;
	courier_client_close(l->client);
	l->client = NULL;
	if (l->tried > 0 && now - l->tried < LINK_PAUSE_MS * 1e-3)
		return error_set(err, -ENOTCONN, "the courier has gone away");
	l->tried = now;
	fd = l->opts.connect(l->opts.arg, err);
	if (fd < 0)
		return -ENOTCONN;
	if (courier_client_take(&l->client, fd, "courier", l->opts.timeout_ms, err))
		return -ENOTCONN;
	l->turn++;
	memset(l->known, 0, sizeof(l->known));
	return 0;
}

static int list(struct courier_link *l, uint32_t index, struct courier_entry *e,
		struct lslm_error *err)
{
	int ret = courier_client_list(l->client, index, e, err);

	if (ret || !e->has_key || index >= LINK_CONTEXTS)
		return ret;
	memcpy(l->keys[index].b, e->key, sizeof(e->key));
	l->known[index] = true;
	return 0;
}

static int find(struct courier_link *l, const struct kv_hash *key, uint32_t *index,
		struct lslm_error *err)
{
	struct courier_entry e;
	int ret = connect_if_needed(l, err);

	if (ret)
		return ret;
	for (uint32_t i = 0; i < LINK_CONTEXTS; i++) {
		*index = i;
		if (!l->known[i])
			ret = list(l, i, &e, err);
		if (ret)
			return ret == -ENOENT ?
				       error_set(err, -ENXIO, "the courier has no such context") :
				       ret;
		if (l->known[i] && kv_hash_equal(&l->keys[i], key))
			return 0;
	}
	return error_set(err, -ENXIO, "the courier has no such context");
}

uint32_t courier_link_turn(struct courier_link *l)
{
	uint32_t turn;

	pthread_mutex_lock(&l->lock);
	turn = l->turn;
	pthread_mutex_unlock(&l->lock);
	return turn;
}

int courier_link_list(struct courier_link *l, uint32_t index, struct courier_entry *out,
		      struct lslm_error *err)
{
	int ret;

	pthread_mutex_lock(&l->lock);
	ret = connect_if_needed(l, err);
	if (!ret)
		ret = list(l, index, out, err);
	pthread_mutex_unlock(&l->lock);
	return ret;
}

int courier_link_attach(struct courier_link *l, const struct kv_hash *key, enum order_kind order,
			struct courier_attached *out, int fds[COURIER_WIRE_FDS],
			struct lslm_error *err)
{
	uint32_t index;
	int ret;

	pthread_mutex_lock(&l->lock);
	ret = find(l, key, &index, err);
	if (!ret)
		ret = courier_client_attach(l->client, index, order, out, fds, err);
	pthread_mutex_unlock(&l->lock);
	return ret;
}

void courier_link_head(struct courier_link *l, const struct kv_hash *key, uint32_t stripes)
{
	uint32_t index;

	pthread_mutex_lock(&l->lock);
	if (!find(l, key, &index, NULL))
		courier_client_head(l->client, index, stripes);
	pthread_mutex_unlock(&l->lock);
}

int courier_link_status(struct courier_link *l, const struct kv_hash *key,
			struct courier_status *out, struct lslm_error *err)
{
	uint32_t index;
	int ret;

	pthread_mutex_lock(&l->lock);
	ret = find(l, key, &index, err);
	if (!ret)
		ret = courier_client_status(l->client, index, out, err);
	pthread_mutex_unlock(&l->lock);
	return ret;
}
