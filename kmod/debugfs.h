/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * /sys/kernel/debug/lslm/buffers: a table of all buffers for a person to look at. No ABI:
 * programs use LSLM_GET_STATS, LSLM_QUERY and fdinfo. Without debugfs it is silently absent.
 */
#ifndef LSLM_DEBUGFS_H
#define LSLM_DEBUGFS_H

void lslm_debugfs_init(void);
void lslm_debugfs_exit(void);

#endif /* LSLM_DEBUGFS_H */
