/* SPDX-License-Identifier: MIT */
/*
 * The shelf: the contexts that an edge's courier keeps, each with a thread that brings it.
 *
 * A context that cannot be had is tried again, after a second, then twice as long each time, up to a
 * minute; a new block starts that over. The others are not touched by it. Blocks with a wrong digest are the end for
 * that context: its source is not asked again before the next start; so is a map that is off (kv/manifest.h). With a stripe store a context of an
 * earlier time is there without its cloud, as far as it was kept.
 *
 * Contexts are numbered as they were added; a number is of one context for ever. They stay until the shelf is closed, or until an
 * admin drops one (serve/board.h): its transfer ends then, and its memory lives on with who has it mapped. One that was dropped is
 * not added again, by whomever, until it is asked for.
 */
#ifndef LSLM_SERVE_SHELF_H
#define LSLM_SERVE_SHELF_H

#include "net/courier.h"
#include "net/courier_wire.h"
#include "net/rights.h"
#include "serve/board.h"

struct shelf;
struct slot;

enum { SHELF_CONTEXTS = 64, SHELF_SOURCE_BYTES = 1024 };

struct shelf_opts {
	/* For every context; source, order, offline and stop are set here. Its strings must outlive the shelf. */
	struct courier_opts courier;
	/* One line per event. NULL: no log. From many threads. */
	void (*log)(void *arg, const char *line);
	void *arg;
	int first_wait_ms; /* 0: 1000 */
	const struct board *board; /* what admins chose, outlives the shelf; NULL: nothing */
	uint32_t max; /* contexts; 0: SHELF_CONTEXTS */
	bool asked_only; /* of a cloud's list (serve/cloud_list.h) */
};

/* Whose contexts are looked for, since those of others are not there for who asks. */
struct shelf_whose {
	bool all; /* there are no tenants */
	struct kv_hash salt; /* its name (rights_salt_name()) */
};

/* What is known of a context now. */
struct shelf_context {
	uint32_t number;
	uint32_t place; /* below SHELF_CONTEXTS; another context's once this one was dropped */
	enum courier_state state;
	bool has_key;
	struct kv_hash key;
	struct slot *held; /* by shelf_hold(), for shelf_let_go() */
	/* NULL while WAITING; see shelf_begin_use(). Only what courier.h allows beside a running one. */
	struct courier *courier;
	int manifest; /* sealed memfd of it, the shelf's; -1 while WAITING */
	/* What ended the last attempt, as long as nothing has come since; code 0: nothing did. */
	struct lslm_error why;
};

int shelf_open(struct shelf **out, const struct shelf_opts *opts, struct lslm_error *err);
/*
 * A .lskv file or a URL, whose name is copied. -EEXIST: it is there already; -ENOSPC: as many as there may be are;
 * -ECANCELED: it was dropped.
 */
int shelf_add(struct shelf *s, const char *source, struct lslm_error *err);
/* The same for one that an admin wants, even if it was dropped before. */
int shelf_ask(struct shelf *s, const char *source, struct lslm_error *err);
/*
 * Somebody will add contexts soon (+1), or has done so (-1); and is there anybody? Until there is nobody, what is there is not all that
 * was asked for. From any thread.
 */
void shelf_expect(struct shelf *s, int more);
bool shelf_expects(struct shelf *s);
/* Those that are there now were named by who started it, and do not make room. */
void shelf_end_of_start(struct shelf *s);

/* Waits for its transfer's end, a second or so. -ENOENT. */
int shelf_drop(struct shelf *s, const struct kv_hash *key);
/* Is there one that the board says was dropped? */
bool shelf_has_dropped(struct shelf *s, struct kv_hash *key);
/*
 * 0: there is room for one more; 1: there is, since *key was dropped, the oldest that is neither pinned nor
 * was named at the start, nor is anybody else's; -ENOSPC: there is none of that kind.
 */
int shelf_make_room(struct shelf *s, const struct shelf_whose *whose, struct kv_hash *key);

struct shelf_found {
	struct kv_hash key;
	bool there; /* else it was dropped, and comes from: */
	char source[SHELF_SOURCE_BYTES];
};

/*
 * By key, a beginning of it, title or source, those that were dropped too. -ENOENT, -ENOTUNIQ. One whose manifest was not here yet may be anybody's: it
 * is found only where all are looked for, or, if it was dropped, by its whole key.
 */
int shelf_find(struct shelf *s, const char *name, const struct shelf_whose *whose,
	       struct shelf_found *out);
/* Is this a context that the name means, by key, a beginning of it or title? */
bool shelf_is_named(const struct kv_hash *key, const char *title, const char *name);

uint32_t shelf_count(struct shelf *s);
/* What shelf_look() gives may be used in between; nothing is dropped meanwhile. */
void shelf_begin_use(struct shelf *s);
void shelf_end_use(struct shelf *s);
/* The same for one context, and for as long as it takes: it may be dropped meanwhile, and then lives until all let go. -ENOENT. */
int shelf_hold(struct shelf *s, const struct kv_hash *key, struct shelf_context *out);
/* One more hold of what is held. */
void shelf_hold_on(struct slot *held);
void shelf_let_go(struct slot *held);
/* The context with this number, or the next one. -ENOENT behind the last. */
int shelf_look(struct shelf *s, uint32_t number, struct shelf_context *out);
/* Is or was there a context with this number? */
bool shelf_is_past(struct shelf *s, uint32_t number);
/* Ends all transfers within a second or so. NULL is allowed. */
void shelf_close(struct shelf *s);

#endif
