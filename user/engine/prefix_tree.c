// SPDX-License-Identifier: MIT
#include "engine/prefix_tree.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NONE = UINT32_MAX };

/* Node i is block i of the pool. */
struct node {
	bool used;
	uint32_t parent; /* NONE: of a root */
	uint32_t child, next; /* the first of its children; the next of its parent's */
	uint32_t root;
	uint32_t depth; /* blocks above it */
	uint32_t n; /* tokens; only a full one has children */
	double frequency; /* at `tick` */
	uint64_t tick;
	int32_t tokens[KV_BLOCK_TOKENS];
};

struct root {
	struct prefix_scope scope;
	uint32_t child; /* NONE: this root is free */
};

struct prefix_tree {
	struct kvpool *pool;
	struct node *nodes; /* [kvpool_size()] */
	struct root *roots; /* likewise: each has a block at least */
	uint32_t n_roots; /* that were ever in use */
	double cost_per_position;
	uint64_t tick, evicted;
};

int prefix_tree_create(struct prefix_tree **out, struct kvpool *pool, double cost_per_position,
		       struct lslm_error *err)
{
	struct prefix_tree *t = calloc(1, sizeof(*t));

	if (!t)
		return error_set(err, -ENOMEM, "out of memory");
	t->pool = pool;
	t->cost_per_position = cost_per_position;
	t->nodes = calloc(kvpool_size(pool), sizeof(*t->nodes));
	t->roots = calloc(kvpool_size(pool), sizeof(*t->roots));
	if (!t->nodes || !t->roots) {
		free(t->nodes);
		free(t->roots);
		free(t);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*out = t;
	return 0;
}

void prefix_tree_destroy(struct prefix_tree *t)
{
	if (!t)
		return;
	for (uint32_t i = 0; i < kvpool_size(t->pool); i++)
		if (t->nodes[i].used)
			kvpool_forget(t->pool, i);
	free(t->nodes);
	free(t->roots);
	free(t);
}

bool prefix_scope_equal(const struct prefix_scope *a, const struct prefix_scope *b)
{
	return a->tenant == b->tenant && kv_hash_equal(&a->salt, &b->salt) &&
	       kv_hash_equal(&a->context, &b->context);
}

static uint32_t root_of(const struct prefix_tree *t, const struct prefix_scope *scope)
{
	for (uint32_t i = 0; i < t->n_roots; i++)
		if (t->roots[i].child != NONE && prefix_scope_equal(&t->roots[i].scope, scope))
			return i;
	return NONE;
}

static uint32_t new_root(struct prefix_tree *t, const struct prefix_scope *scope)
{
	uint32_t i = 0;

	while (i < t->n_roots && t->roots[i].child != NONE)
		i++;
	if (i == t->n_roots)
		t->n_roots++;
	t->roots[i] = (struct root){ .scope = *scope, .child = NONE };
	return i;
}

static double frequency(const struct prefix_tree *t, const struct node *n)
{
	return n->frequency * exp2(-(double)(t->tick - n->tick) / PREFIX_HALF_LIFE);
}

static void use(struct prefix_tree *t, struct node *n)
{
	n->frequency = frequency(t, n) + 1;
	n->tick = t->tick;
}

static uint32_t common(const struct node *n, const int32_t *tokens, uint32_t most)
{
	uint32_t i = 0;

	most = most < n->n ? most : n->n;
	while (i < most && n->tokens[i] == tokens[i])
		i++;
	return i;
}

/* The child with most of the n tokens; how many. */
static uint32_t best_child(const struct prefix_tree *t, uint32_t first, const int32_t *tokens,
			   uint32_t n, uint32_t *best)
{
	uint32_t most = 0;

	*best = NONE;
	for (uint32_t i = first; i != NONE && most < KV_BLOCK_TOKENS; i = t->nodes[i].next) {
		const uint32_t have = common(&t->nodes[i], tokens, n);

		if (have > most) {
			most = have;
			*best = i;
		}
	}
	return most;
}

void prefix_tree_find(struct prefix_tree *t, const struct prefix_scope *scope,
		      const int32_t *tokens, uint32_t n, uint32_t *blocks,
		      struct prefix_found *found)
{
	const uint32_t root = root_of(t, scope);
	uint32_t first = root == NONE ? NONE : t->roots[root].child;

	*found = (struct prefix_found){ 0 };
	t->tick++;
	for (uint32_t at = 0; at < n; at += KV_BLOCK_TOKENS) {
		const uint32_t most = n - at < KV_BLOCK_TOKENS ? n - at : KV_BLOCK_TOKENS;
		uint32_t best;
		const uint32_t have = best_child(t, first, tokens + at, most, &best);

		if (best == NONE)
			return;
		use(t, &t->nodes[best]);
		kvpool_keep(t->pool, best);
		if (have < KV_BLOCK_TOKENS) {
			found->copy = best;
			found->copy_tokens = have;
			return;
		}
		blocks[found->n_blocks++] = best;
		first = t->nodes[best].child;
	}
}

static uint32_t *list_of(struct prefix_tree *t, const struct node *n)
{
	return n->parent == NONE ? &t->roots[n->root].child : &t->nodes[n->parent].child;
}

static void unlink_node(struct prefix_tree *t, uint32_t i)
{
	uint32_t *at = list_of(t, &t->nodes[i]);

	while (*at != i)
		at = &t->nodes[*at].next;
	*at = t->nodes[i].next;
	t->nodes[i].used = false;
	kvpool_forget(t->pool, i);
}

static bool evictable(const struct prefix_tree *t, uint32_t i)
{
	const struct node *n = &t->nodes[i];

	return n->used && n->child == NONE && !kvpool_in_use(t->pool, i);
}

static void add(struct prefix_tree *t, const struct prefix_scope *scope, uint32_t parent,
		uint32_t root, uint32_t block, const int32_t *tokens, uint32_t n)
{
	struct node *node = &t->nodes[block];
	uint32_t *list;

	if (root == NONE)
		root = new_root(t, scope);
	*node = (struct node){
		.used = true,
		.parent = parent,
		.child = NONE,
		.root = root,
		.depth = parent == NONE ? 0 : t->nodes[parent].depth + 1,
		.n = n,
		.frequency = 1,
		.tick = t->tick,
	};
	memcpy(node->tokens, tokens, n * sizeof(*tokens));
	list = list_of(t, node);
	node->next = *list;
	*list = block;
	kvpool_retain(t->pool, block);
}

uint32_t prefix_tree_put(struct prefix_tree *t, const struct prefix_scope *scope,
			 const int32_t *tokens, uint32_t n, const uint32_t *blocks, uint32_t i)
{
	const uint32_t block = blocks[i], parent = i ? blocks[i - 1] : NONE;
	const uint32_t root = root_of(t, scope);
	struct node *own = &t->nodes[block];
	uint32_t first, best, have;

	tokens += (size_t)i * KV_BLOCK_TOKENS;
	n -= i * KV_BLOCK_TOKENS;
	n = n < KV_BLOCK_TOKENS ? n : KV_BLOCK_TOKENS;
	first = parent != NONE ? t->nodes[parent].child :
		root != NONE   ? t->roots[root].child :
				 NONE;
	have = best_child(t, first, tokens, n, &best);
	if (best != NONE && best != block && have == KV_BLOCK_TOKENS) {
		if (own->used)
			unlink_node(t, block);
		kvpool_keep(t->pool, best);
		kvpool_drop(t->pool, block);
		return best;
	}
	if (own->used) {
		memcpy(own->tokens, tokens, n * sizeof(*tokens));
		own->n = n;
		return block;
	}
	/* What begins another one need not be there twice, in neither order. */
	if (best != NONE && have == n)
		return block;
	add(t, scope, parent, root, block, tokens, n);
	if (best != NONE && have == t->nodes[best].n && evictable(t, best))
		unlink_node(t, best);
	return block;
}

/* Of computing it again, in units of a token at the first position. */
static double cost(const struct prefix_tree *t, const struct node *n)
{
	return n->n * (1 + t->cost_per_position * n->depth * KV_BLOCK_TOKENS);
}

int prefix_tree_evict(struct prefix_tree *t)
{
	uint32_t worst = NONE;
	double least = 0;

	for (uint32_t i = 0; i < kvpool_size(t->pool); i++) {
		double value;

		if (!evictable(t, i))
			continue;
		value = frequency(t, &t->nodes[i]) * cost(t, &t->nodes[i]);
		if (worst == NONE || value < least) {
			worst = i;
			least = value;
		}
	}
	if (worst == NONE)
		return -ENOSPC;
	unlink_node(t, worst);
	t->evicted++;
	return 0;
}

uint64_t prefix_tree_evicted(const struct prefix_tree *t)
{
	return t->evicted;
}
