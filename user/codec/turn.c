// SPDX-License-Identifier: MIT
#include "codec/turn.h"

#include <math.h>

#include "base/clones.h"

void turn_rates(struct turn_params *p, double base, double scale, const float *factors)
{
	for (uint32_t i = 0; i < p->dims / 2; i++)
		p->rates[i] = scale * pow(base, -2.0 * i / p->dims) /
			      (factors ? (double)factors[i] : 1.0);
}

/*
 * Reduced to a quarter turn around zero: half_pi is split so that the product with its upper part, of 26 bits, is
 * exact for any position. Then Taylor's series, whose first term left out is below 1e-14.
 */
static void sine_cosine(double angle, double *sine, double *cosine)
{
	static const double upper = 0x1.921fb5p+0, lower = 0x1.110b4611a6263p-26;
	const double quarters = angle * 0x1.45f306dc9c883p-1 + 0x1.8p52 - 0x1.8p52;
	const double r = angle - quarters * upper - quarters * lower, z = r * r;
	const double s =
		r + r * z *
			    (-1.0 / 6 +
			     z * (1.0 / 120 +
				  z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800 +
									      z / 6227020800.0)))));
	const double c =
		1 +
		z * (-1.0 / 2 +
		     z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 +
									       z / 479001600.0)))));
	const int quadrant = (int)((int64_t)quarters & 3);

	*sine = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;
	*cosine = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
}

void turn_angles(float *cs, const struct turn_params *p, uint32_t position)
{
	for (uint32_t i = 0; i < p->dims / 2; i++) {
		double s, c;

		sine_cosine(position * p->rates[i], &s, &c);
		cs[2 * i] = (float)c;
		cs[2 * i + 1] = (float)s;
	}
}

CLONES static void turn_pairs(float *x, const float *cs, uint32_t n, float sign)
{
	for (uint32_t i = 0; i < n; i++) {
		const float a = x[2 * i], b = x[2 * i + 1], c = cs[2 * i], s = sign * cs[2 * i + 1];

		x[2 * i] = a * c - b * s;
		x[2 * i + 1] = a * s + b * c;
	}
}

CLONES static void turn_halves(float *x, const float *cs, uint32_t n, float sign)
{
	for (uint32_t i = 0; i < n; i++) {
		const float a = x[i], b = x[i + n], c = cs[2 * i], s = sign * cs[2 * i + 1];

		x[i] = a * c - b * s;
		x[i + n] = a * s + b * c;
	}
}

void turn_head(float *x, const struct turn_params *p, const float *cs, bool back)
{
	if (p->halves)
		turn_halves(x, cs, p->dims / 2, back ? -1 : 1);
	else
		turn_pairs(x, cs, p->dims / 2, back ? -1 : 1);
}
