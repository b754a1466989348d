/* SPDX-License-Identifier: MIT */
/*
 * Blocks of private KV that can be found again: a tree whose paths are token sequences.
 *
 * A root is a tenant, or all tenants of a salt, and the context that its sequences follow (or none); a node is a block of a
 * pool with the tokens that it stands for after those of the nodes above it. So a node's place says
 * all that decides its values, and nothing is found across tenants or contexts. Tokens are compared
 * as they are, not by hash.
 *
 * A block of fewer than KV_BLOCK_TOKENS tokens, and the beginning of a full one, serve by being
 * copied: whoever finds it goes on in a block of his own. So the tokens of a context past its last
 * full block are computed once, as is whatever chat templates put in front of a question.
 *
 * The tree retains its blocks. A sequence that uses full ones has references to the whole path.
 * Blocks without any are evicted when room is needed, cheapest first:
 *
 *   frequency * time to compute it again / bytes
 *
 * where frequency halves in PREFIX_HALF_LIFE searches without a use, and bytes are the same for
 * all.
 */
#ifndef LSLM_ENGINE_PREFIX_TREE_H
#define LSLM_ENGINE_PREFIX_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/kvpool.h"
#include "kv/key.h"

enum { PREFIX_HALF_LIFE = 256 };

struct prefix_tree;

/* Whose blocks. */
struct prefix_scope {
	uint32_t tenant; /* 0 where there is a salt */
	struct kv_hash salt; /* zero: none, and each tenant has its own */
	struct kv_hash context; /* zero: none */
};

bool prefix_scope_equal(const struct prefix_scope *a, const struct prefix_scope *b);

/*
 * cost_per_position: how much more it costs to compute a token for each position it stands further
 * back, as a part of what it costs at the first: attention against products.
 */
int prefix_tree_create(struct prefix_tree **out, struct kvpool *pool, double cost_per_position,
		       struct lslm_error *err);
/* Retains nothing any more. NULL is allowed. */
void prefix_tree_destroy(struct prefix_tree *t);

/* What a sequence begins with, as far as it is there. */
struct prefix_found {
	uint32_t n_blocks; /* full ones, whose numbers are in blocks */
	uint32_t copy; /* a block with more of it, to be copied and dropped */
	uint32_t copy_tokens; /* so many; 0: there is none */
};

/*
 * tokens: [n]. blocks: room for n / KV_BLOCK_TOKENS numbers. The caller gets a reference to each
 * block found. It counts as a use of them.
 */
void prefix_tree_find(struct prefix_tree *t, const struct prefix_scope *scope,
		      const int32_t *tokens, uint32_t n, uint32_t *blocks,
		      struct prefix_found *found);

/*
 * Block number i of a sequence stands for tokens[i * KV_BLOCK_TOKENS ..] up to n, and blocks before
 * it in `blocks` are full ones of the tree. One that is not full may be put in again when it has
 * more tokens. Returns the block that the tree has for those tokens: where it is another one of the
 * same, full, tokens, the caller's reference has moved to it and his own block is dropped.
 */
uint32_t prefix_tree_put(struct prefix_tree *t, const struct prefix_scope *scope,
			 const int32_t *tokens, uint32_t n, const uint32_t *blocks, uint32_t i);

/* One block becomes free: 0, or -ENOSPC when all are in use. */
int prefix_tree_evict(struct prefix_tree *t);

/* Blocks so far. */
uint64_t prefix_tree_evicted(const struct prefix_tree *t);

#endif
