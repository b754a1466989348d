// SPDX-License-Identifier: GPL-2.0-only

#include <linux/file.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "ioctl.h"

/* The pages that the answer goes to, pinned. */
struct answer {
	struct page *pages[2];
	int n_pages;
	u32 offset; /* in the first */
	u32 bytes;
};

static_assert(LSLM_ARG_WORDS * sizeof(u64) <= PAGE_SIZE);

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

static int pin_answer(struct answer *answer, unsigned long at, u32 bytes)
{
	int n, got;

	answer->offset = offset_in_page(at);
	answer->bytes = bytes;
	n = PFN_UP(answer->offset + bytes);
	got = pin_user_pages_fast(at & PAGE_MASK, n, FOLL_WRITE, answer->pages);
	if (got == n) {
		answer->n_pages = n;
		return 0;
	}
	if (got > 0)
		unpin_user_pages(answer->pages, got);
	return fatal_signal_pending(current) ? -EINTR : -EFAULT;
}

static void write_answer(const struct answer *answer, const char *from)
{
	u32 first = min_t(u32, answer->bytes, PAGE_SIZE - answer->offset);

	memcpy_to_page(answer->pages[0], answer->offset, from, first);
	if (first < answer->bytes)
		memcpy_to_page(answer->pages[1], 0, from + first, answer->bytes - first);
}

/*
 * The answer's pages are pinned before anything is done: copy_to_user() could fail after the deed,
 * when another thread takes the memory away meanwhile, and not every deed can be undone.
 */
static int run(struct lslm_call *call, const struct lslm_ioctl *row, unsigned long uarg)
{
	struct answer answer = {};
	int ret;

	ret = read_argument(call, row, (void __user *)uarg);
	if (ret)
		return ret;
	if (row->needs_write && !(call->file->f_mode & FMODE_WRITE))
		return -EACCES;
	if (!row->silent) {
		ret = pin_answer(&answer, uarg, call->filled);
		if (ret)
			return ret;
	}
	ret = row->fn(call);
	if (!ret && !row->silent)
		write_answer(&answer, (char *)call->arg);
	unpin_user_pages_dirty_lock(answer.pages, answer.n_pages, !ret);
	if (!ret && call->new_file)
		fd_install(call->new_fd, call->new_file);
	return ret;
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
	ret = run(&call, row, arg);
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
