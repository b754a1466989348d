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
	uint32_t n_units; /* of its stripe, at the level it was bound with */
	uint32_t *first; /* [n_units + 1] number of each unit's first chunk */
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
	uint32_t *units; /* bytes of each unit, likewise */
	uint32_t *firsts; /* memory of all slots' first */
	uint32_t n_slots;
	uint32_t window; /* stripes that are bound at most */
	uint32_t n_bound;
	uint32_t chunk; /* of all that is bound; 0: nothing ever was */
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
	const size_t n_layer = sink->order.n_layer;

	if (!w)
		return error_sys(err, -ENOMEM, "receiver");
	w->sink = sink;
	w->session = session;
	w->steer = steer;
	w->n_slots = w->window = wants_slots(sink);
	w->slots = calloc(w->n_slots, sizeof(*w->slots));
	w->stripes = calloc(sink->order.n_stripes, sizeof(*w->stripes));
	w->done = calloc((n_layer + 63) / 64, sizeof(*w->done));
	w->units = calloc(n_layer, sizeof(*w->units));
	w->firsts = calloc(w->n_slots * (n_layer + 1), sizeof(*w->firsts));
	if (!w->slots || !w->stripes || !w->done || !w->units || !w->firsts) {
		wants_close(w);
		return error_sys(err, -ENOMEM, "receiver");
	}
	for (uint32_t i = 0; i < w->n_slots; i++)
		w->slots[i].first = w->firsts + i * (n_layer + 1);
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
	free(w->units);
	free(w->firsts);
	free(w);
}

static bool is_wanted(const struct wants *w, uint32_t stripe)
{
	const struct order *o = &w->sink->order;

	for (uint32_t l = 0; l < o->n_layer; l++)
		if (sink_wants(w->sink, order_index(o, stripe, l)))
			return true;
	return false;
}

/* Fills w->done and w->units by the stripe's level, which is settled; false when nothing of it is wanted. */
static bool list_units(struct wants *w, uint32_t stripe, uint32_t *n_units)
{
	const struct sink *sink = w->sink;
	const uint32_t index = order_index(&sink->order, stripe, 0);
	const struct manifest_level *lv;
	bool wanted = false;

	lv = sink_level(sink, index);
	*n_units = lv->n_units;
	memset(w->done, 0, (lv->n_units + 63) / 64 * sizeof(*w->done));
	for (uint32_t u = 0; u < lv->n_units; u++) {
		w->units[u] = (uint32_t)manifest_unit_bytes(sink->manifest, lv, stripe, u);
		if (sink_wants(sink, order_index(&sink->order, stripe, u)))
			wanted = true;
		else
			w->done[u / 64] |= 1ULL << (u % 64);
	}
	return wanted;
}

/* Also what is bound already: then anew, with another chunk. 0 where nothing of it is wanted. */
static int bind_stripe(struct wants *w, uint32_t i, uint32_t stripe, struct lslm_error *err)
{
	const struct sink *sink = w->sink;
	struct slot *slot = &w->slots[i];
	struct session_region region = {
		.chunk = w->chunk,
		.units = w->units,
		.done = w->done,
	};
	int ret;

	if (!list_units(w, stripe, &region.n_units))
		return 0;
	region.buffer = sink_buffer(sink, stripe, &region.base);
	set_urgent(w, i, false);
	ret = session_bind(w->session, i, &region, &slot->generation, err);
	if (ret < 0)
		return ret;
	w->n_bound += !slot->bound;
	slot->bound = true;
	slot->stripe = stripe;
	slot->n_units = region.n_units;
	slot->first[0] = 0;
	for (uint32_t u = 0; u < region.n_units; u++)
		slot->first[u + 1] = slot->first[u] + lslm_chunks_of(w->units[u], w->chunk);
	w->stripes[stripe].slot = i;
	return 1;
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
	for (uint32_t i = 0; i < w->n_slots; i++) {
		if (!w->slots[i].bound)
			continue;
		ret = bind_stripe(w, i, w->slots[i].stripe, err);
		if (ret < 0 && ret != -ENOMEM)
			return ret;
		full |= ret < 0;
		if (ret <= 0)
			let_go(w, i);
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

	if (!s->finished && !is_wanted(w, stripe))
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

/* over: also what peers have claimed and not brought. */
static int fill_window(struct wants *w, bool over, struct lslm_error *err)
{
	const struct order *o = &w->sink->order;
	uint32_t left = stripes_left(w), slot = 0;
	int ret;

	if (!w->n_bound)
		sink_settle(w->sink);
	for (uint32_t i = 0; i < left && w->n_bound < w->window; i++) {
		uint32_t stripe = nth_stripe(w, i);

		if (w->stripes[stripe].finished || w->stripes[stripe].slot != NO_SLOT)
			continue;
		/* Its level depends on how fast those come that are bound. */
		if (w->n_bound && !sink_level(w->sink, order_index(o, stripe, 0)) &&
		    !sink_budget(w->sink))
			return 0;
		if (!sink_claim(w->sink, order_index(o, stripe, 0), over))
			continue;
		while (w->slots[slot].bound)
			slot++;
		/* 0: it has been finished since it was looked at. */
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
	ret = fill_window(w, false, err);
	return ret || w->n_bound || !w->sink->shares ? ret : fill_window(w, true, err);
}

bool wants_is_done(struct wants *w)
{
	w->first = sink_next(w->sink, w->first);
	return w->first == order_count(&w->sink->order);
}

/* ---- writing them down ---- */

/*
 * One want for what is missing of units u .. end - 1 of what is bound to the slot. Returns 1 when it was
 * written.
 */
static int write_want(struct wants *w, struct report_writer *out, uint32_t i, uint32_t u,
		      uint32_t end_unit)
{
	const struct slot *slot = &w->slots[i];
	const uint32_t from = slot->first[u], end = slot->first[end_unit];
	const uint32_t index = order_index(&w->sink->order, slot->stripe, 0);
	struct lslm_range ranges[RANGES];
	const struct report_want want = {
		.slot = i,
		.generation = slot->generation,
		.stripe = slot->stripe,
		.level = (uint8_t)sink_level(w->sink, index)->level,
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
	uint32_t index = sink_next(w->sink, w->first), stripe, layer, slot, end;
	uint32_t written = 0, urgent = 0;
	int ret;

	w->pass++;
	while (index < order_count(o) && report_room(out)) {
		order_block(o, index, &stripe, &layer);
		slot = w->stripes[stripe].slot;
		/*
		 * From the tail on there is nothing behind the window, but what a peer brings lies in it. Layer by
		 * layer there is: the next layers of what is bound, while the budget keeps it from growing.
		 */
		if (slot == NO_SLOT && o->kind == ORDER_TAIL && !w->sink->shares)
			break;
		if (slot == NO_SLOT) {
			index = sink_next(w->sink, index + 1);
			continue;
		}
		/* The rest of a stripe is one run of the order, or its next block only. */
		end = o->kind == ORDER_TAIL ? w->slots[slot].n_units : layer + 1;
		ret = write_want(w, out, slot, layer, end);
		if (ret < 0)
			return ret;
		if (ret)
			mark_urgent(w, slot, &urgent);
		written += (uint32_t)ret;
		index = sink_next(w->sink, index + end - layer);
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

	if (done->slot >= w->n_slots)
		return 0;
	slot = &w->slots[done->slot];
	if (!slot->bound || slot->generation != done->generation || done->unit >= slot->n_units)
		return 0;
	return take_unit(w, slot->stripe, done->unit, err);
}

/* Takes the units from *unit on that end before this chunk; behind the last one there is none. */
static int take_before(struct wants *w, const struct slot *slot, uint32_t *unit, uint32_t chunk,
		       struct lslm_error *err)
{
	int ret = 0;

	for (; *unit < slot->n_units && slot->first[*unit + 1] <= chunk && !ret; ++*unit)
		ret = take_unit(w, slot->stripe, *unit, err);
	return ret;
}

/* Units that no missing chunk is in are complete. */
static int look_slot(struct wants *w, uint32_t i, struct lslm_error *err)
{
	const struct slot *slot = &w->slots[i];
	uint32_t unit = 0, at = 0;
	struct lslm_range ranges[RANGES];
	int n, k, ret = 0;

	do {
		n = session_missing(w->session, i, slot->generation, at, ranges, RANGES);
		if (n < 0)
			return error_sys(err, n, "what is missing of stripe %u", slot->stripe);
		for (k = 0; k < n && !ret; k++) {
			ret = take_before(w, slot, &unit, ranges[k].first, err);
			at = ranges[k].first + ranges[k].count;
			while (unit < slot->n_units && slot->first[unit] < at)
				unit++;
		}
	} while (n == RANGES && !ret);
	return ret ? ret : take_before(w, slot, &unit, slot->first[slot->n_units], err);
}

int wants_look(struct wants *w, struct lslm_error *err)
{
	int ret = 0;

	for (uint32_t i = 0; i < w->n_slots && !ret; i++)
		if (w->slots[i].bound)
			ret = look_slot(w, i, err);
	return ret;
}
