/* SPDX-License-Identifier: MIT */
/*
 * The publishing queue: texts become contexts in the store, one at a time.
 *
 * Computing a context takes all cores, so requests queue up. Whoever asks for
 * a text that is being computed already waits for that one and shares its result, however
 * many they are.
 */
#ifndef LSLM_SERVE_PUBQUEUE_H
#define LSLM_SERVE_PUBQUEUE_H

#include <stdbool.h>

#include "serve/store.h"

struct pubqueue;

/*
 * Compute the context of a text and write it to path (a .lskv, mode 0600): the engine's part. title may
 * be NULL. Called by one thread at a time.
 */
typedef int pubqueue_fn(void *arg, const char *text, size_t len, bool raw, const char *title,
			const char *path, struct kv_hash *key, struct lslm_error *err);

int pubqueue_open(struct pubqueue **out, struct store *store, pubqueue_fn *compute, void *arg,
		  struct lslm_error *err);
/* No thread may be within pubqueue_publish() any more. */
void pubqueue_close(struct pubqueue *p);

/* Blocks until the context is in the store. */
int pubqueue_publish(struct pubqueue *p, const char *text, size_t len, bool raw, const char *title,
		     struct kv_hash *key, struct lslm_error *err);

/* Calls of pubqueue_publish() under way: computing, waiting for a turn, or for another's result. */
unsigned int pubqueue_users(struct pubqueue *p);

#endif
