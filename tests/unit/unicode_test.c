// SPDX-License-Identifier: MIT
/* UTF-8, the classes of characters, and the words that each pre-tokenizer cuts. */
#include "unit/unit.h"

#include "model/pretokenize.h"
#include "model/unicode.h"

static void unicode_decode__is_strict(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		uint32_t code;
	} cases[] = {
		{ "", 1, 0 },
		{ "\x7f", 1, 0x7f },
		{ "\xc2\x80", 2, 0x80 },
		{ "\xdf\xbf", 2, 0x7ff },
		{ "\xe0\xa0\x80", 3, 0x800 },
		{ "\xed\x9f\xbf", 3, 0xd7ff },
		{ "\xee\x80\x80", 3, 0xe000 },
		{ "\xef\xbf\xbf", 3, 0xffff },
		{ "\xf0\x90\x80\x80", 4, 0x10000 },
		{ "\xf4\x8f\xbf\xbf", 4, 0x10ffff },
		/* Not UTF-8: a continuation, overlong forms, surrogates, too large, cut short. */
		{ "\x80", 1, UNICODE_REPLACEMENT },
		{ "\xbf", 1, UNICODE_REPLACEMENT },
		{ "\xc1\xbf", 1, UNICODE_REPLACEMENT },
		{ "\xe0\x9f\xbf", 1, UNICODE_REPLACEMENT },
		{ "\xf0\x8f\xbf\xbf", 1, UNICODE_REPLACEMENT },
		{ "\xed\xa0\x80", 1, UNICODE_REPLACEMENT },
		{ "\xed\xbf\xbf", 1, UNICODE_REPLACEMENT },
		{ "\xf4\x90\x80\x80", 1, UNICODE_REPLACEMENT },
		{ "\xf8\x88\x80\x80", 1, UNICODE_REPLACEMENT },
		{ "\xff", 1, UNICODE_REPLACEMENT },
		{ "\xe2\x82", 1, UNICODE_REPLACEMENT },
		{ "\xe2\x82x", 1, UNICODE_REPLACEMENT },
		{ "\xc3", 1, UNICODE_REPLACEMENT },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		size_t len = strlen(cases[i].text);
		uint32_t code;

		assert_int_equal(unicode_decode(cases[i].text, len ? len : 1, &code), cases[i].len);
		assert_int_equal(code, cases[i].code);
	}
}

static void unicode_encode__inverts_decode(void **state)
{
	for (uint32_t c = 0; c <= 0x10ffff; c++) {
		uint32_t back;
		char text[4];
		size_t n;

		if (c >= 0xd800 && c <= 0xdfff)
			continue;
		n = unicode_encode(c, text);
		assert_int_equal(unicode_decode(text, n, &back), n);
		assert_int_equal(back, c);
	}
}

static void unicode_class__boundaries(void **state)
{
	static const struct {
		uint32_t code;
		enum unicode_class class;
	} cases[] = {
		{ 0, UNICODE_OTHER },
		{ 0x08, UNICODE_OTHER },
		{ 0x09, UNICODE_SPACE },
		{ 0x0d, UNICODE_SPACE },
		{ 0x0e, UNICODE_OTHER },
		{ 0x1c, UNICODE_OTHER },
		{ ' ', UNICODE_SPACE },
		{ '!', UNICODE_PUNCT },
		{ '$', UNICODE_OTHER },
		{ '+', UNICODE_OTHER },
		{ '/', UNICODE_PUNCT },
		{ '0', UNICODE_NUMBER },
		{ '9', UNICODE_NUMBER },
		{ ':', UNICODE_PUNCT },
		{ '<', UNICODE_OTHER },
		{ '@', UNICODE_PUNCT },
		{ 'A', UNICODE_LETTER },
		{ 'Z', UNICODE_LETTER },
		{ '[', UNICODE_PUNCT },
		{ '`', UNICODE_OTHER },
		{ 'z', UNICODE_LETTER },
		{ '{', UNICODE_PUNCT },
		{ '|', UNICODE_OTHER },
		{ 0x7f, UNICODE_OTHER },
		{ 0x85, UNICODE_SPACE },
		{ 0xa0, UNICODE_SPACE },
		{ 0xaa, UNICODE_LETTER },
		{ 0xb2, UNICODE_NUMBER },
		{ 0xbd, UNICODE_NUMBER },
		{ 0xd7, UNICODE_OTHER },
		{ 0x300, UNICODE_OTHER },
		{ 0x660, UNICODE_NUMBER },
		{ 0x180e, UNICODE_OTHER },
		{ 0x200a, UNICODE_SPACE },
		{ 0x200b, UNICODE_OTHER },
		{ 0x2019, UNICODE_PUNCT },
		{ 0x20ac, UNICODE_OTHER },
		{ 0x2160, UNICODE_NUMBER },
		{ 0x3000, UNICODE_SPACE },
		{ 0x4e2d, UNICODE_LETTER },
		{ 0xac00, UNICODE_LETTER },
		{ 0xe000, UNICODE_OTHER },
		{ 0x1f600, UNICODE_OTHER },
		/* Since 14.0, since 15.0, after 15.1. */
		{ 0x11f02, UNICODE_LETTER },
		{ 0x11f50, UNICODE_NUMBER },
		{ 0x31350, UNICODE_LETTER },
		{ 0x2ebf0, UNICODE_LETTER },
		{ 0x2ee5d, UNICODE_LETTER },
		{ 0x2ee5e, UNICODE_OTHER },
		{ 0x10ffff, UNICODE_OTHER },
		{ 0x110000, UNICODE_OTHER },
		{ UINT32_MAX, UNICODE_OTHER },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(unicode_class(cases[i].code), cases[i].class);
}

static void unicode_byte__alphabet_is_one_to_one(void **state)
{
	unsigned int n = 0;

	for (unsigned int b = 0; b < 256; b++)
		assert_int_equal(unicode_to_byte(unicode_from_byte((uint8_t)b)), b);
	for (uint32_t c = 0; c < 0x1000; c++)
		n += unicode_to_byte(c) >= 0;
	assert_int_equal(n, 256);
	assert_int_equal(unicode_from_byte(' '), 0x120);
	assert_int_equal(unicode_from_byte('\n'), 0x10a);
	assert_int_equal(unicode_from_byte(0xff), 0xff);
	assert_int_equal(unicode_from_byte(0xad), 0x143);
}

/* --- pre-tokenizers: words are separated by | in what is expected --- */

static void check_words(enum pretokenize_rules rules, const char *expected)
{
	char text[256], got[512];
	struct pretokenize w;
	size_t len = 0, n = 0;

	for (const char *p = expected; *p; p++)
		if (*p != '|')
			text[len++] = *p;
	pretokenize_start(&w, rules, text, len);
	while (pretokenize_next(&w)) {
		assert_true(w.end > w.start);
		if (n)
			got[n++] = '|';
		memcpy(got + n, text + w.start, w.end - w.start);
		n += w.end - w.start;
	}
	got[n] = 0;
	assert_string_equal(got, expected);
}

static void pretokenize__cuts_by_rules(void **state)
{
	static const struct {
		enum pretokenize_rules rules;
		const char *words;
	} cases[] = {
		{ PRETOKENIZE_GPT2, "" },
		{ PRETOKENIZE_GPT2, "Hello| world|!" },
		{ PRETOKENIZE_GPT2,
		  "we|'ve|'|VE| it|'s|'|S| they|'re| I|'ll| he|'d| I|'m| don|'t" },
		{ PRETOKENIZE_GPT2, "a|'s" },
		{ PRETOKENIZE_GPT2, "a|'|r" },
		{ PRETOKENIZE_GPT2, "  | a|  | b|\n|\n|c|\t|d| " },
		{ PRETOKENIZE_GPT2, "abc|123|...| 1234| ½|\xff\xfe|x" },
		{ PRETOKENIZE_GPT2, "a|  \n " },
		{ PRETOKENIZE_GPT2, "a|\xc2\xa0|\xc2\xa0|b" },
		{ PRETOKENIZE_LLAMA3, "we|'VE| it|'S| x|'t|is| '|y|'i" },
		{ PRETOKENIZE_LLAMA3, "123|456|7| |89" },
		{ PRETOKENIZE_LLAMA3, "\tabc|.def| $|5|!!\n\n|a" },
		{ PRETOKENIZE_LLAMA3, "a| \n \n|  | b|  \r\n|  " },
		{ PRETOKENIZE_LLAMA3, "a|\r|b|\n\n|c| | (|d|)" },
		{ PRETOKENIZE_LLAMA3, "''|s|\"s" },
		{ PRETOKENIZE_QWEN2, "1|2|3| |4|a|\n|5" },
		{ PRETOKENIZE_QWEN2, " ab| ?!\r\n\n| x" },
		{ PRETOKENIZE_DIGITS, "a| |1|2|  |3|.|4| b" },
		{ PRETOKENIZE_DIGITS, "½|²|٣|x" },
		{ PRETOKENIZE_FALCON, "a|,| b|<=>'|s| c|--|d" },
		{ PRETOKENIZE_FALCON, "12" },
		{ PRETOKENIZE_FALCON, "123|456|7| |123|4| 12" },
		{ PRETOKENIZE_FALCON, "12٣|456|78" },
		{ PRETOKENIZE_FALCON, "©®|$|€|`|  " },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		check_words(cases[i].rules, cases[i].words);
}

static void pretokenize_find__knows_names(void **state)
{
	static const char *const known[] = { "gpt-2",	  "llama-bpe", "llama3",
					     "llama-v3",  "qwen2",     "smollm",
					     "starcoder", "falcon",    "deepseek-r1-qwen" };
	static const char *const unknown[] = { "",	"default", "gpt",	 "gpt-22",
					       "GPT-2", "tekken",  "deepseek-v3" };

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		assert_non_null(pretokenize_find(known[i], strlen(known[i])));
		assert_string_equal(pretokenize_find(known[i], strlen(known[i]))->name, known[i]);
	}
	for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
		assert_null(pretokenize_find(unknown[i], strlen(unknown[i])));
}

/* A number of many digits is cut into threes without looking at all of it each time. */
static void pretokenize__long_runs_are_linear(void **state)
{
	static const char runs[] = "9a '\n";
	size_t len = 4 << 20;
	char *text = malloc(len);

	assert_non_null(text);
	for (size_t r = 0; r < sizeof(runs) - 1; r++)
		for (int rules = PRETOKENIZE_GPT2; rules <= PRETOKENIZE_FALCON; rules++) {
			struct pretokenize w;

			memset(text, runs[r], len);
			pretokenize_start(&w, (enum pretokenize_rules)rules, text, len);
			while (pretokenize_next(&w))
				assert_true(w.end > w.start && w.end <= len);
			assert_int_equal(w.end, len);
		}
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unicode_decode__is_strict),
		cmocka_unit_test(unicode_encode__inverts_decode),
		cmocka_unit_test(unicode_class__boundaries),
		cmocka_unit_test(unicode_byte__alphabet_is_one_to_one),
		cmocka_unit_test(pretokenize__cuts_by_rules),
		cmocka_unit_test(pretokenize_find__knows_names),
		cmocka_unit_test(pretokenize__long_runs_are_linear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
