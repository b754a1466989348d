/* SPDX-License-Identifier: MIT */
/*
 * Private memory in 2 MiB pages, for what is read from end to end over and over, and for O_DIRECT, which
 * is twice as fast into them.
 *
 * From whoever has them, in this order: the module's huge buffers, where it is loaded; a tmpfs mount of its
 * own with huge=always, which takes CAP_SYS_ADMIN; the hugetlb pool, where an administrator has reserved enough
 * (vm.nr_hugepages); anonymous memory with MADV_HUGEPAGE. The twin's buffers (memfd) are not in the list: they are for
 * sharing, and sealed for it.
 */
#ifndef LSLM_KV_HUGEMEM_H
#define LSLM_KV_HUGEMEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct buffer;

struct hugemem {
	void *data; /* at a multiple of 2 MiB */
	size_t size; /* asked for */
	/* "module", "tmpfs", "hugetlb", "anonymous"; of memory that is shared, who made it */
	const char *kind;
	bool small; /* for want of 2 MiB pages */
	char why[192]; /* what was wrong with the better kinds */
	/* private */
	struct buffer *buffer;
	void *map;
	size_t map_bytes;
};

/* Zeroed; without memory until it is touched, but for the module's and the pool's. -ENOMEM. */
int hugemem_create(struct hugemem *m, size_t size, struct lslm_error *err);
void hugemem_free(struct hugemem *m); /* one that is all zero is allowed */

#endif
