/* SPDX-License-Identifier: MIT */
/*
 * What an evaluation is about: contexts, and what is asked about each.
 *
 * A QA file (scripts/train/corpus.py writes them) has one JSON object a line, {"handbook": text, "questions": [{"q", "a",
 * "kind"}]}: the handbook becomes the model's system message, as `publish` makes it, the question a user's turn, and the
 * answer what the model ought to say before it ends its turn. Each goes into the smallest length class that holds its context.
 *
 * A text is cut into windows of each length: all but the last EVAL_SUFFIX tokens are context, those are what is to be
 * predicted.
 */
#ifndef LSLM_ENGINE_EVAL_DATA_H
#define LSLM_ENGINE_EVAL_DATA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "model/model.h"

enum { EVAL_SUFFIX = 64, EVAL_MAX_LENGTHS = 8 };

struct eval_question {
	int32_t *ask; /* [n_ask], at least one, after the context */
	uint32_t n_ask;
	int32_t *answer; /* [n_answer], at least one: what ought to follow, end of turn included */
	uint32_t n_answer;
	char *text; /* the answer in words; NULL: there is none, tokens are all that is scored */
};

struct eval_book {
	int32_t *tokens; /* [n_tokens] of the context */
	uint32_t n_tokens;
	uint32_t length; /* index into lengths */
	struct eval_question *questions;
	uint32_t n_questions;
};

struct eval_data {
	uint32_t lengths[EVAL_MAX_LENGTHS]; /* ascending */
	uint32_t n_lengths;
	struct eval_book *books;
	uint32_t n_books;
	uint32_t n_skipped; /* longer than the longest class, or than the model's positions */
};

/* Is the file of this name a QA file? */
bool eval_data_has_questions(const char *path);
/*
 * Read a file for a model; lengths in out say which classes there are. limit: contexts of each length at most, 0 for all. A path that
 * ends in ".jsonl" is a QA file's. -EINVAL names the line that is wrong, or says that nothing is left.
 */
int eval_data_read(struct eval_data *out, const struct model *m, const char *path, uint32_t limit,
		   struct lslm_error *err);
void eval_data_free(struct eval_data *d);

#endif
