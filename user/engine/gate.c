// SPDX-License-Identifier: MIT
#include "engine/gate.h"

#include <errno.h>

#include "base/probes.h"

static void release(struct sequence *s, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (s->segments[i].buffer)
			buffer_release(s->segments[i].buffer, NULL);
}

int gate_enter(struct sequence *s, struct lslm_error *err)
{
	for (uint32_t i = 0; i < s->n_segments; i++) {
		const struct segment *seg = &s->segments[i];
		uint64_t generation;
		bool retained;
		int rc;

		if (!seg->buffer)
			continue;
		rc = buffer_hold(seg->buffer, &retained, &generation, err);
		if (rc) {
			release(s, i);
			return rc;
		}
		if (!retained || generation != seg->generation) {
			release(s, i + 1);
			return error_set(err, -ESTALE,
					 "the context's buffer lost its contents (generation %llu, "
					 "attached %llu)",
					 (unsigned long long)generation,
					 (unsigned long long)seg->generation);
		}
	}
	return 0;
}

void gate_leave(struct sequence *s)
{
	release(s, s->n_segments);
}

int gate_layer(const struct sequence *s, uint32_t layer, struct lslm_error *err)
{
	for (uint32_t i = 0; i < s->n_segments; i++) {
		const struct segment *seg = &s->segments[i];
		int rc;

		if (!seg->control)
			continue;
		PROBE(layer_wait, layer);
		/* No time limit here: the courier has one, and fails the page when it is over. */
		rc = control_wait_layer(seg->control, layer, -1);
		PROBE(layer_there, layer);
		if (rc)
			return error_set(err, -EIO, "layer %u of the context did not arrive",
					 layer);
	}
	return 0;
}
