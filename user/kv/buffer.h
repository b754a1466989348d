/* SPDX-License-Identifier: MIT */
/*
 * A buffer: shared memory with a capability, from the module or from memfd.
 *
 * The file descriptor is the right. A read-write descriptor can be mapped RW; a
 * read-only one, made by buffer_ro_fd() and passed over a unix socket, can only be
 * mapped RO. Either can HOLD: while any holder exists nothing may purge or recycle
 * the contents, so every attention step runs under a hold. `generation` grows when
 * contents are lost or replaced; `retained` says whether they survived since the
 * last will-need.
 *
 * Backends, same interface: "kernel" (/dev/lslm, include/uapi/linux/lslm.h) and
 * "memfd" (its user-space twin: sealed against resizing, mode 0400, RO = reopened
 * read-only). What the twin cannot have (shrinker, quota kept by the kernel) is an
 * off bit with a reason in buffer_features. BUFFER_AUTO takes the kernel
 * where /dev/lslm opens, else memfd, and buffer_backend_reason() says why; a named
 * backend that is not there is an error, never a silent fallback.
 *
 * How strict "read-only" is differs, and BUFFER_FEAT_RO_STRICT says it: the module's
 * descriptors cannot be reopened, whoever asks. A memfd's can, through /proc/self/fd, by root and
 * (after a chmod) by the user who made it; against those its RO guards from
 * accidents only. A confined engine therefore runs as another user than the courier.
 *
 * Ownership: a struct buffer owns its descriptor and mapping; buffer_close() ends
 * both and any hold taken through it. A struct buffer is used by one thread at
 * a time, but the mapping may be read from anywhere under a hold. Holds belong to the open
 * file description: make one buffer_ro_fd() for each recipient, because duplicates
 * of one descriptor (dup, fork, sent twice) share, and can end, each other's holds.
 */
#ifndef LSLM_KV_BUFFER_H
#define LSLM_KV_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct buffer;

enum buffer_backend {
	BUFFER_AUTO,
	BUFFER_KERNEL,
	BUFFER_MEMFD,
};

enum buffer_flags {
	/* 2 MiB pages where the backend can; buffer_info.page_size says what came. The size is
	 * rounded up to 2 MiB, and the memory is taken at once. */
	BUFFER_HUGE = 1 << 0,
};

struct buffer_info {
	enum buffer_backend backend;
	uint64_t id; /* as in tracepoints and fdinfo; the inode number for memfd */
	uint64_t generation;
	size_t size; /* bytes asked for, rounded up to pages */
	size_t page_size; /* of the backing */
	bool writable;
	bool purgeable;
	bool retained; /* contents survived since the last will-need */
	uint32_t holds; /* by anybody */
	const char *page_reason; /* why page_size is not huge although asked; "" if it is */
};

/* What a backend can do; a bit that is off has a reason. */
enum buffer_feature {
	BUFFER_FEAT_RO_FD = 1 << 0,
	BUFFER_FEAT_HOLD = 1 << 1,
	BUFFER_FEAT_PURGE = 1 << 2,
	BUFFER_FEAT_SHRINKER = 1 << 3,
	BUFFER_FEAT_QUOTA = 1 << 4,
	BUFFER_FEAT_HUGE = 1 << 5,
	BUFFER_FEAT_CROSS_PROCESS_HOLD = 1 << 6,
	BUFFER_FEAT_RO_STRICT = 1 << 7,
};

uint32_t buffer_features(enum buffer_backend backend);
/*
 * "" when the bit is on. Static text, except for the reason of a failed open. Backends are
 * probed once per process: a module loaded later is seen by the next one.
 */
const char *buffer_feature_reason(enum buffer_backend backend, enum buffer_feature bit);

const char *buffer_backend_name(enum buffer_backend backend); /* "kernel", "memfd" */
/* What BUFFER_AUTO takes now, and why: "kernel: /dev/lslm, module 0.1" or "memfd: /dev/lslm: ...". */
enum buffer_backend buffer_backend_active(void);
const char *buffer_backend_reason(void);

/*
 * A new zeroed buffer, mapped RW. -EDQUOT over quota, -ENOSPC and -EFBIG over the module's limits,
 * -ENOMEM, -ENODEV backend not there. The module allocates every page here; the twin
 * does at first touch, unless BUFFER_HUGE is asked.
 */
int buffer_create(struct buffer **out, enum buffer_backend backend, size_t size, unsigned int flags,
		  struct lslm_error *err);

/* A new O_CLOEXEC descriptor with read-only rights, owned by the caller; >= 0 or -errno. */
int buffer_ro_fd(struct buffer *b, struct lslm_error *err);

/*
 * Take a descriptor received from elsewhere (ownership moves here on success) and
 * map it as its rights allow. -EBADF for a descriptor that is no buffer, and for a
 * memfd without the twin's seals.
 */
int buffer_import(struct buffer **out, int fd, struct lslm_error *err);
void buffer_close(struct buffer *b);

void *buffer_data(struct buffer *b); /* NULL when this side may not write */
const void *buffer_ro_data(const struct buffer *b);
size_t buffer_size(const struct buffer *b);
int buffer_fd(const struct buffer *b);
int buffer_query(struct buffer *b, struct buffer_info *info, struct lslm_error *err);

/*
 * Hold and release nest per descriptor. hold returns whether the contents were retained and the
 * generation in force. -EBUSY is never returned by hold: it is what purge and
 * recycling get while one exists. -EOVERFLOW for too many; release without a hold: -ENOENT.
 */
int buffer_hold(struct buffer *b, bool *retained, uint64_t *generation, struct lslm_error *err);
int buffer_release(struct buffer *b, struct lslm_error *err);

/*
 * RW side only (-EACCES otherwise). A purgeable buffer that nobody holds may lose
 * its contents under memory pressure; will_need ends that and tells whether it
 * happened. purge drops contents now: -EBUSY while held.
 */
int buffer_purgeable(struct buffer *b, struct lslm_error *err);
int buffer_will_need(struct buffer *b, bool *retained, uint64_t *generation,
		     struct lslm_error *err);
int buffer_purge(struct buffer *b, uint64_t *generation, struct lslm_error *err);

#endif
