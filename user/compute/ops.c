// SPDX-License-Identifier: MIT
#include "compute/ops.h"

#include <math.h>

#include "base/clones.h"
#include "compute/exp.h"

CLONES_FAST
static float sum_of_squares(const float *x, size_t n)
{
	float sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += x[i] * x[i];
	return sum;
}

CLONES static void scale_by(float *y, const float *x, const float *weight, float scale, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] = x[i] * scale * weight[i];
}

void ops_rms_norm(float *y, const float *x, const float *weight, size_t n, float eps)
{
	scale_by(y, x, weight, 1.0f / sqrtf(sum_of_squares(x, n) / (float)n + eps), n);
}

CLONES void ops_add(float *x, const float *y, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] += y[i];
}

CLONES void ops_swiglu(float *gate, const float *up, size_t n)
{
	for (size_t i = 0; i < n; i++)
		gate[i] = gate[i] / (1.0f + exp_of(-gate[i])) * up[i];
}

void ops_rope_angles(float *cs, double pos, uint32_t dims, double base, double scale,
		     const float *factors)
{
	for (uint32_t i = 0; i < dims / 2; i++) {
		double angle = pos * scale * pow(base, -2.0 * i / dims);

		if (factors)
			angle /= factors[i];
		cs[2 * i] = (float)cos(angle);
		cs[2 * i + 1] = (float)sin(angle);
	}
}

void ops_rope_turn(float *head, const float *cs, uint32_t dims, int halves)
{
	const uint32_t step = halves ? 1 : 2, partner = halves ? dims / 2 : 1;

	for (uint32_t i = 0; i < dims / 2; i++) {
		float *a = head + i * step, *b = a + partner;
		const float c = cs[2 * i], s = cs[2 * i + 1], x = *a, y = *b;

		*a = x * c - y * s;
		*b = x * s + y * c;
	}
}

double ops_log_sum_exp(const float *x, size_t n)
{
	double max = x[0], sum = 0;

	for (size_t i = 1; i < n; i++)
		if (x[i] > max)
			max = x[i];
	for (size_t i = 0; i < n; i++)
		sum += exp(x[i] - max);
	return max + log(sum);
}
