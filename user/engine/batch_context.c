// SPDX-License-Identifier: MIT
#include "engine/batch_context.h"

#include <stdlib.h>

static void append(struct batch_context **list, struct batch_context *c)
{
	while (*list)
		list = &(*list)->next;
	c->next = NULL;
	*list = c;
}

static void take(struct batch_context **list, struct batch_context *c)
{
	while (*list != c)
		list = &(*list)->next;
	*list = c->next;
}

struct batch_context *batch_context_use(struct batch_context **list, struct context *context)
{
	struct batch_context *c = *list;

	while (c && c->context != context)
		c = c->next;
	if (!c) {
		c = calloc(1, sizeof(*c));
		if (!c)
			return NULL;
		c->context = context;
		append(list, c);
	}
	c->users++;
	return c;
}

void batch_context_leave(struct batch_context **list, struct batch_context *c)
{
	if (!c || --c->users)
		return;
	take(list, c);
	free(c);
}

struct batch_context *batch_context_unsettled(struct batch_context **list)
{
	struct batch_context *c = *list;

	while (c && c->settled)
		c = c->next;
	if (c) {
		take(list, c);
		append(list, c);
	}
	return c;
}
