/* SPDX-License-Identifier: MIT */
/*
 * Byte-level BPE: merges by rank inside each word of the pre-tokenizer.
 *
 * The vocabulary writes bytes as characters (unicode_from_byte), but a word is merged as
 * what it is, bytes: each byte has a unit, a merge takes two units to a third, and the table of
 * merges is keyed by pairs of numbers. A unit is a string of the vocabulary's table; below
 * vocab.n it is a token. Merges may pass through strings that are no token (no trained
 * vocabulary has them); what is left of such a unit is written as the tokens of its printable
 * ASCII bytes and the rest dropped, as llama.cpp does. Internal to the tokenizer.
 */
#ifndef LSLM_MODEL_BPE_H
#define LSLM_MODEL_BPE_H

#include "model/idlist.h"
#include "model/merge.h"
#include "model/vocab.h"

struct bpe_pair {
	uint32_t left, right; /* units */
	uint32_t rank; /* position in the file; of equal pairs the first counts */
	int32_t unit; /* what they make; -1 marks a free slot */
};

struct bpe {
	int32_t byte_unit[256];
	struct bpe_pair *pairs; /* open addressing */
	uint32_t mask;
};

/* Reads tokenizer.ggml.merges; adds strings to v->text. */
int bpe_load(struct bpe *b, struct vocab *v, const struct gguf *g, struct lslm_error *err);
void bpe_free(struct bpe *b);

/* Append the ids of text. -ENOMEM. */
int bpe_encode(const struct bpe *b, const struct vocab *v, struct merge *m, const char *text,
	       size_t len, struct idlist *out);

#endif
