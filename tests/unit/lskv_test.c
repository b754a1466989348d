// SPDX-License-Identifier: MIT
#include "unit/unit.h"
#include "unit/context.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "kv/lskv.h"
#include "lslm/page.h"

static char dir[PATH_MAX];
static uint8_t pubkey[32], seckey[64];

static int setup(void **state)
{
	context_publisher(pubkey, seckey);
	snprintf(dir, sizeof(dir), "/tmp/lslm-lskv-XXXXXX");
	return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
	return chdir("/") || remove_tree(dir);
}

static const void *stripe_of(void *arg, uint32_t lv, uint32_t s)
{
	static uint8_t stripe[2048];
	uint32_t *last = arg;

	if (s == *last)
		return NULL;
	context_stripe(&context_geo, s, stripe);
	return stripe;
}

static void write_context(const char *path, uint32_t n_tokens)
{
	struct lslm_error err = { 0 };
	uint32_t last = UINT32_MAX;
	struct manifest *m;

	assert_ok(context_manifest(&m, n_tokens, "tiny", &err), &err);
	/* They have to come from the stripes, not from here. */
	memset(m->levels[0].digest, 0, m->n_stripes * m->geo.n_layer * sizeof(struct kv_hash));
	assert_ok(lskv_write(path, m, seckey, stripe_of, &last, &err), &err);
	manifest_free(m);
}

static void assert_round_trip(uint32_t n_tokens)
{
	struct lslm_error err = { 0 };
	const struct manifest_level *lv;
	const struct manifest *m;
	struct lskv *f;
	struct stat st;
	const void *data;
	size_t size;

	write_context("a.lskv", n_tokens);
	assert_ok(lskv_open(&f, "a.lskv", &err), &err);
	m = lskv_manifest(f);
	lv = manifest_level(m, KV_LEVEL_F16);
	data = lskv_manifest_data(f, &size);
	assert_ok(manifest_verify(data, size, (const uint8_t(*)[32]) & pubkey, 1, &err), &err);
	assert_int_equal(m->n_stripes, n_tokens / 64);
	for (uint32_t s = 0; s < m->n_stripes; s++) {
		for (uint32_t l = 0; l < 2; l++) {
			uint8_t block[1024];
			struct kv_hash h;

			assert_int_equal(file_pread_all(lskv_fd(f), block, sizeof(block),
							lskv_unit_offset(f, lv, s, l)),
					 0);
			assert_int_equal(block[5], 16 * s + l);
			h = kv_digest(block, sizeof(block));
			assert_true(kv_hash_equal(&h, manifest_digest(m, lv, s, l)));
		}
	}
	assert_int_equal(lskv_area_offset(f) % LSLM_DIRECT_ALIGN, 0);
	assert_int_equal(fstat(lskv_fd(f), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_size, lskv_area_offset(f) + m->area_bytes);
	lskv_close(f);
}

static void write__round_trip(void **state)
{
	static const uint32_t n_tokens[] = { 1, 63, 64, 66, 1000 };

	for (size_t i = 0; i < ARRAY_LEN(n_tokens); i++)
		assert_round_trip(n_tokens[i]);
	lskv_close(NULL);
}

/* Levels of the tiny context: at f16 as usual, else with a byte of their own, units of their own length. */
static struct manifest *levels;

static const void *stripe_at(void *arg, uint32_t lv, uint32_t s)
{
	struct manifest_level *level = &levels->levels[lv];
	static uint8_t stripe[2048];
	uint32_t last = UINT32_MAX;

	if (level->level == KV_LEVEL_F16)
		return stripe_of(&last, lv, s);
	for (uint32_t u = 0; level->unit_bytes && u < level->n_units; u++)
		level->unit_bytes[s * level->n_units + u] = 10 + 100 * u + s;
	memset(stripe, (int)(level->level * 16 + s), sizeof(stripe));
	return stripe;
}

static void write__several_levels(void **state)
{
	struct lslm_error err = { 0 };
	const struct manifest *m;
	uint64_t end = 0;
	struct lskv *f;

	assert_ok(context_manifest(&levels, 200, "tiny", &err), &err);
	for (int level = KV_LEVEL_Q8; level < KV_LEVELS; level++)
		assert_ok(manifest_add_level(levels, (enum kv_level)level, &err), &err);
	assert_int_equal(manifest_add_level(levels, KV_LEVEL_P, &err), -EINVAL);
	assert_ok(lskv_write("a.lskv", levels, seckey, stripe_at, NULL, &err), &err);
	manifest_free(levels);
	assert_ok(lskv_open(&f, "a.lskv", &err), &err);
	m = lskv_manifest(f);
	assert_int_equal(m->n_levels, KV_LEVELS);
	for (int level = 0; level < KV_LEVELS; level++) {
		const struct manifest_level *lv = manifest_level(m, (enum kv_level)level);

		assert_int_equal(lv->level, level);
		assert_int_equal(lv->n_units, level == KV_LEVEL_P ? 1 : 2);
		assert_int_equal(lv->offset[0], (end + 4095) / 4096 * 4096);
		for (uint32_t s = 0; s < m->n_stripes; s++) {
			for (uint32_t u = 0; u < lv->n_units; u++) {
				const size_t bytes = manifest_unit_bytes(m, lv, s, u);
				struct kv_hash h;
				uint8_t byte;

				assert_int_equal(bytes,
						 level >= KV_LEVEL_E ?
							 10 + 100 * u + s :
							 kv_block_bytes(&context_geo, level));
				assert_int_equal(
					file_pread_all(lskv_fd(f), &byte, 1,
						       lskv_unit_offset(f, lv, s, u) + bytes - 1),
					0);
				assert_int_equal(byte, level ? level * 16 + s : 16 * s + u);
				assert_int_equal(lskv_unit_digest(f, lv, s, u, &h), 0);
				assert_true(kv_hash_equal(&h, manifest_digest(m, lv, s, u)));
			}
			end = lv->offset[s] + lv->length[s];
		}
	}
	assert_int_equal(m->area_bytes, end);
	lskv_close(f);
}

static void write__given_up_leaves_old(void **state)
{
	struct lslm_error err = { 0 };
	uint32_t last = 1;
	struct manifest *m;
	struct lskv *f;

	write_context("a.lskv", 70);
	assert_ok(context_manifest(&m, 200, "", &err), &err);
	assert_int_equal(lskv_write("a.lskv", m, seckey, stripe_of, &last, &err), -ECANCELED);
	assert_string_equal(err.text, "a.lskv: not written: the context was not computed");
	assert_int_equal(lskv_write("none/a.lskv", m, seckey, stripe_of, &last, &err), -ENOENT);
	manifest_free(m);
	assert_ok(lskv_open(&f, "a.lskv", &err), &err);
	assert_int_equal(lskv_manifest(f)->n_tokens, 70);
	lskv_close(f);
	assert_int_equal(system("test $(ls -A | wc -l) = 1"), 0);
}

static void write__refuses_before_writing(void **state)
{
	struct lslm_error err = { 0 };
	uint32_t last = UINT32_MAX;
	struct manifest *m;

	assert_ok(context_manifest(&m, 70, "bad\x1b title", &err), &err);
	assert_int_equal(lskv_write("a.lskv", m, seckey, stripe_of, &last, &err), -EINVAL);
	assert_string_equal(err.text, "a.lskv: title holds a control character (U+001B)");
	manifest_free(m);
	assert_int_equal(system("test $(ls -A | wc -l) = 0"), 0);
}

/* The file of 66 tokens: 4096 bytes up to the area, 2048 of stripes. */
static void open__every_length(void **state)
{
	struct lslm_error err = { 0 };
	struct lskv *f;

	write_context("a.lskv", 66);
	for (off_t n = 6143; n >= 0; n -= n > 200 ? 61 : 1) {
		assert_int_equal(truncate("a.lskv", n), 0);
		assert_int_equal(lskv_open(&f, "a.lskv", &err), -EINVAL);
		assert_null(f);
		if (n == 6143)
			assert_string_equal(err.text, "a.lskv: is cut short: it has 6143 bytes of "
						      "6144; fetch or publish it again");
	}
	assert_string_equal(err.text, "a.lskv: is no .lskv file: it has 0 bytes");
	write_context("a.lskv", 66);
	assert_int_equal(truncate("a.lskv", 6145), 0);
	assert_int_equal(lskv_open(&f, "a.lskv", &err), -EINVAL);
	assert_string_equal(err.text, "a.lskv: has 6145 bytes, its header says 6144");
}

static void open__damaged(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
		const char *line;
	} cases[] = {
		{ 0, 0x46554747, "a.lskv: is no .lskv file" },
		{ 8, 2, "a.lskv: is of version 2, this program reads 1" },
		{ 12, 65, "a.lskv: has a damaged header" },
		{ 16, 0, NULL },
		{ 16, 700, "a.lskv: has data between manifest and stripes" },
		{ 16, 800, "a.lskv: manifest says that it has 776 bytes, there are 800" },
		{ 16, 0xffffffff, "a.lskv: has a damaged header" },
		{ 20, 1, "a.lskv: has a damaged header" },
		{ 24, 8192, "a.lskv: has a damaged header" },
		{ 28, 1, "a.lskv: has a damaged header" },
		{ 32, 2047, "a.lskv: has 6144 bytes, its header says 6143" },
		{ 36, 0xffffffff,
		  "a.lskv: is cut short: it has 6144 bytes of "
		  "18446744069414590464; fetch or publish it again" },
		{ 40, 1, "a.lskv: has a damaged header" },
		{ 60, 1, "a.lskv: has a damaged header" },
		{ 64 + 8, 2, "a.lskv: manifest is of version 2, this program reads 1" },
		{ 64 + 776, 1, "a.lskv: has data between manifest and stripes" },
		{ 4092, 1, "a.lskv: has data between manifest and stripes" },
	};
	struct lslm_error err = { 0 };
	struct lskv *f;
	size_t size;
	char *data;

	write_context("a.lskv", 66);
	assert_ok(file_read("a.lskv", 10000, &data, &size, &err), &err);
	assert_int_equal(size, 6144);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint32_t old = get_le32(data + cases[i].at);

		put_le32(data + cases[i].at, cases[i].value);
		assert_ok(file_write("a.lskv", data, size, 0600, FILE_REPLACE, &err), &err);
		assert_int_equal(lskv_open(&f, "a.lskv", &err), -EINVAL);
		if (cases[i].line)
			assert_string_equal(err.text, cases[i].line);
		put_le32(data + cases[i].at, old);
	}
	free(data);
}

/* A header and a manifest that are whole, but of different contexts. */
static void open__area_of_another(void **state)
{
	struct lslm_error err = { 0 };
	struct lskv *f;
	size_t size;
	char *data;

	write_context("a.lskv", 66);
	assert_ok(file_read("a.lskv", 10000, &data, &size, &err), &err);
	put_le64(data + 32, 1024);
	assert_ok(file_write("a.lskv", data, size - 1024, 0600, FILE_REPLACE, &err), &err);
	free(data);
	assert_int_equal(lskv_open(&f, "a.lskv", &err), -EINVAL);
	assert_string_equal(err.text,
			    "a.lskv: its manifest asks for 2048 bytes of stripes, it has 1024");
}

static void open__not_a_file(void **state)
{
	struct lslm_error err = { 0 };
	struct lskv *f;

	assert_int_equal(lskv_open(&f, "none", &err), -ENOENT);
	assert_string_equal(err.text, "none: cannot open: No such file or directory");
	assert_int_equal(lskv_open(&f, ".", &err), -EINVAL);
	assert_string_equal(err.text, ".: is not a regular file");
	assert_int_equal(mkfifo("pipe", 0600), 0);
	assert_int_equal(lskv_open(&f, "pipe", &err), -EINVAL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(write__round_trip),	  TEST(write__several_levels),
		TEST(write__given_up_leaves_old), TEST(write__refuses_before_writing),
		TEST(open__every_length),	  TEST(open__damaged),
		TEST(open__area_of_another),	  TEST(open__not_a_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
