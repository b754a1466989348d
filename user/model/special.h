/* SPDX-License-Identifier: MIT */
/*
 * Special tokens written out in a text: where they are, before anything else is tokenised.
 *
 * As llama.cpp does it, longer tokens first, of one length the lower id first, each from left to
 * right in what the ones before it have left over. Control and unknown tokens count only
 * inside the areas that the caller names; user-defined ones count everywhere, as they do
 * in the tokenizers that models were trained with. Internal to the tokenizer.
 */
#ifndef LSLM_MODEL_SPECIAL_H
#define LSLM_MODEL_SPECIAL_H

#include "model/vocab.h"

/* A range of bytes of the text. */
struct special_area {
	size_t start, end;
};

/* A token found. The bytes from start to end are its text, and what white space it swallows. */
struct special_cut {
	size_t start, end;
	int32_t id;
};

/* Which special tokens there are, by length, longest first. */
struct special {
	struct special_length *lengths;
	size_t n;
	uint8_t first[32]; /* bit set: some special token starts with this byte */
};

int special_load(struct special *s, const struct vocab *v, struct lslm_error *err);
void special_free(struct special *s);

/*
 * *cuts receives a malloc'd array, in the order of the text. The areas are in order and
 * do not overlap; a token lies inside one of them, not across two. -ENOMEM.
 */
int special_find(const struct special *s, const struct vocab *v, const char *text, size_t len,
		 const struct special_area *areas, size_t n_areas, struct special_cut **cuts,
		 size_t *n);

#endif
