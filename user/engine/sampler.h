/* SPDX-License-Identifier: MIT */
/*
 * Choosing the next token from logits.
 *
 * In this order, each step only where its value asks for it: repeat penalty over the last
 * `repeat_last_n` tokens (Keskar et al. 2019: positive logits are divided, negative ones multiplied),
 * top-k, top-p (nucleus), min-p (relative to the best token's probability), temperature, then a
 * draw. temperature <= 0 is greedy: the largest logit after the penalty, the lowest id on a tie.
 * The same seed, options and logits give the same tokens on every machine.
 */
#ifndef LSLM_ENGINE_SAMPLER_H
#define LSLM_ENGINE_SAMPLER_H

#include <stdint.h>

#include "base/error.h"

struct sampler;

struct sampler_opts {
	float temperature;
	uint32_t top_k; /* 0: all */
	float top_p; /* >= 1: all */
	float min_p; /* <= 0: all */
	float repeat_penalty; /* 1: none */
	uint32_t repeat_last_n;
	uint64_t seed;
};

/* -EINVAL names the option that is out of its range or not a number. */
int sampler_create(struct sampler **out, const struct sampler_opts *opts, uint32_t n_vocab,
		   struct lslm_error *err);
void sampler_destroy(struct sampler *s);

/* A token that is part of the text now: what the repeat penalty looks back on. */
void sampler_accept(struct sampler *s, int32_t token);

/* The next token. logits [n_vocab] are not changed. */
int32_t sampler_sample(struct sampler *s, const float *logits);

#endif
