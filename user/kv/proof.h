/* SPDX-License-Identifier: MIT */
/*
 * What a map, or layers of another model, were found to be worth: evaluated on text that they were not made from, against
 * the model that uses them alone. It is inside the map's file (codec/map.h) and, signed, in the manifest of each context that
 * was made through it.
 *
 * Encoding, little-endian: u32 metric, u32 contexts, u32 observations, u32 bar, f64 alone, f64 mapped, f64 gain, f64 low, f64 high.
 */
#ifndef LSLM_KV_PROOF_H
#define LSLM_KV_PROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
	PROOF_BYTES = 56,
	/* Fewer say nothing: that so many go one way has a chance of 2^-6, and the interval of one has no width. */
	PROOF_LEAST_CONTEXTS = 6,
};

enum proof_metric {
	PROOF_NONE, /* it was not evaluated */
	PROOF_EXACT, /* share of questions answered to the last character */
	PROOF_NATS, /* log-probability of the text that follows, per token */
};

/* What is asked of it. */
enum proof_bar {
	PROOF_BETTER, /* of a map: the whole interval of its gain is above zero */
	PROOF_NO_WORSE, /* of a relative's layers, whose gain is that they need not be computed: it is above -PROOF_MARGIN */
};

/* A point of exact match, or as many nats per token. */
#define PROOF_MARGIN 0.01

/* gain is positive where the map is better; low and high are the ends of its 95 % interval. */
struct proof {
	enum proof_metric metric;
	uint32_t contexts, observations;
	double alone, mapped, gain, low, high;
	enum proof_bar bar;
};

/*
 * -EINVAL with a line for a metric that there is not, for what are no numbers, and for numbers that no evaluation has: an interval without its
 * value, more contexts than observations, a share outside 0 to 1.
 */
int proof_get(struct proof *out, const uint8_t bytes[PROOF_BYTES], struct lslm_error *err);
void proof_put(uint8_t bytes[PROOF_BYTES], const struct proof *proof);

/* Does it meet its bar, on PROOF_LEAST_CONTEXTS contexts or more? why: one line for people, either way. */
bool proof_holds(const struct proof *proof, char *why, size_t room);

#endif
