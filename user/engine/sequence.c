// SPDX-License-Identifier: MIT
#include "engine/sequence.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "compute/quant.h"
#include "engine/kvpool.h"

static int fresh(struct sequence **out, const struct kv_geometry *geo, uint32_t capacity,
		 struct lslm_error *err)
{
	if (capacity == 0 || capacity > KV_MAX_TOKENS)
		return error_set(err, -EINVAL, "a sequence of %u tokens: 1..%d are supported",
				 capacity, KV_MAX_TOKENS);
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return error_set(err, -ENOMEM, "out of memory");
	(*out)->geo = *geo;
	(*out)->max_blocks = (capacity + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
	return 0;
}

int sequence_create(struct sequence **out, const struct kv_geometry *geo, uint32_t capacity,
		    struct lslm_error *err)
{
	struct sequence *s = NULL;
	int rc = fresh(&s, geo, capacity, err);

	if (!rc)
		rc = kvpool_map(&s->memory, &s->memory_size, geo, s->max_blocks, err);
	if (rc) {
		free(s);
		return rc;
	}
	s->own.base = s->memory;
	s->capacity = s->max_blocks * KV_BLOCK_TOKENS;
	*out = s;
	return 0;
}

int sequence_create_paged(struct sequence **out, const struct kv_geometry *geo, uint32_t max_tokens,
			  struct lslm_error *err)
{
	struct sequence *s;
	int rc = fresh(&s, geo, max_tokens, err);

	if (rc)
		return rc;
	s->blocks = calloc(s->max_blocks, sizeof(*s->blocks));
	if (!s->blocks) {
		free(s);
		return error_set(err, -ENOMEM, "out of memory");
	}
	s->own.blocks = (const uint8_t *const *)s->blocks;
	*out = s;
	return 0;
}

void sequence_add_block(struct sequence *s, uint8_t *stripe)
{
	s->blocks[s->capacity / KV_BLOCK_TOKENS] = stripe;
	s->capacity += KV_BLOCK_TOKENS;
}

void sequence_destroy(struct sequence *s)
{
	if (!s)
		return;
	if (s->memory)
		munmap(s->memory, s->memory_size);
	free(s->blocks);
	free(s);
}

int sequence_share(struct sequence *s, const struct segment *shared, struct lslm_error *err)
{
	const uint32_t end = s->n_segments ? s->segments[s->n_segments - 1].first +
						     s->segments[s->n_segments - 1].n_tokens :
					     0;

	if (s->own.n_tokens && end + shared->n_tokens > s->own.first)
		return error_set(err, -EINVAL, "a shared segment must come before private tokens");
	if (s->n_segments == SEQUENCE_MAX_SEGMENTS)
		return error_set(err, -EINVAL, "more than %d shared segments",
				 SEQUENCE_MAX_SEGMENTS);
	if (shared->first != end)
		return error_set(err, -EINVAL, "segment starts at %u, the sequence ends at %u",
				 shared->first, end);
	s->segments[s->n_segments++] = *shared;
	if (!s->own.n_tokens)
		s->own.first = end + shared->n_tokens;
	return 0;
}

void sequence_unshare(struct sequence *s)
{
	s->n_segments = 0;
	if (!s->own.n_tokens)
		s->own.first = 0;
}

uint32_t sequence_len(const struct sequence *s)
{
	return s->own.first + s->own.n_tokens;
}

void sequence_store(struct sequence *s, uint32_t layer, uint32_t i, const float *k, const float *v)
{
	const struct kv_geometry *g = &s->geo;
	const uint32_t slot = i % KV_BLOCK_TOKENS;
	const uint32_t b = i / KV_BLOCK_TOKENS;
	uint8_t *stripe = s->blocks ? s->blocks[b] :
				      s->memory + (size_t)b * kv_stripe_bytes(g, KV_LEVEL_F16);
	uint8_t *block = stripe + (layer - s->first_layer) * kv_block_bytes(g, KV_LEVEL_F16);
	uint16_t *keys = (uint16_t *)block;
	uint16_t *values = (uint16_t *)(block + kv_half_bytes(g, KV_LEVEL_F16));

	for (uint32_t h = 0; h < g->n_head_kv; h++) {
		const size_t at = ((size_t)h * KV_BLOCK_TOKENS + slot) * g->head_dim;

		f32_row_to_f16(k + (size_t)h * g->head_dim, keys + at, g->head_dim);
		f32_row_to_f16(v + (size_t)h * g->head_dim, values + at, g->head_dim);
	}
}
