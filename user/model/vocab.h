/* SPDX-License-Identifier: MIT */
/*
 * A vocabulary as the GGUF lists it: the tokens' texts, types and scores, which of them
 * are special, and what the file says about adding them. What the texts mean is up to the
 * family (spm.h, bpe.h). Internal to the tokenizer.
 *
 * Keys (tokenizer.ggml.*): model, pre, tokens, token_type, scores, bos_token_id, eos_token_id,
 * unknown_token_id, eot_token_id, eom_token_id, fim_*_token_id, add_bos_token, add_eos_token,
 * add_space_prefix. Defaults and the treatment of well-known names are llama.cpp's:
 *
 *  - An empty text becomes "[EMPTY_n]"; two tokens of one text are refused.
 *  - Without token_type every token is normal.
 *  - The names that end a turn (<|im_end|>, <|eot_id|>, <|end|>, <end_of_turn>,
 *    <|endoftext|>, <|eom_id|>, <EOT>) and those of fill-in-the-middle become control tokens
 *    even if the file calls them something else.
 *  - End of generation: eos, eot, eom, those names, and fim_pad, fim_rep and fim_sep.
 *  - In a model whose general.name contains phi-3 or phi3, special tokens other than <unk>, <s>
 *    and <|endoftext|> swallow the white space after them.
 *
 * Unlike llama.cpp, which warns and goes on, an id or array that does not fit is refused.
 */
#ifndef LSLM_MODEL_VOCAB_H
#define LSLM_MODEL_VOCAB_H

#include <stdbool.h>

#include "model/gguf.h"
#include "model/pretokenize.h"
#include "model/strtab.h"

/* A token's type (at most one of the first five) and what follows from it. */
enum vocab_attr {
	VOCAB_NORMAL = 1 << 0,
	VOCAB_UNKNOWN = 1 << 1,
	VOCAB_CONTROL = 1 << 2,
	VOCAB_USER = 1 << 3,
	VOCAB_BYTE = 1 << 4,
	VOCAB_RSTRIP = 1 << 5, /* swallows the white space after it */
	VOCAB_EOG = 1 << 6, /* ends a generation */
};

struct vocab {
	const struct pretokenize_kind *pre; /* NULL: SentencePiece */
	/* Strings 0 to n - 1 are the tokens; bpe.c adds others behind them. */
	struct strtab text;
	uint32_t n;
	uint8_t *attr; /* [n] */
	float *scores; /* [n], SentencePiece only */
	int32_t bos, eos, unk; /* -1 where there is none */
	bool add_bos, add_eos, add_space;
};

int vocab_load(struct vocab *v, const struct gguf *g, struct lslm_error *err);
void vocab_free(struct vocab *v);

/* The token with exactly this text, or -1. */
int32_t vocab_find(const struct vocab *v, const char *text, size_t len);

#endif
