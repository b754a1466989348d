// SPDX-License-Identifier: GPL-2.0-only

#include <linux/bitmap.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/pagevec.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>

#include "backing.h"

static bool huge = true;
module_param(huge, bool, 0444);
MODULE_PARM_DESC(huge, "offer 2 MiB pages, by a private tmpfs mount (default: yes)");

/* Not movable, see backing.h. Never GFP_USER: high memory is fine, nothing maps it for long. */
#define BACKING_GFP GFP_HIGHUSER

/*
 * All of these are set once by lslm_backing_init().
 *
 * A template is an empty file on each mount, with shmem's own operations. They are copied from
 * it, and shmem's get_unmapped_area, which insists on a file with exactly those, is called with
 * it on behalf of our files: it looks at nothing but the mount's page size.
 */
static struct file_operations backing_fops __ro_after_init;
static struct file *plain_template __ro_after_init;
static struct file *huge_template __ro_after_init;
static struct vfsmount *huge_mount __ro_after_init;
static enum lslm_off huge_off __ro_after_init;

static int backing_release(struct inode *inode, struct file *file)
{
	struct lslm_backing *backing = file->private_data;

	backing->gone(backing);
	return 0;
}

static int backing_mmap(struct file *file, struct vm_area_struct *vma)
{
	/* Attention state is data. */
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;
	vm_flags_clear(vma, VM_MAYEXEC);
	return plain_template->f_op->mmap(file, vma);
}

static unsigned long backing_get_unmapped_area(struct file *file, unsigned long addr,
					       unsigned long len, unsigned long pgoff,
					       unsigned long flags)
{
	struct file *template = plain_template;

	if (huge_template && file_inode(file)->i_sb == file_inode(huge_template)->i_sb)
		template = huge_template;
	return template->f_op->get_unmapped_area(template, addr, len, pgoff, flags);
}

static void __init mount_huge(void)
{
	char options[] = "huge=within_size"; /* parsing writes to it */
	struct file_system_type *type;

	huge_off = LSLM_OFF_KERNEL;
	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		return;
	huge_off = LSLM_OFF_PARAM;
	if (!huge)
		return;

	huge_off = LSLM_OFF_MOUNT;
	type = get_fs_type("tmpfs");
	if (!type)
		return;
	/* SB_KERNMOUNT: no size limit of its own, the module has one. */
	huge_mount = vfs_kern_mount(type, SB_KERNMOUNT, type->name, options);
	if (IS_ERR(huge_mount)) {
		pr_warn("cannot mount tmpfs with huge pages (%ld): they are off\n",
			PTR_ERR(huge_mount));
		huge_mount = NULL;
		return;
	}
	huge_template = shmem_file_setup_with_mnt(huge_mount, "lslm-template", 0, 0);
	if (IS_ERR(huge_template)) {
		huge_template = NULL;
		kern_unmount(huge_mount);
		huge_mount = NULL;
		return;
	}
	huge_off = LSLM_OFF_UNKNOWN;
}

int __init lslm_backing_init(void)
{
	plain_template = shmem_file_setup("lslm-template", 0, 0);
	if (IS_ERR(plain_template))
		return PTR_ERR(plain_template);

	backing_fops = *plain_template->f_op;
	backing_fops.owner = THIS_MODULE;
	backing_fops.release = backing_release;
	backing_fops.mmap = backing_mmap;
	backing_fops.get_unmapped_area = backing_get_unmapped_area;
	backing_fops.fallocate = NULL;

	mount_huge();
	return 0;
}

/* No file is left: each keeps the module loaded. */
void lslm_backing_exit(void)
{
	if (huge_mount) {
		fput(huge_template);
		kern_unmount(huge_mount);
	}
	fput(plain_template);
}

enum lslm_off lslm_backing_huge_off(void)
{
	return huge_off;
}

int lslm_backing_create(struct lslm_backing *backing, u64 id, u64 bytes, bool want_huge)
{
	struct file *file;
	char name[32];

	snprintf(name, sizeof(name), "lslm:%llu", id);
	file = want_huge ? shmem_file_setup_with_mnt(huge_mount, name, bytes, 0) :
			   shmem_file_setup(name, bytes, 0);
	/* shmem's word for having no memory for an inode; here it is that of a limit. */
	if (IS_ERR(file))
		return PTR_ERR(file) == -ENOSPC ? -ENOMEM : PTR_ERR(file);

	mapping_set_gfp_mask(file->f_mapping, BACKING_GFP);
	/* shmem is built in: its operations have no owner to put. The caller's file pins us. */
	__module_get(THIS_MODULE);
	file->f_op = &backing_fops;
	file->private_data = backing;
	backing->file = file;
	return 0;
}

/* Whether the file has a page there, in memory or swapped out. */
static bool has_page(struct address_space *mapping, pgoff_t index)
{
	return xa_load(&mapping->i_pages, index);
}

/* added: a bit for each page that the file gets by this call. */
static int populate(struct address_space *mapping, unsigned long *added, u64 *huge_bytes)
{
	pgoff_t end = i_size_read(mapping->host) >> PAGE_SHIFT;
	/* RETRY_MAYFAIL: fail rather than let the OOM killer make room. */
	gfp_t gfp = BACKING_GFP | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
	pgoff_t index = 0;

	while (index < end) {
		bool is_new = !has_page(mapping, index);
		struct folio *folio;
		struct page *page;
		pgoff_t next;

		if (fatal_signal_pending(current))
			return -EINTR;
		page = shmem_read_mapping_page_gfp(mapping, index, gfp);
		if (IS_ERR(page))
			return PTR_ERR(page) == -EINTR ? -EINTR : -ENOMEM;

		/* A clean page could be dropped, and would come back on another's account. */
		folio = page_folio(page);
		folio_mark_dirty(folio);
		if (folio_test_pmd_mappable(folio))
			*huge_bytes += folio_size(folio);
		next = min(folio->index + folio_nr_pages(folio), end);
		if (is_new)
			bitmap_set(added, index, next - index);
		index = next;
		folio_put(folio);
		cond_resched();
	}
	return 0;
}

static void take_back(struct address_space *mapping, const unsigned long *added)
{
	pgoff_t end = i_size_read(mapping->host) >> PAGE_SHIFT;
	unsigned long first, behind;

	for_each_set_bitrange(first, behind, added, end)
		shmem_truncate_range(mapping->host, (loff_t)first << PAGE_SHIFT,
				     ((loff_t)behind << PAGE_SHIFT) - 1);
}

int lslm_backing_populate(struct lslm_backing *backing, u64 *huge_bytes)
{
	struct address_space *mapping = backing->file->f_mapping;
	unsigned long pages = i_size_read(mapping->host) >> PAGE_SHIFT;
	unsigned long *added;
	int ret;

	*huge_bytes = 0;
	added = kvcalloc(BITS_TO_LONGS(pages), sizeof(*added),
			 GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	if (!added)
		return -ENOMEM;
	ret = populate(mapping, added, huge_bytes);
	/* As a purge: not from under I/O. */
	if (ret && !lslm_backing_pinned(backing))
		take_back(mapping, added);
	kvfree(added);
	return ret;
}

u64 lslm_backing_resident(const struct lslm_backing *backing)
{
	return (u64)READ_ONCE(backing->file->f_mapping->nrpages) << PAGE_SHIFT;
}

u64 lslm_backing_drop(struct lslm_backing *backing)
{
	u64 bytes = lslm_backing_resident(backing);

	shmem_truncate_range(file_inode(backing->file), 0, (loff_t)-1);
	return bytes;
}

void lslm_backing_unlock(unsigned long n, struct page **pages)
{
	unsigned long i;

	for (i = 0; i < n; i++) {
		folio_mark_dirty(page_folio(pages[i]));
		put_page(pages[i]);
		cond_resched();
	}
}

int lslm_backing_lock(struct lslm_backing *backing, pgoff_t first, unsigned long n,
		      struct page **pages)
{
	gfp_t gfp = BACKING_GFP | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
	unsigned long i;
	int ret;

	for (i = 0; i < n; i++) {
		struct page *page;

		ret = -EINTR;
		if (fatal_signal_pending(current))
			goto err;
		page = shmem_read_mapping_page_gfp(backing->file->f_mapping, first + i, gfp);
		ret = -ENOMEM;
		if (IS_ERR(page))
			goto err;
		pages[i] = page;
		cond_resched();
	}
	return 0;

err:
	lslm_backing_unlock(i, pages);
	return ret;
}

unsigned long lslm_backing_locked(unsigned long n, struct page **pages)
{
	unsigned long i, locked = 0;

	/* Pages of one folio are neighbours, and it is not split while it is referenced. */
	for (i = 0; i < n; i++)
		if (!i || page_folio(pages[i]) != page_folio(pages[i - 1]))
			locked += folio_nr_pages(page_folio(pages[i]));
	return locked;
}

bool lslm_backing_pinned(struct lslm_backing *backing)
{
	struct folio_batch batch;
	bool pinned = false;
	pgoff_t index = 0;
	unsigned int i;

	folio_batch_init(&batch);
	while (!pinned && filemap_get_folios(backing->file->f_mapping, &index, ULONG_MAX, &batch)) {
		for (i = 0; i < folio_batch_count(&batch); i++)
			pinned |= folio_maybe_dma_pinned(batch.folios[i]);
		folio_batch_release(&batch);
		cond_resched();
	}
	return pinned;
}

int lslm_backing_mmap(struct lslm_backing *backing, struct vm_area_struct *vma)
{
	int ret = call_mmap(backing->file, vma);

	if (!ret)
		vma_set_file(vma, backing->file);
	return ret;
}
