/* SPDX-License-Identifier: MIT */
/*
 * The roster: an engine's thread that attaches what the courier has, now and later.
 *
 * Each context is offered to the engines in their order, and the first whose model it is for takes it; one
 * that is for none of them is left until the courier is another one. Whoever gets it keeps it, since its memory is still there, until
 * an admin drops it, as the board says (serve/board.h); pins are read there too.
 */
#ifndef LSLM_SERVE_ROSTER_H
#define LSLM_SERVE_ROSTER_H

#include "engine/context.h"

struct board;
struct courier_link;
struct roster;

struct roster_opts {
	struct courier_link *link;
	struct engine *const *engines;
	uint32_t n_engines;
	/* NULL: what the courier has verified is believed. */
	const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES];
	size_t n_trusted;
	const struct kv_hash *salts; /* of contexts that are wanted: [n_salts], at least one */
	uint32_t n_salts;
	/* How long roster_start() waits for a courier that answers, and for contexts whose manifest it does not have. */
	int settle_ms;
	/* After so long beside a courier that answers what is not there is not waited for any more; 0: a minute. */
	int untold_ms;
	/* Takes a context of this engine over, unless it fails. On the roster's thread. */
	int (*attached)(void *arg, uint32_t engine, struct context *c, struct lslm_error *err);
	const struct board *board; /* outlives the roster; NULL: nobody chooses */
	/* It was dropped: of this engine, likewise. */
	void (*dropped)(void *arg, uint32_t engine, const struct kv_hash *key);
	void (*pinned)(void *arg, uint32_t engine, const struct kv_hash *key, bool pinned);
	/*
	 * The courier has been asked for all that it was started for, and each of its contexts is attached or refused, or could not be had
	 * at the first attempt, or untold_ms are over; once, before anything else or later.
	 */
	void (*told)(void *arg);
	/* One line per context. NULL: no log. */
	void (*log)(void *arg, const char *line);
	void *arg;
};

/* All that opts names outlives the roster. What is there already, or within settle_ms, is attached on return. */
int roster_start(struct roster **out, const struct roster_opts *opts, struct lslm_error *err);
/*
 * Looks now, and waits so long for this context to be attached. 0: it is; -ENOEXEC: it is for none of the engines; another code: why it
 * was refused; -ETIMEDOUT: it may still come. From any thread but the roster's.
 */
int roster_await(struct roster *r, const struct kv_hash *key, int ms);
void roster_stop(struct roster *r); /* NULL is allowed */

#endif
