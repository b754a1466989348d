/* SPDX-License-Identifier: MIT */
/*
 * exp() without a branch, to be inlined into loops, which vectorise. Within 3e-7 of the value; below -87,
 * where results would be subnormal, 0; above 89 infinity; a NaN stays one.
 */
#ifndef LSLM_COMPUTE_EXP_H
#define LSLM_COMPUTE_EXP_H

#include "compute/half.h"

/*
 * exp(x) = 2^k exp(r) with r within +-log(2)/2, by Taylor's polynomial. Adding 1.5 * 2^23 leaves a float whose
 * low bits are k.
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

#endif
