/* SPDX-License-Identifier: MIT */
/* Weights that a courier in another process reads for all (serve/weights_share.h): the find() of struct matrices_share. */
#ifndef LSLM_ENGINE_WEIGHTS_REMOTE_H
#define LSLM_ENGINE_WEIGHTS_REMOTE_H

#include <stdbool.h>

#include "base/error.h"
#include "kv/key.h"

struct weights_remote {
	const char *socket; /* of the courier */
	bool bad; /* it has found these weights damaged: nobody may use that file */
};

/*
 * arg: struct weights_remote. Of whichever of its models has this key. -ENOTCONN: nobody serves the socket; -ENOENT: it has read no such
 * weights; -EBADMSG with bad set.
 */
int weights_remote_find(void *arg, const struct kv_hash *key, int *memory, int *page,
			struct lslm_error *err);

#endif
