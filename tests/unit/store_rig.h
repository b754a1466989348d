/* SPDX-License-Identifier: MIT */
/* A cloud's store in a directory of its own, for the tests of what stands on one. */
#ifndef LSLM_TESTS_STORE_RIG_H
#define LSLM_TESTS_STORE_RIG_H

#include "serve/store.h"
#include "unit/unit.h"

static char top[64], dir[80];
static struct store *store;

static inline int store_rig_open(void **state)
{
	struct lslm_error err;

	strcpy(top, "/tmp/lslm-store-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	snprintf(dir, sizeof(dir), "%s/store", top);
	assert_ok(store_open(&store, dir, &err), &err);
	return 0;
}

static inline int store_rig_close(void **state)
{
	store_close(store);
	return remove_tree(top);
}

#endif
