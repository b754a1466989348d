/* SPDX-License-Identifier: MIT */
/*
 * Requests that wait to run, and whose turn it is.
 *
 * First those that ran already and had to give their place up, the oldest of them. Then the tenant
 * with the fewest running requests, of equal ones the one whose last turn is longest ago; its
 * requests in order of arrival, but none waits for another one's context. Used by the batch's
 * thread only.
 */
#ifndef LSLM_ENGINE_BATCH_QUEUE_H
#define LSLM_ENGINE_BATCH_QUEUE_H

#include "engine/batch_request.h"

struct batch_tenant;

struct batch_queue {
	struct batch_request *first; /* in order of arrival */
	uint32_t n;
	struct batch_tenant *tenants; /* [n_tenants]: those with a request, here or running */
	uint32_t n_tenants, room;
	uint64_t turns;
};

/* Room for one more tenant; before it every add must have some. -ENOMEM. */
int batch_queue_reserve(struct batch_queue *q, struct lslm_error *err);
void batch_queue_free(struct batch_queue *q);

void batch_queue_add(struct batch_queue *q, struct batch_request *r);
/* The next one for which ready() holds; it stays queued. NULL: none. */
struct batch_request *batch_queue_next(const struct batch_queue *q,
				       bool (*ready)(void *arg, const struct batch_request *r),
				       void *arg);
/* Take a request out, to run or to end. */
void batch_queue_take(struct batch_queue *q, struct batch_request *r, bool run);
/* One that was taken to run does so no more; again: it is queued again. */
void batch_queue_leave(struct batch_queue *q, struct batch_request *r, bool again);

#endif
