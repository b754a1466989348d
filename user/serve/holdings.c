// SPDX-License-Identifier: MIT
#include "serve/holdings.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "serve/shelf.h"

enum { LONG_ENOUGH_S = 60 };

struct holding {
	struct kv_hash key, digest;
	int fds[CHANNEL_FDS];
	uint64_t used; /* a number that grows with every KEEP */
	bool claimed; /* by the courier that there is, or was last */
};

struct holdings {
	struct holding all[SHELF_CONTEXTS];
	uint32_t n;
	uint64_t clock;
};

int holdings_create(struct holdings **out, struct lslm_error *err)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : error_sys(err, -ENOMEM, "holdings");
}

static void drop(struct holdings *h, uint32_t i)
{
	channel_close_fds(h->all[i].fds, CHANNEL_FDS);
	h->all[i] = h->all[--h->n];
}

void holdings_destroy(struct holdings *h)
{
	while (h && h->n)
		drop(h, h->n - 1);
	free(h);
}

static uint32_t find(const struct holdings *h, const struct kv_hash *key)
{
	uint32_t i = 0;

	while (i < h->n && !kv_hash_equal(&h->all[i].key, key))
		i++;
	return i;
}

/* Those that nobody claims go first. */
static uint32_t oldest(const struct holdings *h)
{
	uint32_t found = 0;

	for (uint32_t i = 1; i < h->n; i++) {
		const struct holding *a = &h->all[i], *b = &h->all[found];

		if (a->claimed < b->claimed || (a->claimed == b->claimed && a->used < b->used))
			found = i;
	}
	return found;
}

int holdings_take(struct holdings *h, const struct channel_message *m, const int *fds, int n)
{
	uint32_t i;

	if (m->op != CHANNEL_KEEP || n != CHANNEL_FDS) {
		channel_close_fds(fds, n);
		return -EPROTO;
	}
	i = find(h, &m->key);
	if (i < h->n)
		drop(h, i);
	else if (h->n == SHELF_CONTEXTS)
		drop(h, oldest(h));
	h->all[h->n] = (struct holding){
		.key = m->key,
		.digest = m->digest,
		.used = ++h->clock,
		.claimed = true,
	};
	memcpy(h->all[h->n++].fds, fds, sizeof(h->all[0].fds));
	return 0;
}

void holdings_forget(struct holdings *h, const struct kv_hash *key)
{
	const uint32_t i = find(h, key);

	if (i < h->n)
		drop(h, i);
}

int holdings_offer(struct holdings *h, int channel, int board)
{
	struct channel_message m = { 0 };
	int ret = 0;

	for (uint32_t i = 0; i < h->n && !ret; i++) {
		m.op = CHANNEL_HELD;
		m.key = h->all[i].key;
		m.digest = h->all[i].digest;
		ret = channel_send(channel, &m, h->all[i].fds, CHANNEL_FDS);
	}
	m = (struct channel_message){ .op = CHANNEL_GO };
	return ret ? ret : channel_send(channel, &m, &board, 1);
}

void holdings_settle(struct holdings *h, double lived)
{
	for (uint32_t i = h->n; i-- > 0;) {
		if (!h->all[i].claimed && lived >= LONG_ENOUGH_S)
			drop(h, i);
		else
			h->all[i].claimed = false;
	}
}

uint32_t holdings_count(const struct holdings *h)
{
	return h->n;
}
