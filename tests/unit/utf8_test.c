// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include "base/utf8.h"

static void utf8_clean__each_kind(void **state)
{
	static const char *const cases[][2] = {
		{ "", "" },
		{ "plain", "plain" },
		{ "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",
		  "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80" },
		/* Bytes that begin nothing, a first byte without the rest, too long a form, a surrogate. */
		{ "\x80\xff\xf8", "???" },
		{ "\xc3 ", "? " },
		{ "\xe2\x82 ", "?? " },
		{ "\xc0\xaf", "??" },
		{ "\xed\xa0\x80", "???" },
		{ "\xf4\x90\x80\x80", "????" },
		/* Cut. */
		{ "a\xc3", "a" },
		{ "a\xe2", "a" },
		{ "a\xe2\x82", "a" },
		{ "a\xf0\x9f\x98", "a" },
		{ "\xf0", "" },
	};
	char text[32];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		snprintf(text, sizeof(text), "%s", cases[i][0]);
		utf8_clean(text);
		assert_string_equal(text, cases[i][1]);
		utf8_clean(text);
		assert_string_equal(text, cases[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(utf8_clean__each_kind),
	};

	return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
