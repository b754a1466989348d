/* SPDX-License-Identifier: MIT */
/*
 * Sealed memfds: memory that other processes can map and nobody can resize.
 *
 * Both users of it (the buffer twin and the control page) hand read-only
 * descriptors to processes that must not fault: a file that could shrink under a
 * mapping would turn a load into SIGBUS. Hence the seals are part of what an importer
 * checks. Mode is 0400, so that a process of another user cannot reopen a
 * read-only descriptor for writing through /proc/self/fd; the same user can change the
 * mode back and root ignores it, which the buffer twin reports as a feature it lacks.
 */
#ifndef LSLM_KV_MEMFD_H
#define LSLM_KV_MEMFD_H

#include <stddef.h>

#include "base/error.h"

/* A zeroed O_CLOEXEC memfd of size bytes, sealed; extra: MFD_HUGETLB or 0. >= 0 or -errno. */
int memfd_sealed(const char *name, size_t size, unsigned int extra, struct lslm_error *err);

/* The same with these bytes, which nobody can change any more, whatever right a descriptor has. */
int memfd_constant(const char *name, const void *data, size_t size, struct lslm_error *err);

/* A new read-only open file description of the same memory; >= 0 or -errno. */
int memfd_reopen_ro(int fd, struct lslm_error *err);

/* Size of a memfd that carries the seals of memfd_sealed(), else -EBADF. */
int memfd_check(int fd, size_t *size, struct lslm_error *err);

#endif
