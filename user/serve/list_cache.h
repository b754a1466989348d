/* SPDX-License-Identifier: MIT */
/*
 * What a cloud offered at last, so that a gateway which starts while the cloud is away knows its contexts all the same.
 *
 * The keys are kept as $XDG_CACHE_HOME/lslm/lists/NAME, one on a line, mode 0600 in a directory of mode 0700; the name follows
 * from the cloud's URL and the token, since another tenant is offered other contexts. Keys say nothing
 * about a text. A cache that cannot be used costs its benefit, never an error.
 */
#ifndef LSLM_SERVE_LIST_CACHE_H
#define LSLM_SERVE_LIST_CACHE_H

#include "kv/key.h"

/* token may be NULL. Writes nothing where this is what is there. */
void list_cache_put(const char *cloud, const char *token, const struct kv_hash *keys, size_t n);
/* How many are put to keys, at most max; 0: none are known. */
size_t list_cache_get(const char *cloud, const char *token, struct kv_hash *keys, size_t max);

#endif
