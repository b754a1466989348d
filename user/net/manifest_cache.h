/* SPDX-License-Identifier: MIT */
/*
 * Manifests that were seen before, so that a context can be computed while its server is away.
 *
 * A verified manifest is kept as $XDG_CACHE_HOME/lslm/manifests/KEY, mode 0600 in a directory of
 * mode 0700, because token ids are the text in other form. What is read back is verified like what a
 * server sends. A cache that cannot be used costs its benefit; that is told, and never an error of those who use it.
 */
#ifndef LSLM_NET_MANIFEST_CACHE_H
#define LSLM_NET_MANIFEST_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/key.h"

int manifest_cache_put(const struct kv_hash *key, const void *data, size_t size,
		       struct lslm_error *err);
/* *data is malloc'd for the caller. -ENOENT when there is none. */
int manifest_cache_get(const struct kv_hash *key, uint8_t **data, size_t *size);

#endif
