/* SPDX-License-Identifier: MIT */
/*
 * Text to token ids and back, as the model's GGUF says.
 *
 * Two families: SentencePiece ("llama": merges by piece score, byte fallback,
 * optional leading space) and byte-level BPE ("gpt2": a pre-tokenizer cuts the
 * text, merges by rank inside each cut). Pre-tokenizers by tokenizer.ggml.pre:
 * gpt-2, llama-bpe, qwen2, smollm, starcoder, falcon, and the names that files
 * use for the same rules (pretokenize.c lists them); any other one is refused by
 * name, and so is a gpt2 file without one, because a guess gives wrong ids without
 * any other sign.
 *
 * For text that is UTF-8 the ids are those of llama.cpp. Other bytes are kept as
 * they are, so that decoding gives them back, where llama.cpp's byte-level
 * family puts U+FFFD.
 *
 * A tokenizer copies what it needs, so the gguf may be closed; it is immutable
 * and shared freely between threads.
 */
#ifndef LSLM_MODEL_TOKENIZER_H
#define LSLM_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/gguf.h"

struct tokenizer;

enum tokenizer_flags {
	/* Add BOS (and EOS) where the model's metadata asks for it. */
	TOKENIZER_ADD_SPECIAL = 1 << 0,
	/* Recognise special tokens written out in the text, such as <|im_end|>. Never set
	 * for text that a user typed.
	 */
	TOKENIZER_PARSE_SPECIAL = 1 << 1,
};

int tokenizer_open(struct tokenizer **out, const struct gguf *g, struct lslm_error *err);
void tokenizer_close(struct tokenizer *t);

/*
 * *ids receives a malloc'd array that the caller frees, *n its length. Any bytes
 * are accepted: what is not UTF-8 becomes byte tokens. User-defined tokens are recognised with
 * and without TOKENIZER_PARSE_SPECIAL. -ENOMEM, -E2BIG for text over TOKENIZER_MAX_TEXT.
 */
#define TOKENIZER_MAX_TEXT ((size_t)64 << 20)
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned int flags,
		     int32_t **ids, size_t *n, struct lslm_error *err);

/*
 * The same for text of several origins, read as one text: TOKENIZER_PARSE_SPECIAL holds for the
 * parts marked special only, and a special token never reaches across two parts. So a
 * template and what a user typed get the ids that they have together, and the user
 * cannot write a special token.
 */
struct tokenizer_part {
	const char *text;
	size_t len;
	bool special;
};

int tokenizer_encode_parts(const struct tokenizer *t, const struct tokenizer_part *parts,
			   size_t n_parts, unsigned int flags, int32_t **ids, size_t *n,
			   struct lslm_error *err);

/*
 * The bytes of one token, as decoding would append them (a SentencePiece space is
 * " ", a byte token is its byte, a control or unknown token is empty unless special is
 * set, then it is its name; an id that there is not is empty). Returns the length, writes at most cap bytes.
 */
size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, char *buf, size_t cap);

uint32_t tokenizer_n_vocab(const struct tokenizer *t);
int32_t tokenizer_bos(const struct tokenizer *t); /* -1 where there is none */
int32_t tokenizer_eos(const struct tokenizer *t);
/* Does the model want BOS in front of a text? */
bool tokenizer_adds_bos(const struct tokenizer *t);
/* End of generation: eos, eot and the tokens that chat templates end a turn with. */
bool tokenizer_is_eog(const struct tokenizer *t, int32_t id);
/* A control or user-defined token: where a text may be cut without changing its ids. */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
int32_t tokenizer_find(const struct tokenizer *t, const char *name); /* id or -1 */
/* "llama" or "gpt2", and the pre-tokenizer's name ("" for SentencePiece). */
const char *tokenizer_kind(const struct tokenizer *t);
const char *tokenizer_pre(const struct tokenizer *t);
/*
 * BLAKE2b-256, without a key, over everything that decides the ids. Input, all integers
 * little-endian:
 *
 *   16 bytes  "lslm tokenizer 1"; the number changes when the rules do
 *   u32       0 SentencePiece; byte-level by pre-tokenizer: 1 gpt-2, 2 llama-bpe, 3 qwen2,
 *             4 smollm and starcoder, 5 falcon
 *   u32       flags: 1 add BOS, 2 add EOS, 4 space before the text (SentencePiece),
 *             8 words that are tokens need no merges
 *   i32 x 3   BOS, EOS and unknown token, -1 for none
 *   u32       number of tokens; for each: u32 length, the text as in the file ("[EMPTY_n]"
 *             for an empty one), u8 type (1 normal, 2 unknown, 4 control, 8 user-defined,
 *             16 byte, 0 other; +32 if it swallows white space), and for SentencePiece
 *             the score's 4 bytes
 *   u32       number of merges, 0 for SentencePiece; for each: u32 length, text
 */
void tokenizer_fingerprint(const struct tokenizer *t, uint8_t out[32]);

#endif
