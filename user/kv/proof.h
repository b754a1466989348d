/* SPDX-License-Identifier: MIT */
/*
 * What a map, or layers of another model, were found to be worth: evaluated on text that they were not made from, against
 * the model that uses them alone. It is inside the map's file (codec/map.h) and, signed, in the manifest of each context that
 * was made through it.
 *
 * Encoding, little-endian: u32 metric, u32 contexts, u32 observations, u32 0, f64 alone, f64 mapped, f64 gain, f64 low, f64 high.
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

/* gain is positive where the map is better; low and high are the ends of its 95 % interval. */
struct proof {
	enum proof_metric metric;
	uint32_t contexts, observations;
	double alone, mapped, gain, low, high;
};

/*
 * -EINVAL with a line for a metric that there is not, for what are no numbers, and for numbers that no evaluation has: an interval without its
 * value, more contexts than observations, a share outside 0 to 1.
 */
int proof_get(struct proof *out, const uint8_t bytes[PROOF_BYTES], struct lslm_error *err);
void proof_put(uint8_t bytes[PROOF_BYTES], const struct proof *proof);

/*
 * Is it better than the model alone? why: one line for people, either way. It is where the whole interval of its gain is above
 * zero, on PROOF_LEAST_CONTEXTS contexts or more.
 */
bool proof_holds(const struct proof *proof, char *why, size_t room);

#endif
