/* SPDX-License-Identifier: MIT */
/*
 * Text to token ids and back, as the model's GGUF says.
 *
 * Two families: SentencePiece ("llama": merges by piece score, byte fallback,
 * optional leading space) and byte-level BPE ("gpt2": a pre-tokenizer cuts the
 * text, merges by rank inside each cut). Pre-tokenizers by tokenizer.ggml.pre:
 * gpt-2, llama-bpe, qwen2, smollm, starcoder, falcon, and the names that files
 * use for the same rules; any other one is refused by name, because a guess
 * gives wrong ids without any other sign.
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
 * are accepted: what is not UTF-8 becomes byte tokens. -ENOMEM, -E2BIG for text over
 * TOKENIZER_MAX_TEXT.
 */
#define TOKENIZER_MAX_TEXT ((size_t)64 << 20)
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned int flags,
		     int32_t **ids, size_t *n, struct lslm_error *err);

/*
 * The bytes of one token, as decoding would append them (a SentencePiece space is
 * " ", a byte token is its byte, a control token is empty unless special is set,
 * then it is its name). Returns the length, writes at most cap bytes.
 */
size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, char *buf, size_t cap);

uint32_t tokenizer_n_vocab(const struct tokenizer *t);
int32_t tokenizer_bos(const struct tokenizer *t); /* -1 where there is none */
int32_t tokenizer_eos(const struct tokenizer *t);
/* End of generation: eos, eot and the tokens that chat templates end a turn with. */
bool tokenizer_is_eog(const struct tokenizer *t, int32_t id);
/* A control or user-defined token: where a text may be cut without changing its ids. */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
int32_t tokenizer_find(const struct tokenizer *t, const char *name); /* id or -1 */
/* "llama" or "gpt2", and the pre-tokenizer's name ("" for SentencePiece). */
const char *tokenizer_kind(const struct tokenizer *t);
const char *tokenizer_pre(const struct tokenizer *t);
/* BLAKE2b-256 over everything that decides the ids. */
void tokenizer_fingerprint(const struct tokenizer *t, uint8_t out[32]);

#endif
