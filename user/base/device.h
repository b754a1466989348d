/* SPDX-License-Identifier: MIT */
/*
 * The module's device, /dev/lslm: opened once per process, because quotas are counted for each open,
 * and kept open. Its answers (version, features) are of that moment; a module loaded later is
 * seen by the next process.
 */
#ifndef LSLM_BASE_DEVICE_H
#define LSLM_BASE_DEVICE_H

#include <linux/lslm.h>

/* The descriptor, which stays ours, or -errno. */
int device_get(void);
/* "/dev/lslm, module 0.1.0", or why there is none: "/dev/lslm: No such file or directory". */
const char *device_reason(void);
/* All zero when there is no device. */
const struct lslm_get_info *device_info(void);
/* Why a feature is off, for a person. */
const char *device_off_reason(enum lslm_feature feature);
/* An ioctl of the device, a buffer or a session: 0 or -errno. */
int device_call(int fd, unsigned long cmd, void *arg);

#endif
