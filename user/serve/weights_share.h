/* SPDX-License-Identifier: MIT */
/*
 * Weights of a model that the courier reads once, for all engines.
 *
 * The packed file is read by a loader (engine/loader.h) into a buffer (kv/buffer.h): of the module in 2 MiB pages where it is
 * loaded, else its twin's. A control page says which sections are there: each is compared with its sum before it is
 * called READY. Engines get both read-only and compute as sections arrive. One that is damaged turns
 * all that is not there yet FAILED: nobody gets a wrong answer out of it.
 *
 * With a custody both outlive this process, and the next one goes on from the sections that are READY.
 *
 * That weights are not shared (no packed file, or everybody may as well map it) is no error: a line, and
 * what those who ask are told.
 */
#ifndef LSLM_SERVE_WEIGHTS_SHARE_H
#define LSLM_SERVE_WEIGHTS_SHARE_H

#include "engine/matrices.h"
#include "net/courier.h"

struct weights_share;

struct weights_share_opts {
	const char *model; /* path */
	enum matrices_load load; /* READ, or AUTO: where reading is better than mapping */
	enum buffer_backend backend;
	const struct courier_custody *custody; /* NULL: none */
	/* One line per event. NULL: no log. From a thread of its own too. */
	void (*log)(void *arg, const char *line);
	void *arg;
};

/* Everything in opts outlives it. Only -ENOMEM. */
int weights_share_start(struct weights_share **out, const struct weights_share_opts *opts,
			struct lslm_error *err);
/* Ends reading at once. NULL is allowed. */
void weights_share_stop(struct weights_share *w);

/* From any thread: buffer and control page, owned by the caller; or why there are none. -EBADMSG: they could not be loaded. */
int weights_share_open_fds(struct weights_share *w, struct kv_hash *key, int fds[2],
			   struct lslm_error *err);

#endif
