/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counters since the module was loaded, behind LSLM_GET_STATS.
 *
 * Buffers come, go and are held some thousand times a second at most, so plain atomics do;
 * counters of packets live with their session, under its lock.
 */
#ifndef LSLM_STATS_H
#define LSLM_STATS_H

#include <linux/atomic.h>
#include <linux/types.h>

struct lslm_get_stats;

/* The last four groups only grow; the first four rise and fall with what exists. */
struct lslm_stats {
	atomic64_t clients;
	atomic64_t buffers;
	atomic64_t bytes;
	atomic64_t holds;

	atomic64_t created;
	atomic64_t freed;

	atomic64_t refused;
	atomic64_t no_memory;

	atomic64_t purges_asked;
	atomic64_t purges_pressure;
	atomic64_t purged_bytes;
};

extern struct lslm_stats lslm_stats;

/* Fills every out_ member. */
void lslm_stats_get(struct lslm_get_stats *out);

#endif /* LSLM_STATS_H */
