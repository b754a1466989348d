/* SPDX-License-Identifier: MIT */
/* A request of a batch, from its submission to done(). */
#ifndef LSLM_ENGINE_BATCH_REQUEST_H
#define LSLM_ENGINE_BATCH_REQUEST_H

#include <stdatomic.h>

#include "engine/batch.h"
#include "engine/prefix_tree.h"

struct batch_request {
	struct batch *batch;
	atomic_uint references; /* the handle's and the batch's */
	atomic_bool cancelled;
	struct batch_request *next; /* of whichever list it is in */

	struct context *context;
	struct batch_context *known; /* while the batch's thread has it; NULL without a context */
	struct prefix_scope scope;
	uint32_t tenant, n_predict, logprobs;
	bool want_logprob, compute_on_miss;
	double deadline; /* clock_seconds(); 0: none */
	int (*token)(void *arg, const struct batch_token *t);
	void (*done)(void *arg, const struct batch_result *r);
	void *arg;

	struct sampler *sampler;
	/*
	 * What its private KV stands for: the context's last tokens, the prompt, the answer so far.
	 */
	int32_t *tokens;
	uint32_t n_tokens;
	uint32_t n_given; /* without the answer */
	uint32_t most; /* tokens whose KV is stored at most */
	uint32_t n_shared; /* positions before them, of the context's stripes */

	/* While it runs. */
	uint64_t order; /* of admission; stays when it is preempted; 0: not yet */
	struct sequence *seq;
	uint32_t *blocks; /* of the pool, those of seq: [most / KV_BLOCK_TOKENS, rounded up] */
	uint32_t n_blocks;
	uint32_t n_known; /* of those, full ones that the tree has */
	bool fresh, waited; /* it computed nothing yet; others have, since it began */
	bool parked; /* its context has to settle again */

	double submitted, started;
	struct batch_token out;
	struct batch_result result;
};

/* Checked and copied, with one reference; errors are those of batch_submit(). */
int batch_request_create(struct batch_request **out, const struct engine *e, uint32_t n_ctx,
			 uint32_t pool_blocks, const struct batch_request_opts *opts,
			 struct lslm_error *err);
void batch_request_drop(struct batch_request *r);

/* Tokens whose KV is not there yet; 1: it decodes. */
uint32_t batch_request_pending(const struct batch_request *r);
/*
 * Choose the next token and append it, with what was asked for about it, to `out`. On any thread.
 */
void batch_request_sample(struct batch_request *r, const struct tokenizer *t, const float *logits,
			  uint32_t n_vocab);
/* Say the token in `out`: whether the answer ends with it, and how. */
bool batch_request_say(struct batch_request *r, enum batch_end *end);
/* Calls done() and drops the batch's reference. why: of BATCH_FAILED. */
void batch_request_finish(struct batch_request *r, enum batch_end end,
			  const struct lslm_error *why);

#endif
