/* SPDX-License-Identifier: MIT */
/*
 * How many threads are worth starting: the physical cores that this process may use.
 *
 * Two hardware threads of one core share the units that products keep busy, so they count once. What
 * the scheduler's affinity leaves out does not count, nor what a cgroup's quota (cpu.max, of this one
 * and every one above it) takes away, rounded down.
 */
#ifndef LSLM_BASE_CPUS_H
#define LSLM_BASE_CPUS_H

#include <sched.h>

unsigned int cpus_usable(void);

/* The same for a set of processors and files under another root, "" being the real one; at least 1. */
unsigned int cpus_count(const cpu_set_t *set, const char *root);

#endif
