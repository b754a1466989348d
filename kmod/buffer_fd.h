/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Buffer descriptors: the calls, mmap and fdinfo of a buffer.
 *
 * The open mode of the file is the right: read-write or read-only, as VFS and mmap enforce it.
 */
#ifndef LSLM_BUFFER_FD_H
#define LSLM_BUFFER_FD_H

struct file;
struct lslm_buffer;

/*
 * A new open file description of buffer, read-write or read-only. The caller keeps its own
 * reference to the backing file. ERR_PTR() on failure.
 */
struct file *lslm_buffer_file(struct lslm_buffer *buffer, bool writable);

/*
 * The buffer that a read-write descriptor of current's is of, with a reference to its backing
 * file, which the caller puts. -EBADF: no buffer descriptor, -EACCES: a read-only one.
 */
int lslm_buffer_from_fd(int fd, struct lslm_buffer **out);

#endif /* LSLM_BUFFER_FD_H */
