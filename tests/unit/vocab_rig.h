/* SPDX-License-Identifier: MIT */
/* Small vocabularies made in memory, and what a tokenizer of one gives. */
#ifndef LSLM_TESTS_VOCAB_RIG_H
#define LSLM_TESTS_VOCAB_RIG_H

#include "unit/unit.h"

#include "model/tokenizer.h"
#include "unit/tiny_gguf.h"

static struct lslm_error err;

#define KEY(name) "tokenizer.ggml." name

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };

struct token {
	const char *text;
	int32_t type;
	float score;
};

static struct tiny_gguf file;

static inline void put_tokens(const struct token *tokens, size_t n)
{
	tiny_gguf_key_array(&file, KEY("tokens"), 8, n);
	for (size_t i = 0; i < n; i++)
		tiny_gguf_text(&file, tokens[i].text);
	tiny_gguf_key_array(&file, KEY("token_type"), 5, n);
	for (size_t i = 0; i < n; i++)
		tiny_gguf_put(&file, &tokens[i].type, 4);
}

static inline void put_scores(const struct token *tokens, size_t n)
{
	tiny_gguf_key_array(&file, KEY("scores"), 6, n);
	for (size_t i = 0; i < n; i++)
		tiny_gguf_put(&file, &tokens[i].score, 4);
}

/* A SentencePiece file, open for further keys. */
static inline void begin_spm(const struct token *tokens, size_t n)
{
	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), "llama");
	put_tokens(tokens, n);
	put_scores(tokens, n);
}

static inline void begin_bpe(const char *pre, const struct token *tokens, size_t n,
			     const char *const *merges, size_t n_merges)
{
	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), "gpt2");
	tiny_gguf_key_str(&file, KEY("pre"), pre);
	put_tokens(tokens, n);
	tiny_gguf_key_strs(&file, KEY("merges"), merges, n_merges);
}

static inline int try_open(struct tokenizer **t)
{
	struct gguf *g;
	int ret;

	assert_ok(gguf_open_mem(&g, file.data, file.size, &err), &err);
	ret = tokenizer_open(t, g, &err);
	gguf_close(g);
	/* What was needed is copied: whoever reads the file now is wrong. */
	if (ret == 0)
		memset(file.data, 0xa5, sizeof(file.data));
	return ret;
}

static inline struct tokenizer *open_file(void)
{
	struct tokenizer *t = NULL;

	assert_ok(try_open(&t), &err);
	return t;
}

static inline void check_ids(const struct tokenizer *t, const char *text, size_t len,
			     unsigned int flags, const int32_t *expected, size_t n_expected)
{
	int32_t *ids;
	size_t n;

	assert_ok(tokenizer_encode(t, text, len, flags, &ids, &n, &err), &err);
	for (size_t i = 0; i < n || i < n_expected; i++)
		if (i >= n || i >= n_expected || ids[i] != expected[i])
			fail_msg("\"%.*s\": id %zu is %d, not %d", (int)len, text, i,
				 i < n ? ids[i] : -1, i < n_expected ? expected[i] : -1);
	free(ids);
}

#define CHECK_IDS(t, text, flags, ...)                                            \
	check_ids(t, text, strlen(text), flags, (const int32_t[]){ __VA_ARGS__ }, \
		  sizeof((const int32_t[]){ __VA_ARGS__ }) / sizeof(int32_t))

static inline void check_piece(const struct tokenizer *t, int32_t id, bool special,
			       const char *expected)
{
	char piece[256];
	size_t n = tokenizer_piece(t, id, special, piece, sizeof(piece));

	assert_int_equal(n, strlen(expected));
	assert_memory_equal(piece, expected, n);
}

#endif
