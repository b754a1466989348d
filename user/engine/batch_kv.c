// SPDX-License-Identifier: MIT
#include "engine/batch_kv.h"

#include <errno.h>
#include <stdlib.h>

#include "base/memory.h"
#include "engine/sequence.h"

/* Without anything known about the machine. */
enum { FALLBACK_BYTES = 256 << 20 };

/*
 * Attention over p positions against the products of a token: 4 p n_head head_dim to 2 weights, per
 * layer.
 */
static double cost_per_position(const struct engine *e)
{
	const struct model_params *p = &e->model->params;
	const double heads = (double)p->n_head * p->head_dim;
	const double kv = (double)p->n_head_kv * p->head_dim;
	const double weights = p->n_embd * (2 * heads + 2 * kv + 3.0 * p->n_ff);

	return 2 * heads / weights;
}

int batch_kv_create(struct batch_kv *kv, const struct engine *e, uint64_t bytes, bool reuse,
		    struct lslm_error *err)
{
	int rc;

	*kv = (struct batch_kv){ .e = e };
	if (!bytes)
		bytes = memory_available() / 4;
	rc = kvpool_create(&kv->pool, &e->geo, bytes ? bytes : FALLBACK_BYTES, err);
	if (!rc && reuse)
		rc = prefix_tree_create(&kv->tree, kv->pool, cost_per_position(e), err);
	return rc;
}

void batch_kv_destroy(struct batch_kv *kv)
{
	prefix_tree_destroy(kv->tree);
	kvpool_destroy(kv->pool);
}

bool batch_kv_fits(const struct batch_kv *kv, const struct batch_request *r)
{
	const uint32_t n = (r->n_tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;

	return kvpool_free_blocks(kv->pool) + kvpool_idle_blocks(kv->pool) >= n;
}

static void add(struct batch_kv *kv, struct batch_request *r, uint32_t block)
{
	r->blocks[r->n_blocks++] = block;
	sequence_add_block(r->seq, kvpool_stripe(kv->pool, block));
}

static int take(struct batch_kv *kv)
{
	int block = kvpool_take(kv->pool);

	if (block < 0 && kv->tree && !prefix_tree_evict(kv->tree))
		block = kvpool_take(kv->pool);
	return block;
}

static void drop_blocks(struct batch_kv *kv, struct batch_request *r)
{
	/* The last first: of equal ones those go first that stand furthest back. */
	while (r->n_blocks)
		kvpool_drop(kv->pool, r->blocks[--r->n_blocks]);
	r->n_known = 0;
}

void batch_kv_find(struct batch_kv *kv, struct batch_request *r)
{
	struct prefix_found found;
	int own;

	drop_blocks(kv, r);
	r->seq->capacity = r->seq->own.n_tokens = 0;
	if (!kv->tree)
		return;
	/* Full blocks among all tokens but one: r->blocks has room for them. */
	prefix_tree_find(kv->tree, &r->scope, r->tokens, r->n_tokens - 1, r->blocks, &found);
	for (uint32_t i = 0; i < found.n_blocks; i++)
		add(kv, r, r->blocks[i]);
	r->n_known = found.n_blocks;
	r->seq->own.n_tokens = found.n_blocks * KV_BLOCK_TOKENS;
	if (!found.copy_tokens)
		return;
	own = take(kv);
	if (own >= 0) {
		kvpool_copy(kv->pool, (uint32_t)own, found.copy, found.copy_tokens);
		add(kv, r, (uint32_t)own);
		r->seq->own.n_tokens += found.copy_tokens;
	}
	kvpool_drop(kv->pool, found.copy);
}

int batch_kv_begin(struct batch_kv *kv, struct batch_request *r, struct lslm_error *err)
{
	int rc = sequence_create_paged(&r->seq, &kv->e->geo, r->most, err);

	if (!rc && r->context)
		rc = context_share(r->context, r->seq, err);
	if (rc) {
		batch_kv_end(kv, r);
		return rc;
	}
	batch_kv_find(kv, r);
	return 0;
}

int batch_kv_grow(struct batch_kv *kv, struct batch_request *r, uint32_t n)
{
	while (r->seq->own.n_tokens + n > r->seq->capacity) {
		int block = take(kv);

		if (block < 0)
			return block;
		add(kv, r, (uint32_t)block);
	}
	return 0;
}

static void offer(struct batch_kv *kv, struct batch_request *r, uint32_t i)
{
	const uint32_t block =
		prefix_tree_put(kv->tree, &r->scope, r->tokens, r->seq->own.n_tokens, r->blocks, i);

	/* Somebody else has computed the same meanwhile. */
	r->blocks[i] = block;
	r->seq->blocks[i] = kvpool_stripe(kv->pool, block);
}

void batch_kv_offer(struct batch_kv *kv, struct batch_request *r, bool all)
{
	const uint32_t full = r->seq->own.n_tokens / KV_BLOCK_TOKENS;

	if (!kv->tree)
		return;
	for (; r->n_known < full; r->n_known++)
		offer(kv, r, r->n_known);
	if (all && r->seq->own.n_tokens % KV_BLOCK_TOKENS)
		offer(kv, r, full);
}

void batch_kv_end(struct batch_kv *kv, struct batch_request *r)
{
	drop_blocks(kv, r);
	if (r->seq && r->context)
		context_unshare(r->context, r->seq);
	sequence_destroy(r->seq);
	r->seq = NULL;
}
