// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/file.h"
#include "kv/fingerprint.h"

static char dir[PATH_MAX];

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/lslm-fingerprint-XXXXXX");
	if (!mkdtemp(dir) || chdir(dir) < 0)
		return -1;
	setenv("XDG_CACHE_HOME", dir, 1);
	return 0;
}

static int teardown(void **state)
{
	return chdir("/") || remove_tree(dir);
}

/* A GGUF of three keys and two tensors of four F32 each; what may differ is named. */
struct model {
	const char *name; /* general.name: not covered */
	const char *rest_key; /* some other key ... */
	uint32_t rest_value; /* ... and its value */
	uint32_t layers;
	const char *tensors[2];
	uint32_t rows; /* 1: [4], 2: [2, 2] */
	uint8_t flip; /* into the last byte of tensor "b" */
	int swapped; /* keys and tensors in the other order */
};

static const struct model base = { "tiny", "general.file_type", 1, 2, { "a", "b" }, 1, 0, 0 };

static uint8_t *put_str(uint8_t *p, const char *s)
{
	put_le64(p, strlen(s));
	memcpy(p + 8, s, strlen(s));
	return p + 8 + strlen(s);
}

static uint8_t *put_text(uint8_t *p, const char *key, const char *value)
{
	p = put_str(p, key);
	put_le32(p, 8);
	return put_str(p + 4, value);
}

static uint8_t *put_number(uint8_t *p, const char *key, uint32_t value)
{
	p = put_str(p, key);
	put_le32(p, 4);
	put_le32(p + 4, value);
	return p + 8;
}

static uint8_t *put_tensor(uint8_t *p, const struct model *m, int i, uint64_t offset)
{
	p = put_str(p, m->tensors[i]);
	put_le32(p, m->rows);
	p += 4;
	for (uint32_t r = 0; r < m->rows; r++, p += 8)
		put_le64(p, 4 / m->rows);
	put_le32(p, 0);
	put_le64(p + 4, offset);
	return p + 12;
}

static size_t make(uint8_t *file, const struct model *m)
{
	int first = m->swapped;
	uint8_t *p = file;

	memset(file, 0, 2048);
	memcpy(p, "GGUF", 4);
	put_le32(p + 4, 3);
	put_le64(p + 8, 2);
	put_le64(p + 16, 4);
	p += 24;
	if (m->swapped)
		p = put_number(p, m->rest_key, m->rest_value);
	p = put_text(p, "general.architecture", "llama");
	p = put_text(p, "general.name", m->name);
	p = put_number(p, "llama.block_count", m->layers);
	if (!m->swapped)
		p = put_number(p, m->rest_key, m->rest_value);
	p = put_tensor(p, m, first, 0);
	p = put_tensor(p, m, !first, 32);
	p = file + (p - file + 31) / 32 * 32;
	for (int i = 0; i < 2; i++) {
		int which = i ? !first : first;

		for (int k = 0; k < 16; k++)
			p[32 * i + k] = (uint8_t)(16 * which + k);
		if (which == 1)
			p[32 * i + 15] ^= m->flip;
	}
	return (size_t)(p + 64 - file);
}

static struct kv_hash fingerprint_of(const struct model *m)
{
	_Alignas(64) uint8_t file[2048];
	struct lslm_error err = { 0 };
	size_t size = make(file, m);
	struct kv_hash h;
	struct gguf *g;
	bool cached = true;

	assert_ok(gguf_open_mem(&g, file, size, &err), &err);
	assert_ok(fingerprint_model(g, &h, &cached, &err), &err);
	assert_false(cached);
	gguf_close(g);
	return h;
}

/* Computed with Python's hashlib from the byte tables of docs/protocol.md. */
static void fingerprint__known_value(void **state)
{
	struct kv_hash h = fingerprint_of(&base);
	char text[KV_HASH_TEXT];

	kv_hash_format(&h, text);
	assert_string_equal(text,
			    "2e2b72dc3dc013dbd603848b7f6a7d76cfc8fdb23caea864e7096b878594b726");
}

static void fingerprint__covers(void **state)
{
	const struct kv_hash expected = fingerprint_of(&base);
	static const struct {
		const char *what;
		struct model m;
		int same;
	} cases[] = {
		{ "name", { "other", "general.file_type", 1, 2, { "a", "b" }, 1, 0, 0 }, 1 },
		{ "file type", { "tiny", "general.file_type", 7, 2, { "a", "b" }, 1, 0, 0 }, 1 },
		{ "tokenizer", { "tiny", "tokenizer.x", 1, 2, { "a", "b" }, 1, 0, 0 }, 1 },
		{ "other arch", { "tiny", "llama2.x", 1, 2, { "a", "b" }, 1, 0, 0 }, 1 },
		{ "prefix alone", { "tiny", "llama", 1, 2, { "a", "b" }, 1, 0, 0 }, 1 },
		{ "order", { "tiny", "general.file_type", 1, 2, { "a", "b" }, 1, 0, 1 }, 1 },
		{ "layers", { "tiny", "general.file_type", 1, 3, { "a", "b" }, 1, 0, 0 }, 0 },
		{ "arch key", { "tiny", "llama.x", 1, 2, { "a", "b" }, 1, 0, 0 }, 0 },
		{ "quantization version",
		  { "tiny", "general.quantization_version", 2, 2, { "a", "b" }, 1, 0, 0 },
		  0 },
		{ "tensor name", { "tiny", "general.file_type", 1, 2, { "a", "c" }, 1, 0, 0 }, 0 },
		{ "names swapped", { "tiny", "general.file_type", 1, 2, { "b", "a" }, 1, 0, 0 }, 0 },
		{ "shape", { "tiny", "general.file_type", 1, 2, { "a", "b" }, 2, 0, 0 }, 0 },
		{ "data", { "tiny", "general.file_type", 1, 2, { "a", "b" }, 1, 1, 0 }, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct kv_hash h = fingerprint_of(&cases[i].m);

		if (kv_hash_equal(&h, &expected) != cases[i].same)
			fail_msg("%s", cases[i].what);
	}
}

static void write_model(const struct model *m)
{
	struct lslm_error err = { 0 };
	uint8_t file[2048];
	size_t size = make(file, m);

	assert_ok(file_write("m.gguf", file, size, 0600, FILE_REPLACE, &err), &err);
}

static struct kv_hash file_fingerprint(bool *cached)
{
	struct lslm_error err = { 0 };
	struct kv_hash h;
	struct gguf *g;

	assert_ok(gguf_open(&g, "m.gguf", &err), &err);
	assert_ok(fingerprint_model(g, &h, cached, &err), &err);
	gguf_close(g);
	return h;
}

static void grow_old(void)
{
	usleep(2050000);
}

static void cache__answers_for_an_old_file(void **state)
{
	const struct kv_hash expected = fingerprint_of(&base);
	struct model changed = base;
	struct kv_hash h;
	double begun;
	bool cached;

	/* Too young to be kept: a change within the clock's tick would not show. Anew where this process was not run meanwhile. */
	do {
		write_model(&base);
		begun = clock_seconds();
		h = file_fingerprint(&cached);
		assert_true(kv_hash_equal(&h, &expected));
		assert_false(cached);
		h = file_fingerprint(&cached);
	} while (clock_seconds() - begun > 1);
	assert_false(cached);
	grow_old();
	h = file_fingerprint(&cached);
	assert_false(cached);
	h = file_fingerprint(&cached);
	assert_true(cached);
	assert_true(kv_hash_equal(&h, &expected));
	assert_int_equal(system("test $(find lslm -type f | wc -l) = 1"), 0);
	assert_int_equal(system("test $(find lslm -type f -perm 600 | wc -l) = 1"), 0);

	/* A touched file is read again; so is one that was replaced. */
	assert_int_equal(utimensat(AT_FDCWD, "m.gguf", NULL, 0), 0);
	h = file_fingerprint(&cached);
	assert_false(cached);
	assert_true(kv_hash_equal(&h, &expected));
	changed.flip = 1;
	write_model(&changed);
	h = file_fingerprint(&cached);
	assert_false(cached);
	assert_false(kv_hash_equal(&h, &expected));
}

static void cache__damaged_entry_is_ignored(void **state)
{
	const struct kv_hash expected = fingerprint_of(&base);
	struct kv_hash h;
	struct stat st;
	char path[256];
	bool cached;

	write_model(&base);
	grow_old();
	file_fingerprint(&cached);
	assert_int_equal(stat("m.gguf", &st), 0);
	snprintf(path, sizeof(path), "lslm/fingerprints/%llx-%llx", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	for (int at = -1; at < 112; at += at < 0 ? 1 : 7) {
		struct lslm_error err = { 0 };
		size_t size;
		char *entry;

		assert_ok(file_read(path, 112, &entry, &size, &err), &err);
		assert_int_equal(size, 112);
		if (at < 0)
			size--;
		else
			entry[at] ^= 0x40;
		assert_ok(file_write(path, entry, size, 0600, FILE_REPLACE, &err), &err);
		free(entry);
		h = file_fingerprint(&cached);
		assert_false(cached);
		assert_true(kv_hash_equal(&h, &expected));
		h = file_fingerprint(&cached);
		assert_true(cached);
	}
}

static void cache__unusable_place_is_no_error(void **state)
{
	bool cached;

	write_model(&base);
	setenv("XDG_CACHE_HOME", "/proc/self/nothing", 1);
	file_fingerprint(NULL);
	unsetenv("XDG_CACHE_HOME");
	unsetenv("HOME");
	file_fingerprint(&cached);
	assert_false(cached);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(fingerprint__known_value),		 TEST(fingerprint__covers),
		TEST(cache__answers_for_an_old_file),	 TEST(cache__damaged_entry_is_ignored),
		TEST(cache__unusable_place_is_no_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
