// SPDX-License-Identifier: MIT
#include "base/probes.h"

#ifdef PROBE_DECLARE
/* Tools find them by the addresses in the probes' notes; the section's name is custom. */
#define PROBE_DEFINE(name) \
	volatile unsigned short lslm_##name##_semaphore __attribute__((section(".probes")));
LSLM_PROBES(PROBE_DEFINE)
#endif
