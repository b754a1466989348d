// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/token.h"

static char path[] = "/tmp/lslm-token-XXXXXX";

static void put(const void *bytes, size_t size)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, size, f), size);
	assert_int_equal(fclose(f), 0);
}

static void token_read__the_first_word(void **state)
{
	static const char *const files[] = {
		"s3cret",
		"s3cret\n",
		"s3cret\r\n",
		"  \ts3cret behind it\n",
		"s3cret\nanother\n",
		"s3cret \x01",
	};
	struct lslm_error err;
	char *token;

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		put(files[i], strlen(files[i]));
		assert_ok(token_read(path, false, &token, &err), &err);
		assert_string_equal(token, "s3cret");
		token_free(token);
	}
	assert_ok(token_read(NULL, true, &token, &err), &err);
	assert_null(token);
}

static void assert_refused(const char *bytes, size_t size, const char *what)
{
	struct lslm_error err = { 0 };
	char *token;

	put(bytes, size);
	assert_int_equal(token_read(path, false, &token, &err), -EINVAL);
	assert_null(token);
	assert_non_null(strstr(err.text, path));
	assert_non_null(strstr(err.text, what));
	assert_null(strstr(err.text, "s3cret"));
}

static void token_read__none(void **state)
{
	assert_refused("", 0, "holds no token");
	assert_refused("\ns3cret\n", 8, "holds no token");
	assert_refused(" \t\n", 3, "holds no token");
}

static void token_read__not_printable(void **state)
{
	assert_refused("s3cret\x01\n", 8, "control character");
	assert_refused("\x1bs3cret\n", 8, "control character");
	assert_refused("s3cret\x7f", 7, "control character");
	assert_refused("s3cr\xc3\xa9t\n", 8, "control character");
	assert_refused("s3cret\0more\n", 12, "control character");
	assert_refused("\0s3cret\n", 8, "holds no token");
}

static void token_read__others_may_read(void **state)
{
	struct lslm_error err = { 0 };
	char *token;

	put("s3cret\n", 7);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(token_read(path, true, &token, &err), -EACCES);
	assert_int_equal(chmod(path, 0600), 0);
	assert_ok(token_read(path, true, &token, &err), &err);
	assert_string_equal(token, "s3cret");
	token_free(token);
}

static int setup(void **state)
{
	int fd = mkstemp(path);

	return fd < 0 || close(fd);
}

static int teardown(void **state)
{
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(token_read__the_first_word),
		cmocka_unit_test(token_read__none),
		cmocka_unit_test(token_read__not_printable),
		cmocka_unit_test(token_read__others_may_read),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
