/* SPDX-License-Identifier: MIT */
/*
 * Where the requests of a batch have their private KV: blocks of one pool, found again through a
 * prefix tree.
 *
 * The pool is never asked for more than it has: who gets -ENOSPC has to wait, or to take blocks
 * from another request (batch_kv_end()).
 */
#ifndef LSLM_ENGINE_BATCH_KV_H
#define LSLM_ENGINE_BATCH_KV_H

#include "engine/batch_request.h"
#include "engine/kvpool.h"

struct batch_kv {
	const struct engine *e;
	struct kvpool *pool;
	struct prefix_tree *tree; /* NULL: nothing is found again */
};

/* bytes 0: a quarter of available memory. */
int batch_kv_create(struct batch_kv *kv, const struct engine *e, uint64_t bytes, bool reuse,
		    struct lslm_error *err);
void batch_kv_destroy(struct batch_kv *kv);

/*
 * Can as many blocks be had as this queued request would begin with, if nothing of it were found?
 */
bool batch_kv_fits(const struct batch_kv *kv, const struct batch_request *r);
/* Make its sequence, with its context's segments and what is found of its tokens. */
int batch_kv_begin(struct batch_kv *kv, struct batch_request *r, struct lslm_error *err);
/*
 * Look once more, instead of what it has. The last token is never found: it has to be computed for
 * its logits.
 */
void batch_kv_find(struct batch_kv *kv, struct batch_request *r);
/* Room for n more tokens, evicting where need be; what was added stays also after -ENOSPC. */
int batch_kv_grow(struct batch_kv *kv, struct batch_request *r, uint32_t n);
/* After a pass: let others find what is there now. The last block too, full or not, where `all`. */
void batch_kv_offer(struct batch_kv *kv, struct batch_request *r, bool all);
/* Give its blocks and sequence up; NULL sequence: nothing happens. */
void batch_kv_end(struct batch_kv *kv, struct batch_request *r);

#endif
