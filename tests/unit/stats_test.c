// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <math.h>

#include "engine/stats.h"

static void assert_near(double got, double want, double tolerance)
{
	if (!(fabs(got - want) <= tolerance))
		fail_msg("%.9g, expected %.9g", got, want);
}

static void fill(struct stats_set *s, const double *values, uint32_t per_group, size_t n)
{
	struct lslm_error err;

	for (size_t i = 0; i < n; i++)
		assert_ok(stats_add(s, (uint32_t)(i / per_group), values[i], &err), &err);
}

/* 3/4 and 1/4 against 1/2 and 1/2: 3/4 log 3/2 + 1/4 log 1/2 nats; logits may have any offset. */
static void stats_divergence__by_hand(void **state)
{
	const float p[] = { logf(3), 0 }, q[] = { 7, 7 };

	assert_near(stats_divergence(p, q, 2), 0.75 * log(1.5) + 0.25 * log(0.5), 1e-6);
	assert_near(stats_divergence(q, p, 2), 0.5 * log(2.0 / 3) + 0.5 * log(2), 1e-6);
	assert_true(stats_divergence(p, p, 2) == 0);
}

static void stats_surprise__by_hand(void **state)
{
	const float x[] = { 0, logf(3), -INFINITY };

	assert_near(stats_surprise(x, 3, 1), -log(0.75), 1e-6);
	assert_near(stats_surprise(x, 3, 0), -log(0.25), 1e-6);
}

static void stats_best__lowest_on_a_tie(void **state)
{
	const float x[] = { 1, 3, 3, 2 };

	assert_int_equal(stats_best(x, 4), 1);
	assert_int_equal(stats_best(x, 1), 0);
}

static void stats_f1__by_hand(void **state)
{
	static const struct {
		const char *got, *want;
		double f1;
	} cases[] = {
		{ "The pump is in bay 4.", "the pump is in bay 4", 1 },
		{ "The pump is in bay 4.", "The pump is in bay 7.", 10.0 / 12 },
		{ "no", "yes", 0 },
		{ "", "yes", 0 },
		{ "", " .", 1 },
		/* A word counts as often as both have it: 2 of 3 and 2. */
		{ "a a a", "a a", 4.0 / 5 },
		{ "a b a", "b a c a", 6.0 / 7 },
		/* A word that begins like another is not it. */
		{ "bay", "bays", 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_near(stats_f1(cases[i].got, cases[i].want), cases[i].f1, 1e-12);
		assert_near(stats_f1(cases[i].want, cases[i].got), cases[i].f1, 1e-12);
	}
}

static void stats_mean__nothing_varies_in_equal_groups(void **state)
{
	const double values[] = { 1, 3, 1, 3, 1, 3 };
	struct stats_set s = { 0 };
	struct stats_figure f;

	fill(&s, values, 2, 6);
	f = stats_mean(&s);
	assert_true(f.value == 2 && f.low == 2 && f.high == 2);
	stats_free(&s);
}

/*
 * Three of each value. Drawn one by one, a draw of six is all zeros in 1 of 64, less than 2.5 %; drawn as two groups, in 1 of 4.
 */
static void stats_mean__draws_whole_groups(void **state)
{
	const double values[] = { 0, 0, 0, 1, 1, 1 };
	struct stats_set groups = { 0 }, singles = { 0 };
	struct stats_figure f;

	fill(&groups, values, 3, 6);
	f = stats_mean(&groups);
	assert_true(f.value == 0.5 && f.low == 0 && f.high == 1);
	fill(&singles, values, 1, 6);
	f = stats_mean(&singles);
	assert_true(f.value == 0.5);
	assert_near(f.low, 1.0 / 6, 1e-12);
	assert_near(f.high, 5.0 / 6, 1e-12);
	stats_free(&groups);
	stats_free(&singles);
}

/* 400 tosses of a fair coin: standard error 0.025, so +-0.049. */
static void stats_mean__interval_of_a_coin(void **state)
{
	struct stats_set s = { 0 };
	struct stats_figure f;
	double values[400];

	for (size_t i = 0; i < 400; i++)
		values[i] = i % 2;
	fill(&s, values, 1, 400);
	f = stats_mean(&s);
	assert_near(f.low, 0.451, 0.006);
	assert_near(f.high, 0.549, 0.006);
	stats_free(&s);
}

/* Differences vary less than either side does: all that is left is one question in ten. */
static void stats_gain__is_paired(void **state)
{
	struct stats_set a = { 0 }, b = { 0 };
	struct stats_figure f;
	double x[100], y[100];

	for (size_t i = 0; i < 100; i++) {
		y[i] = (double)(i * 37 % 100);
		x[i] = y[i] + (i % 10 == 0);
	}
	fill(&a, x, 1, 100);
	fill(&b, y, 1, 100);
	f = stats_gain(&a, &b);
	assert_near(f.value, 0.1, 1e-12);
	assert_near(f.low, 0.04, 0.021);
	assert_near(f.high, 0.16, 0.021);
	stats_free(&a);
	stats_free(&b);
}

static void stats_quantile__by_hand(void **state)
{
	struct stats_set s = { 0 };
	struct stats_figure f;
	double values[100];

	for (size_t i = 0; i < 100; i++)
		values[i] = (double)(i * 37 % 100) + 1; /* 1 .. 100 */
	fill(&s, values, 1, 100);
	assert_true(stats_quantile(&s, 0.99).value == 99);
	assert_true(stats_quantile(&s, 1).value == 100);
	assert_true(stats_quantile(&s, 0.01).value == 1);
	f = stats_quantile(&s, 0.5);
	assert_true(f.value == 50);
	/* Of a draw's median: standard error 1/2 * sqrt(100) = 5, so +-10. */
	assert_near(f.low, 40, 3);
	assert_near(f.high, 60, 3);
	stats_free(&s);
}

static void stats__nothing_is_not_a_number(void **state)
{
	struct stats_set s = { 0 };

	assert_true(isnan(stats_mean(&s).value) && isnan(stats_mean(&s).low));
	assert_true(isnan(stats_quantile(&s, 0.5).value));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stats_divergence__by_hand),
		cmocka_unit_test(stats_surprise__by_hand),
		cmocka_unit_test(stats_best__lowest_on_a_tie),
		cmocka_unit_test(stats_f1__by_hand),
		cmocka_unit_test(stats_mean__nothing_varies_in_equal_groups),
		cmocka_unit_test(stats_mean__draws_whole_groups),
		cmocka_unit_test(stats_mean__interval_of_a_coin),
		cmocka_unit_test(stats_gain__is_paired),
		cmocka_unit_test(stats_quantile__by_hand),
		cmocka_unit_test(stats__nothing_is_not_a_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
