/* SPDX-License-Identifier: MIT */
/* A sink without a courier, for what a source does with it: plain memory or a buffer, and a control page. */
#ifndef LSLM_TESTS_SINK_H
#define LSLM_TESTS_SINK_H

#include "net/source.h"
#include "synthetic.h"
#include "unit/unit.h"

static inline void sink_make(struct sink *sink, const struct manifest *m, enum order_kind order)
{
	struct lslm_error err = { 0 };
	void *base = NULL;

	memset(sink, 0, sizeof(*sink));
	sink->order = (struct order){ order, m->n_stripes, m->geo.n_layer };
	sink->manifest = m;
	assert_ok(choice_open(&sink->choice, m, CHOICE_ALL_LEVELS, &err), &err);
	choice_begin(sink->choice, 0, 0, 0, 0);
	sink->pitch = choice_pitch(sink->choice);
	sink->size = m->n_stripes * sink->pitch;
	assert_int_equal(posix_memalign(&base, 4096, sink->size), 0);
	memset(base, 0xee, sink->size);
	sink->base = base;
	sink->from = CONTROL_FROM_FILE;
	assert_ok(control_create(&sink->control, m->n_stripes, m->geo.n_layer, &err), &err);
}

/* In a buffer in place of plain memory. */
static inline void sink_make_buffer(struct sink *sink, const struct manifest *m,
				    enum order_kind order)
{
	struct lslm_error err = { 0 };

	sink_make(sink, m, order);
	free(sink->base);
	assert_ok(buffer_create(&sink->buffer, BUFFER_MEMFD, sink->size, 0, &err), &err);
	sink->base = buffer_data(sink->buffer);
	memset(sink->base, 0xee, sink->size);
}

static inline size_t sink_block_bytes(const struct sink *sink)
{
	return kv_block_bytes(&sink->manifest->geo, KV_LEVEL_F16);
}

static inline void sink_free(struct sink *sink)
{
	control_close(sink->control);
	choice_close(sink->choice);
	if (sink->buffer)
		buffer_close(sink->buffer);
	else
		free(sink->base);
}

/* What it is to hold in the end; malloc'd. */
static inline uint8_t *sink_wanted(const struct sink *sink, const struct synthetic *context)
{
	uint8_t *data = malloc(sink->size);

	for (uint32_t s = 0; s < sink->order.n_stripes; s++)
		synthetic_stripe(context, s, data + s * sink->pitch);
	return data;
}

/* Says that the index-th block of the order is here, which must then not be written. */
static inline void sink_preload(struct sink *sink, uint32_t index)
{
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	control_set(sink->control, stripe, layer, CONTROL_READY, CONTROL_FROM_COMPUTE,
		    KV_LEVEL_F16);
}

/* Blocks marked by the source hold the context's bytes, all others are untouched. */
static inline void sink_check(const struct sink *sink, const struct synthetic *context)
{
	const size_t block = sink_block_bytes(sink);
	uint8_t *want = malloc(sink->pitch), *place;
	uint32_t s, l;

	for (uint32_t i = 0; i < order_count(&sink->order); i++) {
		order_block(&sink->order, i, &s, &l);
		if (control_get_source(sink->control, s, l) == sink->from)
			synthetic_stripe(context, s, want);
		else
			memset(want, 0xee, sink->pitch);
		place = sink->base + s * sink->pitch + l * block;
		assert_memory_equal(place, want + l * block, block);
	}
	free(want);
}

#endif
