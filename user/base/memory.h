/* SPDX-License-Identifier: MIT */
/* What the machine has. */
#ifndef LSLM_BASE_MEMORY_H
#define LSLM_BASE_MEMORY_H

#include <stdint.h>

/* Bytes that could be taken now without swapping; 0: not known. */
uint64_t memory_available(void);

#endif
