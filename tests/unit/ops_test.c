// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <math.h>

#include "compute/exp.h"
#include "compute/kvtile.h"
#include "compute/ops.h"

/* Against exp() in double, over the whole range and at its ends. */
static void exp_of__every_magnitude(void **state)
{
	for (int i = -100000; i < 95000; i++) {
		const float x = (float)i / 1000, y = exp_of(x);
		const double want = exp(x);

		if (x < -87)
			assert_true(y == 0);
		else if (want > 3.4028e38)
			assert_true(y == INFINITY || y > 3.4e38f);
		else if (!(fabs(y / want - 1) < 3e-7))
			fail_msg("exp(%.9g) is %.9g, expected %.9g", (double)x, (double)y, want);
	}
	assert_true(exp_of(0) == 1 && exp_of(-0.0f) == 1 && isnan(exp_of(NAN)));
	assert_true(exp_of(-INFINITY) == 0 && exp_of(INFINITY) == INFINITY);
	assert_true(exp_of(-1e30f) == 0 && exp_of(1e30f) == INFINITY);
}

/* Every number of scores, with a maximum from before that is lower, higher or none yet. */
static void kvtile_weigh__by_its_definition(void **state)
{
	static const float before[] = { -INFINITY, -3, 50 };

	for (uint32_t n = 0; n <= KVTILE_TOKENS; n++)
		for (size_t b = 0; b < ARRAY_LEN(before); b++) {
			float p[KVTILE_TOKENS], was[KVTILE_TOKENS], max = before[b],
								    want = before[b];
			float acc[KVTILE_LANES] = { 0 }, got[KVTILE_LANES] = { 0 };
			const struct kvtile_weights weights = {
				.p = p, .acc = acc, .max = &max, .sum = got, .width = KVTILE_LANES
			};
			double sum = 0;

			for (uint32_t j = 0; j < KVTILE_TOKENS; j++) {
				was[j] = p[j] = (float)((int)(j * 37 % 64) - 20) / 3;
				if (j < n && p[j] > want)
					want = p[j];
			}
			if (n < KVTILE_TOKENS)
				p[n] = NAN; /* not a score */
			kvtile_weigh(&weights, 0, 1, n);
			assert_true(max == want);
			for (uint32_t j = 0; j < KVTILE_TOKENS; j++) {
				const double w = j < n ? exp((double)(was[j] - want)) : 0;

				assert_true(fabs(p[j] - w) <= 1e-6 * w + (w < 1e-37 ? 1e-37 : 0));
				sum += w;
			}
			assert_true(fabs(kvtile_total(got) - sum) <= 1e-6 * sum);
		}
}

static void ops_swiglu__by_its_definition(void **state)
{
	for (size_t n = 0; n < 70; n++) {
		float gate[71], was[71], up[71];

		for (size_t i = 0; i <= n; i++) {
			was[i] = gate[i] = (float)((int)(i * 37 % 101) - 50) / 3;
			up[i] = (float)((int)(i * 53 % 89) - 44) / 7;
		}
		ops_swiglu(gate, up, n);
		for (size_t i = 0; i < n; i++) {
			const double want = was[i] / (1 + exp(-(double)was[i])) * up[i];

			assert_true(fabs(gate[i] - want) <= 1e-6 * fabs(want) + 1e-12);
		}
		assert_true(gate[n] == was[n]);
	}
}

static void ops_rms_norm__by_its_definition(void **state)
{
	float x[100], w[100], y[100];
	double sum = 0;

	for (int i = 0; i < 100; i++) {
		x[i] = (float)(i * 29 % 61 - 30) / 5;
		w[i] = (float)(i * 7 % 13) / 4;
		sum += (double)x[i] * x[i];
	}
	ops_rms_norm(y, x, w, 100, 1e-5f);
	for (int i = 0; i < 100; i++)
		assert_true(fabs(y[i] - x[i] / sqrt(sum / 100 + 1e-5) * w[i]) < 1e-5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exp_of__every_magnitude),
		cmocka_unit_test(kvtile_weigh__by_its_definition),
		cmocka_unit_test(ops_swiglu__by_its_definition),
		cmocka_unit_test(ops_rms_norm__by_its_definition),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
