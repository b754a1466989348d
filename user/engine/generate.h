/* SPDX-License-Identifier: MIT */
/*
 * One request: context, prompt, answer.
 *
 * Of a context only the stripes that it lacks (engine/context.h), the tokens past its last full
 * block and the prompt are prefilled. When the stream fails, or its buffer is lost, before anything was
 * said, the rest is computed from the manifest's tokens, so the answer is the same, later; where only
 * the stream was asked for, if compute_on_miss allows it.
 */
#ifndef LSLM_ENGINE_GENERATE_H
#define LSLM_ENGINE_GENERATE_H

#include <stdbool.h>

#include "engine/context.h"
#include "engine/engine.h"
#include "engine/sampler.h"

struct generate_opts {
	uint32_t n_ctx; /* positions at most */
	uint32_t n_predict;
	double start; /* clock_seconds() that the time to first token counts from; 0: now */
	struct sampler_opts sampling;
	bool compute_on_miss;
	int (*on_piece)(void *arg, const char *piece, size_t len); /* non-zero: stop */
	void *arg;
};

struct generate_stats {
	uint32_t shared_tokens; /* of the context, from the stream */
	uint32_t computed_tokens; /* in this call */
	uint32_t streamed_stripes; /* of the context, as it was used */
	uint32_t computed_stripes;
	uint32_t generated_tokens;
	/* From start until the context could be read as a whole; 0 without one. */
	double ready_s;
	double ttft_s;
	double decode_s;
	struct lslm_error miss; /* code 0: none */
};

/* ctx may be NULL. prompt: token ids of the suffix, at least one. */
int generate(struct engine *e, struct context *ctx, const int32_t *prompt, uint32_t n_prompt,
	     const struct generate_opts *opts, struct generate_stats *stats,
	     struct lslm_error *err);

#endif
