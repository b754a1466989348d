// SPDX-License-Identifier: MIT
/* What level p knows of a model: its file, RoPE undone, principal components, and what they are good for. */
#include "unit/unit.h"

#include <math.h>

#include "codec/calibration.h"
#include "codec/codec.h"
#include "compute/ops.h"
#include "compute/quant.h"
#include "unit/random.h"

/* --- RoPE --- */

static void turn__as_the_engine(void **state)
{
	static const uint32_t positions[] = { 0, 1, 63, 1000, 100000, KV_MAX_TOKENS - 1 };
	struct turn_params p = { .dims = 64 };

	turn_rates(&p, 1e4, 1, NULL);
	for (size_t i = 0; i < ARRAY_LEN(positions); i++) {
		float ours[64], engine[64];

		turn_angles(ours, &p, positions[i]);
		ops_rope_angles(engine, positions[i], 64, 1e4, 1, NULL);
		for (int k = 0; k < 64; k++)
			assert_true(fabsf(ours[k] - engine[k]) < 1e-6f);
		for (int halves = 0; halves < 2; halves++) {
			float x[80], y[80];

			for (int k = 0; k < 80; k++)
				x[k] = y[k] = (float)bell();
			p.halves = halves;
			ops_rope_turn(x, engine, 64, halves);
			turn_head(y, &p, ours, false);
			for (int k = 0; k < 80; k++)
				assert_true(fabsf(x[k] - y[k]) < 1e-5f);
			turn_head(y, &p, ours, true);
			turn_head(y, &p, ours, false);
			for (int k = 0; k < 80; k++)
				assert_true(fabsf(x[k] - y[k]) < 1e-5f);
		}
	}
}

/* --- a model whose channels are mixtures of a few sources --- */

static const struct kv_geometry geos[] = {
	{ 2, 4, 32 }, { 1, 1, 8 }, { 3, 3, 5 }, { 1, 2, 192 }, { 2, 5, 80 },
};

enum { SOURCES = 12, MOST = 400 };

static double mixture[2][MOST][SOURCES];

static void mix(void)
{
	for (int v = 0; v < 2; v++)
		for (int i = 0; i < MOST; i++)
			for (int s = 0; s < SOURCES; s++)
				mixture[v][i][s] = bell() / (1 + s);
}

static struct turn_params turn_of(const struct kv_geometry *geo)
{
	struct turn_params p = { .dims = geo->head_dim / 2 * 2, .halves = geo->n_layer % 2 };

	turn_rates(&p, 1e4, 1, NULL);
	return p;
}

static uint8_t *make_stripe(const struct kv_geometry *geo, const struct turn_params *turn,
			    uint32_t first)
{
	const size_t half = kv_half_bytes(geo, KV_LEVEL_F16);
	uint8_t *stripe = calloc(1, kv_stripe_bytes(geo, KV_LEVEL_F16));

	for (uint32_t i = 0; i < 2 * geo->n_layer; i++)
		for (uint32_t t = 0; t < 64; t++) {
			double sources[SOURCES];
			float cs[TURN_MAX_DIMS];

			turn_angles(cs, turn, first + t);
			for (int s = 0; s < SOURCES; s++)
				sources[s] = bell();
			for (uint32_t h = 0; h < geo->n_head_kv; h++) {
				float x[TURN_MAX_DIMS];
				uint16_t *to = (uint16_t *)(stripe + i * half) +
					       ((size_t)h * 64 + t) * geo->head_dim;

				for (uint32_t k = 0; k < geo->head_dim; k++) {
					double v = 3 * cos(h * 31 + k) + 0.05 * bell();

					for (int s = 0; s < SOURCES; s++)
						v += sources[s] *
						     mixture[i % 2][h * geo->head_dim + k][s];
					x[k] = (float)v;
				}
				if (i % 2 == 0)
					turn_head(x, turn, cs, false);
				f32_row_to_f16(x, to, geo->head_dim);
			}
		}
	return stripe;
}

static const struct kv_hash model = { .b = "the fingerprint of a model" };

static struct calibrator *feed(const struct kv_geometry *geo)
{
	const struct turn_params turn = turn_of(geo);
	struct lslm_error err = { 0 };
	struct calibrator *c;

	mix();
	assert_ok(calibrator_new(&c, geo, &turn, &model, &err), &err);
	for (uint32_t s = 0; s < 12; s++) {
		uint8_t *stripe = make_stripe(geo, &turn, s * 64);

		assert_int_equal(calibrator_add(c, stripe, s * 64), 0);
		free(stripe);
	}
	return c;
}

static struct calibration *finish(const struct calibrator *c)
{
	struct lslm_error err = { 0 };
	struct calibration *cal;

	assert_ok(calibrator_finish(c, &cal, &err), &err);
	return cal;
}

static struct calibration *calibrate(const struct kv_geometry *geo)
{
	struct calibrator *c = feed(geo);
	struct calibration *cal = finish(c);

	calibrator_free(c);
	return cal;
}

/* Of the same values, where errors as large as a half's own do equal harm in all but one, and so many times that in it. */
static struct calibration *weighed(struct calibrator *c, const struct calibration *plain,
				   uint32_t one, double times)
{
	assert_int_equal(calibrator_n_weighed(c), 0);
	for (uint32_t i = 0; i < 2 * plain->geo.n_layer; i++) {
		const double square = (double)plain->halves[i].unit * (double)plain->halves[i].unit;
		const double harm = i == one ? times : 1;

		calibrator_weigh(c, i, 0.5 * square, harm * 0.25);
		calibrator_weigh(c, i, 1.5 * square, harm * 1.75);
	}
	assert_int_equal(calibrator_n_weighed(c), 2);
	return finish(c);
}

static double error_of(const struct kv_geometry *geo, const uint8_t *a, const uint8_t *b)
{
	double error = 0, power = 0;

	for (size_t i = 0; i < kv_stripe_bytes(geo, KV_LEVEL_F16) / 2; i++) {
		const double x = f16_to_f32(((const uint16_t *)a)[i]);
		const double y = f16_to_f32(((const uint16_t *)b)[i]);

		error += (x - y) * (x - y);
		power += x * x;
	}
	return error / power;
}

/* --- tests --- */

static void components__are_orthogonal(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(geos); i++) {
		struct calibration *cal = calibrate(&geos[i]);
		uint32_t channels = 0;

		assert_true(cal->n_groups == calibration_groups(&geos[i]));
		for (uint32_t g = 0; g < cal->n_groups; g++) {
			const struct calibration_group *p = &cal->halves[0].groups[g];

			assert_int_equal(p->first, channels);
			assert_true(p->width <= CALIBRATION_MAX_WIDTH);
			assert_true(p->kept >= 1 && p->kept <= SOURCES + 4);
			channels += p->width;
			for (uint32_t a = 0; a < p->kept; a++)
				for (uint32_t b = 0; b <= a; b++) {
					double dot = 0;

					for (uint32_t k = 0; k < p->width; k++)
						dot += (double)p->components[a * p->width + k] *
						       p->components[b * p->width + k];
					dot /= (double)CALIBRATION_UNITY * CALIBRATION_UNITY;
					assert_true(fabs(dot - (a == b)) < 0.01);
				}
		}
		assert_int_equal(channels, geos[i].n_head_kv * geos[i].head_dim);
		calibration_free(cal);
	}
}

static size_t encode(const struct calibration *cal, uint8_t *stripe, uint32_t first, uint8_t **out)
{
	uint8_t *buf = malloc(codec_stripe_bound(&cal->geo, KV_LEVEL_P));
	uint32_t length;
	size_t size = codec_encode(&cal->geo, KV_LEVEL_P, cal, first, stripe, buf, &length);

	assert_true(size > 0 && size == length);
	assert_true(size <= codec_stripe_bound(&cal->geo, KV_LEVEL_P));
	*out = malloc(size); /* exactly, so that a read past the end is seen */
	memcpy(*out, buf, size);
	free(buf);
	return size;
}

static void p__round_trip(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(geos); i++) {
		const struct turn_params turn = turn_of(&geos[i]);
		struct calibration *cal = calibrate(&geos[i]);
		uint8_t *stripe = make_stripe(&geos[i], &turn, 6400), *coded;
		uint8_t *out = malloc(kv_stripe_bytes(&geos[i], KV_LEVEL_F16));
		struct lslm_error err = { 0 };
		size_t size = encode(cal, stripe, 6400, &coded);
		double bits = 4.0 * (double)size /
			      (64.0 * geos[i].n_layer * geos[i].n_head_kv * geos[i].head_dim);

		memset(out, 0xa5, kv_stripe_bytes(&geos[i], KV_LEVEL_F16));
		assert_ok(codec_decode(&geos[i], KV_LEVEL_P, cal, 6400, 0, coded, size, out, &err),
			  &err);
		/* Of small blocks the coder's states take most of the bits. */
		if (error_of(&geos[i], stripe, out) > (geos[i].head_dim < 32 ? 0.2 : 0.02))
			fail_msg("head size %u: error %g", geos[i].head_dim,
				 error_of(&geos[i], stripe, out));
		if (geos[i].head_dim >= 32)
			assert_true(bits <= 1.3);
		/* Keys at another position are other keys. */
		assert_ok(codec_decode(&geos[i], KV_LEVEL_P, cal, 0, 0, coded, size, out, &err),
			  &err);
		assert_true(error_of(&geos[i], stripe, out) > 0.1);
		free(stripe);
		free(coded);
		free(out);
		calibration_free(cal);
	}
}

/* Values' upper half of channels, a group, does not vary at all. */
static void flatten(const struct kv_geometry *geo, uint8_t *stripe)
{
	const size_t half = kv_half_bytes(geo, KV_LEVEL_F16);
	const uint32_t width = geo->n_head_kv * geo->head_dim;

	for (uint32_t i = 1; i < 2 * geo->n_layer; i += 2)
		for (uint32_t t = 0; t < 64; t++)
			for (uint32_t c = width / 2; c < width; c++)
				((uint16_t *)(stripe +
					      i * half))[((size_t)(c / geo->head_dim) * 64 + t) *
								 geo->head_dim +
							 c % geo->head_dim] = 0x3c00;
}

static void p__a_group_without_components(void **state)
{
	const struct kv_geometry *geo = &geos[4];
	const struct turn_params turn = turn_of(geo);
	uint8_t *out = malloc(kv_stripe_bytes(geo, KV_LEVEL_F16)), *stripe, *coded;
	struct lslm_error err = { 0 };
	struct calibration *cal;
	struct calibrator *c;
	size_t size;

	mix();
	assert_ok(calibrator_new(&c, geo, &turn, &model, &err), &err);
	for (uint32_t s = 0; s < 12; s++) {
		stripe = make_stripe(geo, &turn, s * 64);
		flatten(geo, stripe);
		assert_int_equal(calibrator_add(c, stripe, s * 64), 0);
		free(stripe);
	}
	assert_ok(calibrator_finish(c, &cal, &err), &err);
	calibrator_free(c);
	assert_int_equal(cal->n_groups, 2);
	assert_int_equal(cal->halves[1].groups[1].kept, 0);
	stripe = make_stripe(geo, &turn, 6400);
	flatten(geo, stripe);
	size = encode(cal, stripe, 6400, &coded);
	assert_ok(codec_decode(geo, KV_LEVEL_P, cal, 6400, 0, coded, size, out, &err), &err);
	assert_true(error_of(geo, stripe, out) < 0.02);
	free(stripe);
	free(coded);
	free(out);
	calibration_free(cal);
}

static void p__refuses_what_is_cut(void **state)
{
	struct calibration *cal = calibrate(&geos[1]);
	const struct turn_params turn = turn_of(&geos[1]);
	uint8_t *stripe = make_stripe(&geos[1], &turn, 0), *coded;
	uint8_t *out = malloc(kv_stripe_bytes(&geos[1], KV_LEVEL_F16));
	struct lslm_error err = { 0 };
	const size_t size = encode(cal, stripe, 0, &coded);

	for (size_t n = 0; n < size; n++) {
		uint8_t *part = malloc(n ? n : 1);

		memcpy(part, coded, n);
		assert_int_equal(codec_decode(&geos[1], KV_LEVEL_P, cal, 0, 0, part, n, out, &err),
				 -EBADMSG);
		free(part);
	}
	free(stripe);
	free(coded);
	free(out);
	calibration_free(cal);
}

static void p__hostile_values(void **state)
{
	struct calibration *cal = calibrate(&geos[0]);
	const size_t n = kv_stripe_bytes(&geos[0], KV_LEVEL_F16);
	uint8_t *stripe = malloc(n), *out = malloc(n), *coded;
	struct lslm_error err = { 0 };
	size_t size;

	for (size_t i = 0; i < n / 2; i++)
		((uint16_t *)stripe)[i] = (uint16_t)rnd();
	size = encode(cal, stripe, 0, &coded);
	assert_ok(codec_decode(&geos[0], KV_LEVEL_P, cal, 0, 0, coded, size, out, &err), &err);
	free(stripe);
	free(out);
	free(coded);
	calibration_free(cal);
}

static void check__needs_a_calibration_of_this_geometry(void **state)
{
	struct calibration *cal = calibrate(&geos[0]);
	struct kv_hash other = model;
	struct lslm_error err = { 0 };

	other.b[0]++;
	assert_ok(codec_check(&geos[0], KV_LEVEL_P, cal, &err), &err);
	assert_int_equal(codec_check(&geos[1], KV_LEVEL_P, cal, &err), -ENOTSUP);
	assert_int_equal(codec_check(&geos[0], KV_LEVEL_P, NULL, &err), -ENOTSUP);
	assert_string_equal(
		err.text,
		"level p needs this model's calibration, and none that was given is; make one "
		"with lslm calibrate and give it with --calibration");
	assert_ok(calibration_match(cal, &geos[0], &model, &err), &err);
	assert_int_equal(calibration_match(cal, &geos[0], &other, &err), -EINVAL);
	calibration_free(cal);
}

static void parse__same_again(void **state)
{
	struct calibration *cal = calibrate(&geos[2]), *again;
	struct lslm_error err = { 0 };

	assert_ok(calibration_parse(&again, cal->data, cal->size, &err), &err);
	assert_true(kv_hash_equal(&cal->fingerprint, &again->fingerprint));
	assert_memory_equal(&cal->geo, &again->geo, sizeof(cal->geo));
	assert_memory_equal(&cal->turn, &again->turn, sizeof(cal->turn));
	assert_memory_equal(&again->model, &model, sizeof(model));
	assert_int_equal(again->n_tokens, 12 * 64);
	assert_false(cal->weighed || again->weighed);
	calibration_free(cal);
	calibration_free(again);
}

static void weigh__units_go_with_one_over_the_root_of_harm(void **state)
{
	/* 2^4 in one of four: a bit and a half more than before for it, half a bit less for each of the others. */
	static const struct {
		double times, one, others;
	} cases[] = {
		{ 16, 1.5, -0.5 },
		{ 1, 0, 0 },
		/* What no text has shown to matter may matter on the next one. */
		{ 0, -2, 2 },
	};

	for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
		struct calibrator *c = feed(&geos[0]);
		struct calibration *plain = finish(c), *again;
		struct calibration *cal = weighed(c, plain, 2, cases[k].times);
		struct lslm_error err = { 0 };

		assert_true(cal->weighed && !plain->weighed);
		for (int i = 0; i < 4; i++) {
			const double shift = log2(plain->halves[i].unit / cal->halves[i].unit);

			assert_true(fabs(shift - (i == 2 ? cases[k].one : cases[k].others)) < 0.01);
		}
		assert_ok(calibration_parse(&again, cal->data, cal->size, &err), &err);
		assert_true(again->weighed && again->halves[2].unit == cal->halves[2].unit);
		calibration_free(again);
		calibration_free(cal);
		calibration_free(plain);
		calibrator_free(c);
	}
}

static size_t encode_e(const struct calibration *cal, const struct kv_geometry *geo,
		       const uint8_t *stripe, uint8_t *coded, uint8_t *out)
{
	const size_t block = kv_block_bytes(geo, KV_LEVEL_F16);
	struct lslm_error err = { 0 };
	uint32_t lengths[4], at = 0;
	size_t size = codec_encode(geo, KV_LEVEL_E, cal, 0, stripe, coded, lengths);

	for (uint32_t l = 0; l < geo->n_layer; at += lengths[l++])
		assert_ok(codec_decode(geo, KV_LEVEL_E, NULL, 0, l, coded + at, lengths[l],
				       out + l * block, &err),
			  &err);
	assert_int_equal(at, size);
	return size;
}

static double error_of_half(const struct kv_geometry *geo, uint32_t half, const uint8_t *a,
			    const uint8_t *b)
{
	const struct kv_geometry one = { 1, geo->n_head_kv, geo->head_dim };
	const size_t block = kv_stripe_bytes(&one, KV_LEVEL_F16);
	uint8_t *x = calloc(2, block), *y = x + block;
	double error;

	memcpy(x, a + half * block / 2, block / 2);
	memcpy(y, b + half * block / 2, block / 2);
	error = error_of(&one, x, y);
	free(x);
	return error;
}

/* As long as without the calibration, which its decoder has not; more exact there, less elsewhere. */
static void e__bits_go_where_errors_do_harm(void **state)
{
	const struct kv_geometry *geo = &geos[0];
	const struct turn_params turn = turn_of(geo);
	struct calibrator *c = feed(geo);
	struct calibration *plain = finish(c), *other = calibrate(&geos[4]);
	struct calibration *cal = weighed(c, plain, 2, 16);
	uint8_t *stripe = make_stripe(geo, &turn, 0);
	uint8_t *coded = malloc(3 * codec_stripe_bound(geo, KV_LEVEL_E));
	uint8_t *mine = coded + codec_stripe_bound(geo, KV_LEVEL_E);
	uint8_t *same = mine + codec_stripe_bound(geo, KV_LEVEL_E);
	uint8_t *out = malloc(2 * kv_stripe_bytes(geo, KV_LEVEL_F16));
	uint8_t *better = out + kv_stripe_bytes(geo, KV_LEVEL_F16);
	size_t size, with;

	size = encode_e(NULL, geo, stripe, coded, out);
	with = encode_e(cal, geo, stripe, mine, better);
	assert_true(8.0 * (double)with / (128 * 2 * 128) <= 2.3);
	assert_true((double)with < 1.06 * (double)size);
	assert_true(error_of_half(geo, 2, stripe, better) < error_of_half(geo, 2, stripe, out) / 3);
	for (uint32_t i = 0; i < 4; i++)
		assert_true(i == 2 || error_of_half(geo, i, stripe, better) >
					      error_of_half(geo, i, stripe, out));
	/* One that was not weighed, or is of another geometry, changes nothing. */
	assert_int_equal(encode_e(plain, geo, stripe, same, better), size);
	assert_memory_equal(same, coded, size);
	other->weighed = true;
	assert_int_equal(encode_e(other, geo, stripe, same, better), size);
	assert_memory_equal(same, coded, size);
	calibration_free(plain);
	calibration_free(other);
	calibrator_free(c);
	calibration_free(cal);
	free(stripe);
	free(coded);
	free(out);
}

static void parse__refuses(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
	} cases[] = {
		{ 0, 0 },
		{ 8, 2 },
		{ 12, 0 },
		{ 12, 4 },
		{ 16, 1024 },
		{ 20, 2000 },
		{ 24, 3 },
		{ 24, 6 },
		{ 28, 2 },
		{ 36, 2 },
		{ 72 + 4, 0x7ff80000 }, /* a rate that is no number */
		{ 72 + 16, 0 }, /* unit of the first half */
		{ 72 + 16, 0x7f800000 },
		{ 72 + 16, 0x387fffff }, /* less than 2^-14 */
		{ 72 + 20, 16 }, /* components of the first group, of 15 channels */
		{ 72 + 24, 0x7fc00000 }, /* mean */
		{ 72 + 24 + 60, 0x7fff7fff }, /* component */
	};
	struct calibration *cal = calibrate(&geos[2]), *again;
	uint8_t *copy = malloc(cal->size);
	struct lslm_error err = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		memcpy(copy, cal->data, cal->size);
		memcpy(copy + cases[i].at, &cases[i].value, 4);
		assert_int_equal(calibration_parse(&again, copy, cal->size, &err), -EBADMSG);
	}
	for (size_t n = 0; n < cal->size; n += n < 200 ? 1 : 97) {
		uint8_t *part = malloc(n ? n : 1);

		memcpy(part, cal->data, n);
		assert_int_equal(calibration_parse(&again, part, n, &err), -EBADMSG);
		free(part);
	}
	free(copy);
	calibration_free(cal);
}

static void finish__too_few_tokens(void **state)
{
	const struct turn_params turn = turn_of(&geos[3]);
	uint8_t *stripe;
	struct lslm_error err = { 0 };
	struct calibration *cal;
	struct calibrator *c;

	mix();
	stripe = make_stripe(&geos[3], &turn, 0);
	assert_ok(calibrator_new(&c, &geos[3], &turn, &model, &err), &err);
	assert_int_equal(calibrator_add(c, stripe, 0), 0);
	assert_int_equal(calibrator_finish(c, &cal, &err), -EINVAL);
	calibrator_free(c);
	free(stripe);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(turn__as_the_engine),
		cmocka_unit_test(components__are_orthogonal),
		cmocka_unit_test(p__round_trip),
		cmocka_unit_test(p__a_group_without_components),
		cmocka_unit_test(p__refuses_what_is_cut),
		cmocka_unit_test(p__hostile_values),
		cmocka_unit_test(check__needs_a_calibration_of_this_geometry),
		cmocka_unit_test(parse__same_again),
		cmocka_unit_test(parse__refuses),
		cmocka_unit_test(weigh__units_go_with_one_over_the_root_of_harm),
		cmocka_unit_test(e__bits_go_where_errors_do_harm),
		cmocka_unit_test(finish__too_few_tokens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
