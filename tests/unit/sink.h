/* SPDX-License-Identifier: MIT */
/* A sink without a courier, for what a source does with it: plain memory and a control page. */
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
	sink->level = manifest_level(m, KV_LEVEL_F16);
	sink->block_bytes = kv_block_bytes(&m->geo, KV_LEVEL_F16);
	sink->stripe_bytes = kv_stripe_bytes(&m->geo, KV_LEVEL_F16);
	sink->size = m->n_stripes * sink->stripe_bytes;
	assert_int_equal(posix_memalign(&base, 4096, sink->size), 0);
	memset(base, 0xee, sink->size);
	sink->base = base;
	sink->from = CONTROL_FROM_FILE;
	assert_ok(control_create(&sink->control, m->n_stripes, m->geo.n_layer, &err), &err);
}

static inline void sink_free(struct sink *sink)
{
	control_close(sink->control);
	free(sink->base);
}

/* Says that the index-th block of the order is here, which must then not be written. */
static inline void sink_preload(struct sink *sink, uint32_t index)
{
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	control_set(sink->control, stripe, layer, CONTROL_READY, CONTROL_FROM_COMPUTE);
}

/* Blocks marked by the source hold the context's bytes, all others are untouched. */
static inline void sink_check(const struct sink *sink, const struct synthetic *shape)
{
	uint8_t *want = malloc(sink->stripe_bytes), *place;
	uint32_t s, l;

	for (uint32_t i = 0; i < order_count(&sink->order); i++) {
		order_block(&sink->order, i, &s, &l);
		if (control_get_source(sink->control, s, l) == sink->from)
			synthetic_stripe(shape, s, want);
		else
			memset(want, 0xee, sink->stripe_bytes);
		place = sink_place(sink, i);
		assert_memory_equal(place, want + l * sink->block_bytes, sink->block_bytes);
	}
	free(want);
}

#endif
