// SPDX-License-Identifier: GPL-2.0-only

#include <linux/anon_inodes.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "buffer.h"
#include "buffer_fd.h"
#include "ioctl.h"

static int call_ro_fd(struct lslm_call *call)
{
	struct lslm_handle *handle = call->file->private_data;
	struct lslm_buf_ro_fd *arg = (void *)call->arg;
	struct file *file = lslm_buffer_file(handle->buffer, false);
	int fd;

	if (IS_ERR(file))
		return PTR_ERR(file);
	fd = lslm_call_return_file(call, file);
	if (fd < 0)
		return fd;
	arg->out_fd = fd;
	return 0;
}

static int call_hold(struct lslm_call *call)
{
	struct lslm_hold *arg = (void *)call->arg;
	u64 generation;
	bool retained;
	int ret;

	ret = lslm_buffer_hold(call->file->private_data, &retained, &generation);
	if (ret)
		return ret;
	arg->out_retained = retained;
	arg->out_generation = generation;
	return 0;
}

static int call_release(struct lslm_call *call)
{
	return lslm_buffer_release(call->file->private_data);
}

static int call_query(struct lslm_call *call)
{
	struct lslm_handle *handle = call->file->private_data;
	struct lslm_buffer *buffer = handle->buffer;
	struct lslm_query *arg = (void *)call->arg;
	struct lslm_buffer_state state;

	lslm_buffer_state(buffer, &state);
	arg->size = call->filled;
	arg->out_id = buffer->id;
	arg->out_bytes = buffer->bytes;
	arg->out_generation = state.generation;
	arg->out_holds = state.holds;
	arg->out_resident_bytes = state.resident_bytes;
	arg->out_huge_bytes = state.huge_bytes;
	arg->out_flags = state.flags;
	if (call->file->f_mode & FMODE_WRITE)
		arg->out_flags |= LSLM_BUF_WRITABLE;
	arg->out_page_size = lslm_buffer_page_size(buffer, state.huge_bytes);
	return 0;
}

static int call_purgeable(struct lslm_call *call)
{
	struct lslm_handle *handle = call->file->private_data;

	return lslm_buffer_purgeable(handle->buffer);
}

static int call_will_need(struct lslm_call *call)
{
	struct lslm_handle *handle = call->file->private_data;
	struct lslm_will_need *arg = (void *)call->arg;
	u64 generation;
	bool retained;
	int ret;

	ret = lslm_buffer_will_need(handle->buffer, &retained, &generation);
	if (ret)
		return ret;
	arg->out_retained = retained;
	arg->out_generation = generation;
	return 0;
}

static int call_purge(struct lslm_call *call)
{
	struct lslm_handle *handle = call->file->private_data;
	struct lslm_purge *arg = (void *)call->arg;
	u64 generation;
	int ret;

	ret = lslm_buffer_purge(handle->buffer, &generation);
	if (ret)
		return ret;
	arg->out_generation = generation;
	return 0;
}

#define BUFFER_ROW(_cmd) (LSLM_CMD_##_cmd - LSLM_CMD_BUF_RO_FD)

static const struct lslm_ioctl buffer_ioctls[] = {
	[BUFFER_ROW(BUF_RO_FD)] =
		LSLM_IOCTL(call_ro_fd, lslm_buf_ro_fd, __reserved,
			   .reserved = offsetof(struct lslm_buf_ro_fd, __reserved)),
	[BUFFER_ROW(HOLD)] = LSLM_IOCTL(call_hold, lslm_hold, out_generation,
					.reserved = offsetof(struct lslm_hold, __reserved)),
	[BUFFER_ROW(RELEASE)] = LSLM_IOCTL(call_release, lslm_release, flags, .silent = true),
	[BUFFER_ROW(QUERY)] = LSLM_IOCTL(call_query, lslm_query, out_page_size),
	[BUFFER_ROW(PURGEABLE)] = LSLM_IOCTL(call_purgeable, lslm_purgeable, flags,
					     .needs_write = true, .silent = true),
	[BUFFER_ROW(WILL_NEED)] =
		LSLM_IOCTL(call_will_need, lslm_will_need, out_generation, .needs_write = true,
			   .reserved = offsetof(struct lslm_will_need, __reserved)),
	[BUFFER_ROW(PURGE)] =
		LSLM_IOCTL(call_purge, lslm_purge, out_generation, .needs_write = true),
};

static long buffer_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return lslm_ioctl_dispatch(file, buffer_ioctls, LSLM_CMD_BUF_RO_FD,
				   ARRAY_SIZE(buffer_ioctls), cmd, arg);
}

static int buffer_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct lslm_handle *handle = file->private_data;
	struct lslm_buffer *buffer = handle->buffer;
	u64 pages = buffer->bytes >> PAGE_SHIFT;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_pgoff > pages || vma_pages(vma) > pages - vma->vm_pgoff)
		return -EINVAL;
	/*
	 * The backing file is read-write; that a read-only descriptor's mapping stays read-only
	 * rests on this flag, which the VFS has cleared for it already.
	 */
	if (!(file->f_mode & FMODE_WRITE))
		vm_flags_clear(vma, VM_MAYWRITE);
	return lslm_backing_mmap(&buffer->backing, vma);
}

static unsigned long buffer_get_unmapped_area(struct file *file, unsigned long addr,
					      unsigned long len, unsigned long pgoff,
					      unsigned long flags)
{
	struct lslm_handle *handle = file->private_data;
	struct file *backing = handle->buffer->backing.file;

	return backing->f_op->get_unmapped_area(backing, addr, len, pgoff, flags);
}

static void buffer_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct lslm_handle *handle = file->private_data;
	struct lslm_buffer *buffer = handle->buffer;
	struct lslm_buffer_state state;

	lslm_buffer_state(buffer, &state);
	seq_printf(m, "lslm-id:\t%llu\n", buffer->id);
	seq_printf(m, "lslm-bytes:\t%llu\n", buffer->bytes);
	seq_printf(m, "lslm-resident-bytes:\t%llu\n", state.resident_bytes);
	seq_printf(m, "lslm-huge-bytes:\t%llu\n", state.huge_bytes);
	seq_printf(m, "lslm-writable:\t%u\n", !!(file->f_mode & FMODE_WRITE));
	seq_printf(m, "lslm-generation:\t%llu\n", state.generation);
	seq_printf(m, "lslm-retained:\t%u\n", !!(state.flags & LSLM_BUF_RETAINED));
	seq_printf(m, "lslm-purgeable:\t%u\n", !!(state.flags & LSLM_BUF_PURGEABLE));
	seq_printf(m, "lslm-holds:\t%llu\n", state.holds);
	seq_printf(m, "lslm-holds-here:\t%u\n", READ_ONCE(handle->holds));
}

static int buffer_fd_release(struct inode *inode, struct file *file)
{
	struct lslm_handle *handle = file->private_data;

	lslm_buffer_release_all(handle);
	fput(handle->buffer->backing.file);
	kfree(handle);
	return 0;
}

static const struct file_operations buffer_fops = {
	.owner = THIS_MODULE,
	.release = buffer_fd_release,
	.unlocked_ioctl = buffer_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = buffer_mmap,
	.get_unmapped_area = buffer_get_unmapped_area,
	.show_fdinfo = buffer_show_fdinfo,
};

struct file *lslm_buffer_file(struct lslm_buffer *buffer, bool writable)
{
	struct lslm_handle *handle = kzalloc(sizeof(*handle), GFP_KERNEL_ACCOUNT);
	struct file *file;

	if (!handle)
		return ERR_PTR(-ENOMEM);
	handle->buffer = buffer;
	file = anon_inode_getfile("[lslm-buffer]", &buffer_fops, handle,
				  writable ? O_RDWR : O_RDONLY);
	if (IS_ERR(file))
		kfree(handle);
	else
		get_file(buffer->backing.file);
	return file;
}

int lslm_buffer_from_fd(int fd, struct lslm_buffer **out)
{
	struct file *file = fget(fd);
	struct lslm_handle *handle;
	int ret = -EBADF;

	if (!file)
		return -EBADF;
	if (file->f_op == &buffer_fops) {
		ret = -EACCES;
		if (file->f_mode & FMODE_WRITE) {
			handle = file->private_data;
			get_file(handle->buffer->backing.file);
			*out = handle->buffer;
			ret = 0;
		}
	}
	fput(file);
	return ret;
}
