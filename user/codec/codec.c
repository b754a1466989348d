// SPDX-License-Identifier: MIT
#include "codec/codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codec/entropy.h"
#include "codec/principal.h"
#include "codec/rans.h"
#include "codec/steps.h"
#include "compute/kvq.h"

int codec_check(const struct kv_geometry *geo, enum kv_level level, const struct calibration *cal,
		struct lslm_error *err)
{
	if (codec_in_place(level))
		return 0;
	if (level != KV_LEVEL_E && level != KV_LEVEL_P)
		return error_set(err, -ENOTSUP, "level %u is none that this version knows", level);
	if (kv_channels(geo) > STEPS_MAX_CHANNELS)
		return error_set(err, -ENOTSUP,
				 "level %s: %u heads of %u are more than %d channels",
				 level == KV_LEVEL_E ? "e" : "p", geo->n_head_kv, geo->head_dim,
				 STEPS_MAX_CHANNELS);
	if (level == KV_LEVEL_E)
		return 0;
	if (geo->hidden)
		return error_set(
			err, -ENOTSUP,
			"level p has no hidden state, from which layers would be computed");
	if (!cal)
		return error_set(
			err, -ENOTSUP,
			"level p needs this model's calibration, and none that was given is; make one with "
			"lslm calibrate and give it with --calibration");
	return calibration_match(cal, geo, NULL, err) ? -ENOTSUP : 0;
}

uint32_t codec_units(const struct kv_geometry *geo, enum kv_level level)
{
	return kv_level_units(geo, level);
}

bool codec_in_place(enum kv_level level)
{
	return level < KV_LEVELS && kv_level_is_plain(level);
}

size_t codec_stripe_bound(const struct kv_geometry *geo, enum kv_level level)
{
	if (level == KV_LEVEL_E)
		return geo->n_layer * entropy_bound(geo) + kv_unit_bytes(geo, KV_LEVEL_Q8, 0);
	if (level == KV_LEVEL_P)
		return principal_bound(geo);
	return kv_stripe_bytes(geo, level);
}

size_t codec_stripe_aim(const struct kv_geometry *geo, enum kv_level level)
{
	const size_t values = 2 * kv_channels(geo) * KV_BLOCK_TOKENS * geo->n_layer;

	if (codec_in_place(level))
		return kv_stripe_bytes(geo, level);
	return (size_t)((double)values *
			(double)(level == KV_LEVEL_E ? ENTROPY_BITS : PRINCIPAL_BITS) / 8);
}

/* --- f16, q8, q4: unit = block, as in memory --- */

static enum kvq_bits bits_of(enum kv_level level)
{
	return level == KV_LEVEL_Q8 ? KVQ_Q8 : KVQ_Q4;
}

static void encode_plain(const struct kv_geometry *geo, enum kv_level level, const uint8_t *in,
			 uint8_t *out)
{
	const size_t from = kv_half_bytes(geo, KV_LEVEL_F16), to = kv_half_bytes(geo, level);

	if (level == KV_LEVEL_F16) {
		memcpy(out, in, 2 * from);
		return;
	}
	kvq_encode(out, (const uint16_t *)in, geo->n_head_kv, geo->head_dim, bits_of(level),
		   level == KV_LEVEL_Q4);
	kvq_encode(out + to, (const uint16_t *)(in + from), geo->n_head_kv, geo->head_dim,
		   bits_of(level), 0);
}

/* What pads a half at f16 is zero, whatever was at out. */
static void pad(const struct kv_geometry *geo, uint8_t *half)
{
	const size_t used = sizeof(uint16_t) * KV_BLOCK_TOKENS * kv_channels(geo);

	memset(half + used, 0, kv_half_bytes(geo, KV_LEVEL_F16) - used);
}

static void decode_plain(const struct kv_geometry *geo, enum kv_level level, const uint8_t *in,
			 uint8_t *out)
{
	const size_t from = kv_half_bytes(geo, level), to = kv_half_bytes(geo, KV_LEVEL_F16);

	if (level == KV_LEVEL_F16) {
		memcpy(out, in, 2 * from);
		return;
	}
	pad(geo, out);
	pad(geo, out + to);
	kvq_decode((uint16_t *)out, in, geo->n_head_kv, geo->head_dim, bits_of(level),
		   level == KV_LEVEL_Q4);
	kvq_decode((uint16_t *)(out + to), in + from, geo->n_head_kv, geo->head_dim, bits_of(level),
		   0);
}

/* --- E blocks --- */

/* In 8 bits at every level but f16. */
static size_t encode_hidden(const struct kv_geometry *geo, enum kv_level level, const uint8_t *in,
			    uint8_t *out)
{
	if (level == KV_LEVEL_F16)
		memcpy(out, in, kv_unit_bytes(geo, level, 0));
	else
		kvq_encode(out, (const uint16_t *)in, geo->hidden / KV_HIDDEN_ALIGN,
			   KV_HIDDEN_ALIGN, KVQ_Q8, 0);
	return kv_unit_bytes(geo, level == KV_LEVEL_F16 ? level : KV_LEVEL_Q8, 0);
}

static int decode_hidden(const struct kv_geometry *geo, enum kv_level level, const uint8_t *in,
			 size_t size, uint8_t *out, struct lslm_error *err)
{
	const size_t must = kv_unit_bytes(geo, level == KV_LEVEL_F16 ? level : KV_LEVEL_Q8, 0);

	if (size != must)
		return error_set(err, -EBADMSG, "an E block of %zu bytes, must be %zu", size, must);
	if (level == KV_LEVEL_F16)
		memcpy(out, in, size);
	else
		kvq_decode((uint16_t *)out, in, geo->hidden / KV_HIDDEN_ALIGN, KV_HIDDEN_ALIGN,
			   KVQ_Q8, 0);
	return 0;
}

/* --- level e --- */

/* By the calibration's steps where there is one for just these layers. */
static size_t encode_entropy(const struct kv_geometry *geo, const struct calibration *cal,
			     const uint8_t *in, uint8_t *out, uint32_t *lengths)
{
	const bool known = cal && cal->weighed && !calibration_match(cal, geo, NULL, NULL);
	uint32_t *steps = known ? malloc(2 * geo->n_layer * sizeof(*steps)) : NULL;
	size_t at = 0, n;

	if (known && (!steps || entropy_steps(geo, cal, in, steps))) {
		free(steps);
		return 0;
	}
	for (uint32_t l = 0; l < geo->n_layer; l++) {
		const uint8_t *block = in + kv_unit_offset(geo, KV_LEVEL_F16, l);

		if (kv_is_hidden(geo, l))
			n = encode_hidden(geo, KV_LEVEL_E, block, out + at);
		else
			n = entropy_encode(geo, block, known ? steps + 2 * l : NULL, out + at);
		lengths[l] = (uint32_t)n;
		at += n;
	}
	free(steps);
	return at;
}

size_t codec_encode(const struct kv_geometry *geo, enum kv_level level,
		    const struct calibration *cal, uint32_t first, const uint8_t *in, uint8_t *out,
		    uint32_t *lengths)
{
	size_t at = 0;

	if (level == KV_LEVEL_P) {
		at = principal_encode(cal, first, in, out);
		lengths[0] = (uint32_t)at;
		return at;
	}
	if (level == KV_LEVEL_E)
		return encode_entropy(geo, cal, in, out, lengths);
	for (uint32_t l = 0; l < geo->n_layer; l++) {
		const uint8_t *block = in + kv_unit_offset(geo, KV_LEVEL_F16, l);
		size_t n = kv_block_bytes(geo, level);

		if (kv_is_hidden(geo, l))
			n = encode_hidden(geo, level, block, out + at);
		else
			encode_plain(geo, level, block, out + at);
		lengths[l] = (uint32_t)n;
		at += n;
	}
	return at;
}

int codec_decode(const struct kv_geometry *geo, enum kv_level level, const struct calibration *cal,
		 uint32_t first, uint32_t unit, const uint8_t *in, size_t size, uint8_t *out,
		 struct lslm_error *err)
{
	if (level == KV_LEVEL_P) {
		int rc = principal_decode(cal, first, in, size, out);

		if (rc == -ENOMEM)
			return error_set(err, rc, "out of memory");
		return rc ? error_set(err, rc, "a damaged stripe of level p") : 0;
	}
	if (kv_is_hidden(geo, unit))
		return decode_hidden(geo, level, in, size, out, err);
	if (level == KV_LEVEL_E) {
		if (entropy_decode(geo, in, size, out))
			return error_set(err, -EBADMSG, "a damaged block of level e");
		return 0;
	}
	if (size != kv_block_bytes(geo, level))
		return error_set(err, -EBADMSG, "a block of %zu bytes, must be %zu", size,
				 kv_block_bytes(geo, level));
	decode_plain(geo, level, in, out);
	return 0;
}

const char *codec_describe(void)
{
	return rans_describe();
}
