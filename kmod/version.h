/* SPDX-License-Identifier: GPL-2.0-only */
/* The module's version, kept equal to VERSION in the Makefile by tests/lint/kmod.test. */
#ifndef LSLM_VERSION_H
#define LSLM_VERSION_H

#include <linux/stringify.h>

#define LSLM_VERSION_MAJOR 0
#define LSLM_VERSION_MINOR 1
#define LSLM_VERSION_PATCH 0

#define LSLM_VERSION_TEXT                                                                    \
	__stringify(LSLM_VERSION_MAJOR) "." __stringify(LSLM_VERSION_MINOR) "." __stringify( \
		LSLM_VERSION_PATCH)

#endif /* LSLM_VERSION_H */
