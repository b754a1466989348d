/* SPDX-License-Identifier: MIT */
/* Where the pages of a mapping are. */
#ifndef LSLM_BASE_RESIDENCY_H
#define LSLM_BASE_RESIDENCY_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Which share of a mapped file's pages is in the page cache, 0 to 1. Of large files one MiB in eight is looked
 * at. Of a file that this user does not own the kernel says that all are.
 */
double residency_cached(const void *map, size_t size);

/* Is the page here mapped, and 2 MiB large? Linux 6.7 and later tell; before, it is no. */
bool residency_huge(const void *at);

#endif
