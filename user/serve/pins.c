// SPDX-License-Identifier: MIT
#include "serve/pins.h"

void pins_open(struct pins *p, struct stripe_store *store, struct shelf *shelf,
	       const struct board *board)
{
	const size_t all = store ? stripe_store_pins(store, p->keys, BOARD_CHOICES) : 0;

	p->store = store;
	p->shelf = shelf;
	p->board = board;
	p->n = all < BOARD_CHOICES ? all : BOARD_CHOICES;
	p->beyond = all - p->n;
	for (size_t i = 0; i < p->n; i++)
		p->said[i] = board_knows(board, &p->keys[i]);
}

static size_t place_of(const struct pins *p, const struct kv_hash *key)
{
	size_t i = 0;

	while (i < p->n && !kv_hash_equal(&p->keys[i], key))
		i++;
	return i;
}

/* A file's stripes are not kept, and need no room. */
static int set_aside(struct pins *p, struct courier *c, const struct kv_hash *key,
		     struct lslm_error *err)
{
	const uint64_t bytes = courier_kept_bytes(c);
	const size_t i = place_of(p, key);
	int ret;

	if (!bytes)
		return 0;
	if (i == BOARD_CHOICES)
		return error_set(
			err, -ENOSPC,
			"%d contexts are pinned, and no more can be remembered; unpin some",
			BOARD_CHOICES);
	ret = stripe_store_pin(p->store, key, bytes, err);
	if (ret)
		return ret;
	if (i == p->n) {
		p->said[i] = false;
		p->keys[p->n++] = *key;
	}
	courier_keep_again(c);
	return 0;
}

int pins_add(struct pins *p, const struct kv_hash *key, struct lslm_error *err)
{
	struct shelf_context x;
	int ret;

	if (!p->store)
		return 0;
	if (shelf_hold(p->shelf, key, &x))
		return error_set(err, -EAGAIN, "the courier has it not yet; try again in a moment");
	ret = x.courier ? set_aside(p, x.courier, key, err) :
			  error_set(err, -EAGAIN,
				    "its manifest is not here yet; try again in a moment");
	shelf_let_go(x.held);
	return ret;
}

void pins_heed(struct pins *p, const struct kv_hash *key)
{
	const size_t i = place_of(p, key);

	if (i < p->n)
		p->said[i] = true;
}

void pins_follow(struct pins *p)
{
	struct board_choice c;

	for (size_t i = p->n; i-- > 0;) {
		board_choice(p->board, &p->keys[i], &c);
		/* One that was dropped is pinned no more, whether or not it ever was there. */
		if (c.flags & (BOARD_PINNED | BOARD_DROPPED))
			p->said[i] = true;
		/* The supervisor may not have heard of it yet. */
		if ((c.flags & BOARD_PINNED) || !p->said[i])
			continue;
		stripe_store_unpin(p->store, &p->keys[i]);
		p->keys[i] = p->keys[--p->n];
		p->said[i] = p->said[p->n];
	}
}
