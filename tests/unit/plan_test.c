// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <math.h>

#include "engine/plan.h"

static void near(double got, double want)
{
	if (fabs(got - want) > 1e-9 * fabs(want) + 1e-12)
		fail_msg("%.12g, not %.12g", got, want);
}

/* Both sides take 1 s for each of 10 stripes: half of each. */
static void plan_context__meets_in_the_middle(void **state)
{
	const struct plan_rates r = { .token_s = 1.0 / 64, .bytes_per_s = 1000 };
	const struct plan_times t = plan_context(&r, 640 + 63, 1000);

	near(t.compute_s, 10);
	near(t.stream_s, 10);
	near(t.both_s, 5);
	assert_int_equal(t.met_token, 320);
	near(t.break_even, 1000);
}

/* A link that is four times as fast as computing: 2 of 10 stripes are computed. */
static void plan_context__gives_more_to_a_faster_link(void **state)
{
	const struct plan_rates r = { .token_s = 1.0 / 64, .bytes_per_s = 4000 };
	const struct plan_times t = plan_context(&r, 640, 1000);

	near(t.stream_s, 2.5);
	near(t.both_s, 2);
	assert_int_equal(t.met_token, 128);
}

static void plan_context__computes_without_a_link(void **state)
{
	const struct plan_rates r = { .token_s = 0.01, .delay_s = 1 };
	const struct plan_times t = plan_context(&r, 128, 1000);

	assert_true(t.stream_s > 1e100);
	near(t.both_s, 1.28);
	assert_int_equal(t.met_token, 128);
}

/* The first byte comes after all is computed: nobody waits for it. */
static void plan_context__waits_for_no_late_byte(void **state)
{
	const struct plan_rates r = { .token_s = 1.0 / 64, .bytes_per_s = 1e9, .delay_s = 3 };

	near(plan_context(&r, 128, 1000).both_s, 2);
	near(plan_context(&r, 640, 1000).both_s, 3 + 7 * 1e-6);
	assert_true(plan_context(&r, 128, 1000).break_even > 1e100);
}

static void plan_context__takes_no_time_without_a_stripe(void **state)
{
	const struct plan_rates r = { .token_s = 1, .bytes_per_s = 1 };
	const struct plan_times t = plan_context(&r, 63, 1000);

	near(t.stream_s + t.compute_s + t.both_s, 0);
}

/* What passes at two depths take gives back the rates that they were made from. */
static void plan_fit__gives_back_the_rates(void **state)
{
	const double a = 2e-3, b = 1e-6;
	const uint32_t m = 256, late = 4096;
	struct plan_rates r = { 0 };

	plan_fit(&r, m, a * m + b * m * m / 2, late, a * m + b * ((double)late * m + m * m / 2.0));
	near(r.token_s, a);
	near(r.position_s, b);
	near(plan_context(&r, 1024, 1).compute_s, a * 1024 + b * 1024 * 1024 / 2);
	plan_fit(&r, m, 1, late, 0.9);
	near(r.position_s, 0);
	near(r.token_s, 1.0 / m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plan_context__meets_in_the_middle),
		cmocka_unit_test(plan_context__gives_more_to_a_faster_link),
		cmocka_unit_test(plan_context__computes_without_a_link),
		cmocka_unit_test(plan_context__waits_for_no_late_byte),
		cmocka_unit_test(plan_context__takes_no_time_without_a_stripe),
		cmocka_unit_test(plan_fit__gives_back_the_rates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
