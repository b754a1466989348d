/* SPDX-License-Identifier: MIT */
/*
 * The one place that knows about page sizes.
 *
 * arm64 gateways run with 4, 16 or 64 KiB pages, so the base page size is always
 * asked for. The huge page size is what x86-64 and arm64 with 4 KiB pages use
 * for a PMD mapping; on other configurations it only sets an alignment, never a
 * correctness condition.
 */
#ifndef LSLM_PAGE_H
#define LSLM_PAGE_H

#include <stddef.h>
#include <unistd.h>

#define LSLM_HUGE_PAGE ((size_t)2 << 20)

/* Alignment that O_DIRECT accepts for addresses, offsets and lengths alike. */
#define LSLM_DIRECT_ALIGN ((size_t)4096)

static inline size_t lslm_page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* Round n up to a multiple of align (a power of two); the caller rules out overflow. */
static inline size_t lslm_round_up(size_t n, size_t align)
{
	return (n + align - 1) & ~(align - 1);
}

#endif
