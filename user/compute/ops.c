// SPDX-License-Identifier: MIT
#include "compute/ops.h"

#include <math.h>

#include "base/clones.h"
#include "compute/half.h"

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

/*
 * exp(x) = 2^k exp(r) with r within +-log(2)/2, by Taylor's polynomial; without a branch, so that
 * loops over it vectorise. From below -87 the results would be subnormal: 0 instead. Above 88 it is
 * infinity, and a NaN stays one.
 */
INLINE float exp_of(float x)
{
	const float limited = x < -87.0f ? -87.0f : x > 89.0f ? 89.0f : x;
	const float shifted = limited * 0x1.715476p0f + 0x1.8p23f; /* 1/log(2); see acts.c */
	const float k = shifted - 0x1.8p23f;
	const float r = (limited - k * 0x1.62e4p-1f) - k * 0x1.7f7d1cp-20f;
	const int32_t power = (int32_t)(bits_of(shifted) - bits_of(0x1.8p23f));
	/* In two steps, as 2^128 has no float of its own. */
	const float half = float_of((uint32_t)((power >> 1) + 127) << 23);
	const float rest = float_of((uint32_t)(power - (power >> 1) + 127) << 23);
	float p = 1.0f / 5040;

	p = p * r + 1.0f / 720;
	p = p * r + 1.0f / 120;
	p = p * r + 1.0f / 24;
	p = p * r + 1.0f / 6;
	p = p * r + 0.5f;
	p = p * r + 1.0f;
	p = p * r + 1.0f;
	p = p * half * rest;
	return x < -87.0f ? 0.0f : p;
}

CLONES void ops_swiglu(float *gate, const float *up, size_t n)
{
	for (size_t i = 0; i < n; i++)
		gate[i] = gate[i] / (1.0f + exp_of(-gate[i])) * up[i];
}

CLONES static void exp_row(float *y, const float *x, float shift, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] = exp_of(x[i] - shift);
}

CLONES_FAST static float sum_of(const float *x, size_t n)
{
	float sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += x[i];
	return sum;
}

float ops_exp_sum(float *y, const float *x, float shift, size_t n)
{
	exp_row(y, x, shift, n);
	return sum_of(y, n);
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
