// SPDX-License-Identifier: MIT
#include "net/courier_link.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* A context that was attached. */
struct entry {
	struct kv_hash key;
	struct courier_status seen;
	uint32_t head, told; /* stripes; what the courier knows of this connection */
};

/* A context of the courier's. */
struct numbered {
	uint32_t number;
	struct kv_hash key;
};

struct courier_link {
	struct courier_link_opts opts;
	/* Held over questions and their answers. Taken before `state`. */
	pthread_mutex_t talk;
	struct courier_client *client; /* NULL: none */
	double tried; /* when a connection was */
	uint32_t turn; /* of the one thread */
	/* As far as they were listed on this connection. */
	struct numbered known[LINK_CONTEXTS];
	uint32_t n_known;
	/* Held for moments only. */
	pthread_mutex_t state;
	struct entry entries[LINK_CONTEXTS];
	uint32_t n;
	bool silent; /* no answer, the last time */
};

int courier_link_open(struct courier_link **out, const struct courier_link_opts *opts,
		      struct lslm_error *err)
{
	struct courier_link *l = calloc(1, sizeof(*l));

	if (!l)
		return error_sys(err, -ENOMEM, "link");
	l->opts = *opts;
	pthread_mutex_init(&l->talk, NULL);
	pthread_mutex_init(&l->state, NULL);
	*out = l;
	return 0;
}

void courier_link_close(struct courier_link *l)
{
	if (!l)
		return;
	courier_client_close(l->client);
	pthread_mutex_destroy(&l->state);
	pthread_mutex_destroy(&l->talk);
	free(l);
}

/* ---- under `talk` ---- */

static void forget_connection(struct courier_link *l)
{
	courier_client_close(l->client);
	l->client = NULL;
	l->n_known = 0;
	pthread_mutex_lock(&l->state);
	for (uint32_t i = 0; i < l->n; i++)
		l->entries[i].told = 0;
	pthread_mutex_unlock(&l->state);
}

static int connect_if_needed(struct courier_link *l, struct lslm_error *err)
{
	const double now = clock_seconds();
	int fd;

	if (l->client && !courier_client_is_over(l->client, NULL))
		return 0;
	forget_connection(l);
	if (l->tried > 0 && now - l->tried < LINK_PAUSE_MS * 1e-3)
		return error_set(err, -ENOTCONN, "the courier has gone away");
	l->tried = now;
	fd = l->opts.connect(l->opts.arg, err);
	if (fd < 0)
		return -ENOTCONN;
	if (courier_client_take(&l->client, fd, "courier", l->opts.timeout_ms, err))
		return -ENOTCONN;
	l->turn++;
	return 0;
}

/* There is none of these numbers any more. */
static void forget_numbers(struct courier_link *l, uint32_t from, uint32_t to)
{
	for (uint32_t i = l->n_known; i-- > 0;)
		if (l->known[i].number >= from && l->known[i].number <= to)
			l->known[i] = l->known[--l->n_known];
}

static int list(struct courier_link *l, uint32_t index, struct courier_entry *e,
		struct lslm_error *err)
{
	struct numbered *k;
	int ret = courier_client_list(l->client, index, e, err);

	if (courier_list_has_ended(ret))
		forget_numbers(l, index, UINT32_MAX);
	if (ret)
		return ret;
	forget_numbers(l, index, e->index);
	if (!e->has_key || l->n_known == LINK_CONTEXTS)
		return 0;
	k = &l->known[l->n_known++];
	k->number = e->index;
	memcpy(k->key.b, e->key, sizeof(k->key.b));
	return 0;
}

static bool find_known(const struct courier_link *l, const struct kv_hash *key, uint32_t *number)
{
	for (uint32_t i = 0; i < l->n_known; i++) {
		*number = l->known[i].number;
		if (kv_hash_equal(&l->known[i].key, key))
			return true;
	}
	return false;
}

static int find(struct courier_link *l, const struct kv_hash *key, uint32_t *index,
		struct lslm_error *err)
{
	struct courier_entry e;
	int ret = connect_if_needed(l, err);

	if (ret || find_known(l, key, index))
		return ret;
	for (uint32_t i = 0; !ret && !(ret = list(l, i, &e, err)); i = e.index + 1)
		;
	if (ret && !courier_list_has_ended(ret))
		return ret;
	return find_known(l, key, index) ?
		       0 :
		       error_set(err, -ENXIO, "the courier has no such context");
}

/* Hints that came while somebody else talked. */
static void pass_heads(struct courier_link *l)
{
	uint32_t index;

	pthread_mutex_lock(&l->state);
	for (uint32_t i = 0; i < l->n; i++) {
		struct entry *e = &l->entries[i];

		if (e->head <= e->told || !l->client || !find_known(l, &e->key, &index))
			continue;
		courier_client_head(l->client, index, e->head);
		e->told = e->head;
	}
	pthread_mutex_unlock(&l->state);
}

static void stop_talking(struct courier_link *l)
{
	pass_heads(l);
	pthread_mutex_unlock(&l->talk);
}

/* ---- of one thread ---- */

uint32_t courier_link_turn(const struct courier_link *l)
{
	return l->turn;
}

int courier_link_list(struct courier_link *l, uint32_t index, struct courier_entry *out,
		      struct lslm_error *err)
{
	int ret;

	pthread_mutex_lock(&l->talk);
	ret = connect_if_needed(l, err);
	if (!ret)
		ret = list(l, index, out, err);
	stop_talking(l);
	return ret;
}

static struct entry *entry_of(struct courier_link *l, const struct kv_hash *key)
{
	for (uint32_t i = 0; i < l->n; i++)
		if (kv_hash_equal(&l->entries[i].key, key))
			return &l->entries[i];
	return NULL;
}

static void add_entry(struct courier_link *l, const struct kv_hash *key)
{
	pthread_mutex_lock(&l->state);
	if (!entry_of(l, key) && l->n < LINK_CONTEXTS)
		l->entries[l->n++] = (struct entry){ .key = *key };
	pthread_mutex_unlock(&l->state);
}

int courier_link_attach(struct courier_link *l, const struct kv_hash *key, enum order_kind order,
			struct courier_attached *out, int fds[COURIER_WIRE_FDS],
			struct lslm_error *err)
{
	uint32_t index;
	int ret;

	pthread_mutex_lock(&l->talk);
	ret = find(l, key, &index, err);
	if (!ret)
		ret = courier_client_attach(l->client, index, order, out, fds, err);
	if (!ret)
		add_entry(l, key);
	stop_talking(l);
	return ret;
}

void courier_link_forget(struct courier_link *l, const struct kv_hash *key)
{
	struct entry *e;

	pthread_mutex_lock(&l->state);
	e = entry_of(l, key);
	if (e)
		*e = l->entries[--l->n];
	pthread_mutex_unlock(&l->state);
}

void courier_link_look(struct courier_link *l)
{
	struct courier_status s;
	struct kv_hash key;
	uint32_t index;
	int ret = 0;

	pthread_mutex_lock(&l->talk);
	/* Only this thread adds to them, or takes from them. */
	for (uint32_t i = 0; i < l->n && ret != -ENOTCONN; i++) {
		key = l->entries[i].key;
		ret = find(l, &key, &index, NULL);
		if (!ret)
			ret = courier_client_status(l->client, index, &s, NULL);
		if (ret)
			continue;
		pthread_mutex_lock(&l->state);
		l->entries[i].seen = s;
		pthread_mutex_unlock(&l->state);
	}
	pthread_mutex_lock(&l->state);
	l->silent = ret && ret != -ENXIO;
	pthread_mutex_unlock(&l->state);
	stop_talking(l);
}

/* ---- of any thread ---- */

void courier_link_head(struct courier_link *l, const struct kv_hash *key, uint32_t stripes)
{
	struct entry *e;

	pthread_mutex_lock(&l->state);
	e = entry_of(l, key);
	if (e && stripes > e->head)
		e->head = stripes;
	pthread_mutex_unlock(&l->state);
	/* Whoever talks passes it on when done. */
	if (!pthread_mutex_trylock(&l->talk))
		stop_talking(l);
}

int courier_link_status(struct courier_link *l, const struct kv_hash *key,
			struct courier_status *out, struct lslm_error *err)
{
	const struct entry *e;
	int ret = 0;

	pthread_mutex_lock(&l->state);
	e = entry_of(l, key);
	if (e)
		*out = e->seen;
	if (!e)
		ret = error_set(err, -ENXIO, "the context was not attached by this link");
	else if (l->silent)
		ret = error_set(err, -ENOTCONN, "the courier does not answer");
	pthread_mutex_unlock(&l->state);
	return ret;
}
