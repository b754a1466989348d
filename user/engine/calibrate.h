/* SPDX-License-Identifier: MIT */
/*
 * Calibrating a model for levels e and p: texts like those to come are prefilled, and what their keys and values are like is kept. How
 * much harm errors in each half do is tried out on the first of them: with this half alone as level e leaves it, how far do the
 * distributions of the answers' tokens, or of a text's last ones, move?
 *
 * A few thousand tokens do; more make it better only slowly. The texts themselves cannot be read from the result, but it
 * does say what their values are like on the average: calibrate with texts that may be known.
 */
#ifndef LSLM_ENGINE_CALIBRATE_H
#define LSLM_ENGINE_CALIBRATE_H

#include <stdbool.h>

#include "codec/calibration.h"

struct engine;

/* Begin for an engine's model. -ENOTSUP for one that is too wide. */
int calibrate_begin(struct engine *e, struct calibrator **out, struct lslm_error *err);

/*
 * Add a text, rendered as a context (raw: taken as it is), in pieces of at most n_ctx tokens (0: what the model
 * was trained for) that each begin anew. Only full blocks count. progress as for publish_file(), may be NULL.
 */
int calibrate_text(struct engine *e, struct calibrator *c, const char *text, size_t len, bool raw,
		   uint32_t n_ctx, void (*progress)(void *arg, uint32_t done, uint32_t total),
		   void *arg, struct lslm_error *err);

/* The same with a file of contexts, questions and answers (engine/eval_data.h). progress counts contexts. */
int calibrate_questions(struct engine *e, struct calibrator *c, const char *path, uint32_t n_ctx,
			void (*progress)(void *arg, uint32_t done, uint32_t total), void *arg,
			struct lslm_error *err);

#endif
