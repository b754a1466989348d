/* SPDX-License-Identifier: MIT */
/*
 * A few threads for what takes long, so that those that serve connections never do: work is done in the order in which it was added.
 */
#ifndef LSLM_SERVE_WORKERS_H
#define LSLM_SERVE_WORKERS_H

#include "base/error.h"

struct workers;

/* Belongs to whoever adds it, and may be freed or added again from run() on. */
struct work {
	void (*run)(struct work *w);
	struct work *next;
};

int workers_open(struct workers **out, unsigned int n_threads, struct lslm_error *err);
/* All that was added is done. NULL is allowed. */
void workers_close(struct workers *all);
/* From any thread. */
void workers_add(struct workers *all, struct work *w);

#endif
