/* SPDX-License-Identifier: MIT */
/*
 * In which order a context's blocks travel.
 *
 *   layer  all stripes of layer 0, then all of layer 1, ...: the engine computes a
 *          layer as soon as it is complete.
 *   tail   last stripe first, each stripe in layer order: for a receiver that
 *          computes from the head meanwhile.
 *
 * Both ends number the blocks 0 .. n_stripes * n_layer - 1 in the order of the
 * stream; "from block N" in a request is such a number. The same arithmetic serves
 * the cloud, the courier and the tests.
 */
#ifndef LSLM_NET_ORDER_H
#define LSLM_NET_ORDER_H

#include <stdint.h>

enum order_kind {
	ORDER_LAYER,
	ORDER_TAIL,
};

struct order {
	enum order_kind kind;
	uint32_t n_stripes;
	uint32_t n_layer;
};

/* Within uint32_t: kv_geometry_check() and KV_MAX_TOKENS bound both factors. */
static inline uint32_t order_count(const struct order *o)
{
	return o->n_stripes * o->n_layer;
}

/* Stripe and layer of the index-th block; index < order_count(o). */
static inline void order_block(const struct order *o, uint32_t index, uint32_t *stripe,
			       uint32_t *layer)
{
	if (o->kind == ORDER_LAYER) {
		*layer = index / o->n_stripes;
		*stripe = index % o->n_stripes;
	} else {
		*stripe = o->n_stripes - 1 - index / o->n_layer;
		*layer = index % o->n_layer;
	}
}

/* And back: where the block of this stripe and layer stands. */
static inline uint32_t order_index(const struct order *o, uint32_t stripe, uint32_t layer)
{
	return o->kind == ORDER_LAYER ? layer * o->n_stripes + stripe :
					(o->n_stripes - 1 - stripe) * o->n_layer + layer;
}

#endif
