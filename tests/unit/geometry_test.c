// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include "kv/geometry.h"

static void geometry_check__limits(void **state)
{
	static const struct {
		struct kv_geometry geo;
		int ret;
	} cases[] = {
		{ { 1, 1, 1 }, 0 },
		{ { 0, 1, 1 }, -EINVAL },
		{ { 1, 0, 1 }, -EINVAL },
		{ { 1, 1, 0 }, -EINVAL },
		{ { KV_MAX_LAYERS + 1, 1, 1 }, -EINVAL },
		{ { 1, KV_MAX_HEADS + 1, 1 }, -EINVAL },
		{ { 1, 1, KV_MAX_HEAD_DIM + 1 }, -EINVAL },
		{ { UINT32_MAX, UINT32_MAX, UINT32_MAX }, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct lslm_error err = { 0 };

		assert_int_equal(kv_geometry_check(&cases[i].geo, &err), cases[i].ret);
		assert_int_equal(err.text[0] != 0, cases[i].ret < 0);
	}
}

static void geometry_check__names_the_field(void **state)
{
	const struct kv_geometry geo = { 4, 2, 2000 };
	struct lslm_error err = { 0 };

	kv_geometry_check(&geo, &err);
	assert_string_equal(err.text, "geometry: head size is 2000, must be 1 to 1024");
}

static void geometry_check__largest(void **state)
{
	const struct kv_geometry geo = { KV_MAX_LAYERS, KV_MAX_HEADS, KV_MAX_HEAD_DIM };
	uint64_t half = (uint64_t)KV_MAX_HEADS * KV_MAX_HEAD_DIM * KV_BLOCK_TOKENS * 2;
	struct lslm_error err = { 0 };

	if (sizeof(size_t) < 8) {
		assert_int_equal(kv_geometry_check(&geo, &err), -EINVAL);
		return;
	}
	assert_ok(kv_geometry_check(&geo, &err), &err);
	assert_int_equal(kv_half_bytes(&geo, KV_LEVEL_F16), half);
	assert_int_equal(kv_block_bytes(&geo, KV_LEVEL_F16), 2 * half);
	assert_int_equal(kv_stripe_bytes(&geo, KV_LEVEL_F16), 2 * half * KV_MAX_LAYERS);
}

static void geometry_bytes__table(void **state)
{
	static const struct {
		struct kv_geometry geo;
		size_t half, block, stripe;
	} cases[] = {
		{ { 5, 4, 8 }, 4096, 8192, 40960 }, /* stories260K */
		{ { 30, 3, 64 }, 24576, 49152, 1474560 }, /* SmolLM2-135M */
		{ { 28, 8, 128 }, 131072, 262144, 7340032 }, /* Qwen3-0.6B */
		{ { 3, 1, 1 }, 128, 256, 768 }, /* 64 values of two bytes need no padding */
		{ { 1, 7, 3 }, 2688, 5376, 5376 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct kv_geometry *geo = &cases[i].geo;

		assert_int_equal(kv_half_bytes(geo, KV_LEVEL_F16), cases[i].half);
		assert_int_equal(kv_block_bytes(geo, KV_LEVEL_F16), cases[i].block);
		assert_int_equal(kv_stripe_bytes(geo, KV_LEVEL_F16), cases[i].stripe);
		assert_int_equal(kv_half_bytes(geo, KV_LEVEL_F16) % KV_ALIGN, 0);
	}
}

/* compute/kvq.h says how long q8 and q4 are; what is decoded lies like f16. */
static void geometry_bytes__of_levels(void **state)
{
	const struct kv_geometry geo = { 30, 3, 64 }, one = { 2, 1, 1 };

	assert_int_equal(kv_half_bytes(&geo, KV_LEVEL_Q8), 3 * 64 * (64 + 2 * 2));
	assert_int_equal(kv_half_bytes(&geo, KV_LEVEL_Q4), 3 * 64 * (32 + 2 * 2));
	assert_int_equal(kv_stripe_bytes(&geo, KV_LEVEL_E), kv_stripe_bytes(&geo, KV_LEVEL_F16));
	assert_int_equal(kv_stripe_bytes(&geo, KV_LEVEL_P), kv_stripe_bytes(&geo, KV_LEVEL_F16));
	/* The largest there is for a value: 3 bytes, padded. */
	assert_int_equal(kv_half_bytes(&one, KV_LEVEL_Q8), 192);
	assert_int_equal(kv_level_units(&geo, KV_LEVEL_E), 30);
	assert_int_equal(kv_level_units(&geo, KV_LEVEL_P), 1);
}

static void geometry_bytes__of_a_hidden_state(void **state)
{
	struct kv_geometry geo = { 3, 3, 64, 576 };
	const size_t block = kv_block_bytes(&geo, KV_LEVEL_F16);
	struct lslm_error err;

	assert_ok(kv_geometry_check(&geo, &err), &err);
	assert_true(kv_is_hidden(&geo, 0));
	assert_false(kv_is_hidden(&geo, 1));
	assert_int_equal(kv_unit_bytes(&geo, KV_LEVEL_F16, 0), 64 * 576 * 2);
	assert_int_equal(kv_unit_bytes(&geo, KV_LEVEL_E, 0), 64 * 576 * 2);
	/* As at q8, with a scale for each 32 values. */
	assert_int_equal(kv_unit_bytes(&geo, KV_LEVEL_Q4, 0), 64 * (576 + 2 * 18));
	assert_int_equal(kv_unit_bytes(&geo, KV_LEVEL_F16, 1), block);
	assert_int_equal(kv_unit_offset(&geo, KV_LEVEL_F16, 0), 0);
	assert_int_equal(kv_unit_offset(&geo, KV_LEVEL_F16, 2), 64 * 576 * 2 + block);
	assert_int_equal(kv_stripe_bytes(&geo, KV_LEVEL_F16), 64 * 576 * 2 + 2 * block);
	geo.hidden = 560;
	assert_int_equal(kv_geometry_check(&geo, &err), -EINVAL);
	geo.hidden = KV_MAX_HIDDEN + KV_HIDDEN_ALIGN;
	assert_int_equal(kv_geometry_check(&geo, &err), -EINVAL);
}

static void level_name__and_back(void **state)
{
	static const char *const names[KV_LEVELS] = { "f16", "q8", "q4", "e", "p" };

	for (int i = 0; i < KV_LEVELS; i++) {
		assert_string_equal(kv_level_name(i), names[i]);
		assert_int_equal(kv_level_parse(names[i]), i);
	}
	assert_null(kv_level_name(KV_LEVELS));
	assert_null(kv_level_name(UINT32_MAX));
	assert_int_equal(kv_level_parse("F16"), -EINVAL);
	assert_int_equal(kv_level_parse(""), -EINVAL);
}

static void levels_parse__lists(void **state)
{
	static const char *const bad[] = { "",	     ",",	"f16,",
					   ",q8",    "f16,,q8", "q9",
					   "f16 q8", "q8q4",	"q8,verylongname" };
	struct lslm_error err = { 0 };
	uint32_t bits;

	assert_ok(kv_levels_parse("f16", &bits, &err), &err);
	assert_int_equal(bits, 1);
	assert_ok(kv_levels_parse("p,q8,f16,q8", &bits, &err), &err);
	assert_int_equal(bits, 1 << KV_LEVEL_F16 | 1 << KV_LEVEL_Q8 | 1 << KV_LEVEL_P);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(kv_levels_parse(bad[i], &bits, &err), -EINVAL);
	kv_levels_parse("f16,q9", &bits, &err);
	assert_string_equal(err.text, "'q9' is no level; there are f16, q8, q4, e and p, with "
				      "commas between them");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(geometry_check__limits),
		cmocka_unit_test(geometry_check__names_the_field),
		cmocka_unit_test(geometry_check__largest),
		cmocka_unit_test(geometry_bytes__table),
		cmocka_unit_test(geometry_bytes__of_levels),
		cmocka_unit_test(geometry_bytes__of_a_hidden_state),
		cmocka_unit_test(level_name__and_back),
		cmocka_unit_test(levels_parse__lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
