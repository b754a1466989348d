// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <limits.h>
#include <sodium.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "kv/publisher.h"

#define KEY_A  "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
#define SEED_A "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define KEY_B  "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"

static char dir[PATH_MAX];

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/lslm-publisher-XXXXXX");
	return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
	return chdir("/") || remove_tree(dir);
}

static void put(const char *path, const char *text, mode_t mode)
{
	struct lslm_error err = { 0 };

	assert_ok(file_write(path, text, strlen(text), mode, FILE_REPLACE, &err), &err);
}

static void create__then_load(void **state)
{
	struct lslm_error err = { 0 };
	struct publisher p, q;
	struct stat st;
	uint8_t sig[64];

	assert_ok(publisher_create(&p, "key", &err), &err);
	assert_int_equal(stat("key", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_ok(publisher_load(&q, "key", &err), &err);
	assert_memory_equal(&p, &q, sizeof(p));
	crypto_sign_detached(sig, NULL, (const uint8_t *)"m", 1, q.seckey);
	assert_int_equal(crypto_sign_verify_detached(sig, (const uint8_t *)"m", 1, p.pubkey), 0);
	assert_int_equal(publisher_create(&q, "key", &err), -EEXIST);
	assert_ok(publisher_load(&q, "key", &err), &err);
	assert_memory_equal(&p, &q, sizeof(p));
	publisher_wipe(&q);
	assert_true(sodium_is_zero(q.seckey, sizeof(q.seckey)));
}

static void load__known_key(void **state)
{
	struct lslm_error err = { 0 };
	char text[PUBLISHER_TEXT];
	struct publisher p;

	put("key", "# x\n\npublic " KEY_A "\r\n  secret\t" SEED_A "  # seed", 0400);
	assert_ok(publisher_load(&p, "key", &err), &err);
	publisher_key_text(p.pubkey, text);
	assert_string_equal(text, KEY_A);
	assert_memory_equal(p.seckey + 32, p.pubkey, 32);
}

static void load__refused(void **state)
{
	static const struct {
		const char *text;
		mode_t mode;
		int ret;
		const char *line;
	} cases[] = {
		{ "public " KEY_A "\nsecret " SEED_A "\n", 0640, -EACCES,
		  "key: a secret key that others can read (mode 640); chmod 600 it" },
		{ "public " KEY_A "\nsecret " SEED_A "\n", 0604, -EACCES, NULL },
		{ "public " KEY_A "\nsecret " SEED_A "\n", 0620, -EACCES, NULL },
		{ "public " KEY_B "\nsecret " SEED_A "\n", 0600, -EINVAL,
		  "key: is damaged: public and secret key do not match" },
		{ "", 0600, -EINVAL, "key: is no publisher key file of lslm" },
		{ "secret " SEED_A "\n", 0600, -EINVAL, NULL },
		{ "public " KEY_A "\n", 0600, -EINVAL, NULL },
		{ "public " KEY_A "\nsecret " SEED_A "\nmore\n", 0600, -EINVAL, NULL },
		{ "public " KEY_A "\nsecret " SEED_A "\nsecret " SEED_A "\n", 0600, -EINVAL, NULL },
		{ "public " KEY_A "\nsecret" SEED_A "\n", 0600, -EINVAL, NULL },
		{ "public " KEY_A "\nsecret " SEED_A "0\n", 0600, -EINVAL, NULL },
		{ KEY_A "\n", 0600, -EINVAL, NULL },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct lslm_error err = { 0 };
		struct publisher p;
		int ret;

		put("key", cases[i].text, cases[i].mode);
		ret = publisher_load(&p, "key", &err);
		if (ret != cases[i].ret)
			fail_msg("case %zu: %d: %s", i, ret, err.text);
		if (cases[i].line)
			assert_string_equal(err.text, cases[i].line);
	}
}

static void load__long_file(void **state)
{
	struct lslm_error err = { 0 };
	struct publisher p;
	char text[5000];

	memset(text, '\n', sizeof(text));
	text[sizeof(text) - 1] = 0;
	put("key", text, 0600);
	assert_int_equal(publisher_load(&p, "key", &err), -EINVAL);
	assert_int_equal(publisher_load(&p, ".", &err), -EINVAL);
	assert_int_equal(publisher_load(&p, "none", &err), -ENOENT);
}

static void open__creates_once(void **state)
{
	struct lslm_error err = { 0 };
	struct publisher p, q;
	struct stat st;
	char *path;

	setenv("XDG_CONFIG_HOME", dir, 1);
	assert_ok(publisher_open(&p, NULL, &err), &err);
	assert_ok(publisher_default_path(&path, &err), &err);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(stat("lslm", &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_ok(publisher_open(&q, path, &err), &err);
	assert_memory_equal(&p, &q, sizeof(p));
	free(path);
	put("other", "nonsense", 0600);
	assert_int_equal(publisher_open(&q, "other", &err), -EINVAL);
	assert_ok(publisher_open(&q, "bare", &err), &err);
}

/* Started at once, all end with one key. */
static void open__race(void **state)
{
	struct lslm_error err = { 0 };
	struct publisher p;
	int status;

	for (int i = 0; i < 8; i++) {
		if (fork() == 0) {
			char name[16];

			snprintf(name, sizeof(name), "out%d", i);
			if (publisher_open(&p, "deep/er/key", &err) < 0 ||
			    file_write(name, p.pubkey, 32, 0600, FILE_REPLACE, &err) < 0)
				_exit(1);
			_exit(0);
		}
	}
	for (int i = 0; i < 8; i++) {
		wait(&status);
		assert_int_equal(status, 0);
	}
	assert_ok(publisher_load(&p, "deep/er/key", &err), &err);
	for (int i = 0; i < 8; i++) {
		char name[16], *data;
		size_t size;

		snprintf(name, sizeof(name), "out%d", i);
		assert_ok(file_read(name, 32, &data, &size, &err), &err);
		assert_memory_equal(data, p.pubkey, 32);
		free(data);
	}
}

static void trust__digits_and_files(void **state)
{
	struct publisher_trust trust = { NULL, 0 };
	struct lslm_error err = { 0 };
	char text[PUBLISHER_TEXT];

	assert_ok(publisher_trust_add(&trust, KEY_A, &err), &err);
	assert_ok(publisher_trust_add(&trust, KEY_A, &err), &err);
	assert_int_equal(trust.n, 1);
	put("list", "# the cloud\n" KEY_B "\n\n  " KEY_A " # again\r\n", 0644);
	assert_ok(publisher_trust_add(&trust, "list", &err), &err);
	assert_int_equal(trust.n, 2);
	publisher_key_text(trust.keys[1], text);
	assert_string_equal(text, KEY_B);
	publisher_trust_free(&trust);
	assert_null(trust.keys);
	assert_int_equal(trust.n, 0);
}

static void trust__refused(void **state)
{
	static const struct {
		const char *text;
		const char *line;
	} cases[] = {
		{ "", "list: holds no public key" },
		{ "# none\n\n", "list: holds no public key" },
		{ "\n" KEY_A "0\n", "list: line 2 is no public key (64 hexadecimal digits)" },
		{ KEY_A " " KEY_B "\n", "list: line 1 is no public key (64 hexadecimal digits)" },
		/* The secret key's file, given by mistake. */
		{ "# lslm\npublic " KEY_A "\nsecret " SEED_A "\n",
		  "list: line 2 is no public key (64 hexadecimal digits)" },
	};
	struct publisher_trust trust = { NULL, 0 };
	struct lslm_error err = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		put("list", cases[i].text, 0600);
		assert_int_equal(publisher_trust_add(&trust, "list", &err), -EINVAL);
		assert_string_equal(err.text, cases[i].line);
	}
	assert_ok(file_write("list", KEY_A "\n\0" KEY_B, 130, 0600, FILE_REPLACE, &err), &err);
	assert_int_equal(publisher_trust_add(&trust, "list", &err), -EINVAL);
	assert_int_equal(publisher_trust_add(&trust, "abcd", &err), -ENOENT);
	assert_string_equal(err.text, "--trust abcd: is neither a public key of 64 hexadecimal "
				      "digits nor a file");
	publisher_trust_free(&trust);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(create__then_load),       TEST(load__known_key),	 TEST(load__refused),
		TEST(load__long_file),	       TEST(open__creates_once), TEST(open__race),
		TEST(trust__digits_and_files), TEST(trust__refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
