/* SPDX-License-Identifier: MIT */
/*
 * The shelf: the contexts that an edge's courier keeps, each with a thread that brings it.
 *
 * A context that cannot be had is tried again, after a second, then twice as long each time, up to a
 * minute; a new block starts that over. The others are not touched by it. Blocks with a wrong digest are the end for
 * that context: its source is not asked again before the next start; so is a map that is off (kv/manifest.h). With a stripe store a context of an
 * earlier time is there without its cloud, as far as it was kept.
 *
 * Contexts are numbered as they were added, and stay until the shelf is closed.
 */
#ifndef LSLM_SERVE_SHELF_H
#define LSLM_SERVE_SHELF_H

#include "net/courier.h"
#include "net/courier_wire.h"

struct shelf;

enum { SHELF_CONTEXTS = 64 };

struct shelf_opts {
	/* For every context; source, order, offline and stop are set here. Its strings must outlive the shelf. */
	struct courier_opts courier;
	/* One line per event. NULL: no log. From many threads. */
	void (*log)(void *arg, const char *line);
	void *arg;
	int first_wait_ms; /* 0: 1000 */
};

/* What is known of a context now. */
struct shelf_context {
	enum courier_state state;
	bool has_key;
	struct kv_hash key;
	/* NULL while WAITING; then as long as the shelf. Only what courier.h allows beside a running one. */
	struct courier *courier;
	int manifest; /* sealed memfd of it, the shelf's; -1 while WAITING */
	/* What ended the last attempt, as long as nothing has come since; code 0: nothing did. */
	struct lslm_error why;
};

int shelf_open(struct shelf **out, const struct shelf_opts *opts, struct lslm_error *err);
/* A .lskv file or a URL, whose name is copied. -EEXIST: it is there already; -ENOSPC: SHELF_CONTEXTS are. */
int shelf_add(struct shelf *s, const char *source, struct lslm_error *err);
uint32_t shelf_count(struct shelf *s);
/* -ENOENT when there is no such one. */
int shelf_look(struct shelf *s, uint32_t index, struct shelf_context *out);
/* Ends all transfers within a second or so. NULL is allowed. */
void shelf_close(struct shelf *s);

#endif
