// SPDX-License-Identifier: MIT
#include "engine/kvpool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lslm/page.h"

struct block {
	uint32_t references;
	bool retained;
};

struct kvpool {
	struct kv_geometry geo;
	size_t stripe;
	uint8_t *memory;
	size_t memory_size;
	uint32_t n;
	struct block *blocks; /* [n] */
	uint32_t *free; /* the free ones; the last one dropped is taken first, as its pages are there */
	uint32_t n_free, n_idle;
};

int kvpool_map(uint8_t **memory, size_t *size, const struct kv_geometry *geo, uint32_t n,
	       struct lslm_error *err)
{
	void *p;

	if (__builtin_mul_overflow(kv_stripe_bytes(geo, KV_LEVEL_F16), (size_t)n, size))
		return error_set(err, -ENOMEM, "KV of %u blocks does not fit into memory", n);
	*size = lslm_round_up(*size, lslm_page_size());
	p = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (p == MAP_FAILED)
		return error_sys(err, -ENOMEM, "KV of %u blocks needs %zu MiB", n, *size >> 20);
	/* Private KV can be inverted to the user's text, so it stays out of core dumps. The
	 * other advice is for speed only. Kernels without either refuse, harmlessly.
	 */
	madvise(p, *size, MADV_DONTDUMP);
	madvise(p, *size, MADV_HUGEPAGE);
	*memory = p;
	return 0;
}

int kvpool_create(struct kvpool **out, const struct kv_geometry *geo, uint64_t bytes,
		  struct lslm_error *err)
{
	const size_t stripe = kv_stripe_bytes(geo, KV_LEVEL_F16);
	const uint64_t n = bytes / stripe < KV_MAX_TOKENS ? bytes / stripe : KV_MAX_TOKENS;
	struct kvpool *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return error_set(err, -ENOMEM, "out of memory");
	p->geo = *geo;
	p->stripe = stripe;
	p->n = n ? (uint32_t)n : 1;
	p->blocks = calloc(p->n, sizeof(*p->blocks));
	p->free = calloc(p->n, sizeof(*p->free));
	rc = p->blocks && p->free ? 0 : error_set(err, -ENOMEM, "out of memory");
	if (!rc)
		rc = kvpool_map(&p->memory, &p->memory_size, geo, p->n, err);
	if (rc) {
		kvpool_destroy(p);
		return rc;
	}
	while (p->n_free < p->n) {
		p->free[p->n_free] = p->n - 1 - p->n_free;
		p->n_free++;
	}
	*out = p;
	return 0;
}

void kvpool_destroy(struct kvpool *p)
{
	if (!p)
		return;
	if (p->memory)
		munmap(p->memory, p->memory_size);
	free(p->blocks);
	free(p->free);
	free(p);
}

uint32_t kvpool_size(const struct kvpool *p)
{
	return p->n;
}

uint32_t kvpool_free_blocks(const struct kvpool *p)
{
	return p->n_free;
}

uint32_t kvpool_idle_blocks(const struct kvpool *p)
{
	return p->n_idle;
}

int kvpool_take(struct kvpool *p)
{
	uint32_t block;

	if (!p->n_free)
		return -ENOSPC;
	block = p->free[--p->n_free];
	p->blocks[block].references = 1;
	return (int)block;
}

void kvpool_keep(struct kvpool *p, uint32_t block)
{
	struct block *b = &p->blocks[block];

	if (b->references++ == 0)
		p->n_idle--;
}

void kvpool_drop(struct kvpool *p, uint32_t block)
{
	struct block *b = &p->blocks[block];

	if (--b->references)
		return;
	if (b->retained)
		p->n_idle++;
	else
		p->free[p->n_free++] = block;
}

bool kvpool_in_use(const struct kvpool *p, uint32_t block)
{
	return p->blocks[block].references > 0;
}

void kvpool_retain(struct kvpool *p, uint32_t block)
{
	p->blocks[block].retained = true;
}

void kvpool_forget(struct kvpool *p, uint32_t block)
{
	struct block *b = &p->blocks[block];

	b->retained = false;
	if (b->references)
		return;
	p->n_idle--;
	p->free[p->n_free++] = block;
}

uint8_t *kvpool_stripe(const struct kvpool *p, uint32_t block)
{
	return p->memory + (size_t)block * p->stripe;
}

uint32_t kvpool_block(const struct kvpool *p, const uint8_t *stripe)
{
	return (uint32_t)((size_t)(stripe - p->memory) / p->stripe);
}

void kvpool_copy(struct kvpool *p, uint32_t to, uint32_t from, uint32_t n)
{
	const size_t row = p->geo.head_dim * sizeof(uint16_t), head = KV_BLOCK_TOKENS * row;
	const size_t half = kv_half_bytes(&p->geo, KV_LEVEL_F16);

	for (uint32_t i = 0; i < 2 * p->geo.n_layer; i++)
		for (uint32_t h = 0; h < p->geo.n_head_kv; h++) {
			const size_t at = i * half + h * head;

			memcpy(kvpool_stripe(p, to) + at, kvpool_stripe(p, from) + at, n * row);
		}
}
