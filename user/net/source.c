// SPDX-License-Identifier: MIT
#include "net/source.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/probes.h"
#include "codec/codec.h"
#include "net/keeper.h"

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
	pthread_mutex_lock(&s->lock);
	memcpy(out, s->path, sizeof(s->path));
	pthread_mutex_unlock(&s->lock);
}

void sink_choose(struct sink *sink, uint32_t index)
{
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	if (choice_level(sink->choice, stripe))
		return;
	choice_see(sink->choice, atomic_load_explicit(&sink->received, memory_order_relaxed),
		   clock_seconds());
	choice_make(sink->choice, stripe, atomic_load_explicit(&sink->head, memory_order_relaxed),
		    clock_seconds());
}

uint64_t sink_budget(struct sink *sink)
{
	const double now = clock_seconds();

	choice_see(sink->choice, atomic_load_explicit(&sink->received, memory_order_relaxed), now);
	return choice_budget(sink->choice, atomic_load_explicit(&sink->head, memory_order_relaxed),
			     now);
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
			    out + unit * kv_block_bytes(&m->geo, KV_LEVEL_F16), err);
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

int sink_block(struct sink *sink, uint32_t index, struct lslm_error *err)
{
	const struct manifest_level *lv = sink_level(sink, index);
	struct kv_hash is;
	uint32_t stripe, unit;
	int ret;

	order_block(&sink->order, index, &stripe, &unit);
	/*
	 * Checked where it lies: nobody but the courier may write there, so what was verified
	 * is what will be read.
	 */
	is = kv_digest(sink_place(sink, index), sink_bytes(sink, index));
	if (!kv_hash_equal(&is, manifest_digest(sink->manifest, lv, stripe, unit)))
		return error_set(
			err, -EBADMSG,
			"block of stripe %u, layer %u differs from what its publisher signed at level %s; the copy is damaged, publish the context again",
			stripe, unit, kv_level_name(lv->level));
	ret = decode(sink, stripe, unit, err);
	if (ret < 0)
		return error_prefix(err, ret, "block of stripe %u, layer %u", stripe, unit);
	mark(sink, stripe, unit, sink->from);
	if (sink->keeper && control_stripe_ready(sink->control, stripe) &&
	    !(sink->torn && sink->torn[stripe] && is_decoded(lv)))
		keeper_add(sink->keeper, stripe, lv, arrival(sink, stripe));
	return 0;
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
