/* SPDX-License-Identifier: MIT */
/*
 * A ring: reads of files, many in flight, straight to their place (io_uring).
 *
 * ring_read() queues, ring_wait() submits what is queued and returns one finished
 * read; completions come in any order and carry the caller's tag. A read may be
 * short, as with pread(): the caller asks for the rest. Between ring_read() and its
 * completion the target belongs to the kernel, so a caller that gives up must first
 * wait until ring_pending() is 0.
 *
 * Memory can be registered, pinned once for all reads. That faults in the whole of it before the first read, so it is
 * for memory that is there already.
 *
 * A ring is used by one thread at a time.
 *
 * Errors of ring_open(): -ENOSYS (kernel without io_uring), -EPERM (switched off by sysctl
 * or seccomp), -ENOMEM (RLIMIT_MEMLOCK), each with a line that says what to do. Callers are
 * expected to have a slower path (pread) for all of them.
 */
#ifndef LSLM_BASE_RING_H
#define LSLM_BASE_RING_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct ring;

struct ring_done {
	uint64_t tag;
	int32_t res; /* bytes read, 0 at the end of the file, or -errno */
};

/* depth: how many reads may be in flight, 1 to 4096. */
int ring_open(struct ring **out, unsigned int depth, struct lslm_error *err);
/* Call only when nothing is pending. NULL is allowed, as in free(). */
void ring_close(struct ring *r);

/*
 * Once, before the first read: reads into this memory need not pin it. In pieces of at most 1 GiB, which is what a
 * registration takes; a read over the edge of two goes as without. -ENOMEM (RLIMIT_MEMLOCK), -EFAULT, ...: reads go on as without.
 */
int ring_register(struct ring *r, void *base, size_t size, struct lslm_error *err);
/* -EAGAIN when depth reads are pending, -EINVAL for a length of 0 or above 1 GiB. */
int ring_read(struct ring *r, int fd, void *dst, size_t len, uint64_t offset, uint64_t tag);
/* -EINVAL when nothing is pending. */
int ring_wait(struct ring *r, struct ring_done *done, struct lslm_error *err);
unsigned int ring_pending(const struct ring *r);

#endif
