// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <math.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/hash.h"
#include "codec/align.h"
#include "codec/map.h"
#include "codec/rows.h"
#include "compute/quant.h"

static const struct kv_geometry from_geo = { 3, 1, 4 }, to_geo = { 2, 1, 2 };

static uint32_t seed = 1;

static float noise(void)
{
	seed = seed * 1664525 + 1013904223;
	return (float)(seed >> 16) / 32768 - 1;
}

/* A dense part, one of rank 2 over two layers, one that keeps half, one that is the model's own. */
static struct map *make_map(void)
{
	const struct map_part shape[4] = {
		{ .first = 2, .count = 1 },
		{ .first = 0, .count = 2, .rank = 2 },
		{ .first = 1, .count = 1, .keep = 0.5f },
		{ .keep = 1 },
	};
	struct lslm_error err;
	struct map *m;

	assert_ok(map_new(&m, &from_geo, &to_geo, shape, &err), &err);
	for (uint32_t i = 0; i < 4; i++) {
		struct map_part *p = &m->parts[i];
		const uint32_t in = map_n_in(m, p), out = map_n_out(m);

		for (uint32_t k = 0; k < in * (p->rank ? p->rank : out); k++)
			p->a[k] = noise();
		for (uint32_t k = 0; k < p->rank * out; k++)
			p->b[k] = noise();
		for (uint32_t k = 0; k < out && i < 3; k++)
			p->bias[k] = noise();
	}
	memset(&m->model_from, 1, sizeof(m->model_from));
	memset(&m->model_to, 2, sizeof(m->model_to));
	memset(&m->tokenizer, 3, sizeof(m->tokenizer));
	m->evaluation = (struct proof){ PROOF_EXACT, 8, 80, 0.7, 0.75, 0.05, 0.01, 0.09 };
	return m;
}

/* The definition, one value at a time. */
static double expected(const struct map *m, uint32_t i, const float *x, const float *own,
		       uint32_t t, uint32_t o)
{
	const struct map_part *p = &m->parts[i];
	const uint32_t in = rows_width(&m->from), out = map_n_out(m);
	double y = p->bias[o];

	if (p->keep > 0)
		y += (double)p->keep *
		     own[((i / 2) * KV_BLOCK_TOKENS + t) * rows_width(&m->to) + i % 2 * out + o];
	for (uint32_t k = 0; k < map_n_in(m, p); k++) {
		const double value = x[((p->first + k / in) * KV_BLOCK_TOKENS + t) * in + k % in];

		if (!p->rank)
			y += value * p->a[k * out + o];
		for (uint32_t r = 0; r < p->rank; r++)
			y += value * p->a[k * p->rank + r] * p->b[r * out + o];
	}
	return y;
}

static void map_rows__is_the_definition(void **state)
{
	struct map *m = make_map();
	const uint32_t in = rows_width(&from_geo), width = rows_width(&to_geo);
	float x[3 * KV_BLOCK_TOKENS * 8], own[2 * KV_BLOCK_TOKENS * 4], y[2 * KV_BLOCK_TOKENS * 4];
	float *scratch = malloc(map_scratch(m) * sizeof(*scratch));

	assert_int_equal(in, 8);
	assert_int_equal(width, 4);
	for (size_t i = 0; i < ARRAY_LEN(x); i++)
		x[i] = noise();
	for (size_t i = 0; i < ARRAY_LEN(own); i++)
		own[i] = noise();
	map_rows(m, x, own, y, scratch);
	for (uint32_t i = 0; i < 4; i++)
		for (uint32_t t = 0; t < KV_BLOCK_TOKENS; t++)
			for (uint32_t o = 0; o < 2; o++) {
				const float got =
					y[(i / 2 * KV_BLOCK_TOKENS + t) * width + i % 2 * 2 + o];

				if (!(fabs(got - expected(m, i, x, own, t, o)) < 1e-5))
					fail_msg("part %u, token %u: %g", i, t, (double)got);
			}
	assert_true(map_needs_own(m));
	assert_false(map_is_own(m, 1)); /* its keys are mapped */
	free(scratch);
	map_free(m);
}

static size_t write_and_read(struct map *m, uint8_t **data)
{
	char path[] = "/tmp/map-test-XXXXXX";
	struct lslm_error err;
	size_t size;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	assert_ok(map_write(m, path, &err), &err);
	assert_ok(file_read(path, MAP_MAX_BYTES, (char **)data, &size, &err), &err);
	unlink(path);
	return size;
}

static void map_parse__gives_back_what_was_written(void **state)
{
	struct map *m = make_map(), *again;
	struct lslm_error err;
	uint8_t *data;
	size_t size = write_and_read(m, &data);

	assert_ok(map_parse(&again, data, size, &err), &err);
	assert_memory_equal(&again->evaluation, &m->evaluation, sizeof(m->evaluation));
	assert_true(kv_hash_equal(&again->fingerprint, &m->fingerprint));
	assert_true(kv_hash_equal(&again->model_to, &m->model_to));
	for (uint32_t i = 0; i < 4; i++) {
		const struct map_part *a = &m->parts[i], *b = &again->parts[i];

		assert_int_equal(a->first, b->first);
		assert_int_equal(a->count, b->count);
		assert_int_equal(a->rank, b->rank);
		assert_true(a->keep == b->keep);
		assert_memory_equal(a->bias, b->bias, 2 * sizeof(float));
		assert_memory_equal(a->a, b->a,
				    map_n_in(m, a) * (a->rank ? a->rank : 2) * sizeof(float));
		assert_memory_equal(a->b ? a->b : a->a, b->b ? b->b : b->a, 2 * a->rank);
	}
	map_free(again);
	map_free(m);
	free(data);
}

/* Every byte that is changed, and every length that is cut, is noticed. */
static void map_parse__refuses_damage(void **state)
{
	struct map *m = make_map(), *again;
	struct lslm_error err;
	uint8_t *data;
	size_t size = write_and_read(m, &data);

	for (size_t i = 0; i < size; i++) {
		data[i] ^= 0x10;
		if (map_parse(&again, data, size, &err) >= 0)
			fail_msg("byte %zu was changed", i);
		data[i] ^= 0x10;
		if (map_parse(&again, data, i, &err) >= 0)
			fail_msg("cut to %zu bytes", i);
	}
	map_free(m);
	free(data);
}

/* Layers as they are, but for a run of them. */
static void map_parse__of_a_run(void **state)
{
	/* Position, value: no run of two layers, another geometry, bytes behind it, the bar of the other kind. */
	static const uint32_t cases[][2] = {
		{ 192, 2 }, { 192, 0 }, { 196, 3 }, { 200, 0 }, { 200, 33 },
		{ 204, 1 }, { 16, 3 },	{ 148, 0 }, { 12, 1 },
	};
	const struct kv_run run = { 1, 2, 64 }, none = { 0 };
	struct lslm_error err;
	struct map *m, *again;
	uint8_t *data;
	size_t size;

	assert_int_equal(map_new_run(&m, &to_geo, &(struct kv_run){ 0, 2, 0 }, &err), -EINVAL);
	assert_ok(map_new_run(&m, &to_geo, &none, &err), &err);
	map_free(m);
	assert_ok(map_new_run(&m, &to_geo, &run, &err), &err);
	m->evaluation =
		(struct proof){ PROOF_EXACT, 8, 80, 0.7, 0.7, 0, -0.004, 0.004, PROOF_NO_WORSE };
	size = write_and_read(m, &data);
	assert_int_equal(size, 192 + 16 + 32);
	assert_ok(map_parse(&again, data, size, &err), &err);
	assert_true(map_is_run(again));
	assert_memory_equal(&again->run, &run, sizeof(run));
	assert_memory_equal(&again->evaluation, &m->evaluation, sizeof(m->evaluation));
	assert_false(map_needs_own(again));
	assert_false(map_is_own(again, 1));
	map_free(again);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t *at = data + cases[i][0];
		const uint32_t old = get_le32(at);
		struct hash h;

		put_le32(at, cases[i][1]);
		hash_start(&h, "lslm map v1");
		hash_raw(&h, data, size - 32);
		hash_finish(&h, data + size - 32);
		if (map_parse(&again, data, size, &err) != -EINVAL)
			fail_msg("case %zu", i);
		put_le32(at, old);
	}
	free(data);
	map_free(m);
}

static void map_new__refuses_shapes(void **state)
{
	static const struct map_part cases[] = {
		{ .first = 3, .count = 1 },
		{ .first = 0, .count = 4 },
		{ .first = UINT32_MAX, .count = 2 },
		{ .first = 0, .count = 1, .rank = 3 },
		{ .first = 0, .count = 0, .rank = 1 },
		{ .first = 0, .count = 1, .keep = 1.5f },
		{ .first = 0, .count = 1, .keep = NAN },
	};
	struct lslm_error err;
	struct map *m;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct map_part shape[4] = { { .keep = 1 }, { .keep = 1 }, cases[i], { .keep = 1 } };

		if (map_new(&m, &from_geo, &to_geo, shape, &err) != -EINVAL)
			fail_msg("case %zu", i);
	}
}

static void map_is_proven__where_the_interval_is_above_zero(void **state)
{
	struct map m = { .evaluation = { PROOF_EXACT, 8, 80, 0.7, 0.75, 0.05, 0.01, 0.09 } };
	char why[200];

	assert_true(map_is_proven(&m, why, sizeof(why)));
	assert_non_null(strstr(why, "+5 (+1 to +9) points"));
	m.evaluation.low = 0;
	assert_false(map_is_proven(&m, why, sizeof(why)));
	/* One context alone has an interval of no width. */
	m.evaluation.low = m.evaluation.high = 0.05;
	m.evaluation.contexts = PROOF_LEAST_CONTEXTS - 1;
	assert_false(map_is_proven(&m, why, sizeof(why)));
	assert_non_null(strstr(why, "on 5 contexts, which are too few"));
	m.evaluation.contexts = PROOF_LEAST_CONTEXTS;
	assert_true(map_is_proven(&m, why, sizeof(why)));
	m.evaluation.metric = PROOF_NONE;
	m.evaluation.low = 1;
	assert_false(map_is_proven(&m, why, sizeof(why)));
	assert_non_null(strstr(why, "never evaluated"));
}

static void rows__turn_there_and_back(void **state)
{
	struct model m = { .params = { .rope_base = 10000, .rope_scale = 1, .rope_dims = 4 } };
	const struct kv_geometry geo = { 1, 2, 6 };
	uint16_t block[2 * 2 * KV_BLOCK_TOKENS * 6], again[2 * 2 * KV_BLOCK_TOKENS * 6];
	float rows[KV_BLOCK_TOKENS * 24];

	for (int halves = 0; halves < 2; halves++) {
		m.params.rope_layout = halves ? ROPE_HALVES : ROPE_PAIRS;
		for (size_t i = 0; i < ARRAY_LEN(block); i++)
			block[i] = f32_to_f16(noise());
		rows_get(rows, 24, &m, &geo, (const uint8_t *)block, 640);
		/* Token 3, second head: what RoPE leaves alone, and the value behind the keys. */
		assert_true(rows[3 * 24 + 6 + 5] == f16_to_f32(block[(64 + 3) * 6 + 5]));
		assert_true(rows[3 * 24 + 12 + 6] == f16_to_f32(block[2 * 64 * 6 + (64 + 3) * 6]));
		/* Position 641 turns the first pair by 641 radians. */
		assert_true(fabs(rows[24] - (cos(641) * f16_to_f32(block[6]) +
					     sin(641) * f16_to_f32(block[6 + (halves ? 2 : 1)]))) <
			    1e-4);
		rows_put((uint8_t *)again, rows, 24, &m, &geo, 640);
		for (size_t i = 0; i < ARRAY_LEN(block); i++)
			assert_true(fabs(f16_to_f32(block[i]) - f16_to_f32(again[i])) < 2e-3);
	}
}

/* Rows of one larger layer, a turned and scaled copy of it, and noise; of the smaller model, the second of them. */
static void align__finds_what_was_put_in(void **state)
{
	const uint32_t n = 200;
	float x[3 * 200 * 4], y[2 * 200 * 4], w[4 * 2], bias[2];
	double s[6], fit;
	uint32_t m[2];
	struct lslm_error err;
	struct align *a;

	for (size_t i = 0; i < ARRAY_LEN(x); i++)
		x[i] = noise();
	for (uint32_t t = 0; t < n; t++) {
		const float *from = x + ((size_t)1 * n + t) * 4;
		float *first = y + (size_t)t * 4, *second = y + ((size_t)n + t) * 4;

		for (uint32_t k = 0; k < 4; k++) {
			first[k] = noise();
			second[k] = 5;
		}
		/* An orthogonal turn, three times as large: CKA is 1. */
		second[0] += 3 * from[1];
		second[1] += -3 * from[0];
		second[2] += 3 * from[3];
		second[3] += 3 * from[2];
	}
	assert_ok(align_create(&a, 3, 4, 2, 4, &err), &err);
	align_add(a, x, y, n);
	for (uint32_t i = 0; i < 6; i++)
		s[i] = align_similarity(a, i / 2, i % 2);
	assert_true(fabs(s[1 * 2 + 1] - 1) < 1e-6);
	assert_true(s[0 * 2 + 1] < 0.3 && s[2 * 2 + 1] < 0.3);
	align_assign(s, 3, 2, m);
	assert_int_equal(m[1], 1);
	assert_ok(align_ridge(a, 1, 1, 2, 2, 1e-9, w, bias, &fit, &err), &err);
	assert_true(fabs(fit - 1) < 1e-6);
	for (uint32_t k = 0; k < 4; k++) {
		assert_true(fabs(w[k * 2] - (k == 3 ? 3 : 0)) < 1e-4);
		assert_true(fabs(w[k * 2 + 1] - (k == 2 ? 3 : 0)) < 1e-4);
	}
	assert_true(fabs(bias[0] - 5) < 1e-4 && fabs(bias[1] - 5) < 1e-4);
	/* Noise explains nothing of noise; a heavy ridge shrinks. */
	assert_ok(align_ridge(a, 0, 1, 0, 2, 1e-9, w, bias, &fit, &err), &err);
	assert_true(fit < 0.1);
	assert_ok(align_ridge(a, 1, 1, 2, 2, 1, w, bias, &fit, &err), &err);
	assert_true(w[3 * 2] > 1 && w[3 * 2] < 2);
	align_destroy(a);
}

static void align_ridge__needs_variance(void **state)
{
	const float x[2 * 4] = { 0 }, y[2 * 4] = { 0 };
	float w[4], bias[1];
	struct lslm_error err;
	struct align *a;
	double fit;

	assert_ok(align_create(&a, 1, 4, 1, 4, &err), &err);
	align_add(a, x, y, 2);
	assert_true(align_similarity(a, 0, 0) == 0);
	assert_int_equal(align_ridge(a, 0, 0, 0, 1, 1, w, bias, &fit, &err), -EDOM);
	align_destroy(a);
}

/* By hand: the best choice of each column alone would be 2, 0, 3, which is not monotone. */
static void align_assign__is_monotone(void **state)
{
	static const double s[4 * 3] = {
		0.1, 0.9, 0.1, /* */
		0.5, 0.2, 0.1, /* */
		0.6, 0.3, 0.2, /* */
		0.0, 0.8, 0.7, /* */
	};
	static const double flat[2 * 3] = { 1, 1, 1, 1, 1, 1 };
	uint32_t m[3];

	align_assign(s, 4, 3, m); /* 0.6 + 0.8 + 0.7 = 2.1; with 0: 0.1 + 0.9 + 0.7 = 1.7 */
	assert_int_equal(m[0], 2);
	assert_int_equal(m[1], 3);
	assert_int_equal(m[2], 3);
	align_assign(flat, 2, 3, m);
	assert_true(m[0] == 0 && m[1] == 0 && m[2] == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(map_rows__is_the_definition),
		cmocka_unit_test(map_parse__gives_back_what_was_written),
		cmocka_unit_test(map_parse__refuses_damage),
		cmocka_unit_test(map_parse__of_a_run),
		cmocka_unit_test(map_new__refuses_shapes),
		cmocka_unit_test(map_is_proven__where_the_interval_is_above_zero),
		cmocka_unit_test(rows__turn_there_and_back),
		cmocka_unit_test(align__finds_what_was_put_in),
		cmocka_unit_test(align_ridge__needs_variance),
		cmocka_unit_test(align_assign__is_monotone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
