// SPDX-License-Identifier: MIT
/* What a manifest says of the map that its context was made through. */
#include "unit/unit.h"
#include "unit/context.h"

#include <math.h>

#include "kv/manifest.h"

/* Positions in the encoding, from the tables of docs/protocol.md and not from the code. */
enum {
	MAP = 168,
	PROOF = 296 + 16 + 66 * 4 + 16 + 16 + 16 +
		64, /* no title; one level of one stripe of two blocks */
	SIGNATURE = PROOF + 16 + 8 + 56,
	SIZE = SIGNATURE + 64,
};

static const struct proof good = { PROOF_EXACT, 8, 80, 0.7, 0.75, 0.05, 0.01, 0.09 };

static uint8_t pubkey[MANIFEST_PUBKEY_BYTES], seckey[MANIFEST_SECKEY_BYTES];

static struct manifest *mapped(const struct proof *proof)
{
	struct lslm_error err = { 0 };
	struct manifest *m;

	context_publisher(pubkey, seckey);
	assert_ok(context_manifest(&m, 66, "", &err), &err);
	memset(&m->identity.map, 0x44, sizeof(m->identity.map));
	m->proof = *proof;
	return m;
}

static uint8_t *encode(struct manifest *m, size_t *size)
{
	struct lslm_error err = { 0 };
	uint8_t *data;

	assert_ok(manifest_encode(m, seckey, &data, size, &err), &err);
	return data;
}

static void assert_refused(const uint8_t *data, size_t size, const char *line)
{
	struct lslm_error err = { 0 };
	struct manifest *m;

	assert_int_equal(manifest_parse(&m, data, size, &err), -EINVAL);
	assert_null(m);
	assert_string_equal(err.text, line);
}

static void proof__round_trip(void **state)
{
	struct manifest *m = mapped(&good), *again;
	struct lslm_error err = { 0 };
	uint8_t *data, *twice;
	size_t size, n;

	data = encode(m, &size);
	assert_int_equal(size, SIZE);
	assert_int_equal(get_le32(data + PROOF), 4);
	/* Who does not know it goes on without it. */
	assert_int_equal(get_le32(data + PROOF + 4), 0);
	assert_ok(manifest_verify(data, size, &pubkey, 1, &err), &err);
	assert_ok(manifest_parse(&again, data, size, &err), &err);
	assert_int_equal(again->proof.metric, PROOF_EXACT);
	assert_int_equal(again->proof.contexts, 8);
	assert_int_equal(again->proof.observations, 80);
	assert_true(again->proof.alone == 0.7 && again->proof.mapped == 0.75);
	assert_true(again->proof.gain == 0.05 && again->proof.low == 0.01);
	assert_true(again->proof.high == 0.09);
	twice = encode(again, &n);
	assert_int_equal(n, size);
	assert_memory_equal(twice, data, size);
	/* It is under the signature. */
	data[PROOF + 40] ^= 1;
	assert_int_equal(manifest_verify(data, size, &pubkey, 1, &err), -EKEYREJECTED);
	free(data);
	free(twice);
	manifest_free(m);
	manifest_free(again);
}

static void proof__fields(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
		const char *line;
	} cases[] = {
		{ 4, 1, "evaluation has the flags 0x1, must be 0" },
		{ 8, 63, "evaluation has 63 bytes, must have 64" },
		{ 20, 1, "evaluation: unknown form" },
		{ 24, 0, "evaluation is there and empty" },
		{ 24, 3, "the evaluation of a map is of an unknown kind" },
		{ 24 + 12, 2, "the evaluation of a map is of an unknown kind" },
		{ 24 + 4, 81, "the evaluation of a map has more contexts than observations" },
		/* High halves of the numbers: not a number, infinite, negative. */
		{ 24 + 20, 0x7ff80000, "the evaluation of a map has no numbers" },
		{ 24 + 36, 0xfff00000, "the evaluation of a map has no numbers" },
		{ 24 + 20, 0xbff00000, "the evaluation of a map has a share that is none" },
		{ 24 + 28, 0x40000000, "the evaluation of a map has a share that is none" },
		{ 24 + 44, 0x40000000,
		  "the evaluation of a map has an interval without its value" },
		{ 24 + 52, 0xbff00000,
		  "the evaluation of a map has an interval without its value" },
	};
	struct manifest *m = mapped(&good);
	size_t size;
	uint8_t *data = encode(m, &size);

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t *at = data + PROOF + cases[i].at;
		const uint32_t old = get_le32(at);
		const uint8_t last = data[SIGNATURE - 1];

		put_le32(at, cases[i].value);
		/* What is padding in a shorter payload. */
		if (cases[i].at == 8)
			data[SIGNATURE - 1] = 0;
		assert_refused(data, size, cases[i].line);
		put_le32(at, old);
		data[SIGNATURE - 1] = last;
	}
	free(data);
	manifest_free(m);
}

/* Once, and only where there is a map. */
static void proof__belongs_to_a_map(void **state)
{
	struct manifest *m = mapped(&good);
	struct lslm_error err = { 0 };
	size_t size;
	uint8_t *data = encode(m, &size), *twice = calloc(1, SIZE + 80);

	memset(data + MAP, 0, 32);
	assert_refused(data, size, "an evaluation of a map, and no map");
	memset(data + MAP, 0x44, 32);
	memcpy(twice, data, SIGNATURE);
	memcpy(twice + SIGNATURE, data + PROOF, SIZE - PROOF);
	put_le64(twice + 16, SIZE + 80);
	assert_refused(twice, SIZE + 80, "manifest's sections are not in order");
	free(twice);
	free(data);
	memset(&m->identity.map, 0, sizeof(m->identity.map));
	assert_int_equal(manifest_encode(m, seckey, &data, &size, &err), -EINVAL);
	manifest_free(m);
}

/* A later one may say more, in another form: nothing is known then. */
static void proof__of_a_later_version(void **state)
{
	struct manifest *m = mapped(&good), *again;
	struct lslm_error err = { 0 };
	size_t size;
	uint8_t *data = encode(m, &size);

	put_le32(data + PROOF + 16, 2);
	memset(data + PROOF + 24, 0xff, 56);
	assert_ok(manifest_parse(&again, data, size, &err), &err);
	assert_int_equal(again->proof.metric, PROOF_NONE);
	assert_false(manifest_map_is_off(again, &err));
	manifest_free(again);
	free(data);
	manifest_free(m);
}

static void map_is_off__where_the_interval_is_not_above_zero(void **state)
{
	struct manifest *m = mapped(&good);
	struct lslm_error err = { 0 };

	assert_false(manifest_map_is_off(m, &err));
	m->proof.low = -0.01;
	assert_true(manifest_map_is_off(m, &err));
	assert_int_equal(err.code, -ENOEXEC);
	assert_string_equal(err.text,
			    "the map is off: on 80 observations it gained +5 (-1 to +9) points of "
			    "exact match over the model alone");
	m->proof.metric = PROOF_NONE;
	assert_false(manifest_map_is_off(m, &err));
	manifest_free(m);
}

/* --- runs of layers --- */

/* Layer 1 of 2, from a hidden state of 32 values: an E block of 4096 bytes, then layer 0. */
static const struct kv_run above = { 1, 2, 32 };

static struct manifest *spliced(const struct kv_run *run)
{
	static int32_t tokens[66];
	struct lslm_error err = { 0 };
	struct manifest *m;

	context_publisher(pubkey, seckey);
	assert_ok(manifest_new_run(&m, &context_geo, run, tokens, 66, KV_LEVEL_F16, &err), &err);
	m->identity = context_identity();
	memset(&m->identity.map, 0x44, sizeof(m->identity.map));
	return m;
}

static void run__round_trip(void **state)
{
	struct manifest *m = spliced(&above), *again;
	const struct manifest_level *lv;
	struct lslm_error err = { 0 };
	uint8_t *data, *twice;
	size_t size, n;

	for (int level = KV_LEVEL_Q8; level <= KV_LEVEL_E; level++)
		assert_ok(manifest_add_level(m, (enum kv_level)level, &err), &err);
	/* Encoded it has twice its bytes at f16 at most, whatever the others have. */
	m->levels[3].unit_bytes[0] = 8192;
	m->levels[3].unit_bytes[1] = 2048;
	manifest_place(m, m->n_levels);
	data = encode(m, &size);
	assert_ok(manifest_parse(&again, data, size, &err), &err);
	assert_memory_equal(&again->run, &above, sizeof(above));
	assert_memory_equal(&again->model_geo, &context_geo, sizeof(context_geo));
	assert_int_equal(again->geo.n_layer, 2);
	assert_int_equal(again->geo.hidden, 32);
	lv = manifest_level(again, KV_LEVEL_F16);
	assert_int_equal(manifest_unit_bytes(again, lv, 0, 0), 4096);
	assert_int_equal(manifest_unit_bytes(again, lv, 0, 1), 1024);
	assert_int_equal(manifest_unit_offset(again, lv, 0, 1), 4096);
	assert_int_equal(lv->length[0], 5120);
	/* 2048 quants and 64 scales. */
	lv = manifest_level(again, KV_LEVEL_Q4);
	assert_int_equal(manifest_unit_bytes(again, lv, 0, 0), 2176);
	twice = encode(again, &n);
	assert_int_equal(n, size);
	assert_memory_equal(twice, data, size);
	free(twice);
	manifest_free(again);
	free(data);
	m->levels[3].unit_bytes[0]++;
	manifest_place(m, m->n_levels);
	assert_int_equal(manifest_encode(m, seckey, &data, &size, &err), -EINVAL);
	manifest_free(m);
}

static void run__from_the_tokens_on(void **state)
{
	const struct kv_run low = { 0, 1, 0 };
	struct manifest *m = spliced(&low);

	assert_int_equal(m->geo.n_layer, 1);
	assert_int_equal(m->geo.hidden, 0);
	assert_int_equal(m->area_bytes, 1024);
	assert_true(kv_run_has(&low, 0));
	assert_int_equal(kv_run_block(&low, 1), 0);
	assert_int_equal(kv_run_block(&above, 0), 1);
	manifest_free(m);
}

static void run__fields(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
		const char *line;
	} cases[] = {
		{ 4, 0, "run of layers has the flags 0, must be 1" },
		{ 8, 15, "run of layers: unknown form" },
		{ 28, 1, "run of layers: unknown form" },
		{ 16, 2, "a run of layers of no other model" },
		{ 16, 3, "layers 3 to 2 of 2 are no run to be computed" },
		{ 16, 0, "layers 0 to 2 of 2 are no run to be computed" },
		{ 20, 3, "layers 1 to 3 of 2 are no run to be computed" },
		{ 20, 0xffffffff, "layers 1 to 4294967295 of 2 are no run to be computed" },
		{ 24, 0, "a run from layer 1 on with a hidden state of 0 values" },
		{ 24, 48, "a run from layer 1 on with a hidden state of 48 values" },
		{ 24, 1 << 17, "a run from layer 1 on with a hidden state of 131072 values" },
		/* Not where the bytes would be. */
		{ 24, 64, "level f16: stripe 0 is not where its size puts it" },
	};
	struct manifest *m = spliced(&above);
	size_t size;
	uint8_t *data = encode(m, &size);
	const size_t at = size - 64 - 32;

	assert_int_equal(get_le32(data + at), 5);
	assert_int_equal(get_le32(data + at + 4), 1);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const uint32_t old = get_le32(data + at + cases[i].at);

		put_le32(data + at + cases[i].at, cases[i].value);
		assert_refused(data, size, cases[i].line);
		put_le32(data + at + cases[i].at, old);
	}
	/* Without another model there is nobody that the other layers are from. */
	memset(data + MAP, 0, 32);
	assert_refused(data, size, "a run of layers of no other model");
	free(data);
	manifest_free(m);
}

/* A relative's layers need not be better than what they save computing, but not worse by a point. */
static void map_is_off__of_a_relative_where_a_point_may_be_lost(void **state)
{
	struct manifest *m = spliced(&above);
	struct lslm_error err = { 0 };

	m->proof = good;
	m->proof.bar = PROOF_NO_WORSE;
	m->proof.low = -0.009;
	assert_false(manifest_map_is_off(m, &err));
	m->proof.low = -0.011;
	assert_true(manifest_map_is_off(m, &err));
	manifest_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(proof__round_trip),
		cmocka_unit_test(proof__fields),
		cmocka_unit_test(proof__belongs_to_a_map),
		cmocka_unit_test(proof__of_a_later_version),
		cmocka_unit_test(map_is_off__where_the_interval_is_not_above_zero),
		cmocka_unit_test(run__round_trip),
		cmocka_unit_test(run__from_the_tokens_on),
		cmocka_unit_test(run__fields),
		cmocka_unit_test(map_is_off__of_a_relative_where_a_point_may_be_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
