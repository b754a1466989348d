// SPDX-License-Identifier: MIT
/* Levels through codec/codec.h: lengths, round trips, what is refused. */
#include "unit/unit.h"

#include <math.h>

#include "codec/codec.h"
#include "codec/rans.h"
#include "compute/kvq.h"
#include "compute/quant.h"
#include "unit/random.h"

static const struct kv_geometry geos[] = {
	{ 3, 6, 32 }, { 2, 2, 8 }, { 1, 1, 1 }, { 2, 3, 5 }, { 2, 2, 80 }, { 1, 3, 64 },
};

/* Bell-shaped, channels of different size, padding zero. */
static uint8_t *make_stripe(const struct kv_geometry *geo)
{
	const size_t half = kv_half_bytes(geo, KV_LEVEL_F16);
	uint8_t *stripe = calloc(1, kv_stripe_bytes(geo, KV_LEVEL_F16));

	for (uint32_t i = 0; i < 2 * geo->n_layer; i++) {
		uint16_t *x = (uint16_t *)(stripe + i * half);

		for (uint32_t k = 0; k < geo->n_head_kv * 64 * geo->head_dim; k++) {
			const uint32_t channel = k % geo->head_dim;
			float sum = 0;

			for (int n = 0; n < 6; n++)
				sum += (float)(rnd() % 2001) / 1000 - 1;
			x[k] = f32_to_f16(sum * (float)(1 + channel % 3 + 4 * (channel % 7 == 1)));
		}
	}
	return stripe;
}

static double error_of(const struct kv_geometry *geo, const uint8_t *a, const uint8_t *b)
{
	const size_t half = kv_half_bytes(geo, KV_LEVEL_F16);
	double error = 0, power = 0;

	for (uint32_t i = 0; i < 2 * geo->n_layer; i++) {
		const uint16_t *x = (const uint16_t *)(a + i * half);
		const uint16_t *y = (const uint16_t *)(b + i * half);

		for (uint32_t k = 0; k < geo->n_head_kv * 64 * geo->head_dim; k++) {
			const double u = f16_to_f32(x[k]), v = f16_to_f32(y[k]);

			error += (u - v) * (u - v);
			power += u * u;
		}
	}
	return error / power;
}

static size_t decode_all(const struct kv_geometry *geo, enum kv_level level, const uint8_t *in,
			 const uint32_t *lengths, uint8_t *out)
{
	const size_t unit_bytes = kv_stripe_bytes(geo, KV_LEVEL_F16) / codec_units(geo, level);
	struct lslm_error err = { 0 };
	size_t at = 0;

	for (uint32_t u = 0; u < codec_units(geo, level); u++) {
		uint8_t *unit = malloc(lengths[u]); /* exactly */

		memcpy(unit, in + at, lengths[u]);
		assert_ok(codec_decode(geo, level, NULL, 0, u, unit, lengths[u],
				       out + u * unit_bytes, &err),
			  &err);
		at += lengths[u];
		free(unit);
	}
	return at;
}

static void check_level(const struct kv_geometry *geo, enum kv_level level, double most)
{
	const size_t size = kv_stripe_bytes(geo, KV_LEVEL_F16);
	uint8_t *stripe = make_stripe(geo), *out = malloc(size);
	uint8_t *coded = malloc(codec_stripe_bound(geo, level));
	uint32_t lengths[8];
	size_t total;

	memset(out, 0xa5, size);
	total = codec_encode(geo, level, NULL, 0, stripe, coded, lengths);
	assert_true(total <= codec_stripe_bound(geo, level));
	assert_int_equal(decode_all(geo, level, coded, lengths, out), total);
	if (error_of(geo, stripe, out) > most)
		fail_msg("level %d of %u x %u x %u: error %g", level, geo->n_layer, geo->n_head_kv,
			 geo->head_dim, error_of(geo, stripe, out));
	free(stripe);
	free(out);
	free(coded);
}

static void round_trip__every_level(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(geos); i++) {
		check_level(&geos[i], KV_LEVEL_F16, 0);
		check_level(&geos[i], KV_LEVEL_Q8, 1e-4);
		check_level(&geos[i], KV_LEVEL_Q4, 2e-2);
		check_level(&geos[i], KV_LEVEL_E, 0.15);
	}
}

/* Attention rotates queries of q4 keys, and nothing else. */
static void q4__only_keys_are_rotated(void **state)
{
	const struct kv_geometry *geo = &geos[0];
	const size_t half = kv_half_bytes(geo, KV_LEVEL_Q4);
	uint8_t *stripe = make_stripe(geo), *coded = malloc(codec_stripe_bound(geo, KV_LEVEL_Q4));
	uint8_t *want = malloc(half);
	uint32_t lengths[8];

	codec_encode(geo, KV_LEVEL_Q4, NULL, 0, stripe, coded, lengths);
	for (int v = 0; v < 2; v++) {
		kvq_encode(
			want,
			(const uint16_t *)(stripe + (size_t)v * kv_half_bytes(geo, KV_LEVEL_F16)),
			geo->n_head_kv, geo->head_dim, KVQ_Q4, !v);
		assert_memory_equal(want, coded + (size_t)v * half, half);
	}
	free(stripe);
	free(coded);
	free(want);
}

static void decode__wrong_size(void **state)
{
	const struct kv_geometry *geo = &geos[0];
	const size_t size = kv_block_bytes(geo, KV_LEVEL_Q8);
	uint8_t *in = calloc(1, size + 1), *out = malloc(kv_block_bytes(geo, KV_LEVEL_F16));
	struct lslm_error err = { 0 };

	for (size_t n = size - 1; n <= size + 1; n += 2)
		assert_int_equal(codec_decode(geo, KV_LEVEL_Q8, NULL, 0, 0, in, n, out, &err),
				 -EBADMSG);
	free(in);
	free(out);
}

/* An E block and one of K and V. */
static void hidden__at_every_level_that_has_one(void **state)
{
	const struct kv_geometry geo = { 2, 2, 32, 64 }, plain = { 1, 2, 32 };
	const size_t bytes = kv_unit_bytes(&geo, KV_LEVEL_F16, 0);
	uint8_t *stripe = calloc(1, kv_stripe_bytes(&geo, KV_LEVEL_F16)), *kv = make_stripe(&plain);
	uint8_t *out = malloc(bytes), *coded = NULL;
	struct lslm_error err = { 0 };
	uint32_t lengths[2];

	for (size_t i = 0; i < bytes / 2; i++)
		((uint16_t *)stripe)[i] = f32_to_f16((float)(i % 97) - 48);
	memcpy(stripe + bytes, kv, kv_block_bytes(&plain, KV_LEVEL_F16));
	for (int level = 0; level < KV_LEVEL_P; level++) {
		size_t size;

		free(coded);
		coded = malloc(codec_stripe_bound(&geo, (enum kv_level)level));
		size = codec_encode(&geo, (enum kv_level)level, NULL, 0, stripe, coded, lengths);
		assert_true(size <= codec_stripe_bound(&geo, (enum kv_level)level));
		assert_int_equal(size, lengths[0] + lengths[1]);
		assert_int_equal(lengths[0], level ? 64 * (64 + 2 * 2) : bytes);
		assert_ok(codec_decode(&geo, (enum kv_level)level, NULL, 0, 0, coded, lengths[0],
				       out, &err),
			  &err);
		for (size_t i = 0; i < bytes / 2; i++)
			assert_true(fabsf(f16_to_f32(((uint16_t *)out)[i]) -
					  f16_to_f32(((uint16_t *)stripe)[i])) <=
				    (level ? 0.2F : 0));
		for (uint32_t n = lengths[0] - 1; n <= lengths[0] + 1; n += 2)
			assert_int_equal(codec_decode(&geo, (enum kv_level)level, NULL, 0, 0, coded,
						      n, out, &err),
					 -EBADMSG);
	}
	assert_int_equal(codec_check(&geo, KV_LEVEL_P, NULL, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "no hidden state"));
	free(coded);
	free(out);
	free(kv);
	free(stripe);
}

static void e__refuses_what_is_cut_or_changed(void **state)
{
	const struct kv_geometry geo = { 1, 2, 24 };
	uint8_t *stripe = make_stripe(&geo), *coded = malloc(codec_stripe_bound(&geo, KV_LEVEL_E));
	uint8_t *out = malloc(kv_block_bytes(&geo, KV_LEVEL_F16));
	const size_t header = 4 + 48;
	struct lslm_error err = { 0 };
	uint32_t size;

	codec_encode(&geo, KV_LEVEL_E, NULL, 0, stripe, coded, &size);
	for (uint32_t n = 0; n <= size + 1; n++) {
		uint8_t *part = calloc(1, n ? n : 1);

		memcpy(part, coded, n < size ? n : size);
		assert_int_equal(codec_decode(&geo, KV_LEVEL_E, NULL, 0, 0, part, n, out, &err),
				 n == size ? 0 : -EBADMSG);
		free(part);
	}
	/* Steps that are not positive, too large, or finer than steps are. */
	for (int i = 0; i < 4; i++) {
		static const uint16_t steps[] = { 0, 0x8400, 0x7c00, 0x3c01 };
		uint8_t saved[2] = { coded[i / 2 * 2], coded[i / 2 * 2 + 1] };

		coded[i / 2 * 2] = (uint8_t)steps[i];
		coded[i / 2 * 2 + 1] = (uint8_t)(steps[i] >> 8);
		assert_int_equal(codec_decode(&geo, KV_LEVEL_E, NULL, 0, 0, coded, size, out, &err),
				 -EBADMSG);
		memcpy(coded + i / 2 * 2, saved, 2);
	}
	/* Another class for a channel: another distribution, and the states do not come out. */
	for (size_t i = 4; i < header; i++) {
		coded[i] ^= 1;
		assert_int_equal(codec_decode(&geo, KV_LEVEL_E, NULL, 0, 0, coded, size, out, &err),
				 -EBADMSG);
		coded[i] ^= 1;
	}
	free(stripe);
	free(coded);
	free(out);
}

/* What is promised of its length, on values that are hard to predict. */
static void e__bits(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(geos); i++) {
		const struct kv_geometry *geo = &geos[i];
		const double values = 2.0 * 64 * geo->n_layer * geo->n_head_kv * geo->head_dim;
		uint8_t *stripe, *coded;
		uint32_t lengths[8];
		double bits;

		if (geo->n_head_kv * geo->head_dim < 128)
			continue;
		stripe = make_stripe(geo);
		coded = malloc(codec_stripe_bound(geo, KV_LEVEL_E));
		bits = 8.0 * (double)codec_encode(geo, KV_LEVEL_E, NULL, 0, stripe, coded, lengths);
		/* The digest and the length that the manifest holds for each block. */
		bits += 8.0 * 36 * geo->n_layer;
		assert_true(bits / values > 2.1 && bits / values <= 2.3);
		free(stripe);
		free(coded);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip__every_level),
		cmocka_unit_test(q4__only_keys_are_rotated),
		cmocka_unit_test(decode__wrong_size),
		cmocka_unit_test(hidden__at_every_level_that_has_one),
		cmocka_unit_test(e__refuses_what_is_cut_or_changed),
		cmocka_unit_test(e__bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
