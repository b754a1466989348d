/* SPDX-License-Identifier: MIT */
/*
 * Pre-tokenizers: where a byte-level vocabulary cuts text into words before it merges.
 *
 * A rule set is a few regular expressions, applied one after the other, each inside
 * the cuts of the one before; between two matches the text in between is a word too. \s, \p{L},
 * \p{N} and \p{P} are the classes of unicode.h. At the end of a cut (?!\S) holds.
 *
 *   GPT2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   LLAMA3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
 *           ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 *   QWEN2   the same with \p{N} for \p{N}{1,3}
 *   DIGITS  \p{N}, then GPT2
 *   FALCON  [\p{P}$+<=>^~|`]+, then GPT2, then [0-9][0-9][0-9]
 *
 * (?i:...) folds ASCII letters only. Each set is matched by hand in one pass; there is no
 * backtracking, so a word costs time in proportion to its length.
 */
#ifndef LSLM_MODEL_PRETOKENIZE_H
#define LSLM_MODEL_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>

enum pretokenize_rules {
	PRETOKENIZE_GPT2,
	PRETOKENIZE_LLAMA3,
	PRETOKENIZE_QWEN2,
	PRETOKENIZE_DIGITS,
	PRETOKENIZE_FALCON,
};

/*
 * What a value of tokenizer.ggml.pre stands for. The names that llama.cpp maps onto these
 * same expressions are known; any other, "default" among them (a fifth set that no trained
 * model has), is NULL.
 */
struct pretokenize_kind {
	const char *name;
	enum pretokenize_rules rules;
	bool whole_words; /* a word that is a token needs no merges */
	bool add_bos; /* where the file does not say */
};

const struct pretokenize_kind *pretokenize_find(const char *name, size_t len);

/* The words of a text, in order, without gaps: while (pretokenize_next(&w)) use w.start, w.end. */
struct pretokenize {
	size_t start, end; /* the word last found */
	/* private */
	enum pretokenize_rules rules;
	const char *text;
	size_t len;
	size_t cut_end; /* of the outer expression */
	size_t number_end; /* FALCON: of the number being cut into threes */
};

void pretokenize_start(struct pretokenize *w, enum pretokenize_rules rules, const char *text,
		       size_t len);
bool pretokenize_next(struct pretokenize *w);

#endif
