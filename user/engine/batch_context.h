/* SPDX-License-Identifier: MIT */
/*
 * The contexts that requests of a batch follow, and which of them have settled (engine/context.h).
 */
#ifndef LSLM_ENGINE_BATCH_CONTEXT_H
#define LSLM_ENGINE_BATCH_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/context.h"

struct batch_context {
	struct context *context;
	uint32_t users; /* requests */
	bool settled;
	struct batch_context *next;
};

/* The entry of a context, made if there is none: one more user. NULL: out of memory. */
struct batch_context *batch_context_use(struct batch_context **list, struct context *c);
/* NULL is allowed. */
void batch_context_leave(struct batch_context **list, struct batch_context *c);
/* One that has to settle, another one each time where there are several; NULL: none. */
struct batch_context *batch_context_unsettled(struct batch_context **list);

#endif
