// SPDX-License-Identifier: GPL-2.0-only

#include <linux/file.h>
#include <linux/nospec.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "ioctl.h"

/* Nothing is written back to a call that consists of size and flags. */
#define ARGUMENT_HEAD (2 * sizeof(u32))

static int read_argument(struct lslm_call *call, const struct lslm_ioctl *row, void __user *arg)
{
	struct {
		u32 size;
		u32 flags;
	} *head = (void *)call->arg;
	u32 user_size;
	int ret;

	if (get_user(user_size, (u32 __user *)arg))
		return -EFAULT;
	if (user_size < row->min_size)
		return -EINVAL;
	/* Bounds the search for a byte that is not zero. */
	if (user_size > PAGE_SIZE)
		return -E2BIG;
	ret = copy_struct_from_user(call->arg, row->size, arg, user_size);
	if (ret)
		return ret;
	/* Another thread may have rewritten it between the two reads. */
	head->size = user_size;
	call->filled = min(user_size, row->size);

	if (head->flags & ~row->valid_flags)
		return -EOPNOTSUPP;
	if (row->reserved && *(u32 *)((char *)call->arg + row->reserved))
		return -EINVAL;
	return 0;
}

static int run(struct lslm_call *call, const struct lslm_ioctl *row, void __user *uarg)
{
	bool answers = row->size > ARGUMENT_HEAD;
	int ret;

	ret = read_argument(call, row, uarg);
	if (ret)
		return ret;
	if (row->needs_write && !(call->file->f_mode & FMODE_WRITE))
		return -EACCES;
	/*
	 * Find out now whether the answer can be written, so that EFAULT means that nothing
	 * happened. Only a caller that unmaps it meanwhile gets EFAULT after the deed.
	 */
	if (answers && copy_to_user(uarg, call->arg, call->filled))
		return -EFAULT;
	ret = row->fn(call);
	if (ret)
		return ret;

	if (answers && copy_to_user(uarg, call->arg, call->filled)) {
		if (call->new_file) {
			put_unused_fd(call->new_fd);
			fput(call->new_file);
		}
		return -EFAULT;
	}
	if (call->new_file)
		fd_install(call->new_fd, call->new_file);
	return 0;
}

long lslm_ioctl_dispatch(struct file *file, const struct lslm_ioctl *rows, u32 first, u32 count,
			 unsigned int cmd, unsigned long arg)
{
	struct lslm_call call = { .file = file };
	const struct lslm_ioctl *row;
	u32 nr = _IOC_NR(cmd) - first;
	int ret;

	if (cmd != _IO(LSLM_TYPE, _IOC_NR(cmd)) || nr >= count)
		return -ENOTTY;
	row = &rows[array_index_nospec(nr, count)];
	if (!row->fn)
		return -ENOTTY;
	ret = run(&call, row, (void __user *)arg);
	/* There may have been a key in it. */
	memzero_explicit(call.arg, row->size);
	return ret;
}

int lslm_call_return_file(struct lslm_call *call, struct file *file)
{
	int fd = get_unused_fd_flags(O_CLOEXEC);

	if (fd < 0) {
		fput(file);
		return fd;
	}
	call->new_fd = fd;
	call->new_file = file;
	return fd;
}
