// SPDX-License-Identifier: MIT
/* The tokenizers: vectors made with llama.cpp, and small vocabularies built here. */
#include "unit/unit.h"

#include <jansson.h>
#include <sodium.h>
#include <time.h>

#include "unit/vocab_rig.h"

/* --- llama.cpp's own vectors, where they are present --- */

static char *read_file(const char *path, size_t *len)
{
	FILE *f = fopen(path, "rb");
	char *text;

	if (!f)
		return NULL;
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	*len = (size_t)ftell(f);
	rewind(f);
	text = malloc(*len + 1);
	assert_non_null(text);
	assert_int_equal(fread(text, 1, *len, f), *len);
	text[*len] = 0;
	fclose(f);
	return text;
}

static struct tokenizer *open_tokenizer(const char *path)
{
	struct tokenizer *t;
	struct gguf *g;

	assert_ok(gguf_open(&g, path, &err), &err);
	assert_ok(tokenizer_open(&t, g, &err), &err);
	gguf_close(g);
	return t;
}

/* One line of ids, each after a space. */
static void check_line(const struct tokenizer *t, const char *text, size_t len, char *line)
{
	char *next = line;
	int32_t *ids;
	size_t n;

	assert_ok(tokenizer_encode(t, text, len, 0, &ids, &n, &err), &err);
	for (size_t i = 0; i < n; i++) {
		long expected = strtol(next, &next, 10);

		if (expected != ids[i])
			fail_msg("\"%.*s\": id %zu is %d, not %ld", (int)len, text, i, ids[i],
				 expected);
	}
	while (*next == ' ')
		next++;
	assert_int_equal(*next, 0);
	free(ids);
}

static void check_vectors(const char *vocab)
{
	static const char mark[] = "\n__ggml_vocab_test__\n";
	struct tokenizer *t;
	char path[256], *text, *ids, *line, *next, *end, *rest;
	size_t len, cases = 0;

	snprintf(path, sizeof(path), "%s.inp", vocab);
	text = read_file(path, &len);
	if (!text)
		skip();
	snprintf(path, sizeof(path), "%s.out", vocab);
	ids = read_file(path, &len);
	assert_non_null(ids);
	t = open_tokenizer(vocab);
	rest = ids;
	for (next = text; next; next = end, cases++) {
		end = strstr(next, mark);
		len = end ? (size_t)(end - next) : strlen(next);
		line = strsep(&rest, "\n");
		if (!line || (!end && !len))
			break; /* the last mark ends the file */
		check_line(t, next, len, line);
		end = end ? end + sizeof(mark) - 1 : NULL;
	}
	assert_true(cases >= 46);
	tokenizer_close(t);
	free(text);
	free(ids);
}

static void shared_vectors__llama_spm(void **state)
{
	check_vectors("../shared/data/vocab/ggml-vocab-llama-spm.gguf");
}

static void shared_vectors__gpt_2(void **state)
{
	check_vectors("../shared/data/vocab/ggml-vocab-gpt-2.gguf");
}

/* --- our vectors, made with llama.cpp by scripts/tokenizer_vectors.py --- */

static json_t *load_vectors(const char *name)
{
	json_error_t json_err;
	char path[256];
	json_t *v;

	snprintf(path, sizeof(path), "tests/unit/tokenizer_vectors/%s.json", name);
	v = json_load_file(path, 0, &json_err);
	if (!v)
		fail_msg("%s:%d: %s", path, json_err.line, json_err.text);
	return v;
}

static struct tokenizer *open_vectors(const json_t *v, const char *pre)
{
	const json_t *tokens = json_object_get(v, "tokens"), *merges = json_object_get(v, "merges");
	const size_t n = json_array_size(tokens), n_merges = json_array_size(merges);
	struct token *list = calloc(n, sizeof(*list));
	const char **pairs = calloc(n_merges + 1, sizeof(*pairs));
	struct tokenizer *t;

	assert_true(n && list && pairs);
	for (size_t i = 0; i < n; i++) {
		const json_t *token = json_array_get(tokens, i);

		list[i].text = json_string_value(json_array_get(token, 0));
		list[i].type = (int32_t)json_integer_value(json_array_get(token, 1));
		list[i].score = (float)json_number_value(json_array_get(token, 2));
	}
	for (size_t i = 0; i < n_merges; i++)
		pairs[i] = json_string_value(json_array_get(merges, i));
	if (*pre)
		begin_bpe(pre, list, n, pairs, n_merges);
	else
		begin_spm(list, n);
	free(list);
	free(pairs);
	t = open_file();
	assert_int_equal(tokenizer_n_vocab(t), n);
	assert_string_equal(tokenizer_kind(t), *pre ? "gpt2" : "llama");
	assert_string_equal(tokenizer_pre(t), pre);
	return t;
}

/* Decoding gives the text back: byte for byte, or with the space that was added in front. */
static void check_decoding(const struct tokenizer *t, const char *text, const int32_t *ids,
			   size_t n)
{
	const bool spm = !*tokenizer_pre(t);
	char back[4096], expected[4096];
	size_t len = 0, at = 0;

	for (size_t i = 0; i < n; i++)
		len += tokenizer_piece(t, ids[i], true, back + len, sizeof(back) - len);
	assert_true(len < sizeof(back));
	if (spm)
		expected[at++] = ' ';
	for (; *text; text++) {
		if (spm && !strncmp(text, "\xe2\x96\x81", 3)) {
			expected[at++] = ' ';
			text += 2;
		} else {
			expected[at++] = *text;
		}
	}
	assert_int_equal(len, at);
	assert_memory_equal(back, expected, len);
}

/* After a special token SentencePiece adds a space, so such texts come back with more of them. */
static bool holds_special(const struct tokenizer *t, const int32_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (tokenizer_is_special(t, ids[i]))
			return true;
	return false;
}

static void check_own_vectors(const char *name, const char *pre)
{
	json_t *v = load_vectors(name), *c;
	struct tokenizer *t = open_vectors(v, pre);
	int32_t expected[2048];
	size_t i, n;

	json_array_foreach(json_object_get(v, "cases"), i, c) {
		const char *text = json_string_value(json_object_get(c, "text"));
		const json_t *ids = json_object_get(json_object_get(c, "ids"), pre);
		bool special = json_is_true(json_object_get(c, "special"));

		n = json_array_size(ids);
		assert_true(n <= ARRAY_LEN(expected));
		for (size_t k = 0; k < n; k++)
			expected[k] = (int32_t)json_integer_value(json_array_get(ids, k));
		check_ids(t, text, strlen(text), special ? TOKENIZER_PARSE_SPECIAL : 0, expected,
			  n);
		if (*pre || !holds_special(t, expected, n))
			check_decoding(t, text, expected, n);
	}
	assert_true(i >= 50);
	tokenizer_close(t);
	json_decref(v);
}

static void own_vectors__byte_level(void **state)
{
	static const char *const pres[] = { "gpt-2",  "llama-bpe", "qwen2",
					    "smollm", "starcoder", "falcon" };

	for (size_t i = 0; i < ARRAY_LEN(pres); i++)
		check_own_vectors("byte-level", pres[i]);
}

static void own_vectors__sentence_piece(void **state)
{
	check_own_vectors("sentence-piece", "");
}

/* Bytes that are not UTF-8 come back as they were; valid text around them is not touched. */
static void tokenizer_encode__keeps_any_bytes(void **state)
{
	json_t *v = load_vectors("byte-level");
	struct tokenizer *t = open_vectors(v, "qwen2");
	char text[256], back[256];
	size_t n, len = 0;
	int32_t *ids;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(255 - i);
	assert_ok(tokenizer_encode(t, text, sizeof(text), 0, &ids, &n, &err), &err);
	for (size_t i = 0; i < n; i++)
		len += tokenizer_piece(t, ids[i], true, back + len, sizeof(back) - len);
	assert_int_equal(len, sizeof(text));
	assert_memory_equal(back, text, len);
	free(ids);
	tokenizer_close(t);
	json_decref(v);
}

/* --- SentencePiece by hand --- */

#define SPACE "\xe2\x96\x81"

static const struct token spm_tokens[] = {
	{ "<unk>", UNKNOWN, 0 }, /* 0 */
	{ "<s>", CONTROL, 0 },	   { "</s>", CONTROL, 0 },    { "<0x0A>", BYTE, 0 },
	{ "<0xC3>", BYTE, 0 },	   { "<0xa9>", BYTE, 0 }, /* 5: not how the bytes' tokens are looked up */
	{ SPACE, NORMAL, -9 },	   { "a", NORMAL, -9 },	      { "b", NORMAL, -9 },
	{ "ab", NORMAL, -2 },	   { "ba", NORMAL, -2 }, /* 10 */
	{ SPACE "a", NORMAL, -1 }, { "aab", NORMAL, -3 },     { "<tool>", USER, 0 },
	{ "x", UNUSED, -9 },	   { "a" SPACE, NORMAL, -5 }, /* 15 */
};

static struct tokenizer *open_spm(const char *flag, int value)
{
	begin_spm(spm_tokens, ARRAY_LEN(spm_tokens));
	if (flag)
		tiny_gguf_key_bool(&file, flag, value);
	return open_file();
}

static void spm__merges_by_score_then_leftmost(void **state)
{
	struct tokenizer *t = open_spm(KEY("add_space_prefix"), 0);

	CHECK_IDS(t, "ab", 0, 9);
	CHECK_IDS(t, "aba", 0, 9, 7); /* of two equal scores the left one */
	CHECK_IDS(t, "baba", 0, 10, 10);
	CHECK_IDS(t, "aab", 0, 12);
	CHECK_IDS(t, " aab", 0, 11, 9); /* the space goes first */
	CHECK_IDS(t, "a b", 0, 15, 8); /* across a space, as this vocabulary has such a token */
	CHECK_IDS(t, "xa", 0, 14, 7); /* unused tokens are used, as llama.cpp does */
	CHECK_IDS(t, "\n\xc3\xa9q", 0, 3, 4, 0, 0); /* bytes, or the unknown token */
	CHECK_IDS(t, SPACE " ", 0, 6, 6);
	tokenizer_close(t);
}

static void spm__adds_space_after_special(void **state)
{
	struct tokenizer *t = open_spm(NULL, 0);
	const unsigned int both = TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL;

	CHECK_IDS(t, "a", 0, 11);
	CHECK_IDS(t, "a", TOKENIZER_ADD_SPECIAL, 1, 11);
	CHECK_IDS(t, "", TOKENIZER_ADD_SPECIAL, 1);
	check_ids(t, "", 0, 0, NULL, 0);
	CHECK_IDS(t, "a</s>a", both, 1, 11, 2, 11);
	CHECK_IDS(t, "a<tool>a", 0, 11, 13, 11); /* user-defined ones always count */
	CHECK_IDS(t, "<unk><s>", both, 1, 0, 1);
	tokenizer_close(t);
	t = open_spm(KEY("add_bos_token"), 0);
	CHECK_IDS(t, "a", TOKENIZER_ADD_SPECIAL, 11);
	assert_false(tokenizer_adds_bos(t));
	tokenizer_close(t);
	t = open_spm(KEY("add_eos_token"), 1);
	CHECK_IDS(t, "a", TOKENIZER_ADD_SPECIAL, 1, 11, 2);
	CHECK_IDS(t, "a", 0, 11);
	tokenizer_close(t);
}

static void spm__pieces(void **state)
{
	struct tokenizer *t = open_spm(NULL, 0);
	char piece[4] = "....";

	check_piece(t, 0, false, "");
	check_piece(t, 0, true, "<unk>");
	check_piece(t, 2, false, "");
	check_piece(t, 2, true, "</s>");
	check_piece(t, 3, false, "\n");
	check_piece(t, 4, false, "\xc3");
	check_piece(t, 5, false, "\xa9");
	check_piece(t, 6, false, " ");
	check_piece(t, 13, false, "<tool>");
	check_piece(t, 14, true, "");
	check_piece(t, 15, false, "a ");
	check_piece(t, -1, true, "");
	check_piece(t, 16, true, "");
	assert_int_equal(tokenizer_piece(t, 15, false, piece, 1), 2); /* cut, and says so */
	assert_memory_equal(piece, "a...", 4);
	assert_int_equal(tokenizer_piece(t, 15, false, NULL, 0), 2);
	assert_int_equal(tokenizer_bos(t), 1);
	assert_int_equal(tokenizer_eos(t), 2);
	assert_true(tokenizer_is_eog(t, 2));
	assert_false(tokenizer_is_eog(t, 1));
	assert_false(tokenizer_is_eog(t, -1));
	assert_true(tokenizer_is_special(t, 13));
	assert_false(tokenizer_is_special(t, 0));
	assert_int_equal(tokenizer_find(t, "<tool>"), 13);
	assert_int_equal(tokenizer_find(t, "<tool"), -1);
	tokenizer_close(t);
}

/* --- byte-level by hand --- */

static const struct token bpe_tokens[] = {
	{ "a", NORMAL, 0 }, /* 0 */
	{ "b", NORMAL, 0 },
	{ "c", NORMAL, 0 },
	{ "ab", NORMAL, 0 },
	{ "abc", NORMAL, 0 },
	{ "Ġ", NORMAL, 0 }, /* 5 */
	{ "Ġa", NORMAL, 0 },
	{ "bcb", NORMAL, 0 },
	{ "<|im_end|>", NORMAL, 0 }, /* control all the same */
	{ "<|bos|>", CONTROL, 0 },
	{ "<t>", USER, 0 }, /* 10 */
	{ "<tt>", USER, 0 },
	{ "中", NORMAL, 0 },
	{ "cab", NORMAL, 0 },
	{ "<|file_sep|>", USER, 0 }, /* ends a generation, and is control */
};
static const char *const bpe_merges[] = { "b c", "a b", "ab c", "Ġ a", "a b", "c b" };

static struct tokenizer *open_bpe(const char *pre)
{
	begin_bpe(pre, bpe_tokens, ARRAY_LEN(bpe_tokens), bpe_merges, ARRAY_LEN(bpe_merges));
	tiny_gguf_key_u32(&file, KEY("bos_token_id"), 9);
	tiny_gguf_key_u32(&file, KEY("eos_token_id"), 9);
	return open_file();
}

static void bpe__merges_by_rank(void **state)
{
	struct tokenizer *t = open_bpe("gpt-2");

	CHECK_IDS(t, "ab", 0, 3);
	CHECK_IDS(t, "abab", 0, 3, 3);
	CHECK_IDS(t, " a", 0, 6);
	/* A merge that is there twice counts where it stands first. */
	CHECK_IDS(t, " ab", 0, 5, 3);
	/* "b c" goes first and makes "bc", which is no token: its bytes are. */
	CHECK_IDS(t, "abc", 0, 0, 1, 2);
	CHECK_IDS(t, "bcb", 0, 1, 2, 1); /* a token, but no merges lead to it */
	/* Bytes without a token are dropped, as llama.cpp does. */
	CHECK_IDS(t, "aqb", 0, 0, 1);
	check_ids(t, "\n", 1, 0, NULL, 0);
	CHECK_IDS(t, "a", TOKENIZER_ADD_SPECIAL, 0);
	tokenizer_close(t);
}

static void bpe__whole_words_of_llama3(void **state)
{
	struct tokenizer *t = open_bpe("llama-bpe");

	CHECK_IDS(t, "bcb", 0, 7);
	CHECK_IDS(t, "bcb bcb", 0, 7, 5, 1, 2, 1);
	CHECK_IDS(t, "abc", 0, 4);
	CHECK_IDS(t, "a", TOKENIZER_ADD_SPECIAL, 9, 0);
	assert_true(tokenizer_adds_bos(t));
	tokenizer_close(t);
}

static void bpe__special_tokens(void **state)
{
	struct tokenizer *t = open_bpe("gpt-2");

	CHECK_IDS(t, "a<|im_end|>b", TOKENIZER_PARSE_SPECIAL, 0, 8, 1);
	check_ids(t, "<|im_end|>", 10, 0, NULL, 0); /* text: no byte of it has a token */
	check_ids(t, "<|im_end|", 9, TOKENIZER_PARSE_SPECIAL, NULL, 0);
	CHECK_IDS(t, "<tt><t>", 0, 11, 10);
	CHECK_IDS(t, "<t<t>t>", 0, 10);
	CHECK_IDS(t, "a<|bos|><|bos|>", TOKENIZER_PARSE_SPECIAL, 0, 9, 9);
	tokenizer_close(t);
}

/* The longest first, whatever stands before it. */
static void special__longest_first(void **state)
{
	static const struct token tokens[] = { { "a", NORMAL, 0 },   { "b", NORMAL, 0 },
					       { "ab", USER, 0 },    { "bab", USER, 0 },
					       { "abcde", USER, 0 }, { "bb", CONTROL, 0 },
					       { "ba", CONTROL, 0 } };
	struct tokenizer *t;

	begin_bpe("gpt-2", tokens, ARRAY_LEN(tokens), NULL, 0);
	t = open_file();
	CHECK_IDS(t, "abab", 0, 0, 3);
	CHECK_IDS(t, "ababab", 0, 0, 3, 2);
	CHECK_IDS(t, "babcde", 0, 1, 4);
	CHECK_IDS(t, "babab", 0, 3, 2);
	CHECK_IDS(t, "abb", TOKENIZER_PARSE_SPECIAL, 2, 1);
	CHECK_IDS(t, "bbb", TOKENIZER_PARSE_SPECIAL, 5, 1);
	CHECK_IDS(t, "bbb", 0, 1, 1, 1);
	/* Of one length the lower id, though another stands before it. */
	CHECK_IDS(t, "bbab", TOKENIZER_PARSE_SPECIAL, 1, 3);
	CHECK_IDS(t, "abbb", TOKENIZER_PARSE_SPECIAL, 2, 5);
	CHECK_IDS(t, "bbba", TOKENIZER_PARSE_SPECIAL, 5, 6);
	tokenizer_close(t);
}

static void special__phi3_swallows_space(void **state)
{
	static const struct token tokens[] = { { "a", NORMAL, 0 },
					       { "Ġ", NORMAL, 0 },
					       { "<|user|>", USER, 0 },
					       { "<|endoftext|>", CONTROL, 0 },
					       { "<|x|>", CONTROL, 0 } };
	struct tokenizer *t;

	begin_bpe("gpt-2", tokens, ARRAY_LEN(tokens), NULL, 0);
	tiny_gguf_key_str(&file, "general.name", "My Phi-3 Mini");
	t = open_file();
	CHECK_IDS(t, " <|user|> \t\n a ", 0, 1, 2, 0, 1);
	CHECK_IDS(t, "<|user|>  ", 0, 2);
	CHECK_IDS(t, "<|x|> <|user|> a", TOKENIZER_PARSE_SPECIAL, 4, 2, 0);
	CHECK_IDS(t, "<|endoftext|> a", TOKENIZER_PARSE_SPECIAL, 3, 1, 0);
	tokenizer_close(t);
}

static void bpe__pieces(void **state)
{
	struct tokenizer *t = open_bpe("smollm");

	check_piece(t, 6, false, " a");
	check_piece(t, 8, false, "");
	check_piece(t, 8, true, "<|im_end|>");
	check_piece(t, 10, false, "<t>");
	check_piece(t, 12, false, "[UNK_BYTE_0xe4b8ad中]");
	assert_true(tokenizer_is_eog(t, 8));
	assert_true(tokenizer_is_eog(t, 9)); /* eos */
	assert_true(tokenizer_is_eog(t, 14));
	assert_false(tokenizer_is_eog(t, 10));
	assert_true(tokenizer_is_special(t, 8));
	tokenizer_close(t);
}

/* --- texts of several origins --- */

static void encode_parts__user_cannot_forge(void **state)
{
	struct tokenizer *t = open_bpe("gpt-2");
	const struct tokenizer_part parts[] = {
		{ "<|bos|>a", 8, true },    { "b<|im_end|>", 11, false },
		{ "<|im_end|>", 10, true }, { "<|im_", 5, true },
		{ "end|>", 5, true },	    { NULL, 0, false },
		{ "<t", 2, false },	    { ">", 1, true },
	};
	static const int32_t expected[] = { 9, 3, 8, 10 };
	int32_t *ids;
	size_t n;

	/* "a" and "b" merge across the parts; a token in pieces counts only where users may write it. */
	assert_ok(tokenizer_encode_parts(t, parts, ARRAY_LEN(parts), TOKENIZER_PARSE_SPECIAL, &ids,
					 &n, &err),
		  &err);
	assert_int_equal(n, ARRAY_LEN(expected));
	assert_memory_equal(ids, expected, sizeof(expected));
	free(ids);
	assert_ok(tokenizer_encode_parts(t, NULL, 0, 0, &ids, &n, &err), &err);
	assert_int_equal(n, 0);
	assert_non_null(ids);
	free(ids);
	tokenizer_close(t);
}

static void encode__refuses_too_much(void **state)
{
	struct tokenizer *t = open_bpe("gpt-2");
	const struct tokenizer_part parts[] = { { "a", SIZE_MAX, false }, { "a", 2, false } };
	int32_t *ids;
	size_t n;

	assert_int_equal(tokenizer_encode(t, "", TOKENIZER_MAX_TEXT + 1, 0, &ids, &n, &err),
			 -E2BIG);
	assert_int_equal(tokenizer_encode_parts(t, parts, 2, 0, &ids, &n, &err), -E2BIG);
	assert_int_equal(tokenizer_encode_parts(t, parts + 1, 1, 0, &ids, &n, NULL), 0);
	free(ids);
	tokenizer_close(t);
}

/* A megabyte of one letter: with a search per merge this takes minutes. */
static void encode__long_word_is_not_quadratic(void **state)
{
	static const struct token spm[] = { { "<unk>", UNKNOWN, 0 },   { "<s>", CONTROL, 0 },
					    { "</s>", CONTROL, 0 },    { "a", NORMAL, -4 },
					    { "aa", NORMAL, -3 },      { "aaaa", NORMAL, -2 },
					    { "aaaaaaaa", NORMAL, -1 } };
	static const char *const merges[] = { "a a", "aa aa", "aaaa aaaa" };
	const size_t len = 1 << 20;
	char *text = malloc(len);
	clock_t start = clock();

	assert_non_null(text);
	memset(text, 'a', len);
	for (int family = 0; family < 2; family++) {
		struct tokenizer *t;
		int32_t *ids;
		size_t n;

		if (family)
			begin_bpe("qwen2", spm, ARRAY_LEN(spm), merges, ARRAY_LEN(merges));
		else
			begin_spm(spm, ARRAY_LEN(spm));
		tiny_gguf_key_bool(&file, KEY("add_space_prefix"), 0);
		t = open_file();
		assert_ok(tokenizer_encode(t, text, len, 0, &ids, &n, &err), &err);
		assert_int_equal(n, len / 8);
		assert_int_equal(ids[0], 6);
		free(ids);
		tokenizer_close(t);
	}
	assert_true(clock() - start < 30 * CLOCKS_PER_SEC);
	free(text);
}

/* --- fingerprint --- */

static void hash_le32(crypto_generichash_state *h, uint32_t v)
{
	const uint8_t b[4] = { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
			       (uint8_t)(v >> 24) };

	crypto_generichash_update(h, b, 4);
}

static void hash_text(crypto_generichash_state *h, const char *s)
{
	hash_le32(h, (uint32_t)strlen(s));
	crypto_generichash_update(h, (const uint8_t *)s, strlen(s));
}

/* The header's description, followed for one file. */
static void fingerprint__is_as_described(void **state)
{
	static const struct token tokens[] = { { "a", NORMAL, 0 },
					       { "b", NORMAL, 0 },
					       { "ab", NORMAL, 0 },
					       { "<|eot_id|>", NORMAL, 0 } };
	static const char *const merges[] = { "a b" };
	static const uint8_t attrs[] = { 1, 1, 1, 4 };
	uint8_t expected[32], got[32];
	crypto_generichash_state h;
	struct tokenizer *t;

	begin_bpe("llama3", tokens, 4, merges, 1);
	tiny_gguf_key_u32(&file, KEY("bos_token_id"), 3);
	t = open_file();
	crypto_generichash_init(&h, NULL, 0, 32);
	crypto_generichash_update(&h, (const uint8_t *)"lslm tokenizer 1", 16);
	hash_le32(&h, 2);
	hash_le32(&h, 1 | 8);
	hash_le32(&h, 3);
	hash_le32(&h, UINT32_MAX);
	hash_le32(&h, UINT32_MAX);
	hash_le32(&h, 4);
	for (size_t i = 0; i < 4; i++) {
		hash_text(&h, tokens[i].text);
		crypto_generichash_update(&h, &attrs[i], 1);
	}
	hash_le32(&h, 1);
	hash_text(&h, "a b");
	crypto_generichash_final(&h, expected, 32);
	tokenizer_fingerprint(t, got);
	assert_memory_equal(got, expected, 32);
	tokenizer_close(t);
}

static void fingerprint__changes_with_what_matters(void **state)
{
	uint8_t seen[8][32];
	struct token tokens[ARRAY_LEN(spm_tokens)];
	size_t n = ARRAY_LEN(spm_tokens);

	for (int i = 0; i < 8; i++) {
		struct tokenizer *t;

		memcpy(tokens, spm_tokens, sizeof(tokens));
		if (i == 2)
			tokens[7].text = "A";
		if (i == 3)
			tokens[7].score = -8;
		if (i == 4)
			tokens[7].type = USER;
		begin_spm(tokens, i == 5 ? n - 1 : n);
		if (i == 1)
			tiny_gguf_key_str(&file, "general.name", "another name, the same tokens");
		if (i == 6)
			tiny_gguf_key_bool(&file, KEY("add_space_prefix"), 0);
		if (i == 7)
			tiny_gguf_key_bool(&file, KEY("add_bos_token"), 0);
		t = open_file();
		tokenizer_fingerprint(t, seen[i]);
		tokenizer_close(t);
		for (int k = 0; k < i; k++)
			assert_int_equal(memcmp(seen[k], seen[i], 32) == 0, i == 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shared_vectors__llama_spm),
		cmocka_unit_test(shared_vectors__gpt_2),
		cmocka_unit_test(own_vectors__byte_level),
		cmocka_unit_test(own_vectors__sentence_piece),
		cmocka_unit_test(tokenizer_encode__keeps_any_bytes),
		cmocka_unit_test(spm__merges_by_score_then_leftmost),
		cmocka_unit_test(spm__adds_space_after_special),
		cmocka_unit_test(spm__pieces),
		cmocka_unit_test(bpe__merges_by_rank),
		cmocka_unit_test(bpe__whole_words_of_llama3),
		cmocka_unit_test(bpe__special_tokens),
		cmocka_unit_test(special__longest_first),
		cmocka_unit_test(special__phi3_swallows_space),
		cmocka_unit_test(bpe__pieces),
		cmocka_unit_test(encode_parts__user_cannot_forge),
		cmocka_unit_test(encode__refuses_too_much),
		cmocka_unit_test(encode__long_word_is_not_quadratic),
		cmocka_unit_test(fingerprint__is_as_described),
		cmocka_unit_test(fingerprint__changes_with_what_matters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
