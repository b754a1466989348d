/* SPDX-License-Identifier: MIT */
/*
 * SentencePiece: merges by the score of the piece that they make.
 *
 * Spaces become U+2581. Text starts as its characters; of all neighbours that together
 * are a token, the pair with the highest score merges, the leftmost of equals.
 * A character that is no token is written as its bytes' tokens (<0xE2> and so on, or
 * the unknown token where the vocabulary has none). This is what llama.cpp does; real
 * SentencePiece differs in that it normalises text first. Internal to the tokenizer.
 */
#ifndef LSLM_MODEL_SPM_H
#define LSLM_MODEL_SPM_H

#include "model/idlist.h"
#include "model/merge.h"
#include "model/vocab.h"

struct spm {
	int32_t byte_id[256];
	/* Bit [a][b]: in some token a character that ends in byte a stands before one of
	 * start b. Where no token has that, text can be cut without changing its ids, which
	 * keeps the words to merge short.
	 */
	uint8_t joins[256][32];
};

int spm_load(struct spm *s, const struct vocab *v, struct lslm_error *err);

/* Append the ids of text, after a space where prefix is set. -ENOMEM. */
int spm_encode(const struct spm *s, const struct vocab *v, struct merge *m, const char *text,
	       size_t len, bool prefix, struct idlist *out);

/* The value of a byte token's text, "<0xE2>", or -1 for one that is not written so. */
int spm_byte(const char *text, size_t len);

#endif
