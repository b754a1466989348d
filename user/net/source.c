// SPDX-License-Identifier: MIT
#include "net/source.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/probes.h"
#include "codec/codec.h"
#include "net/keeper.h"
#include "net/shares.h"

void source_init(struct source *s, const struct source_ops *ops, enum control_source from,
		 const char *path)
{
	s->ops = ops;
	s->from = from;
	pthread_mutex_init(&s->lock, NULL);
	source_set_path(s, "%s", path);
}

void source_fini(struct source *s)
{
	pthread_mutex_destroy(&s->lock);
}

void source_set_path(struct source *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pthread_mutex_lock(&s->lock);
	vsnprintf(s->path, sizeof(s->path), fmt, ap);
	pthread_mutex_unlock(&s->lock);
	va_end(ap);
}

void source_path(struct source *s, char out[SOURCE_PATH_BYTES])
{
	if (s->ops->path) {
		s->ops->path(s, out);
		return;
	}
	pthread_mutex_lock(&s->lock);
	memcpy(out, s->path, sizeof(s->path));
	pthread_mutex_unlock(&s->lock);
}

/* Peers have the choice in their hands too. */
static void lock(struct sink *sink)
{
	if (sink->shares)
		shares_lock(sink->shares);
}

static void unlock(struct sink *sink)
{
	if (sink->shares)
		shares_unlock(sink->shares);
}

/* How fast it comes, by all sources together. */
static double see(struct sink *sink)
{
	const double now = clock_seconds();

	choice_see(sink->choice, atomic_load_explicit(&sink->received, memory_order_relaxed), now);
	return now;
}

static uint32_t head_of(const struct sink *sink)
{
	return atomic_load_explicit(&sink->head, memory_order_relaxed);
}

static void choose(struct sink *sink, uint32_t stripe)
{
	if (!choice_level(sink->choice, stripe))
		choice_make(sink->choice, stripe, head_of(sink), see(sink));
}

void sink_choose(struct sink *sink, uint32_t index)
{
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	lock(sink);
	choose(sink, stripe);
	unlock(sink);
}

uint64_t sink_budget(struct sink *sink)
{
	uint64_t bytes;

	lock(sink);
	bytes = choice_budget(sink->choice, head_of(sink), see(sink));
	unlock(sink);
	return bytes;
}

const struct manifest_level *sink_level(const struct sink *sink, uint32_t index)
{
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	return choice_level(sink->choice, stripe);
}

size_t sink_bytes(const struct sink *sink, uint32_t index)
{
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	return manifest_unit_bytes(sink->manifest, choice_level(sink->choice, stripe), stripe,
				   layer);
}

static bool is_decoded(const struct manifest_level *lv)
{
	return kv_level_in_memory(lv->level) != lv->level;
}

/* Where a stripe is brought to. */
static uint8_t *arrival(const struct sink *sink, uint32_t stripe)
{
	return is_decoded(choice_level(sink->choice, stripe)) ?
		       sink->staging_base + stripe * sink->staging_pitch :
		       sink->base + stripe * sink->pitch;
}

struct buffer *sink_buffer(const struct sink *sink, uint32_t stripe, uint64_t *base)
{
	const bool decoded = is_decoded(choice_level(sink->choice, stripe));

	*base = stripe * (uint64_t)(decoded ? sink->staging_pitch : sink->pitch);
	return decoded ? sink->staging : sink->buffer;
}

uint8_t *sink_place(const struct sink *sink, uint32_t index)
{
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	return arrival(sink, stripe) + manifest_unit_offset(sink->manifest,
							    choice_level(sink->choice, stripe),
							    stripe, layer);
}

/* From where it was brought to where it is read; both may be the same. */
static int decode(const struct sink *sink, uint32_t stripe, uint32_t unit, struct lslm_error *err)
{
	const struct manifest *m = sink->manifest;
	const struct manifest_level *lv = choice_level(sink->choice, stripe);
	uint8_t *out = sink->base + stripe * sink->pitch;

	if (!is_decoded(lv))
		return 0;
	return codec_decode(&m->geo, lv->level, sink->calibration, stripe * KV_BLOCK_TOKENS, unit,
			    arrival(sink, stripe) + manifest_unit_offset(m, lv, stripe, unit),
			    manifest_unit_bytes(m, lv, stripe, unit),
			    out + kv_unit_offset(&m->geo, KV_LEVEL_F16, unit), err);
}

static void mark(struct sink *sink, uint32_t stripe, uint32_t unit, enum control_source from)
{
	const struct manifest_level *lv = choice_level(sink->choice, stripe);
	const uint32_t n = sink->order.n_layer;
	const uint32_t end = lv->n_units == 1 ? n : unit + 1;

	/* Of a stripe that is a unit block 0 stands for all (sink_wants()), also for a process that goes on: it is the last. */
	for (uint32_t layer = end; layer-- > unit;)
		control_set(sink->control, stripe, layer, CONTROL_READY, from, lv->level);
	atomic_fetch_add_explicit(&sink->ready, end - unit, memory_order_relaxed);
	PROBE(unit_ready, kv_hash_number(&sink->manifest->key), stripe, unit, (uint32_t)from,
	      (uint64_t)manifest_unit_bytes(sink->manifest, lv, stripe, unit));
}

static int check_digest(const struct sink *sink, const struct manifest_level *lv, uint32_t stripe,
			uint32_t unit, const uint8_t *data, struct lslm_error *err)
{
	const struct manifest *m = sink->manifest;
	const struct kv_hash is = kv_digest(data, manifest_unit_bytes(m, lv, stripe, unit));

	if (kv_hash_equal(&is, manifest_digest(m, lv, stripe, unit)))
		return 0;
	return error_set(
		err, -EBADMSG,
		"block of stripe %u, layer %u differs from what its publisher signed at level %s; the copy is damaged, publish the context again",
		stripe, unit, kv_level_name(lv->level));
}

/* It was checked and lies where it belongs. */
static int finish_unit(struct sink *sink, uint32_t stripe, uint32_t unit, enum control_source from,
		       struct lslm_error *err)
{
	const struct manifest_level *lv = choice_level(sink->choice, stripe);
	const int ret = decode(sink, stripe, unit, err);

	if (ret < 0)
		return error_prefix(err, ret, "block of stripe %u, layer %u", stripe, unit);
	mark(sink, stripe, unit, from);
	if (sink->keeper && control_stripe_ready(sink->control, stripe) &&
	    !(sink->torn && sink->torn[stripe] && is_decoded(lv)))
		keeper_add(sink->keeper, stripe, lv, arrival(sink, stripe));
	return 0;
}

int sink_block(struct sink *sink, uint32_t index, struct lslm_error *err)
{
	uint32_t stripe, unit;
	int ret;

	order_block(&sink->order, index, &stripe, &unit);
	/*
	 * Checked where it lies: nobody but the courier may write there, so what was verified
	 * is what will be read.
	 */
	ret = check_digest(sink, sink_level(sink, index), stripe, unit, sink_place(sink, index),
			   err);
	return ret ? ret : finish_unit(sink, stripe, unit, sink->from, err);
}

int sink_stripe(struct sink *sink, uint32_t stripe, enum control_source from,
		struct lslm_error *err)
{
	const struct manifest_level *lv = choice_level(sink->choice, stripe);
	int ret = 0;

	for (uint32_t unit = 0; unit < lv->n_units && !ret; unit++)
		ret = decode(sink, stripe, unit, err);
	for (uint32_t unit = 0; unit < lv->n_units && !ret; unit++)
		mark(sink, stripe, unit, from);
	return ret;
}

void sink_forget(struct sink *sink)
{
	const struct order *o = &sink->order;
	uint32_t layer;

	for (uint32_t stripe = 0; stripe < o->n_stripes; stripe++) {
		for (layer = 0; layer < o->n_layer; layer++)
			if (control_get(sink->control, stripe, layer) == CONTROL_READY)
				break;
		if (layer == o->n_layer)
			choice_forget(sink->choice, stripe);
	}
}

bool sink_wants(const struct sink *sink, uint32_t index)
{
	const struct manifest_level *lv;
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	if (stripe < atomic_load_explicit(&sink->head, memory_order_relaxed) ||
	    control_get(sink->control, stripe, layer) == CONTROL_READY)
		return false;
	lv = layer ? choice_level(sink->choice, stripe) : NULL;
	return !lv || layer < lv->n_units;
}

uint32_t sink_next(const struct sink *sink, uint32_t index)
{
	while (index < order_count(&sink->order) && !sink_wants(sink, index))
		index++;
	return index;
}

bool sink_is_done(const struct sink *sink)
{
	return sink_next(sink, 0) == order_count(&sink->order);
}

/* ---- with peers ---- */

/* Of the stripe's units those that are wanted, at the level that it has now. */
static uint64_t missing_bytes(const struct sink *sink, uint32_t stripe)
{
	const struct manifest_level *lv = choice_level(sink->choice, stripe);
	uint64_t bytes = 0;

	for (uint32_t unit = 0; unit < lv->n_units; unit++)
		if (sink_wants(sink, order_index(&sink->order, stripe, unit)))
			bytes += manifest_unit_bytes(sink->manifest, lv, stripe, unit);
	return bytes;
}

bool sink_claim(struct sink *sink, uint32_t index, bool over)
{
	enum shares_answer answer = SHARES_MINE;
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	lock(sink);
	if (sink->shares)
		answer = over ? shares_take_over(sink->shares, SHARES_DIRECT, stripe, NULL) :
				shares_claim(sink->shares, SHARES_DIRECT, stripe);
	if (answer != SHARES_NO)
		choose(sink, stripe);
	if (answer == SHARES_NEW)
		shares_ask(sink->shares, SHARES_DIRECT, missing_bytes(sink, stripe));
	unlock(sink);
	return answer != SHARES_NO;
}

void sink_wait(struct sink *sink)
{
	if (sink->shares)
		shares_wait(sink->shares);
}

void sink_came(struct sink *sink, uint64_t bytes)
{
	atomic_fetch_add_explicit(&sink->received, bytes, memory_order_relaxed);
	if (sink->shares)
		shares_came(sink->shares, SHARES_DIRECT, bytes);
}

void sink_settle(struct sink *sink)
{
	if (sink->shares)
		shares_settle(sink->shares, SHARES_DIRECT);
}

/* Is a block of it missing? */
static bool wants_stripe(const struct sink *sink, uint32_t stripe)
{
	for (uint32_t layer = 0; layer < sink->order.n_layer; layer++)
		if (sink_wants(sink, order_index(&sink->order, stripe, layer)))
			return true;
	return false;
}

/* The level that a peer has it at, if that is one which it may come at. */
static const struct manifest_level *acceptable(struct sink *sink, uint32_t stripe, uint8_t held,
					       bool alone)
{
	const struct manifest_level *chosen = choice_level(sink->choice, stripe), *lv;

	if (!held || held > KV_LEVELS || !wants_stripe(sink, stripe))
		return NULL;
	lv = manifest_level(sink->manifest, (enum kv_level)(held - 1));
	if (chosen)
		return chosen == lv ? lv : NULL;
	return choice_accepts(sink->choice, stripe, lv, head_of(sink), see(sink), alone) ? lv :
											   NULL;
}

/* Adds it to what is picked, if it continues that and the peer may have it. */
static bool pick_stripe(struct sink *sink, uint32_t stripe, const struct manifest_level *lv,
			bool over, struct sink_pick *p, bool *recall)
{
	const enum shares_answer answer =
		over ? shares_take_over(sink->shares, p->source, stripe, recall) :
		       shares_claim(sink->shares, p->source, stripe);

	if (answer == SHARES_NO)
		return false;
	if (!choice_level(sink->choice, stripe) && !choice_ask(sink->choice, stripe, lv))
		return false;
	shares_ask(sink->shares, p->source, missing_bytes(sink, stripe));
	if (!p->n)
		p->first = stripe;
	p->level = lv;
	p->n++;
	return true;
}

/* From the last stripe on, as many in a row as there are. */
static void pick_run(struct sink *sink, const uint8_t *held, bool alone, bool over,
		     struct sink_pick *p, bool *recall)
{
	for (uint32_t stripe = sink->order.n_stripes; stripe-- > 0;) {
		const struct manifest_level *lv = acceptable(sink, stripe, held[stripe], alone);
		const bool fits = lv && (!p->n || lv == p->level);

		if ((!fits || !pick_stripe(sink, stripe, lv, over, p, recall)) && p->n)
			return;
	}
}

bool sink_pick(struct sink *sink, const uint8_t *held, bool alone, struct sink_pick *pick,
	       bool *recall)
{
	shares_settle(sink->shares, pick->source);
	*recall = false;
	pick->n = 0;
	lock(sink);
	pick_run(sink, held, alone, false, pick, recall);
	if (!pick->n)
		pick_run(sink, held, alone, true, pick, recall);
	unlock(sink);
	return pick->n;
}

int sink_offer(struct sink *sink, const struct sink_pick *pick, uint32_t stripe, uint32_t unit,
	       const uint8_t *data, struct lslm_error *err)
{
	const struct manifest_level *lv = pick->level;
	const struct manifest *m = sink->manifest;
	int ret = check_digest(sink, lv, stripe, unit, data, err);

	if (ret < 0)
		return ret;
	lock(sink);
	/* Another one may have brought it, or the direct source be writing it now. */
	if (shares_is_open(sink->shares, stripe) && choice_level(sink->choice, stripe) == lv &&
	    sink_wants(sink, order_index(&sink->order, stripe, unit))) {
		memcpy(arrival(sink, stripe) + manifest_unit_offset(m, lv, stripe, unit), data,
		       manifest_unit_bytes(m, lv, stripe, unit));
		ret = finish_unit(sink, stripe, unit, CONTROL_FROM_PEER, err);
	}
	unlock(sink);
	return ret;
}
