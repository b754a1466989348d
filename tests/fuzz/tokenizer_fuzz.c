// SPDX-License-Identifier: MIT
/*
 * Tokenizers against hostile vocabularies and against hostile text.
 *
 * Input: one byte that says which vocabulary, one byte of flags, then
 *   0      u16 length of a text (little-endian), the text, and a GGUF to open
 *   1 - 6  a text for a fixed byte-level vocabulary with that pre-tokenizer
 *   7      a text for a fixed SentencePiece vocabulary
 * What opens must give ids that exist and pieces that fit. The fixed vocabularies have every byte, so
 * decoding must also give the text back: byte for byte, or for SentencePiece with U+2581 for spaces
 * and one more in front.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer.h"
#include "model/unicode.h"

#define assert_true(x)                               \
	do {                                         \
		if (!(x)) {                          \
			fprintf(stderr, "%s\n", #x); \
			abort();                     \
		}                                    \
	} while (0)

#include "../unit/tiny_gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KEY(name) "tokenizer.ggml." name
#define SPACE	  "▁"

enum { HOSTILE, FIRST_BPE, SPM = 7, N_KINDS };

static const char *const pres[] = { "gpt-2", "llama-bpe", "qwen2", "smollm", "starcoder", "falcon" };

static const char *const merges[] = {
	"a a", "aa aa", "Ġ a", "t h", "th e", "Ġ the", "1 2", "12 3", "Ġ Ġ", "ĠĠ ĠĠ", "' s", "Ċ Ċ",
	". .", "Ã ©",	"e r", "ð Ł", "a 1",  "1 a",   "Ġ 1", "Ċ a",  ". a", "! Ċ",   "ï ¿",
};

static const char *const pieces[] = {
	"▁", "▁▁",   "a", "aa", "aaa", "▁a", "t",  "h",	   "th",    "the",
	"e", "▁the", "1", "12", "é",   "a▁", "\n", "\n\n", "</s>a", "中",
};

static struct tiny_gguf file;

/* Byte tokens, or the byte alphabet and the products of all merges; then special ones. */
static void put_token_texts(const char *pre)
{
	uint64_t n =
		3 + 256 +
		(pre ? sizeof(merges) / sizeof(merges[0]) : sizeof(pieces) / sizeof(pieces[0]));
	char text[64];

	tiny_gguf_key_array(&file, KEY("tokens"), 8, n);
	tiny_gguf_text(&file, "<unk>");
	tiny_gguf_text(&file, "<s>");
	tiny_gguf_text(&file, "</s>");
	for (unsigned int b = 0; b < 256; b++) {
		if (pre)
			text[unicode_encode(unicode_from_byte((uint8_t)b), text)] = 0;
		else
			snprintf(text, sizeof(text), "<0x%02X>", b);
		tiny_gguf_text(&file, text);
	}
	for (uint64_t i = 0; i < n - 259; i++) {
		if (pre) {
			const char *space = strchr(merges[i], ' ');

			snprintf(text, sizeof(text), "%.*s%s", (int)(space - merges[i]), merges[i],
				 space + 1);
		}
		tiny_gguf_text(&file, pre ? text : pieces[i]);
	}
	tiny_gguf_key_array(&file, KEY("token_type"), 5, n);
	for (uint64_t i = 0; i < n; i++)
		tiny_gguf_u32(&file, i == 0 ? 2 : i < 3 ? 3 : !pre && i < 259 ? 6 : 1);
	if (pre)
		return;
	tiny_gguf_key_array(&file, KEY("scores"), 6, n);
	for (uint64_t i = 0; i < n; i++)
		tiny_gguf_put(&file, &(float){ i < 259 ? 0 : -(float)(i % 7) }, 4);
}

static struct tokenizer *open_fixed(const char *pre)
{
	struct tokenizer *t;
	struct gguf *g;

	tiny_gguf_begin(&file);
	tiny_gguf_key_str(&file, KEY("model"), pre ? "gpt2" : "llama");
	put_token_texts(pre);
	tiny_gguf_key_u32(&file, KEY("bos_token_id"), 1);
	tiny_gguf_key_u32(&file, KEY("eos_token_id"), 2);
	tiny_gguf_key_bool(&file, KEY("add_eos_token"), 1);
	if (pre) {
		tiny_gguf_key_str(&file, KEY("pre"), pre);
		tiny_gguf_key_strs(&file, KEY("merges"), merges,
				   sizeof(merges) / sizeof(merges[0]));
	}
	assert_true(gguf_open_mem(&g, file.data, file.size, NULL) == 0);
	assert_true(tokenizer_open(&t, g, NULL) == 0);
	gguf_close(g);
	return t;
}

static struct tokenizer *fixed(unsigned int kind)
{
	static struct tokenizer *t[N_KINDS];

	if (!t[kind])
		t[kind] = open_fixed(kind == SPM ? NULL : pres[kind - FIRST_BPE]);
	return t[kind];
}

/* U+2581 as a space, in place. */
static size_t with_spaces(char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (len - i >= 3 && !memcmp(text + i, SPACE, 3)) {
			text[n++] = ' ';
			i += 2;
		} else {
			text[n++] = text[i];
		}
	}
	return n;
}

static char *decode(const struct tokenizer *t, const int32_t *ids, size_t n, size_t *len)
{
	char *text = NULL;
	size_t cap = 0;

	*len = 0;
	for (size_t i = 0; i < n; i++) {
		size_t piece = tokenizer_piece(t, ids[i], true, NULL, 0);

		if (cap - *len < piece || !text) {
			cap = (*len + piece + 64) * 2;
			text = realloc(text, cap);
			assert_true(text);
		}
		assert_true(tokenizer_piece(t, ids[i], true, text + *len, piece) == piece);
		*len += piece;
	}
	return text;
}

/* A text in two parts has the ids of the whole, unless the cut is in a special token. */
static void check_parts(const struct tokenizer *t, const char *text, size_t len, size_t cut,
			const int32_t *ids, size_t n)
{
	const struct tokenizer_part parts[] = { { text, cut, false },
						{ text + cut, len - cut, false } };
	int32_t *again;
	size_t n_again;

	assert_true(tokenizer_encode_parts(t, parts, 2, 0, &again, &n_again, NULL) == 0);
	assert_true(n_again == n && (!n || !memcmp(again, ids, n * sizeof(*ids))));
	free(again);
}

static void use_fixed(unsigned int kind, unsigned int flags, const char *text, size_t len)
{
	struct tokenizer *t = fixed(kind);
	size_t n, n_back, from = 0;
	int32_t *ids;
	char *back, *expected = malloc(len + 2);

	assert_true(expected);
	assert_true(tokenizer_encode(t, text, len, 0, &ids, &n, NULL) == 0);
	back = decode(t, ids, n, &n_back);
	if (kind == SPM && len) {
		n_back = with_spaces(back, n_back);
		assert_true(back[0] == ' ');
		from = 1;
	}
	memcpy(expected, text, len);
	expected[len] = 0;
	if (kind == SPM)
		assert_true(with_spaces(expected, len) == n_back - from);
	else
		assert_true(len == n_back);
	assert_true(n_back == from || !memcmp(back + from, expected, n_back - from));
	check_parts(t, text, len, len ? flags % len : 0, ids, n);
	free(ids);
	free(back);
	free(expected);
	assert_true(tokenizer_encode(t, text, len, flags & 3, &ids, &n, NULL) == 0);
	for (size_t i = 0; i < n; i++)
		assert_true(ids[i] >= 0 && (uint32_t)ids[i] < tokenizer_n_vocab(t));
	free(ids);
}

static void use_hostile(unsigned int flags, const uint8_t *data, size_t size)
{
	size_t len = size < 2 ? 0 : data[0] | (size_t)data[1] << 8, n, n_back;
	const char *text = (const char *)data + 2;
	struct tokenizer *t;
	struct gguf *g;
	int32_t *ids;
	void *copy;

	if (size < 2 || size - 2 < len)
		return;
	size -= 2 + len;
	copy = aligned_alloc(64, (size + 64) & ~(size_t)63);
	assert_true(copy);
	memcpy(copy, text + len, size);
	if (gguf_open_mem(&g, copy, size, NULL) == 0) {
		if (tokenizer_open(&t, g, NULL) == 0) {
			assert_true(tokenizer_encode(t, text, len, flags & 3, &ids, &n, NULL) == 0);
			for (size_t i = 0; i < n; i++)
				assert_true(ids[i] >= 0 && (uint32_t)ids[i] < tokenizer_n_vocab(t));
			free(decode(t, ids, n, &n_back));
			free(ids);
			tokenizer_close(t);
		}
		gguf_close(g);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	if (data[0] % N_KINDS == HOSTILE)
		use_hostile(data[1], data + 2, size - 2);
	else
		use_fixed(data[0] % N_KINDS, data[1], (const char *)data + 2, size - 2);
	return 0;
}
