/* SPDX-License-Identifier: MIT */
/*
 * A keeper: puts a context's complete stripes into the stripe store while others arrive.
 *
 * It has a thread of its own, of the lowest priority for processor and disk, because writing waits for
 * the disk and receiving must not. What it is given is verified and does not change any more. A
 * stripe that cannot be kept costs a transfer after the next start, so that is told and not an error.
 */
#ifndef LSLM_NET_KEEPER_H
#define LSLM_NET_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "kv/manifest.h"
#include "kv/stripe_store.h"

struct keeper;

/* Both outlive the keeper. */
int keeper_start(struct keeper **out, struct stripe_store *store, const struct manifest *m,
		 struct lslm_error *err);
/*
 * This one is complete: as it came, at data, which stays until the keeper is finished. Once for each stripe, from
 * any thread; does not wait.
 */
void keeper_add(struct keeper *k, uint32_t stripe, const struct manifest_level *lv,
		const uint8_t *data);
/* Why a stripe was not kept: of the first one; code 0 while there is none. Does not wait. */
void keeper_failure(struct keeper *k, struct lslm_error *why);
/* Keeps what was added, and ends. NULL is allowed. */
void keeper_finish(struct keeper *k);

#endif
