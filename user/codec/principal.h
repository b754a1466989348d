/* SPDX-License-Identifier: MIT */
/*
 * Level p: principal components rounded to multiples of a step and entropy-coded, about 1 bit per value.
 *
 * RoPE is undone, the mean taken away, and each group of channels turned to the directions in which this model's values
 * vary (codec/calibration.h), where most coordinates are near zero. One step for all of them, in proportion to how
 * much a half varies, gives each component the bits that leave the least error for their number; it is chosen so that
 * a stripe takes about PRINCIPAL_BITS per value.
 *
 * The transform back is a product of integers that are exact as floats (sums stay below 2^24), so whatever computes it and
 * in whichever order, the values are the same.
 */
#ifndef LSLM_CODEC_PRINCIPAL_H
#define LSLM_CODEC_PRINCIPAL_H

#include "codec/calibration.h"

/* Bits per value that a stripe takes, everything in it counted. */
#define PRINCIPAL_BITS 1.15f

/* Bytes that a stripe takes at most. */
size_t principal_bound(const struct kv_geometry *geo);

/* in: a stripe at f16, first: position of its first token. Returns bytes; 0 without memory. */
size_t principal_encode(const struct calibration *cal, uint32_t first, const uint8_t *in,
			uint8_t *out);
/* out: the stripe at f16, padding included. -EBADMSG for what no encoder writes, -ENOMEM; out is garbage then. */
int principal_decode(const struct calibration *cal, uint32_t first, const uint8_t *in, size_t size,
		     uint8_t *out);

#endif
