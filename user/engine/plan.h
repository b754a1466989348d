/* SPDX-License-Identifier: MIT */
/*
 * Stream or compute: how long a context takes, before either is begun.
 *
 * Both sides work in stripes of KV_BLOCK_TOKENS tokens. Computing gets slower with position, because a token attends
 * to all before it; with a seconds for a token at position 0 and b more for each position, the first x tokens take
 *
 *   C(x) = a x + b x^2 / 2
 *
 * Streaming the last y tokens takes S(y) = delay + y * bytes_per_token / bytes_per_s, and S(0) = 0. Where both are at
 * work, the head from 0 and the tail from the end, the context is there where they meet:
 *
 *   T = min over x of max(C(x), S(n - x))
 *
 * over whole stripes x. The few tokens behind the last full stripe are computed by everybody and are not in these times.
 */
#ifndef LSLM_ENGINE_PLAN_H
#define LSLM_ENGINE_PLAN_H

#include <stdint.h>

#include "kv/geometry.h"

struct plan_rates {
	double token_s; /* a: to compute a token at position 0 */
	double position_s; /* b: more for each position before it */
	double bytes_per_s; /* of the link; 0: there is none, which is 1e300 s per byte */
	double delay_s; /* from asking to the first byte */
};

struct plan_times {
	double stream_s, compute_s, both_s;
	uint32_t met_token; /* both: computed up to there, streamed from there */
	double break_even; /* bytes per second from which streaming alone beats computing alone */
};

/* n_tokens is cut to whole stripes; none: all times are 0. */
struct plan_times plan_context(const struct plan_rates *rates, uint32_t n_tokens,
			       uint64_t stripe_bytes);

/*
 * a and b from two passes of m tokens each: one took early_s from position 0 on, the other late_s from position
 * `late` on. b is 0 where the late one was no slower, which is noise.
 */
void plan_fit(struct plan_rates *rates, uint32_t m, double early_s, uint32_t late, double late_s);

#endif
