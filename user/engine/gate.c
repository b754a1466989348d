// SPDX-License-Identifier: MIT
#include "engine/gate.h"

#include <errno.h>
#include <stdbool.h>

#include "base/probes.h"
#include "engine/sequence.h"

/* Does a part before this one hold the same contents already? */
static bool held(const struct engine_part *parts, uint32_t part, const struct segment *seg)
{
	for (uint32_t i = 0; i < part; i++)
		for (uint32_t k = 0; k < parts[i].seq->n_segments; k++) {
			const struct segment *other = &parts[i].seq->segments[k];

			if (other->buffer == seg->buffer && other->generation == seg->generation)
				return true;
		}
	return false;
}

static void release(const struct engine_part *parts, uint32_t part, uint32_t n_segments)
{
	const struct sequence *s = parts[part].seq;

	for (uint32_t k = 0; k < n_segments; k++)
		if (s->segments[k].buffer && !held(parts, part, &s->segments[k]))
			buffer_release(s->segments[k].buffer, NULL);
}

static int hold(const struct segment *seg, struct lslm_error *err)
{
	uint64_t generation;
	bool retained;
	int rc = buffer_hold(seg->buffer, &retained, &generation, err);

	if (rc || (retained && generation == seg->generation))
		return rc;
	buffer_release(seg->buffer, NULL);
	return error_set(err, -ESTALE,
			 "the context's buffer lost its contents (generation %llu, attached %llu)",
			 (unsigned long long)generation, (unsigned long long)seg->generation);
}

static int enter(const struct engine_part *parts, uint32_t part, struct lslm_error *err)
{
	const struct sequence *s = parts[part].seq;

	for (uint32_t k = 0; k < s->n_segments; k++) {
		const struct segment *seg = &s->segments[k];
		int rc = seg->buffer && !held(parts, part, seg) ? hold(seg, err) : 0;

		if (rc) {
			release(parts, part, k);
			return rc;
		}
	}
	return 0;
}

int gate_enter(const struct engine_part *parts, uint32_t n, uint32_t *at, struct lslm_error *err)
{
	for (uint32_t i = 0; i < n; i++) {
		int rc = enter(parts, i, err);

		if (rc) {
			gate_leave(parts, i);
			*at = i;
			return rc;
		}
	}
	return 0;
}

void gate_leave(const struct engine_part *parts, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		release(parts, i, parts[i].seq->n_segments);
}

/* Which block of the segment's stripes a layer's pass waits for; false: none of them. */
static bool block_of(const struct segment *seg, uint32_t layer, uint32_t *block)
{
	*block = layer;
	if (!seg->control || (seg->run && kv_run_has(&seg->run->layers, layer)))
		return false;
	if (seg->run)
		*block = kv_run_block(&seg->run->layers, layer);
	return true;
}

int gate_layer(const struct engine_part *parts, uint32_t n, uint32_t layer, uint32_t *at,
	       struct lslm_error *err)
{
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < parts[i].seq->n_segments; k++) {
			const struct segment *seg = &parts[i].seq->segments[k];
			uint32_t block;
			int rc;

			if (!block_of(seg, layer, &block))
				continue;
			PROBE(layer_wait, layer);
			/* No time limit here: the courier has one, and fails the page when it is over. */
			rc = control_wait_layer(seg->control, block, -1);
			PROBE(layer_there, layer);
			if (rc) {
				*at = i;
				return error_set(err, -EIO,
						 "layer %u of the context did not arrive", layer);
			}
		}
	return 0;
}
