// SPDX-License-Identifier: MIT
#include "base/ring.h"

#include <liburing.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { RING_MAX_DEPTH = 4096 };

/* A result is an int; no caller reads nearly as much at once. */
#define RING_MAX_READ ((size_t)1 << 30)

/* Of registered memory: the most that the kernel takes as one buffer. */
#define RING_PIECE	((size_t)1 << 30)
#define RING_MAX_PIECES ((size_t)256)

struct ring {
	struct io_uring uring;
	const char *base; /* registered; NULL: nothing is */
	size_t size;
	unsigned int depth;
	unsigned int pending; /* queued or submitted, not yet returned by ring_wait() */
};

static int explain(struct lslm_error *err, int code, const char *what)
{
	struct rlimit lim = { 0 };

	switch (code) {
	case -ENOSYS:
		return error_set(err, code, "%s: this kernel has no io_uring (5.6 or later needed)",
				 what);
	case -EPERM:
		return error_set(
			err, code,
			"%s: io_uring is switched off here; see sysctl kernel.io_uring_disabled and the container's seccomp filter",
			what);
	case -ENOMEM:
		getrlimit(RLIMIT_MEMLOCK, &lim);
		return error_set(
			err, code,
			"%s: the limit on locked memory (%llu KiB) is used up; raise it with `ulimit -l` or LimitMEMLOCK=",
			what, (unsigned long long)lim.rlim_cur / 1024);
	default:
		return error_sys(err, code, "%s", what);
	}
}

int ring_open(struct ring **out, unsigned int depth, struct lslm_error *err)
{
	struct ring *r;
	int ret;

	if (depth < 1 || depth > RING_MAX_DEPTH)
		return error_set(err, -EINVAL, "io_uring: a depth of %u is not within 1 to %d",
				 depth, RING_MAX_DEPTH);
	r = calloc(1, sizeof(*r));
	if (!r)
		return error_sys(err, -ENOMEM, "io_uring");
	ret = io_uring_queue_init(depth, &r->uring, 0);
	if (ret < 0) {
		free(r);
		return explain(err, ret, "io_uring");
	}
	r->depth = depth;
	*out = r;
	return 0;
}

void ring_close(struct ring *r)
{
	if (!r)
		return;
	io_uring_queue_exit(&r->uring);
	free(r);
}

int ring_register(struct ring *r, void *base, size_t size, struct lslm_error *err)
{
	struct iovec piece[RING_MAX_PIECES];
	unsigned int n = 0;
	int ret;

	if (!size || size > RING_MAX_PIECES * RING_PIECE)
		return error_set(err, -EINVAL, "io_uring: %zu bytes cannot be registered", size);
	for (size_t at = 0; at < size; at += RING_PIECE)
		piece[n++] = (struct iovec){ (char *)base + at,
					     size - at < RING_PIECE ? size - at : RING_PIECE };
	ret = io_uring_register_buffers(&r->uring, piece, n);
	if (ret < 0)
		return explain(err, ret, "registered buffers");
	r->base = base;
	r->size = size;
	return 0;
}

static void prepare_read(const struct ring *r, struct io_uring_sqe *sqe, int fd, char *dst,
			 size_t len, uint64_t offset)
{
	const size_t at = (size_t)((uintptr_t)dst - (uintptr_t)r->base);

	/* What lies before the memory is far behind its end. */
	if (r->base && at < r->size && len <= r->size - at && len <= RING_PIECE - at % RING_PIECE)
		io_uring_prep_read_fixed(sqe, fd, dst, (unsigned int)len, offset,
					 (int)(at / RING_PIECE));
	else
		io_uring_prep_read(sqe, fd, dst, (unsigned int)len, offset);
}

int ring_read(struct ring *r, int fd, void *dst, size_t len, uint64_t offset, uint64_t tag)
{
	struct io_uring_sqe *sqe;

	if (!len || len > RING_MAX_READ)
		return -EINVAL;
	if (r->pending == r->depth)
		return -EAGAIN;
	sqe = io_uring_get_sqe(&r->uring);
	if (!sqe)
		return -EAGAIN;
	prepare_read(r, sqe, fd, dst, len, offset);
	io_uring_sqe_set_data64(sqe, tag);
	r->pending++;
	return 0;
}

int ring_wait(struct ring *r, struct ring_done *done, struct lslm_error *err)
{
	struct io_uring_cqe *cqe;
	int ret;

	if (!r->pending)
		return error_set(err, -EINVAL, "io_uring: nothing to wait for");
	do {
		ret = io_uring_submit(&r->uring);
		if (ret >= 0)
			ret = io_uring_wait_cqe(&r->uring, &cqe);
		/* Short of memory, or too many completions unread: reap one first, if any will come. */
		if ((ret == -EBUSY || ret == -EAGAIN) && r->pending > io_uring_sq_ready(&r->uring))
			ret = io_uring_wait_cqe(&r->uring, &cqe);
	} while (ret == -EINTR);
	if (ret < 0)
		return explain(err, ret, "io_uring");
	done->tag = io_uring_cqe_get_data64(cqe);
	done->res = cqe->res;
	io_uring_cqe_seen(&r->uring, cqe);
	r->pending--;
	return 0;
}

unsigned int ring_pending(const struct ring *r)
{
	return r->pending;
}
