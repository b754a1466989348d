/* SPDX-License-Identifier: MIT */
/*
 * Keeps what was packed at start, for the next one: a thread that writes the packed file of the cache
 * directory while the engine works already.
 *
 * It gets processor time that nobody else wants, and is never a reason to fail: what it could not do, and why, is text.
 * The file takes at most a quarter of the room that is left. One process writes at a time (a lock in that
 * directory); what one that was killed left behind, the next one removes.
 */
#ifndef LSLM_ENGINE_PACKKEEPER_H
#define LSLM_ENGINE_PACKKEEPER_H

#include <stddef.h>

#include "engine/packfile.h"

struct packkeeper;

/*
 * w: all in place already, so that they are copied. Everything must outlive the keeper. NULL: no thread, or no
 * memory for one.
 */
struct packkeeper *packkeeper_start(const struct gguf *g, const struct packfile_plan *plan,
				    const struct weight *w);
/* Waits until the file is written. NULL is allowed. */
void packkeeper_finish(struct packkeeper *k);

/* What became of it so far: "being kept for the next start", "kept for the next start", "not kept: ...". */
void packkeeper_describe(struct packkeeper *k, char *text, size_t size);

#endif
