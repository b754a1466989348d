/* SPDX-License-Identifier: MIT */
/*
 * A keeper: puts a context's complete stripes into the stripe store while others arrive.
 *
 * It has a thread of its own, of the lowest priority for processor and disk, because writing waits for
 * the disk and receiving must not. What it is given is verified and does not change any more. A
 * stripe that cannot be kept costs a transfer after the next start, so that is told and not an error; it is tried again after
 * 1, 2, 4, ... 60 seconds, because disks that are full have room again one day. One that is too large is not.
 */
#ifndef LSLM_NET_KEEPER_H
#define LSLM_NET_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "kv/manifest.h"
#include "kv/stripe_store.h"

struct keeper;

struct keeper_opts {
	struct stripe_store *store; /* outlives the keeper, as the manifest does */
	const struct manifest *manifest;
	/*
	 * By the keeper's thread: something was not kept, and why; NULL once all of it is. Not for every attempt. May be NULL.
	 */
	void (*told)(void *arg, const struct lslm_error *why);
	void *arg;
};

int keeper_start(struct keeper **out, const struct keeper_opts *opts, struct lslm_error *err);
/*
 * This one is complete: as it came, at data, which stays until the keeper is finished. Once more: the same, should it have gone
 * from the store. From any thread; does not wait.
 */
void keeper_add(struct keeper *k, uint32_t stripe, const struct manifest_level *lv,
		const uint8_t *data);
/* The manifest, for the cache of manifests (net/manifest_cache.h), which did not take it before; likewise. */
void keeper_add_manifest(struct keeper *k, const uint8_t *data, size_t size);
/* Why something is not kept: of the first one; code 0 while there is nothing. Does not wait. */
void keeper_failure(struct keeper *k, struct lslm_error *why);
/* Keeps what was added, as far as that goes at once, and ends. NULL is allowed. */
void keeper_finish(struct keeper *k);

#endif
