// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include "serve/stop.h"

/* Feeds text in pieces of every size; what is shown in the end must not depend on it, nor ever be taken back. */
static void check(const struct stop *s, const char *text, const char *shown, bool found)
{
	const size_t all = strlen(text);

	for (size_t piece = 1; piece <= all; piece++) {
		size_t seen = 0, can = 0;
		bool is = false;

		for (size_t len = piece; seen < all && !is; len += piece) {
			const size_t to = len < all ? len : all;
			const size_t now = stop_scan(s, text, to, seen, &is);

			if (now < can)
				fail_msg("%s: %zu bytes were shown, now %zu", text, can, now);
			can = now;
			seen = to;
		}
		assert_int_equal(is, found);
		if (can != strlen(shown) || memcmp(text, shown, can))
			fail_msg("%s in pieces of %zu: shown '%.*s'", text, piece, (int)can, text);
	}
}

static void stop_scan__table(void **state)
{
	static const struct {
		const char *stop[3], *text, *shown;
		bool found;
	} cases[] = {
		{ { NULL }, "all of it", "all of it", false },
		{ { "END" }, "beginEND rest", "begin", true },
		{ { "END" }, "begin EN", "begin ", false },
		{ { "END" }, "ENEND", "EN", true },
		{ { "aab" }, "aaaab", "aa", true },
		{ { "aab" }, "aaaa", "aa", false },
		{ { "\n\n", "X" }, "one\ntwo\n\nthree", "one\ntwo", true },
		{ { "zz", "ab" }, "cdabzz", "cd", true },
		{ { "END" }, "END", "", true },
		{ { "\xc3\xa9" }, "caf\xc3\xa9!", "caf", true },
		{ { "x" }, "caf\xc3", "caf", false },
		{ { NULL }, "\xf0\x9f\x98", "", false },
		{ { NULL }, "a\xff", "a\xff", false },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct stop s = { 0 };
		struct lslm_error err;

		for (size_t k = 0; k < 3 && cases[i].stop[k]; k++)
			assert_ok(stop_add(&s, cases[i].stop[k], strlen(cases[i].stop[k]), &err),
				  &err);
		check(&s, cases[i].text, cases[i].shown, cases[i].found);
		stop_free(&s);
	}
}

static void stop_add__limits(void **state)
{
	static const char big[STOP_MAX_BYTES + 1];
	struct stop s = { 0 };

	assert_int_equal(stop_add(&s, "", 0, NULL), -EINVAL);
	assert_int_equal(stop_add(&s, big, sizeof(big), NULL), -EINVAL);
	for (int i = 0; i < STOP_MAX; i++)
		assert_int_equal(stop_add(&s, "x", 1, NULL), 0);
	assert_int_equal(stop_add(&s, "x", 1, NULL), -EINVAL);
	stop_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stop_scan__table),
		cmocka_unit_test(stop_add__limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
