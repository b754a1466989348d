/* SPDX-License-Identifier: MIT */
/*
 * A pool of stripes for private KV: blocks of KV_BLOCK_TOKENS tokens with all their layers, of
 * which as many are there as fit its size, and no more.
 *
 * The memory is anonymous, kept out of core dumps, in 2 MiB pages where the kernel has them, and
 * taken from the system when a block is first used. Blocks are counted: who takes one has a
 * reference, who shares it takes another. When the last one is dropped the block is free, or, where
 * somebody retains it for others to come (engine/prefix_tree.h), idle. One thread uses a pool.
 */
#ifndef LSLM_ENGINE_KVPOOL_H
#define LSLM_ENGINE_KVPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/geometry.h"

struct kvpool;

/* As many blocks as fit, at least one. -ENOMEM. */
int kvpool_create(struct kvpool **out, const struct kv_geometry *geo, uint64_t bytes,
		  struct lslm_error *err);
void kvpool_destroy(struct kvpool *p);

uint32_t kvpool_size(const struct kvpool *p);
uint32_t kvpool_free_blocks(const struct kvpool *p);
uint32_t kvpool_idle_blocks(const struct kvpool *p);

/*
 * A block, numbered below kvpool_size(), with one reference; -ENOSPC when none is free. What stands
 * in it is anything.
 */
int kvpool_take(struct kvpool *p);
void kvpool_keep(struct kvpool *p, uint32_t block);
void kvpool_drop(struct kvpool *p, uint32_t block);
bool kvpool_in_use(const struct kvpool *p, uint32_t block); /* are there references? */
void kvpool_retain(struct kvpool *p, uint32_t block); /* one that is in use */
void kvpool_forget(struct kvpool *p, uint32_t block); /* the opposite */

uint8_t *kvpool_stripe(const struct kvpool *p, uint32_t block);
/* Which block it is that begins there. */
uint32_t kvpool_block(const struct kvpool *p, const uint8_t *stripe);
/* The first n tokens of one block into another, all layers. */
void kvpool_copy(struct kvpool *p, uint32_t to, uint32_t from, uint32_t n);

/* Memory of that kind for n stripes, to be unmapped. -ENOMEM. */
int kvpool_map(uint8_t **memory, size_t *size, const struct kv_geometry *geo, uint32_t n,
	       struct lslm_error *err);

#endif
