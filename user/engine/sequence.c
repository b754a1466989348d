// SPDX-License-Identifier: MIT
#include "engine/sequence.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "compute/quant.h"
#include "lslm/page.h"

int sequence_create(struct sequence **out, const struct kv_geometry *geo, uint32_t capacity,
		    struct lslm_error *err)
{
	const size_t stripe = kv_stripe_bytes(geo, KV_LEVEL_F16);
	const size_t n_stripes = ((size_t)capacity + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
	struct sequence *s;
	size_t size;
	void *p;

	if (capacity == 0 || capacity > KV_MAX_TOKENS)
		return error_set(err, -EINVAL, "a sequence of %u tokens: 1..%d are supported",
				 capacity, KV_MAX_TOKENS);
	if (__builtin_mul_overflow(stripe, n_stripes, &size))
		return error_set(err, -ENOMEM, "KV of %u tokens does not fit into memory",
				 capacity);
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	size = lslm_round_up(size, lslm_page_size());
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (p == MAP_FAILED) {
		free(s);
		return error_sys(err, -ENOMEM, "KV of %u tokens needs %zu MiB", capacity,
				 size >> 20);
	}
	/* Private KV can be inverted to the user's text, so it stays out of core dumps. The
	 * other advice is for speed only. Kernels without either refuse, harmlessly.
	 */
	madvise(p, size, MADV_DONTDUMP);
	madvise(p, size, MADV_HUGEPAGE);
	s->geo = *geo;
	s->memory = p;
	s->memory_size = size;
	s->own.base = p;
	s->capacity = (uint32_t)(n_stripes * KV_BLOCK_TOKENS);
	*out = s;
	return 0;
}

void sequence_destroy(struct sequence *s)
{
	if (!s)
		return;
	munmap(s->memory, s->memory_size);
	free(s);
}

int sequence_share(struct sequence *s, const struct segment *shared, struct lslm_error *err)
{
	if (s->own.n_tokens)
		return error_set(err, -EINVAL, "a shared segment must come before private tokens");
	if (s->n_segments == SEQUENCE_MAX_SEGMENTS)
		return error_set(err, -EINVAL, "more than %d shared segments",
				 SEQUENCE_MAX_SEGMENTS);
	if (shared->first != s->own.first)
		return error_set(err, -EINVAL, "segment starts at %u, the sequence ends at %u",
				 shared->first, s->own.first);
	s->segments[s->n_segments++] = *shared;
	s->own.first += shared->n_tokens;
	return 0;
}

uint32_t sequence_len(const struct sequence *s)
{
	return s->own.first + s->own.n_tokens;
}

void sequence_store(struct sequence *s, uint32_t layer, uint32_t i, const float *k, const float *v)
{
	const struct kv_geometry *g = &s->geo;
	const uint32_t slot = i % KV_BLOCK_TOKENS;
	uint8_t *block = s->memory +
			 (size_t)(i / KV_BLOCK_TOKENS) * kv_stripe_bytes(g, KV_LEVEL_F16) +
			 (size_t)layer * kv_block_bytes(g, KV_LEVEL_F16);
	uint16_t *keys = (uint16_t *)block;
	uint16_t *values = (uint16_t *)(block + kv_half_bytes(g, KV_LEVEL_F16));

	for (uint32_t h = 0; h < g->n_head_kv; h++) {
		const size_t at = ((size_t)h * KV_BLOCK_TOKENS + slot) * g->head_dim;

		f32_row_to_f16(k + (size_t)h * g->head_dim, keys + at, g->head_dim);
		f32_row_to_f16(v + (size_t)h * g->head_dim, values + at, g->head_dim);
	}
}
