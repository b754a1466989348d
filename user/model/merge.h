/* SPDX-License-Identifier: MIT */
/*
 * The merge loop that both tokenizer families share.
 *
 * A word begins as a row of symbols. While some two neighbours may merge, those of the lowest
 * rank do (of equal ranks the leftmost), and become one symbol. A binary heap of
 * candidates over a linked list makes that n log n in the length of the word, where
 * searching again after every merge would be n^2: a megabyte of one letter is a legal word.
 *
 * A symbol's number is the byte offset where it starts, so its text is found without
 * storing a length. The work area belongs to one encode call and is used for
 * all its words; it grows to the longest.
 */
#ifndef LSLM_MODEL_MERGE_H
#define LSLM_MODEL_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct merge_symbol {
	uint32_t next; /* where the next symbol starts; the word's length after the last one */
	uint32_t prev; /* UINT32_MAX before the first one */
	int32_t unit; /* the family's number for this text; -1 for none */
};

struct merge {
	struct merge_symbol *symbols; /* valid at starts of symbols only */
	uint32_t len; /* of the word */
	/* private */
	uint32_t last;
	size_t symbols_cap;
	struct merge_pair *heap;
	size_t heap_n, heap_cap;
};

/*
 * May the symbols at left and right (= next of left) merge? Says the rank and the unit
 * that they make.
 */
typedef bool merge_fn(const void *family, const struct merge *m, uint32_t left, uint32_t right,
		      uint32_t *rank, int32_t *unit);

/* Zeroed memory is an empty work area. */
void merge_free(struct merge *m);
/* Start a word of len bytes, 1 <= len < UINT32_MAX, then add its symbols in order, without gaps. */
int merge_start(struct merge *m, size_t len);
void merge_add(struct merge *m, uint32_t start, uint32_t len, int32_t unit);
/*
 * Merge until nothing may. Then: for (i = 0; i < m->len; i = m->symbols[i].next).
 * -ENOMEM.
 */
int merge_run(struct merge *m, merge_fn *fn, const void *family);

#endif
