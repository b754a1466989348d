/* SPDX-License-Identifier: MIT */
/*
 * Iteration-level (continuous) batching: many requests, one forward pass per step.
 *
 * One thread owns the engine. In each step it takes what is in flight, one token of every request
 * that decodes and as many prompt tokens of those that prefill as fit, runs one forward pass over
 * all of them, samples, and tells each request's owner. Requests enter and leave between steps. A
 * context's stripes are read once per step for all requests that share it (compute/attention.h).
 *
 * Private KV lives in blocks of KV_BLOCK_TOKENS tokens from one pool of fixed size, in anonymous
 * memory that is kept out of core dumps. Full blocks of prompts are found again by later requests
 * of the same tenant, or of those who have its salt, and context through a tree over block keys; unused ones are evicted, cheapest
 * first (frequency * recompute time / bytes).
 *
 * While requests decode, the prompts of others are taken in in pieces that take about a tenth of a
 * second, and so is the head of a context that this side computes (engine/meet.h): requests wait
 * for their own context only. One that a stream alone is to bring is waited for as a whole. When a
 * stream fails, what is missing is computed as above, and requests go on where they were; after a context through a map, where
 * all of it is computed, they compute their own part anew (context_values()).
 *
 * A request whose blocks run out takes those of the youngest one, which is queued again, in front,
 * and computes them again later. So the oldest one always goes on.
 *
 * Admission is fair between tenants and first come, first served within one. The queue is bounded, and so is a tenant's share of it
 * (engine/batch_shares.h): what does not fit is refused at once, with the seconds after which trying again makes sense.
 */
#ifndef LSLM_ENGINE_BATCH_H
#define LSLM_ENGINE_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/context.h"
#include "engine/engine.h"
#include "engine/sampler.h"

struct batch;
struct batch_request;

enum batch_end {
	BATCH_STOP, /* the model's end of turn */
	BATCH_LENGTH, /* n_predict, or the positions are used up */
	BATCH_CANCELLED, /* by its owner */
	BATCH_DEADLINE,
	BATCH_FAILED, /* err says why */
};

enum { BATCH_MAX_LOGPROBS = 20 };

/* One token of an answer. */
struct batch_token {
	int32_t id;
	bool is_end; /* the end token: no text */
	/*
	 * Natural logarithms, of the model's own distribution at temperature 1; only where logprobs
	 * were asked for.
	 */
	float logprob;
	uint32_t n_top;
	int32_t top_id[BATCH_MAX_LOGPROBS];
	float top_logprob[BATCH_MAX_LOGPROBS];
};

struct batch_result {
	enum batch_end end;
	uint32_t prompt_tokens; /* context included */
	uint32_t cached_tokens; /* of those, not computed for this request: context's and found blocks */
	uint32_t generated_tokens;
	double queued_s, ttft_s, total_s; /* from submission */
	struct lslm_error err; /* BATCH_FAILED */
};

struct batch_request_opts {
	/*
	 * NULL: none. Of this engine; outlives the request, until done(). While requests of it are
	 * in flight the batch's thread settles it, shares it and gives its stream up; whoever owns
	 * it may ask for its tokens, key and statistics.
	 */
	struct context *context;
	const int32_t *prompt; /* suffix after the context, at least one token; copied */
	uint32_t n_prompt;
	uint32_t n_predict;
	struct sampler_opts sampling;
	uint32_t logprobs; /* best tokens to report with each: 0 .. BATCH_MAX_LOGPROBS */
	bool want_logprob;
	uint32_t tenant; /* for fairness, and for whose blocks may be reused: */
	struct kv_hash salt; /* those of all tenants with this one; zero: of this tenant alone */
	/*
	 * Where the context was to be streamed and nothing else (CONTEXT_STREAM), and that failed:
	 * compute it, else BATCH_FAILED.
	 */
	bool compute_on_miss;
	double deadline_s; /* from now until the last token; 0: none */
	/*
	 * Both are called on the batch's thread, in order, done exactly once and last, and must not
	 * wait: they hand over and return. token returning non-zero cancels. They may submit,
	 * cancel and release, but not destroy or drain.
	 */
	int (*token)(void *arg, const struct batch_token *t);
	void (*done)(void *arg, const struct batch_result *r);
	void *arg;
};

struct batch_opts {
	uint32_t n_ctx; /* positions per request; 0: the model's */
	uint32_t max_running; /* requests in one step; 0: 64 */
	uint32_t max_queued; /* 0: 256 */
	bool share_queue; /* so that no tenant fills it */
	uint64_t kv_bytes; /* of the pool of private blocks; 0: a quarter of available memory */
	bool no_reuse; /* find no blocks of earlier requests again */
};

struct batch_stats {
	uint32_t running, queued, max_running; /* queued: those who wait for their context too */
	uint64_t context_tokens; /* of contexts, computed here, once for all who share them */
	uint64_t steps, tokens_prefilled, tokens_generated, tokens_cached;
	uint64_t requests, refused, cancelled, failed; /* cancelled: deadlines too */
	uint64_t preempted; /* times that a request lost its blocks to an older one, or for its context, and was queued again */
	uint64_t blocks, blocks_used, blocks_kept, blocks_evicted;
};

/*
 * The engine is the batch's until it is destroyed: its thread is the caller of the engine's pool,
 * so that as many threads compute as the engine was made with. -ENOMEM, -EAGAIN when there can be
 * no thread.
 */
int batch_create(struct batch **out, struct engine *e, const struct batch_opts *opts,
		 struct lslm_error *err);
/*
 * Requests in flight end as BATCH_CANCELLED before it returns. Of their handles only release is
 * allowed then. NULL is allowed.
 */
void batch_destroy(struct batch *b);

/*
 * -EAGAIN: the queue is full, or this tenant has its share of it; *retry_s says after how many seconds to try again. -E2BIG: context
 * and prompt do not fit the positions, or prompt and answer the pool. -EINVAL: no prompt, an id
 * outside the vocabulary, sampling out of range. -ESHUTDOWN while draining. *out is set before
 * anything is called back. From any thread.
 */
int batch_submit(struct batch *b, const struct batch_request_opts *opts, struct batch_request **out,
		 double *retry_s, struct lslm_error *err);
/*
 * done() follows soon; harmless after it. The handle lives until batch_release(), before or after
 * done(). From any thread.
 */
void batch_cancel(struct batch_request *r);
void batch_release(struct batch_request *r);

/*
 * Take no more requests; returns when the running ones are done, or after the seconds given: how
 * many were left.
 */
uint32_t batch_drain(struct batch *b, double seconds);
void batch_stats(const struct batch *b, struct batch_stats *out);

#endif
