// SPDX-License-Identifier: MIT
#include "net/wants.h"

#include <stdlib.h>
#include <string.h>

#include "net/steer.h"

enum {
	NO_SLOT = UINT32_MAX,
	/* A REPORT has no room for more, and the module gives no more at once. */
	RANGES = REPORT_ROOM / REPORT_RANGE,
};

struct slot {
	uint32_t stripe;
	uint32_t generation;
	bool bound;
	bool urgent; /* steering was told so */
	uint32_t used; /* the newest pass over the window, or REPORT, that it was part of */
};

struct stripe {
	uint32_t slot; /* NO_SLOT: not bound */
	bool finished; /* complete, or not wanted any more */
};

struct wants {
	struct sink *sink;
	struct session *session;
	struct steer *steer;
	struct slot *slots;
	struct stripe *stripes;
	uint64_t *done; /* bitmap for binding */
	uint32_t n_slots;
	uint32_t window; /* stripes that are bound at most */
	uint32_t n_bound;
	uint32_t chunk; /* of all that is bound; 0: nothing ever was */
	uint32_t per_unit; /* chunks of a unit */
	uint32_t first; /* block of the order: those before it are not wanted */
	uint32_t pass;
};

uint32_t wants_slots(const struct sink *sink)
{
	return sink->order.n_stripes < WANTS_SLOTS ? sink->order.n_stripes : WANTS_SLOTS;
}

int wants_open(struct wants **out, struct sink *sink, struct session *session, struct steer *steer,
	       struct lslm_error *err)
{
	struct wants *w = calloc(1, sizeof(*w));

	if (!w)
		return error_sys(err, -ENOMEM, "receiver");
	w->sink = sink;
	w->session = session;
	w->steer = steer;
	w->n_slots = w->window = wants_slots(sink);
	w->slots = calloc(w->n_slots, sizeof(*w->slots));
	w->stripes = calloc(sink->order.n_stripes, sizeof(*w->stripes));
	w->done = calloc((sink->order.n_layer + 63) / 64, sizeof(*w->done));
	if (!w->slots || !w->stripes || !w->done) {
		wants_close(w);
		return error_sys(err, -ENOMEM, "receiver");
	}
	for (uint32_t i = 0; i < sink->order.n_stripes; i++)
		w->stripes[i].slot = NO_SLOT;
	*out = w;
	return 0;
}

/* ---- binding ---- */

/* Steering is a courtesy: what it refuses only comes at the speed of the others. */
static void set_urgent(struct wants *w, uint32_t i, bool urgent)
{
	struct slot *slot = &w->slots[i];

	if (!w->steer || slot->urgent == urgent)
		return;
	slot->urgent = urgent;
	if (urgent)
		steer_urgent(w->steer, session_number(w->session), i, slot->generation, NULL);
	else
		steer_calm(w->steer, session_number(w->session), i, NULL);
}

static void let_go(struct wants *w, uint32_t i)
{
	struct slot *slot = &w->slots[i];

	set_urgent(w, i, false);
	session_unbind(w->session, i);
	w->stripes[slot->stripe].slot = NO_SLOT;
	slot->bound = false;
	w->n_bound--;
}

void wants_close(struct wants *w)
{
	if (!w)
		return;
	for (uint32_t i = 0; w->slots && i < w->n_slots; i++)
		if (w->slots[i].bound)
			let_go(w, i);
	free(w->slots);
	free(w->stripes);
	free(w->done);
	free(w);
}

/* Fills w->done; false when nothing of the stripe is wanted. */
static bool list_done(struct wants *w, uint32_t stripe)
{
	const struct order *o = &w->sink->order;
	bool wanted = false;

	memset(w->done, 0, (o->n_layer + 63) / 64 * sizeof(*w->done));
	for (uint32_t l = 0; l < o->n_layer; l++) {
		if (sink_wants(w->sink, order_index(o, stripe, l)))
			wanted = true;
		else
			w->done[l / 64] |= 1ULL << (l % 64);
	}
	return wanted;
}

/* Also what is bound already: then anew, with another chunk. */
static int bind_stripe(struct wants *w, uint32_t i, uint32_t stripe, struct lslm_error *err)
{
	const struct sink *sink = w->sink;
	struct slot *slot = &w->slots[i];
	const struct session_region region = {
		.buffer = sink->buffer,
		.base = (uint64_t)stripe * sink->stripe_bytes,
		.chunk = w->chunk,
		.n_units = sink->order.n_layer,
		.unit_bytes = (uint32_t)sink->block_bytes,
		.done = w->done,
	};
	int ret;

	set_urgent(w, i, false);
	ret = session_bind(w->session, i, &region, &slot->generation, err);
	if (ret < 0)
		return ret;
	w->n_bound += !slot->bound;
	slot->bound = true;
	slot->stripe = stripe;
	w->stripes[stripe].slot = i;
	return 0;
}

/* Everything that is bound, in chunks of a new size. What had come of an incomplete block is lost. */
static int rebind(struct wants *w, uint32_t chunk, struct lslm_error *err)
{
	bool full = false;
	int ret;

	ret = wants_look(w, err);
	if (ret < 0)
		return ret;
	w->chunk = chunk;
	w->per_unit = lslm_chunks_of((uint32_t)w->sink->block_bytes, chunk);
	for (uint32_t i = 0; i < w->n_slots; i++) {
		if (!w->slots[i].bound)
			continue;
		if (!list_done(w, w->slots[i].stripe)) {
			let_go(w, i);
			continue;
		}
		ret = bind_stripe(w, i, w->slots[i].stripe, err);
		if (ret == -ENOMEM) {
			full = true;
			let_go(w, i);
		} else if (ret < 0) {
			return ret;
		}
	}
	if (full && !w->n_bound)
		return -ENOMEM;
	/* As much as this process may lock, as in fill_window(). */
	if (full)
		w->window = w->n_bound;
	return 0;
}

/* The n-th stripe in the order of need, when block `first` is the first that is wanted. */
static uint32_t nth_stripe(const struct wants *w, uint32_t n)
{
	const struct order *o = &w->sink->order;
	uint32_t stripe, layer;

	order_block(o, w->first, &stripe, &layer);
	if (o->kind == ORDER_TAIL)
		return stripe - n;
	return (stripe + n) % o->n_stripes;
}

static uint32_t stripes_left(const struct wants *w)
{
	const struct order *o = &w->sink->order;

	return o->kind == ORDER_TAIL ? nth_stripe(w, 0) + 1 : o->n_stripes;
}

static bool is_finished(struct wants *w, uint32_t stripe)
{
	struct stripe *s = &w->stripes[stripe];

	if (!s->finished && !list_done(w, stripe))
		s->finished = true;
	return s->finished;
}

/* Which stripes belong to the window; those that are bound and do not are let go. */
static void move_window(struct wants *w)
{
	uint32_t left = stripes_left(w), n = 0, slot;

	w->pass++;
	for (uint32_t i = 0; i < left && n < w->window; i++) {
		uint32_t stripe = nth_stripe(w, i);

		if (is_finished(w, stripe))
			continue;
		n++;
		slot = w->stripes[stripe].slot;
		if (slot != NO_SLOT)
			w->slots[slot].used = w->pass;
	}
	for (slot = 0; slot < w->n_slots; slot++)
		if (w->slots[slot].bound && w->slots[slot].used != w->pass)
			let_go(w, slot);
}

static int fill_window(struct wants *w, struct lslm_error *err)
{
	uint32_t left = stripes_left(w), slot = 0;
	int ret;

	for (uint32_t i = 0; i < left && w->n_bound < w->window; i++) {
		uint32_t stripe = nth_stripe(w, i);

		if (w->stripes[stripe].finished || w->stripes[stripe].slot != NO_SLOT)
			continue;
		while (w->slots[slot].bound)
			slot++;
		/* It may have been finished since it was looked at. */
		if (!list_done(w, stripe))
			continue;
		ret = bind_stripe(w, slot, stripe, err);
		if (ret == -ENOMEM && w->n_bound) {
			/* As much as this process may lock: the window is smaller then. */
			w->window = w->n_bound;
			return 0;
		}
		if (ret < 0)
			return ret;
	}
	return 0;
}

int wants_bind(struct wants *w, uint32_t chunk, struct lslm_error *err)
{
	int ret = 0;

	if (chunk != w->chunk)
		ret = rebind(w, chunk, err);
	if (ret < 0 || wants_is_done(w))
		return ret;
	move_window(w);
	return fill_window(w, err);
}

bool wants_is_done(struct wants *w)
{
	w->first = sink_next(w->sink, w->first);
	return w->first == order_count(&w->sink->order);
}

/* ---- writing them down ---- */

/* One want for chunks from .. end - 1 of what is bound to the slot. Returns 1 when it was written. */
static int write_want(struct wants *w, struct report_writer *out, uint32_t i, uint32_t from,
		      uint32_t end)
{
	const struct slot *slot = &w->slots[i];
	struct lslm_range ranges[RANGES];
	const struct report_want want = {
		.slot = i,
		.generation = slot->generation,
		.stripe = slot->stripe,
		.level = (uint8_t)w->sink->level->level,
	};
	int n, most = (int)report_room(out), k;

	n = session_missing(w->session, i, slot->generation, from, ranges,
			    (uint32_t)(most < RANGES ? most : RANGES));
	if (n < 0)
		return n;
	for (k = 0; k < n && ranges[k].first < end; k++)
		if (ranges[k].count > end - ranges[k].first)
			ranges[k].count = end - ranges[k].first;
	return k && report_add(out, &want, ranges, (uint32_t)k);
}

static void mark_urgent(struct wants *w, uint32_t i, uint32_t *n)
{
	if (w->slots[i].used == w->pass || *n == WANTS_URGENT)
		return;
	++*n;
	w->slots[i].used = w->pass;
	set_urgent(w, i, true);
}

int wants_write(struct wants *w, struct report_writer *out)
{
	const struct order *o = &w->sink->order;
	uint32_t index = sink_next(w->sink, w->first), stripe, layer, slot, from, units;
	uint32_t written = 0, urgent = 0;
	int ret;

	w->pass++;
	while (index < order_count(o) && report_room(out)) {
		order_block(o, index, &stripe, &layer);
		slot = w->stripes[stripe].slot;
		if (slot == NO_SLOT)
			break;
		/* The rest of a stripe is one run of the order, or its next block only. */
		units = o->kind == ORDER_TAIL ? o->n_layer - layer : 1;
		from = layer * w->per_unit;
		ret = write_want(w, out, slot, from, from + units * w->per_unit);
		if (ret < 0)
			return ret;
		if (ret)
			mark_urgent(w, slot, &urgent);
		written += (uint32_t)ret;
		index = sink_next(w->sink, index + units);
	}
	for (slot = 0; w->steer && slot < w->n_slots; slot++)
		if (w->slots[slot].urgent && w->slots[slot].used != w->pass)
			set_urgent(w, slot, false);
	return (int)written;
}

/* ---- what has come ---- */

static int take_unit(struct wants *w, uint32_t stripe, uint32_t unit, struct lslm_error *err)
{
	uint32_t index = order_index(&w->sink->order, stripe, unit);

	return sink_wants(w->sink, index) ? sink_block(w->sink, index, err) : 0;
}

int wants_take(struct wants *w, const struct session_done *done, struct lslm_error *err)
{
	const struct slot *slot;

	if (done->slot >= w->n_slots || done->unit >= w->sink->order.n_layer)
		return 0;
	slot = &w->slots[done->slot];
	if (!slot->bound || slot->generation != done->generation)
		return 0;
	return take_unit(w, slot->stripe, done->unit, err);
}

/* Units that no missing chunk is in are complete. */
static int look_slot(struct wants *w, uint32_t i, struct lslm_error *err)
{
	const struct slot *slot = &w->slots[i];
	uint32_t unit = 0, end = w->sink->order.n_layer, at = 0, last;
	struct lslm_range ranges[RANGES];
	int n, k, ret = 0;

	do {
		n = session_missing(w->session, i, slot->generation, at, ranges, RANGES);
		if (n < 0)
			return error_sys(err, n, "what is missing of stripe %u", slot->stripe);
		for (k = 0; k < n && !ret; k++) {
			for (; unit < ranges[k].first / w->per_unit && !ret; unit++)
				ret = take_unit(w, slot->stripe, unit, err);
			at = ranges[k].first + ranges[k].count;
			last = (at - 1) / w->per_unit;
			unit = unit > last + 1 ? unit : last + 1;
		}
	} while (n == RANGES && !ret);
	for (; unit < end && !ret; unit++)
		ret = take_unit(w, slot->stripe, unit, err);
	return ret;
}

int wants_look(struct wants *w, struct lslm_error *err)
{
	int ret = 0;

	for (uint32_t i = 0; i < w->n_slots && !ret; i++)
		if (w->slots[i].bound)
			ret = look_slot(w, i, err);
	return ret;
}
