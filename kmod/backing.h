/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The memory behind a buffer: an unlinked tmpfs file that the module owns.
 *
 * User space never gets a descriptor of this file, only mappings, which the kernel's shmem code
 * serves. That is what io_uring, O_DIRECT and AF_XDP accept on every supported kernel, what
 * memory cgroups account, and what one call empties.
 *
 * The file carries a private copy of shmem's operations with three changes:
 *  - .release tells the owner when the last mapping *and* the last descriptor are gone, and
 *    .owner keeps the module loaded until then. So bytes that exist are bytes accounted, and
 *    neither the module nor its private mount goes away under a mapping.
 *  - .mmap refuses execution, here and not in the descriptor's, because remap_file_pages() maps
 *    the file of a mapping anew without asking any descriptor.
 *  - no .fallocate: MADV_REMOVE cannot punch holes, which would leave pinned pages (io_uring,
 *    AF_XDP) and mappings looking at different memory.
 *
 * Pages are never movable: GUP need not migrate them to pin them for long.
 */
#ifndef LSLM_BACKING_H
#define LSLM_BACKING_H

#include <linux/fs.h>
#include <linux/lslm.h>
#include <linux/types.h>

struct lslm_backing {
	struct file *file;
	/* The file is gone, its pages are about to be; called once, in process context. */
	void (*gone)(struct lslm_backing *backing);
};

int lslm_backing_init(void);
void lslm_backing_exit(void);

/* LSLM_OFF_UNKNOWN when 2 MiB pages can be had, else why not. */
enum lslm_off lslm_backing_huge_off(void);

/*
 * Make the file, without pages; .gone is set by the caller before. From success on, ending it
 * is fput(backing->file), which leads to .gone when no mapping is left either.
 */
int lslm_backing_create(struct lslm_backing *backing, u64 id, u64 bytes, bool huge);

/*
 * Give the file all its pages, zeroed where there was none, charged to current's memory cgroup.
 * *huge_bytes: how much is in huge pages. -ENOMEM without killing anything for it, -EINTR on a
 * fatal signal; what was allocated until then is freed again, whoever may have written to it
 * meanwhile, unless pages are pinned for I/O. One call at a time, and only while the file's
 * contents are nobody's.
 */
int lslm_backing_populate(struct lslm_backing *backing, u64 *huge_bytes);

/* Free every page and swap entry; mappings stay, reading zeroes. Returns what was resident. */
u64 lslm_backing_drop(struct lslm_backing *backing);

u64 lslm_backing_resident(const struct lslm_backing *backing);

/*
 * n pages from page `first` on, each with a reference, brought back from swap where needed. The
 * reference keeps them in memory: reclaim meets them, as it does pages with I/O under way, and goes
 * on. Not mapping_set_unevictable(), which spares it that: it is the whole file's, so that one
 * page charged would lock all the others too. -ENOMEM, -EINTR.
 */
int lslm_backing_lock(struct lslm_backing *backing, pgoff_t first, unsigned long n,
		      struct page **pages);
/* How many pages a reference on each of these keeps in memory: all of a huge page by any in it. */
unsigned long lslm_backing_locked(unsigned long n, struct page **pages);
/* The pages count as written. */
void lslm_backing_unlock(unsigned long n, struct page **pages);

/* Whether a page is pinned for I/O; may say so wrongly of one mapped more than 1000 times. */
bool lslm_backing_pinned(struct lslm_backing *backing);

/* The file's mmap, for the mmap of a buffer descriptor: vma then belongs to the file. */
int lslm_backing_mmap(struct lslm_backing *backing, struct vm_area_struct *vma);

#endif /* LSLM_BACKING_H */
