// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <math.h>

#include "compute/ops.h"

/* Against exp() in double, over the whole range and at its ends. */
static void ops_exp_sum__every_magnitude(void **state)
{
	float x[1001], y[1001];

	for (int from = -100; from < 90; from++) {
		double sum = 0;
		float got;

		for (int i = 0; i <= 1000; i++)
			x[i] = (float)from + (float)i / 1000;
		got = ops_exp_sum(y, x, 0, ARRAY_LEN(x));
		for (size_t i = 0; i < ARRAY_LEN(x); i++) {
			const double want = exp(x[i]);

			sum += y[i];
			if (x[i] < -87)
				assert_true(y[i] == 0);
			else if (want > 3.4028e38)
				assert_true(y[i] == INFINITY || y[i] > 3.4e38f);
			else if (!(fabs(y[i] / want - 1) < 3e-7))
				fail_msg("exp(%.9g) is %.9g, expected %.9g", (double)x[i],
					 (double)y[i], want);
		}
		if (from < 80)
			assert_true(fabs(got - sum) <= 1e-5 * sum);
	}
}

static void ops_exp_sum__ends(void **state)
{
	const float x[] = { -INFINITY, 0, -0.0f, INFINITY, NAN, 3, -1e30f, 1e30f };
	float y[ARRAY_LEN(x)];

	ops_exp_sum(y, x, 0, ARRAY_LEN(x));
	assert_true(y[0] == 0 && y[1] == 1 && y[2] == 1 && y[3] == INFINITY && isnan(y[4]));
	assert_true(y[6] == 0 && y[7] == INFINITY);
	ops_exp_sum(y, x + 5, 3, 1); /* less the shift */
	assert_true(y[0] == 1);
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
		cmocka_unit_test(ops_exp_sum__every_magnitude),
		cmocka_unit_test(ops_exp_sum__ends),
		cmocka_unit_test(ops_swiglu__by_its_definition),
		cmocka_unit_test(ops_rms_norm__by_its_definition),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
