/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Size-first ioctls from a table: one row per call, one dispatcher for every kind of descriptor.
 *
 * The dispatcher does all that is the same for every call, in the order that the UAPI header
 * promises: number, size, unknown tail, flags, reserved member, rights, whether the answer can be
 * written; then the handler; then, as what cannot fail any more, the answer and the installing of
 * a new descriptor. So a handler that succeeds is a call that succeeds.
 */
#ifndef LSLM_IOCTL_H
#define LSLM_IOCTL_H

#include <linux/fs.h>
#include <linux/lslm.h>
#include <linux/stddef.h>
#include <linux/types.h>

/* Room for the largest argument; a row whose structure is larger does not compile. */
#define LSLM_ARG_WORDS 32

struct lslm_call {
	struct file *file; /* called on */
	u64 arg[LSLM_ARG_WORDS]; /* the structure, zero beyond what the caller passed */
	u32 filled; /* bytes of it that reach the caller */

	/*
	 * A handler that returns a descriptor sets both by lslm_call_return_file(), as the last
	 * that can fail, and owns neither any more.
	 */
	struct file *new_file;
	int new_fd;
};

struct lslm_ioctl {
	int (*fn)(struct lslm_call *call);
	u32 size;
	u32 min_size; /* of the first published form */
	u32 valid_flags;
	u16 reserved; /* offset of __reserved, 0 for none: size is at 0 */
	bool needs_write; /* EACCES on a read-only descriptor */
	bool silent; /* nothing is written back: the argument may be constant */
};

/* _last is the last member of the first published form. Fits any structure with size, flags. */
#define LSLM_IOCTL(_fn, _struct, _last, ...)                                             \
	{                                                                                \
		.fn = (_fn),                                                             \
		.size = sizeof(struct _struct) +                                         \
			BUILD_BUG_ON_ZERO(sizeof(struct _struct) > LSLM_ARG_WORDS * 8) + \
			BUILD_BUG_ON_ZERO(offsetof(struct _struct, size) != 0) +         \
			BUILD_BUG_ON_ZERO(offsetof(struct _struct, flags) != 4),         \
		.min_size = offsetofend(struct _struct, _last), __VA_ARGS__              \
	}

/* rows[i] answers the call numbered first + i; a row without fn does not exist. */
long lslm_ioctl_dispatch(struct file *file, const struct lslm_ioctl *rows, u32 first, u32 count,
			 unsigned int cmd, unsigned long arg);

/*
 * For handlers: reserve a descriptor for file. Takes over the caller's reference to file, also
 * on failure. Returns the number to report to user space, or a negative errno.
 */
int lslm_call_return_file(struct lslm_call *call, struct file *file);

#endif /* LSLM_IOCTL_H */
