// SPDX-License-Identifier: GPL-2.0-only

#include <linux/anon_inodes.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "ring.h"

static size_t ring_bytes(u32 n_entries)
{
	return 2 * PAGE_SIZE + PAGE_ALIGN(n_entries * sizeof(struct lslm_done));
}

static int ring_release(struct inode *inode, struct file *file)
{
	struct lslm_completions *c = file->private_data;

	vfree(c->consumer);
	kfree(c);
	return 0;
}

/* Only ever the file of mappings: no descriptor of it exists. */
static const struct file_operations ring_fops = {
	.owner = THIS_MODULE,
	.release = ring_release,
};

int lslm_ring_create(u32 n_entries, struct lslm_completions **out)
{
	struct lslm_completions *c = kzalloc(sizeof(*c), GFP_KERNEL_ACCOUNT);
	void *memory;
	int ret;

	if (!c)
		return -ENOMEM;
	memory = __vmalloc(ring_bytes(n_entries), GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!memory) {
		kfree(c);
		return -ENOMEM;
	}
	init_waitqueue_head(&c->wait);
	c->n_entries = n_entries;
	c->consumer = memory;
	c->ring = memory + PAGE_SIZE;
	c->entries = memory + 2 * PAGE_SIZE;
	c->file = anon_inode_getfile("[lslm-ring]", &ring_fops, c, O_RDWR);
	if (IS_ERR(c->file)) {
		ret = PTR_ERR(c->file);
		vfree(memory);
		kfree(c);
		return ret;
	}
	*out = c;
	return 0;
}

bool lslm_ring_ready(const struct lslm_completions *c)
{
	return READ_ONCE(c->producer) != READ_ONCE(c->consumer->position);
}

bool lslm_ring_push(struct lslm_completions *c, const struct lslm_done *done)
{
	/*
	 * Acquire: the consumer has read what it gives back. A position that cannot be counts as
	 * a full ring.
	 */
	if (c->producer - smp_load_acquire(&c->consumer->position) >= c->n_entries) {
		/*
		 * Either the consumer sees this, or the room that it makes is seen below: otherwise
		 * it could sleep over the last entry there will ever be.
		 */
		WRITE_ONCE(c->ring->overflows, ++c->overflows);
		smp_mb(); /* pairs with the consumer's, between giving back and looking */
		if (c->producer - smp_load_acquire(&c->consumer->position) >= c->n_entries)
			return false;
	}
	c->entries[c->producer & (c->n_entries - 1)] = *done;
	WRITE_ONCE(c->producer, c->producer + 1);
	/* Release: the entry comes before the number that announces it. */
	smp_store_release(&c->ring->producer, c->producer);
	if (wq_has_sleeper(&c->wait))
		wake_up_interruptible_poll(&c->wait, EPOLLIN | EPOLLRDNORM);
	return true;
}

void lslm_ring_progress(struct lslm_completions *c, const struct lslm_progress *progress)
{
	struct lslm_ring *ring = c->ring;

	WRITE_ONCE(ring->sequence, ++c->sequence);
	smp_wmb(); /* odd before the first of them changes */
	WRITE_ONCE(ring->received, progress->received);
	WRITE_ONCE(ring->last_counter, progress->last_counter);
	WRITE_ONCE(ring->last_ns, progress->last_ns);
	WRITE_ONCE(ring->placed_bytes, progress->placed_bytes);
	/* Release: even again after the last. */
	smp_store_release(&ring->sequence, ++c->sequence);
}

int lslm_ring_mmap(struct lslm_completions *c, struct vm_area_struct *vma)
{
	unsigned long first = vma->vm_pgoff, n = vma_pages(vma), i;
	unsigned long total = ring_bytes(c->n_entries) >> PAGE_SHIFT;
	struct page *page;
	int ret;

	if (!(vma->vm_flags & VM_MAYSHARE) || first > total || n > total - first)
		return -EINVAL;
	/* The consumer's page is mapped alone, as the rest is not for writing. */
	if (!first && n != 1)
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;
	if (first && (vma->vm_flags & VM_WRITE))
		return -EACCES;
	vm_flags_clear(vma, first ? VM_MAYWRITE | VM_MAYEXEC : VM_MAYEXEC);
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	for (i = 0; i < n; i++) {
		page = vmalloc_to_page((char *)c->consumer + ((first + i) << PAGE_SHIFT));
		ret = vm_insert_page(vma, vma->vm_start + (i << PAGE_SHIFT), page);
		if (ret)
			return ret;
	}
	vma_set_file(vma, c->file);
	return 0;
}
