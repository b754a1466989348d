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

struct kv_run;
struct sequence;

/* Tokens that one forward pass takes at most; longer prompts are fed in pieces of this size. */
enum { ENGINE_BATCH = 512 };

/* What passes have done so far, for measurements. */
struct engine_spent {
	double seconds; /* of passes */
	double products, attention; /* of those, the norms before products included */
	double operations; /* multiplications and additions of products */
};

/* The cross-model map whose contexts this engine may use (mapping_use()); zero: none. */
struct engine_map {
	struct kv_hash fingerprint;
	int proven; /* better than the model alone, by its own evaluation */
	char why[200]; /* that evaluation, for people */
};

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
	struct engine_spent spent;
	bool attend_apart; /* see struct attention */

	struct kv_identity identity;
	int has_identity;
	struct engine_map map;
};

/*
 * n_threads 0: as many as the processors this process may use. weights: where they come from, NULL
 * for what suits; they may still be arriving on return, and passes wait for what they need.
 */
int engine_create_with(struct engine **out, const struct model *model, unsigned int n_threads,
		       const struct matrices_opts *weights, struct lslm_error *err);
int engine_create(struct engine **out, const struct model *model, unsigned int n_threads,
		  struct lslm_error *err);
void engine_destroy(struct engine *e);

/*
 * Wait until all weights that another process reads are there; others are read in passes, and are not waited for. Beside
 * passes. As matrices_need().
 */
int engine_await(const struct engine *e, struct lslm_error *err);

/*
 * What KV values made by this engine mean, without salt: fingerprints of model, tokenizer and RoPE.
 * Without packed weights it takes a second per GB the first time a model file is seen, see
 * kv/fingerprint.h.
 */
int engine_identity(struct engine *e, struct kv_identity *id, struct lslm_error *err);

/* What a pass appends to one sequence. */
struct engine_part {
	struct sequence *seq; /* no other part's */
	const int32_t *tokens; /* [n], n >= 1 */
	uint32_t n;
	uint32_t rows; /* of logits: 0: none; 1: after the last token; n: after every one */
};

/*
 * One pass over several sequences, 1..ENGINE_BATCH tokens together: every weight is read once for
 * all of them, and so is a shared segment that they have in common. Their KV is stored in their
 * private segments. logits: [sum of rows][n_vocab], part after part; NULL where no part wants any.
 *
 * Waits, layer by layer, for segments that are still arriving. After an error all sequences are as
 * before the call, and *failed (NULL: not wanted) is the part that it is about, n_parts if about
 * none: -EIO when a segment will not arrive, -ESTALE when a shared buffer lost its contents,
 * -ENOSPC when a private segment is full, -EINVAL for an id outside the vocabulary. About none:
 * -ENOTRECOVERABLE when weights cannot be read, or their file was written to; -ENOMEM.
 */
int engine_pass(struct engine *e, const struct engine_part *parts, uint32_t n_parts, float *logits,
		uint32_t *failed, struct lslm_error *err);

/*
 * A pass over one sequence. If logits is not NULL it receives the next-token logits [n_vocab] after
 * the last token, or after every token ([n][n_vocab]) with all_logits.
 */
int engine_forward(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t n,
		   float *logits, int all_logits, struct lslm_error *err);
/* Any number of tokens, in passes of ENGINE_BATCH, for the sequence alone. */
int engine_feed(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t n,
		struct lslm_error *err);

/*
 * A pass over one sequence without logits, for the head of a context whose tail is arriving. end()
 * is asked before each layer, with the number of layers done: the first position that need not be
 * computed any more. Tokens from there on are dropped. It may take its time; nothing is computed
 * meanwhile. *n: tokens to append; afterwards how many were, which may be 0. seq is that context
 * from its first token on.
 */
int engine_walk(struct engine *e, struct sequence *seq, const int32_t *tokens, uint32_t *n,
		uint32_t (*end)(void *arg, uint32_t layer), void *arg, struct lslm_error *err);

/*
 * A pass over the layers of a run alone (kv/run.h): n tokens are appended to seq, which has these layers and no shared segment. hidden:
 * [n][n_embd] f16, what the run begins with, where it begins above layer 0; else it is not looked at.
 */
int engine_run(struct engine *e, struct sequence *seq, const struct kv_run *run,
	       const int32_t *tokens, const uint16_t *hidden, uint32_t n, struct lslm_error *err);

#endif
