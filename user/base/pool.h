/* SPDX-License-Identifier: MIT */
/*
 * The thread pool: one per engine, and the only one that computes.
 *
 * pool_run() calls fn(arg, item, thread) for every item in [0, n_items), spread
 * over the pool's threads and the caller, and returns when all are done. Thread t of
 * T is given the items from n * t / T on, in their order, and the same ones in every round of as many; whoever has
 * none left takes from the end of others' parts. So a thread that was preempted holds up one item at
 * most and not a share, and none waits for a thread that has none. What an item computes must not depend on
 * which thread runs it; `thread` in [0, pool_threads) is for scratch memory only.
 *
 * A pool is used by one caller at a time and pool_run() does not nest.
 * Idle threads spin for a few microseconds, then sleep on a futex, so that a gateway's
 * other work gets the cores.
 */
#ifndef LSLM_BASE_POOL_H
#define LSLM_BASE_POOL_H

#include <stdint.h>

#include "base/error.h"

struct pool;

enum { POOL_MAX_THREADS = 256 };

typedef void pool_fn(void *arg, uint32_t item, unsigned int thread);

/* n_threads 0: as many as the cores this process may use, see base/cpus.h. */
int pool_create(struct pool **out, unsigned int n_threads, struct lslm_error *err);
void pool_destroy(struct pool *p);
unsigned int pool_threads(const struct pool *p);
void pool_run(struct pool *p, uint32_t n_items, pool_fn *fn, void *arg);

#endif
