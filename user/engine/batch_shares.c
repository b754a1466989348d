// SPDX-License-Identifier: MIT
#include "engine/batch_shares.h"

#include <stdlib.h>

struct batch_share {
	uint32_t tenant, n;
};

static struct batch_share *share(const struct batch_shares *s, uint32_t tenant)
{
	for (uint32_t i = 0; i < s->n_tenants; i++)
		if (s->all[i].tenant == tenant)
			return &s->all[i];
	return NULL;
}

static int add(struct batch_shares *s, uint32_t tenant, struct lslm_error *err)
{
	const uint32_t room = 2 * s->room + 4;
	struct batch_share *more;

	if (s->n_tenants == s->room) {
		more = realloc(s->all, room * sizeof(*more));
		if (!more)
			return error_set(err, -ENOMEM, "out of memory");
		s->all = more;
		s->room = room;
	}
	s->all[s->n_tenants++] = (struct batch_share){ tenant, 1 };
	s->n++;
	return 0;
}

int batch_shares_take(struct batch_shares *s, uint32_t tenant, struct lslm_error *err)
{
	struct batch_share *one = share(s, tenant);

	if (s->n >= s->max)
		return error_set(err, -EAGAIN, "%u requests are waiting already; try again later",
				 s->n);
	if (!one)
		return add(s, tenant, err);
	if (s->shared && one->n >= s->max - s->n)
		return error_set(
			err, -EAGAIN,
			"%u requests of this tenant are waiting already, its share of the queue; try again later",
			one->n);
	one->n++;
	s->n++;
	return 0;
}

void batch_shares_give(struct batch_shares *s, uint32_t tenant)
{
	struct batch_share *one = share(s, tenant);

	s->n--;
	if (!--one->n)
		*one = s->all[--s->n_tenants];
}

void batch_shares_free(struct batch_shares *s)
{
	free(s->all);
}
