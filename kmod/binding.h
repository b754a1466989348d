/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A binding: the memory of one region. Bookkeeping is include/lslm/region.h, who may use it when
 * is session.h.
 *
 * It keeps the buffer (by a reference to its backing file), its contents (by a hold of its own,
 * like that of any descriptor) and its pages: each is referenced, which locks it into memory,
 * charged to the RLIMIT_MEMLOCK of the user who bound it, and mapped in one piece, so that a
 * datagram is decrypted to one address wherever the pages lie.
 */
#ifndef LSLM_BINDING_H
#define LSLM_BINDING_H

#include <linux/lslm.h>
#include <linux/types.h>

#include "buffer.h"
#include "lslm/region.h"

struct user_struct;

struct lslm_binding {
	struct lslm_handle handle;
	u64 base;
	u64 bound_ns;
	u8 *memory; /* of the region: `region.length` bytes */
	struct lslm_region region; /* as it begins; the one that counts is the slot's */

	void *tables; /* of region */
	void *mapped; /* the pages, in one piece */
	struct page **pages;
	unsigned long n_pages;
	struct user_struct *user; /* charged; NULL: who bound it has CAP_IPC_LOCK */
	unsigned long charged; /* pages; all of a huge one where any of it is bound */
};

/* Errors as lslm_region_bind, but for its slot. May sleep, for long where pages are swapped out. */
int lslm_binding_create(const struct lslm_region_bind *arg, struct lslm_binding **out);

/* When nobody can write to it any more. NULL: nothing happens. */
void lslm_binding_destroy(struct lslm_binding *binding);

#endif /* LSLM_BINDING_H */
