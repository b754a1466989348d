/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory pressure: purges buffers that are purgeable and unheld, the longest idle first.
 *
 * Can be turned off with shrinker=0 where losing a buffer costs more than swapping it, say with
 * zram. Pressure inside one memory cgroup does not reach it: the kernel asks shrinkers that do
 * not track cgroups for global pressure only.
 */
#ifndef LSLM_SHRINKER_H
#define LSLM_SHRINKER_H

#include <linux/types.h>

int lslm_shrinker_init(void);
void lslm_shrinker_exit(void);
bool lslm_shrinker_on(void);

#endif /* LSLM_SHRINKER_H */
