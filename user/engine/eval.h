/* SPDX-License-Identifier: MIT */
/*
 * How good is a model on a context that came some other way than by computing it here at f16?
 *
 * For each book (engine/eval_data.h) the context is computed once by the model itself. A *way* turns that into what a gateway would have
 * instead: coded at a level, mapped from another model, assembled by the scheduler. Questions are then run on it, and the next-token
 * distributions are compared with those of the first way, which is the reference. The tokens past the last full block are
 * computed on what the way gave, as a gateway does.
 */
#ifndef LSLM_ENGINE_EVAL_H
#define LSLM_ENGINE_EVAL_H

#include "engine/engine.h"
#include "engine/eval_coder.h"
#include "engine/eval_data.h"
#include "engine/stats.h"

struct eval_way {
	const char *name;
	/*
	 * The context's stripes, out: [n_tokens / KV_BLOCK_TOKENS], which hold the model's own when it is called. NULL: they stay so.
	 */
	int (*make)(void *arg, const struct eval_book *b, uint8_t *out, struct lslm_error *err);
	void *arg;
	bool rounded; /* in products, as contexts are (compute/kvbf16.h) */
	const struct eval_coder *coder; /* at which they travel; NULL: as they are, at no cost */
	const struct calibration *cal; /* where the coder needs it */
};

/* Of one way and one length. A group is a book. */
struct eval_score {
	struct stats_set divergence; /* nats, from the reference, per token of an answer */
	struct stats_set agrees; /* 1 where the likeliest token is the reference's */
	struct stats_set
		surprise; /* nats, per token of the expected answer: exp() of the mean is perplexity */
	struct stats_set exact; /* 1 per question where greedy decoding gives the answer, and ends */
	struct stats_set f1; /* of words, per question; empty without texts */
	struct eval_cost cost;
};

/*
 * scores: [n_ways][d->n_lengths], zeroed by the caller, who frees them with eval_score_free(). progress may be NULL. Errors are those of
 * engine_forward() and of the ways.
 */
int eval_run(struct engine *e, const struct eval_data *d, const struct eval_way *ways,
	     uint32_t n_ways, struct eval_score *scores,
	     void (*progress)(uint32_t done, uint32_t total), struct lslm_error *err);
void eval_score_free(struct eval_score *s);

#endif
