/* SPDX-License-Identifier: MIT */
/*
 * The loader: a thread that brings sections of a file into memory, in the order in which a gate asks
 * for them (engine/weights_gate.h).
 *
 * Reads go straight into place, LOADER_DEPTH of LOADER_CHUNK bytes in flight at a time and across the ends of
 * sections, with O_DIRECT and io_uring where there are both; what is missing, and why, loader_describe()
 * tells. Over a mapping there is nothing to read into: the pages of each section are made present instead.
 *
 * A file that is too short, cannot be read or is written to meanwhile ends the loading with a line, which everybody
 * who waits at the gate gets.
 */
#ifndef LSLM_ENGINE_LOADER_H
#define LSLM_ENGINE_LOADER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/stamp.h"
#include "engine/packfile.h"
#include "engine/weights_gate.h"

enum {
	LOADER_DEPTH = 16,
	LOADER_CHUNK = 1 << 20,
};

struct loader;

struct loader_opts {
	int fd; /* for reading; reopened for O_DIRECT */
	const char *path; /* for lines */
	struct stamp stamp; /* that the file must keep */
	const struct packfile_section *sections; /* of which offset and bytes are used */
	/*
	 * Memory, NULL when a mapping is to be filled: section s of those that stay at kept[s], the slots, slot_bytes each, behind each other
	 * at `slots`.
	 */
	uint8_t *memory;
	uint64_t present; /* bytes of it, all there already, that are worth registering; 0: none */
	const uint64_t *kept;
	uint64_t slots, slot_bytes;
	const uint8_t *mapping; /* of the whole file */
	const uint8_t *
		have; /* of those that stay: 1 for what is in its place already; NULL: nothing is */
};

/* Everything named in opts, and the gate, must outlive the loader. The thread starts at once. */
int loader_start(struct loader **out, const struct loader_opts *opts, struct weights_gate *gate,
		 struct lslm_error *err);
void loader_stop(struct loader *ld); /* waits for reads in flight; NULL is allowed */

struct loader_stats {
	uint64_t bytes; /* that arrived */
	double seconds; /* from the start until what stays was there; 0: not yet */
	const char *how; /* "io_uring, O_DIRECT", "pread", "mapped" */
	char why[256]; /* not better; "" for the best */
};

void loader_stats(struct loader *ld, struct loader_stats *stats);

#endif
