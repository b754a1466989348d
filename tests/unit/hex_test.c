// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include "base/hex.h"

static void hex__round_trip(void **state)
{
	uint8_t in[256], out[256];
	char text[513];

	for (int i = 0; i < 256; i++)
		in[i] = (uint8_t)i;
	hex_format(text, in, sizeof(in));
	assert_int_equal(strlen(text), 512);
	assert_memory_equal(text, "000102", 6);
	assert_int_equal(hex_parse(out, sizeof(out), text, 512), 0);
	assert_memory_equal(in, out, sizeof(in));
}

static void hex_parse__table(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		int ret;
	} cases[] = {
		{ "00ff", 4, 0 },	 { "aBcD", 4, 0 },	   { "00f", 3, -EINVAL },
		{ "00ff0", 5, -EINVAL }, { "00ff00", 6, -EINVAL }, { "00fg", 4, -EINVAL },
		{ " 0ff", 4, -EINVAL },	 { "0x0f", 4, -EINVAL },   { "", 0, -EINVAL },
		{ "00/f", 4, -EINVAL },	 { "00:f", 4, -EINVAL },   { "00@f", 4, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t out[2] = { 0x5a, 0x5a };

		assert_int_equal(hex_parse(out, 2, cases[i].text, cases[i].len), cases[i].ret);
		if (cases[i].ret < 0)
			assert_memory_equal(out, "\x5a\x5a", 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hex__round_trip),
		cmocka_unit_test(hex_parse__table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
