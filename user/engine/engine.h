/* SPDX-License-Identifier: MIT */
/*
 * The engine: a model, a thread pool and the scratch memory of the forward pass.
 *
 * One engine runs one forward pass at a time; a second thread needs a second engine. The model is
 * owned by whoever opened it and must outlive the engine.
 */
#ifndef LSLM_ENGINE_ENGINE_H
#define LSLM_ENGINE_ENGINE_H

#include <stdint.h>

#include "base/pool.h"
#include "compute/matmul.h"
#include "engine/matrices.h"
#include "kv/geometry.h"
#include "kv/key.h"
#include "model/model.h"

struct sequence;

/* Tokens that one forward pass takes at most; longer prompts are fed in pieces of this size. */
enum { ENGINE_BATCH = 512 };

struct engine {
	const struct model *model;
	struct pool *pool;
	struct kv_geometry geo;

	struct matrices *matrices;
	const struct matrices_layer *layers; /* of them */

	/* Scratch, [ENGINE_BATCH] rows each. */
	float *x; /* [n_embd] the residual stream */
	float *h; /* [n_embd] its norm, then a block's result */
	float *q; /* [n_head * head_dim] */
	float *k, *v; /* [n_head_kv * head_dim] */
	float *att; /* [n_head * head_dim] */
	float *gate, *up; /* [n_ff] */
	float *partials; /* of attention, not per row */
	float *angles; /* [rope_dims] */
	struct matmul_area area; /* its scratch also serves attention */
	void *memory; /* owns all of the above */

	struct kv_identity identity;
	int has_identity;
};

/*
 * n_threads 0: as many as the processors this process may use. weights: where they come from, NULL for
 * what suits; they may still be arriving on return, and passes wait for what they need.
 */
int engine_create_with(struct engine **out, const struct model *model, unsigned int n_threads,
		       const struct matrices_opts *weights, struct lslm_error *err);
int engine_create(struct engine **out, const struct model *model, unsigned int n_threads,
		  struct lslm_error *err);
void engine_destroy(struct engine *e);

/* Bytes of weights that decoding one token reads. */
size_t engine_decode_bytes(const struct engine *e);

/*
 * What KV values made by this engine mean, without salt: fingerprints of model, tokenizer and RoPE.
 * Without packed weights it takes a second per GB the first time a model file is seen, see kv/fingerprint.h.
 */
int engine_identity(struct engine *e, struct kv_identity *id, struct lslm_error *err);

/*
 * Append n tokens (1..ENGINE_BATCH) to the sequence: their KV is stored in its private segment. If
 * logits is not NULL it receives the next-token logits [n_vocab] after the last token, or after
 * every token ([n][n_vocab]) with all_logits.
 *
 * Waits, layer by layer, for segments that are still arriving. -EIO when one will not arrive, -ESTALE
 * when a shared buffer lost its contents: the sequence is then as before the call.
 * -ENOTRECOVERABLE when weights cannot be read, or their file was written to.
 * -ENOSPC when the private segment is full, -EINVAL for an id outside the vocabulary.
 */
int engine_forward(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t n,
		   float *logits, int all_logits, struct lslm_error *err);

/*
 * The same without logits, for the head of a context whose tail is arriving. end() is asked before
 * each layer, with the number of layers done: the first position that need not be computed any more.
 * Tokens from there on are dropped. It may take its time; nothing is computed meanwhile. *n: tokens
 * to append; afterwards how many were, which may be 0. seq is that context from its first token on.
 */
int engine_walk(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t *n,
		uint32_t (*end)(void *arg, uint32_t layer), void *arg, struct lslm_error *err);

#endif
