/* SPDX-License-Identifier: MIT */
/*
 * Two models on the same tokens: what a map is made from, and what it makes.
 *
 * Both run as if alone, so that every context starts from nothing; only full blocks count. The smaller model's engine is the one whose
 * contexts these are.
 */
#ifndef LSLM_ENGINE_MAPPING_H
#define LSLM_ENGINE_MAPPING_H

#include <stdint.h>

#include "codec/align.h"
#include "codec/map.h"
#include "engine/engine.h"

/* -ENOEXEC where the two do not have the same tokenizer. */
int mapping_check(struct engine *from, struct engine *to, struct lslm_error *err);
/* Is this map for these two models? -ENOEXEC with a line that says which differs. */
int mapping_match(const struct map *m, struct engine *from, struct engine *to,
		  struct lslm_error *err);

/*
 * Contexts made through the map in this file are for e from now on; used where the map is proven (map_is_proven()), else computed here, and
 * context_miss() says why. -ENOEXEC for a map for another model.
 */
int mapping_use(struct engine *e, const char *path, struct lslm_error *err);

/* Stripes of the full blocks among n tokens; *stripes is malloc'd. */
int mapping_prefill(struct engine *e, const int32_t *tokens, uint32_t n, uint8_t **stripes,
		    struct lslm_error *err);

/* What both models make of these tokens goes into a. own: the smaller one's stripes. */
int mapping_learn(struct align *a, struct engine *from, struct engine *to, const int32_t *tokens,
		  uint32_t n, const uint8_t *own, struct lslm_error *err);

/*
 * The map's stripes of these tokens, in place of the smaller model's own at stripes. Those are read where the map needs them
 * (map_needs_own()), and may hold anything elsewhere.
 */
int mapping_make(const struct map *m, struct engine *from, struct engine *to, const int32_t *tokens,
		 uint32_t n, uint8_t *stripes, struct lslm_error *err);

#endif
