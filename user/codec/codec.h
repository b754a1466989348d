/* SPDX-License-Identifier: MIT */
/*
 * Levels: how a stripe's values travel.
 *
 *   f16   as computed                                  block    read in place
 *   q8    8 bits and scales (compute/kvq.h)            block    read in place
 *   q4    4 bits and scales, keys rotated              block    read in place
 *   e     entropy-coded, about 2 bits                  block    decoded by the courier to f16
 *   p     principal components, about 1 bit            stripe   decoded by the courier to f16
 *
 * An E block (kv/geometry.h) is f16 at f16, else 8 bits and scales; with e it is decoded. p has none.
 *
 * A stripe at f16 is the input of every encoder and, for e and p, the output of the decoder; kv/geometry.h says how
 * it lies in memory. What a decoder needs besides the bytes, a calibration of the model, is named by its
 * fingerprint in the level's definition and never part of a stripe.
 *
 * Encoders and decoders are deterministic: same input, same bytes, on every machine and instruction set.
 * Decoders take any bytes: what is malformed is -EBADMSG, and nothing behind the given size is read. A
 * decoder's output is not used before the encoded bytes' digest was right, but it must be safe before.
 */
#ifndef LSLM_CODEC_CODEC_H
#define LSLM_CODEC_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/geometry.h"

/*
 * What e and p know of a model, from calibration text; see codec/calibration.h. p needs it at both ends; e's encoder gives bits
 * by it where there is one, and its decoder never needs it. NULL where there is none.
 */
struct calibration;

/* Can this level be encoded and decoded for this model? -ENOTSUP with a line that says what is missing. */
int codec_check(const struct kv_geometry *geo, enum kv_level level, const struct calibration *cal,
		struct lslm_error *err);

/* Independently decodable units of a stripe: n_layer, or 1 where the stripe is the unit. */
uint32_t codec_units(const struct kv_geometry *geo, enum kv_level level);
/* Does a unit's place in memory hold it as it travels (f16, q8, q4), so that nobody decodes it? */
bool codec_in_place(enum kv_level level);
/* Bytes that an encoded stripe takes at most. */
size_t codec_stripe_bound(const struct kv_geometry *geo, enum kv_level level);
/* And that it is coded to take, for plans: within a few percent with e and p, else exact. */
size_t codec_stripe_aim(const struct kv_geometry *geo, enum kv_level level);

/*
 * Encode the f16 stripe at in. lengths: [codec_units()], bytes of each unit, which follow each other in out. first: the position of
 * its first token, for levels that undo RoPE. Returns the stripe's bytes, <= codec_stripe_bound(); 0 where
 * there was no memory (e, p).
 */
size_t codec_encode(const struct kv_geometry *geo, enum kv_level level,
		    const struct calibration *cal, uint32_t first, const uint8_t *in, uint8_t *out,
		    uint32_t *lengths);

/*
 * Decode one unit to f16: the block of layer `unit` at out, or, where the stripe is the unit, all of the stripe. -EBADMSG for
 * bytes that no encoder writes.
 */
int codec_decode(const struct kv_geometry *geo, enum kv_level level, const struct calibration *cal,
		 uint32_t first, uint32_t unit, const uint8_t *in, size_t size, uint8_t *out,
		 struct lslm_error *err);

/* For reports: which instruction set decodes e and p here, and why. */
const char *codec_describe(void);

#endif
