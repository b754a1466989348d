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
 * ring_register() pins memory once instead of once per read. It is an
 * optimisation that a limit can forbid: on failure the ring goes on without, and
 * the caller can report why. The kernel takes at most 1 GiB per registered
 * buffer, so a larger area is registered in pieces, and a read that straddles two
 * of them is done as an unregistered one.
 *
 * A ring is used by one thread at a time.
 *
 * Errors of ring_open(): -ENOSYS (kernel without io_uring), -EPERM (switched off by sysctl
 * or seccomp), -ENOMEM (RLIMIT_MEMLOCK), each with a line that says what to do. Callers are
 * expected to have a slower path (pread) for all of them.
 */
#ifndef LSLM_BASE_RING_H
#define LSLM_BASE_RING_H

#include <stdbool.h>
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
 * Pin an area that stays mapped, writable, for the ring's life; once per ring.
 * -ENOMEM with advice when RLIMIT_MEMLOCK does not allow it; the ring works on, unregistered.
 */
int ring_register(struct ring *r, void *base, size_t size, struct lslm_error *err);
bool ring_registered(const struct ring *r);

/* -EAGAIN when depth reads are pending, -EINVAL for a length of 0 or above 1 GiB. */
int ring_read(struct ring *r, int fd, void *dst, size_t len, uint64_t offset, uint64_t tag);
/* -EINVAL when nothing is pending. */
int ring_wait(struct ring *r, struct ring_done *done, struct lslm_error *err);
unsigned int ring_pending(const struct ring *r);

#endif
