// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include "base/error.h"

static void error_set__stores_code_and_line(void **state)
{
	struct lslm_error err = { 0 };

	assert_int_equal(error_set(&err, -EINVAL, "%s: bad %d", "file", 7), -EINVAL);
	assert_int_equal(err.code, -EINVAL);
	assert_string_equal(err.text, "file: bad 7");
}

static void error_set__stays_one_line(void **state)
{
	struct lslm_error err = { 0 };

	error_set(&err, -EINVAL, "%s", "a\nb\033[31mc\177");
	assert_string_equal(err.text, "a?b?[31mc?");
	error_set(&err, -EINVAL, "%s",
		  "a\xc2\x9b"
		  "31m \xc2\xa0 \xc3\x9b \xc2");
	assert_string_equal(err.text, "a??31m \xc2\xa0 \xc3\x9b \xc2");
}

static void error_set__cuts_long_text(void **state)
{
	struct lslm_error err = { 0 };
	char text[2000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	error_set(&err, -E2BIG, "%s", text);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	error_prefix(&err, -E2BIG, "%s", text);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

static void error_sys__appends_reason(void **state)
{
	struct lslm_error err = { 0 };

	assert_int_equal(error_sys(&err, -ENOENT, "%s: cannot open", "m.gguf"), -ENOENT);
	assert_string_equal(err.text, "m.gguf: cannot open: No such file or directory");
}

static void error_prefix__goes_in_front(void **state)
{
	struct lslm_error err = { 0 };

	error_set(&err, -EINVAL, "short");
	assert_int_equal(error_prefix(&err, -EINVAL, "file %s", "a"), -EINVAL);
	assert_string_equal(err.text, "file a: short");
}

static void keep(void *arg, const char *line)
{
	strcpy(arg, line);
}

static void tell(char *out, const char *prefix, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_tell(out ? keep : NULL, out, prefix, fmt, ap);
	va_end(ap);
}

static void error_tell__one_line_with_a_prefix(void **state)
{
	struct lslm_error room;
	char line[sizeof(room.text)], much[2 * sizeof(room.text)];

	tell(line, NULL, "%s %d", "a\nb", 7);
	assert_string_equal(line, "a?b 7");
	tell(line, "cloud\033", "is %s", "back");
	assert_string_equal(line, "cloud?: is back");
	memset(much, 'x', sizeof(much) - 1);
	much[sizeof(much) - 1] = 0;
	tell(line, much, "%s", much);
	assert_int_equal(strlen(line), sizeof(line) - 1);
	tell(NULL, "cloud", "nobody listens");
}

static void error__null_is_allowed(void **state)
{
	assert_int_equal(error_set(NULL, -EIO, "x"), -EIO);
	assert_int_equal(error_sys(NULL, -EIO, "x"), -EIO);
	assert_int_equal(error_prefix(NULL, -EIO, "x"), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_set__stores_code_and_line),
		cmocka_unit_test(error_set__stays_one_line),
		cmocka_unit_test(error_set__cuts_long_text),
		cmocka_unit_test(error_sys__appends_reason),
		cmocka_unit_test(error_prefix__goes_in_front),
		cmocka_unit_test(error_tell__one_line_with_a_prefix),
		cmocka_unit_test(error__null_is_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
