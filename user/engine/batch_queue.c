// SPDX-License-Identifier: MIT
#include "engine/batch_queue.h"

#include <errno.h>
#include <stdlib.h>

struct batch_tenant {
	uint32_t id;
	uint32_t queued, running;
	uint64_t turn; /* the last one */
};

int batch_queue_reserve(struct batch_queue *q, struct lslm_error *err)
{
	const uint32_t room = 2 * q->room + 4;
	struct batch_tenant *more;

	if (q->n_tenants < q->room)
		return 0;
	more = realloc(q->tenants, room * sizeof(*more));
	if (!more)
		return error_set(err, -ENOMEM, "out of memory");
	q->tenants = more;
	q->room = room;
	return 0;
}

void batch_queue_free(struct batch_queue *q)
{
	free(q->tenants);
}

static struct batch_tenant *tenant(const struct batch_queue *q, uint32_t id)
{
	for (uint32_t i = 0; i < q->n_tenants; i++)
		if (q->tenants[i].id == id)
			return &q->tenants[i];
	return NULL;
}

static void append(struct batch_queue *q, struct batch_request *r)
{
	struct batch_request **at = &q->first;

	while (*at)
		at = &(*at)->next;
	r->next = NULL;
	*at = r;
	q->n++;
}

void batch_queue_add(struct batch_queue *q, struct batch_request *r)
{
	struct batch_tenant *t = tenant(q, r->tenant);

	if (!t) {
		t = &q->tenants[q->n_tenants++];
		*t = (struct batch_tenant){ .id = r->tenant };
	}
	t->queued++;
	append(q, r);
}

/* Is it a's turn before b's? Both are in the queue, a behind b. */
static bool before(const struct batch_queue *q, const struct batch_request *a,
		   const struct batch_request *b)
{
	const struct batch_tenant *s = tenant(q, a->tenant), *t = tenant(q, b->tenant);

	if (a->order || b->order)
		return a->order && (!b->order || a->order < b->order);
	if (s->running != t->running)
		return s->running < t->running;
	return s->turn < t->turn;
}

struct batch_request *batch_queue_next(const struct batch_queue *q,
				       bool (*ready)(void *arg, const struct batch_request *r),
				       void *arg)
{
	struct batch_request *best = NULL;

	for (struct batch_request *r = q->first; r; r = r->next)
		if (ready(arg, r) && (!best || before(q, r, best)))
			best = r;
	return best;
}

static void drop_idle(struct batch_queue *q, struct batch_tenant *t)
{
	if (!t->queued && !t->running)
		*t = q->tenants[--q->n_tenants];
}

void batch_queue_take(struct batch_queue *q, struct batch_request *r, bool run)
{
	struct batch_tenant *t = tenant(q, r->tenant);
	struct batch_request **at = &q->first;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	r->next = NULL;
	q->n--;
	t->queued--;
	if (run) {
		t->running++;
		t->turn = ++q->turns;
	}
	drop_idle(q, t);
}

void batch_queue_leave(struct batch_queue *q, struct batch_request *r, bool again)
{
	struct batch_tenant *t = tenant(q, r->tenant);

	t->running--;
	if (again) {
		t->queued++;
		append(q, r);
	}
	drop_idle(q, t);
}
