/* SPDX-License-Identifier: MIT */
/*
 * Publishing: a text becomes a context file.
 *
 * The text is rendered as the model's system message (raw: taken as it is), tokenised,
 * prefilled, and its full stripes are written, at every level asked for, to a signed .lskv with
 * lskv_write(), so that the file is complete or absent. What is left over past the last full block
 * stays in the manifest as tokens.
 */
#ifndef LSLM_ENGINE_PUBLISH_H
#define LSLM_ENGINE_PUBLISH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/geometry.h"
#include "kv/key.h"

struct calibrations;
struct engine;
struct map;

struct publish_opts {
	/* Make the values from another model's, through this map; from: that model. NULL: computed as they are. */
	const struct map *map;
	struct engine *from;
	bool raw;
	uint32_t n_ctx; /* positions at most; 0: what the model was trained for */
	const char *title; /* for people; NULL for none */
	struct kv_hash salt;
	const uint8_t *seckey; /* [MANIFEST_SECKEY_BYTES] */
	uint32_t levels; /* bits 1 << enum kv_level; 0: f16 alone */
	const struct calibrations *calibrations; /* the model's is needed for level p; NULL: none */
	/* Called from time to time with tokens done; NULL for none. */
	void (*progress)(void *arg, uint32_t done, uint32_t total);
	/* Asked with the key before anything is computed; true: nothing is computed or written. NULL: nobody has it. */
	bool (*have)(void *arg, const struct kv_hash *key);
	void *arg;
};

/* Can the engine's model publish at these levels? -ENOTSUP with a line that says what is missing. */
int publish_check(struct engine *e, uint32_t levels, const struct calibrations *calibrations,
		  struct lslm_error *err);
/* -EINVAL for empty text, -E2BIG when it does not fit the model's context, -ENOTSUP as above. */
int publish_file(struct engine *e, const char *text, size_t len, const struct publish_opts *opts,
		 const char *path, struct kv_hash *key, struct lslm_error *err);

#endif
