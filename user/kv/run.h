/* SPDX-License-Identifier: MIT */
/*
 * A run of layers that does not travel: of a context that another model of the same shape has computed, layers first .. end - 1 are
 * computed where it is used, by the model that uses it, and the others are taken as they are.
 *
 * From layer 0 on the tokens are what the run begins with. One that begins above needs the hidden state there, from the model that the other
 * layers are from: it travels as an *E block*, the first of each stripe (kv/geometry.h).
 */
#ifndef LSLM_KV_RUN_H
#define LSLM_KV_RUN_H

#include <stdbool.h>

#include "base/error.h"
#include "kv/geometry.h"

/* In files: u32 first, end, hidden, 0. */
enum { KV_RUN_BYTES = 16 };

struct kv_run {
	uint32_t first, end; /* layers of the model; both 0: there is no run */
	uint32_t hidden; /* values of the hidden state; 0: the run begins with the tokens */
};

void kv_run_put(uint8_t *p, const struct kv_run *run);
/* -EINVAL for another form; what it says is not checked. */
int kv_run_get(struct kv_run *run, const uint8_t *p);

bool kv_run_is_none(const struct kv_run *run);
/*
 * -EINVAL for what is no run of a model of that shape: some layer travels; there is a hidden state exactly where it begins above layer 0.
 */
int kv_run_check(const struct kv_run *run, const struct kv_geometry *model, struct lslm_error *err);
/* How a stripe lies that has an E block, if any, and the layers outside the run. */
struct kv_geometry kv_run_geometry(const struct kv_run *run, const struct kv_geometry *model);
bool kv_run_has(const struct kv_run *run, uint32_t layer);
/* Which block of such a stripe is that of this layer, which is outside the run. */
uint32_t kv_run_block(const struct kv_run *run, uint32_t layer);

#endif
