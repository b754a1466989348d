/* SPDX-License-Identifier: MIT */
/*
 * A sequence: segments in order of position, the last one private.
 *
 * Shared segments (a context's: its computed head, its streamed tail) are only read, and live in
 * somebody else's memory; the private segment holds the KV of what this sequence computed
 * itself, in anonymous memory that is kept out of core dumps. What a user typed
 * is only ever in the private one.
 */
#ifndef LSLM_ENGINE_SEQUENCE_H
#define LSLM_ENGINE_SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/buffer.h"
#include "kv/control.h"
#include "kv/geometry.h"
#include "kv/run.h"

enum { SEQUENCE_MAX_SEGMENTS = 16 };

/* Of a segment whose stripes have no layers of a run: where those are. */
struct segment_run {
	struct kv_run layers;
	struct kv_geometry geo; /* of the segment's stripes */
	const uint8_t *base; /* f16: stripes of those layers alone, from position 0 on */
	size_t stripe; /* bytes of one */
};

/* Stripes of one level, as it lies in memory (kv/geometry.h). */
struct segment {
	const uint8_t *base;
	const uint8_t *const *blocks; /* or each stripe by itself; NULL: base says it */
	enum kv_level level; /* f16, q8 or q4; of what a sequence computes itself always f16 */
	size_t pitch; /* from one stripe to the next; 0: the level's kv_stripe_bytes() */
	bool rounded; /* of a context: what is f16 may be multiplied as bf16, see compute/attention.h */
	uint32_t first; /* position of its first token */
	uint32_t n_tokens;
	/*
	 * Of shared segments in a buffer: it, held during every pass, and the generation its
	 * contents had when attached. NULL where base is plain memory of whoever shares it.
	 */
	struct buffer *buffer;
	uint64_t generation;
	const struct segment_run *run; /* NULL: all layers are there */
	/* Which layers are ready, of a segment that is all of a context; NULL: everything is. */
	const struct control *control;
};

struct sequence {
	struct kv_geometry geo;
	uint32_t first_layer; /* that it holds, of geo.n_layer; 0 but where a run is computed (engine/reuse.h) */
	struct segment segments[SEQUENCE_MAX_SEGMENTS];
	uint32_t n_segments; /* without the private one */
	struct segment own;
	uint8_t *memory; /* of own; NULL where it is paged */
	size_t memory_size;
	uint8_t **blocks; /* of own where it is paged; somebody else's memory */
	uint32_t max_blocks;
	uint32_t capacity; /* tokens that fit into own */
};

/* Room for capacity private tokens, rounded up to whole blocks, in one piece of memory. */
int sequence_create(struct sequence **out, const struct kv_geometry *geo, uint32_t capacity,
		    struct lslm_error *err);
/*
 * Room for none: each 64 private tokens come to stand in a stripe that sequence_add_block() gives
 * it.
 */
int sequence_create_paged(struct sequence **out, const struct kv_geometry *geo, uint32_t max_tokens,
			  struct lslm_error *err);
/* Of a paged sequence that has less than max_tokens; the stripe must outlive the sequence. */
void sequence_add_block(struct sequence *s, uint8_t *stripe);
void sequence_destroy(struct sequence *s);

/*
 * Append a shared segment; only before the first private token. Its memory, buffer and control page
 * must outlive the sequence. -EINVAL when it does not start where the sequence ends.
 */
int sequence_share(struct sequence *s, const struct segment *shared, struct lslm_error *err);

/*
 * Take all shared segments off again, to append others in their place; private tokens stay where
 * they stand.
 */
void sequence_unshare(struct sequence *s);

/* Tokens so far, shared and private. */
uint32_t sequence_len(const struct sequence *s);

/* Write K and V ([n_head_kv][head_dim] floats each) of private token i, which must fit. */
void sequence_store(struct sequence *s, uint32_t layer, uint32_t i, const float *k, const float *v);

#endif
