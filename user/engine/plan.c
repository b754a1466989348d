// SPDX-License-Identifier: MIT
#include "engine/plan.h"

static const double never = 1e300;

static double compute_s(const struct plan_rates *r, double tokens)
{
	return r->token_s * tokens + r->position_s * tokens * tokens / 2;
}

static double stream_s(const struct plan_rates *r, uint32_t stripes, uint64_t stripe_bytes)
{
	if (!stripes)
		return 0;
	if (r->bytes_per_s <= 0)
		return never;
	return r->delay_s + (double)stripes * (double)stripe_bytes / r->bytes_per_s;
}

struct plan_times plan_context(const struct plan_rates *rates, uint32_t n_tokens,
			       uint64_t stripe_bytes)
{
	const uint32_t n = n_tokens / KV_BLOCK_TOKENS;
	struct plan_times t = { 0 };
	double compute;

	if (!n)
		return t;
	compute = compute_s(rates, (double)n * KV_BLOCK_TOKENS);
	t.compute_s = compute;
	t.stream_s = stream_s(rates, n, stripe_bytes);
	t.both_s = never;
	for (uint32_t x = 0; x <= n; x++) {
		const double head = compute_s(rates, (double)x * KV_BLOCK_TOKENS);
		const double tail = stream_s(rates, n - x, stripe_bytes);
		const double both = head > tail ? head : tail;

		if (both < t.both_s) {
			t.both_s = both;
			t.met_token = x * KV_BLOCK_TOKENS;
		}
	}
	t.break_even = compute > rates->delay_s ?
			       (double)n * (double)stripe_bytes / (compute - rates->delay_s) :
			       never;
	return t;
}

void plan_fit(struct plan_rates *rates, uint32_t m, double early_s, uint32_t late, double late_s)
{
	/* A pass of m from p on: a m + b (p m + m^2 / 2). The difference of the two is b late m. */
	const double more = late_s - early_s;

	rates->position_s = late && more > 0 ? more / ((double)late * m) : 0;
	rates->token_s = early_s / m - rates->position_s * m / 2;
	if (rates->token_s < 0)
		rates->token_s = 0;
}
