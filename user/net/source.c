// SPDX-License-Identifier: MIT
#include "net/source.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/probes.h"
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

uint8_t *sink_place(const struct sink *sink, uint32_t index)
{
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	return sink->base + stripe * sink->stripe_bytes + layer * sink->block_bytes;
}

int sink_block(struct sink *sink, uint32_t index, struct lslm_error *err)
{
	struct kv_hash is;
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	/*
	 * Checked where it lies: nobody but the courier may write there, so what was verified
	 * is what will be read.
	 */
	is = kv_digest(sink_place(sink, index), sink->block_bytes);
	if (!kv_hash_equal(&is, manifest_digest(sink->manifest, sink->level, stripe, layer)))
		return error_set(
			err, -EBADMSG,
			"block of stripe %u, layer %u differs from what its publisher signed; the copy is damaged, publish the context again",
			stripe, layer);
	control_set(sink->control, stripe, layer, CONTROL_READY, sink->from);
	atomic_fetch_add_explicit(&sink->ready, 1, memory_order_relaxed);
	if (sink->keeper && control_stripe_ready(sink->control, stripe))
		keeper_add(sink->keeper, stripe);
	PROBE(unit_ready, kv_hash_number(&sink->manifest->key), stripe, layer, (uint32_t)sink->from,
	      (uint64_t)sink->block_bytes);
	return 0;
}

bool sink_wants(const struct sink *sink, uint32_t index)
{
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	return stripe >= atomic_load_explicit(&sink->head, memory_order_relaxed) &&
	       control_get(sink->control, stripe, layer) != CONTROL_READY;
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
