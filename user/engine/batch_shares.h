/* SPDX-License-Identifier: MIT */
/*
 * The places of a batch's queue, and who has how many of them.
 *
 * Where tenants share it, one may have as many as are free, so that whoever comes next finds some: alone it has half of
 * the queue, two have a third each. One that has none gets the last one. Under the batch's lock.
 */
#ifndef LSLM_ENGINE_BATCH_SHARES_H
#define LSLM_ENGINE_BATCH_SHARES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct batch_share;

struct batch_shares {
	uint32_t max; /* places */
	bool shared; /* between tenants; else who comes first has them */
	uint32_t n; /* taken */
	struct batch_share *all; /* [n_tenants]: those with a place */
	uint32_t n_tenants, room;
};

/* -EAGAIN: there is none for this tenant; -ENOMEM. */
int batch_shares_take(struct batch_shares *s, uint32_t tenant, struct lslm_error *err);
void batch_shares_give(struct batch_shares *s, uint32_t tenant);
void batch_shares_free(struct batch_shares *s);

#endif
