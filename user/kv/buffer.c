// SPDX-License-Identifier: MIT
#include "kv/buffer_backend.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lslm/page.h"

struct backend {
	const char *name;
	const struct buffer_ops *ops;
	int code; /* of the probe */
	char reason[BUFFER_REASON_BYTES];
};

static struct backend backends[] = {
	[BUFFER_KERNEL] = { "kernel", &buffer_kernel_ops, 0, "" },
	[BUFFER_MEMFD] = { "memfd", &buffer_memfd_ops, 0, "" },
};

static enum buffer_backend active;
static char active_reason[BUFFER_REASON_BYTES + 32];
static pthread_once_t probed = PTHREAD_ONCE_INIT;

/* Once per process: what a running daemon reports must be what it keeps using. */
static void probe(void)
{
	struct backend *kernel = &backends[BUFFER_KERNEL];
	struct backend *memfd = &backends[BUFFER_MEMFD];

	kernel->code = kernel->ops->probe(kernel->reason);
	memfd->code = memfd->ops->probe(memfd->reason);
	active = kernel->code ? BUFFER_MEMFD : BUFFER_KERNEL;
	snprintf(active_reason, sizeof(active_reason), "%s: %s", backends[active].name,
		 kernel->reason);
}

static struct backend *backend_of(enum buffer_backend backend)
{
	pthread_once(&probed, probe);
	return &backends[backend == BUFFER_AUTO ? active : backend];
}

uint32_t buffer_features(enum buffer_backend backend)
{
	const struct backend *of = backend_of(backend);

	return of->code ? 0 : of->ops->features();
}

const char *buffer_feature_reason(enum buffer_backend backend, enum buffer_feature bit)
{
	const struct backend *of = backend_of(backend);

	if (of->code)
		return of->reason;
	return of->ops->features() & bit ? "" : of->ops->feature_reason(bit);
}

const char *buffer_backend_name(enum buffer_backend backend)
{
	return backend == BUFFER_AUTO ? "auto" : backends[backend].name;
}

enum buffer_backend buffer_backend_active(void)
{
	pthread_once(&probed, probe);
	return active;
}

const char *buffer_backend_reason(void)
{
	pthread_once(&probed, probe);
	return active_reason;
}

/* Address space for size bytes, starting at a multiple of align; the surplus goes back. */
static void *reserve(size_t size, size_t align)
{
	size_t all = size + align, head;
	char *p = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return MAP_FAILED;
	head = -(uintptr_t)p & (align - 1);
	if (head)
		munmap(p, head);
	munmap(p + head + size, align - head);
	return p + head;
}

int buffer_map(struct buffer *b, struct lslm_error *err)
{
	int prot = PROT_READ | (b->writable ? PROT_WRITE : 0);
	size_t align = b->size < LSLM_HUGE_PAGE ? lslm_page_size() : LSLM_HUGE_PAGE;
	void *at = reserve(b->size, align);
	int ret;

	if (at == MAP_FAILED)
		return error_sys(err, -errno, "buffer: no address space for %zu bytes", b->size);
	b->map = mmap(at, b->size, prot, MAP_SHARED | MAP_FIXED, b->fd, 0);
	if (b->map != MAP_FAILED)
		return 0;
	ret = -errno;
	munmap(at, b->size);
	return error_sys(err, ret, "buffer: cannot map %zu bytes", b->size);
}

static struct buffer *fresh(const struct buffer_ops *ops)
{
	struct buffer *b = calloc(1, sizeof(*b));

	if (b) {
		b->ops = ops;
		b->fd = -1;
		b->map = MAP_FAILED;
	}
	return b;
}

int buffer_create(struct buffer **out, enum buffer_backend backend, size_t size, unsigned int flags,
		  struct lslm_error *err)
{
	const struct backend *of = backend_of(backend);
	size_t page = flags & BUFFER_HUGE ? LSLM_HUGE_PAGE : lslm_page_size();
	struct buffer *b;
	int ret;

	if (of->code)
		return error_set(err, -ENODEV, "no %s buffers here: %s", of->name, of->reason);
	if (!size || size > SIZE_MAX / 4)
		return error_set(err, -EINVAL, "buffer: %zu bytes is no size for a buffer", size);
	if (flags & ~(unsigned int)BUFFER_HUGE)
		return error_set(err, -EINVAL, "buffer: unknown flags %#x", flags);
	b = fresh(of->ops);
	if (!b)
		return error_set(err, -ENOMEM, "buffer: out of memory");
	ret = b->ops->create(b, lslm_round_up(size, page), flags, err);
	if (ret)
		buffer_close(b);
	else
		*out = b;
	return ret;
}

int buffer_import(struct buffer **out, int fd, struct lslm_error *err)
{
	/* memfd first: asking a foreign descriptor for its seals is harmless, an ioctl may not be. */
	static const enum buffer_backend order[] = { BUFFER_MEMFD, BUFFER_KERNEL };
	struct buffer *b = fresh(NULL);
	int ret = -EBADF;

	if (!b)
		return error_set(err, -ENOMEM, "buffer: out of memory");
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]) && ret == -EBADF; i++) {
		b->ops = backends[order[i]].ops;
		b->fd = fd;
		ret = b->ops->import(b, err);
	}
	if (ret) {
		b->fd = -1; /* ownership moves on success only */
		buffer_close(b);
		return ret;
	}
	*out = b;
	return 0;
}

void buffer_close(struct buffer *b)
{
	if (!b)
		return;
	b->ops->forget(b);
	if (b->map != MAP_FAILED)
		munmap(b->map, b->size);
	if (b->fd >= 0)
		close(b->fd);
	free(b);
}

void *buffer_data(struct buffer *b)
{
	return b->writable ? b->map : NULL;
}

const void *buffer_ro_data(const struct buffer *b)
{
	return b->map;
}

size_t buffer_size(const struct buffer *b)
{
	return b->size;
}

int buffer_fd(const struct buffer *b)
{
	return b->fd;
}

int buffer_ro_fd(struct buffer *b, struct lslm_error *err)
{
	return b->ops->ro_fd(b, err);
}

int buffer_query(struct buffer *b, struct buffer_info *info, struct lslm_error *err)
{
	return b->ops->query(b, info, err);
}

int buffer_hold(struct buffer *b, bool *retained, uint64_t *generation, struct lslm_error *err)
{
	bool kept;
	uint64_t gen;
	int ret = b->ops->hold(b, &kept, &gen, err);

	if (ret)
		return ret;
	b->nest++;
	if (retained)
		*retained = kept;
	if (generation)
		*generation = gen;
	return 0;
}

int buffer_release(struct buffer *b, struct lslm_error *err)
{
	int ret;

	if (!b->nest)
		return error_set(err, -ENOENT, "buffer: released without a hold");
	ret = b->ops->release(b, err);
	if (!ret)
		b->nest--;
	return ret;
}

static int need_write(const struct buffer *b, struct lslm_error *err)
{
	if (b->writable)
		return 0;
	return error_set(err, -EACCES, "buffer: this descriptor may only read");
}

int buffer_purgeable(struct buffer *b, struct lslm_error *err)
{
	int ret = need_write(b, err);

	return ret ? ret : b->ops->purgeable(b, err);
}

int buffer_will_need(struct buffer *b, bool *retained, uint64_t *generation, struct lslm_error *err)
{
	int ret = need_write(b, err);
	bool kept;
	uint64_t gen;

	if (!ret)
		ret = b->ops->will_need(b, &kept, &gen, err);
	if (ret)
		return ret;
	if (retained)
		*retained = kept;
	if (generation)
		*generation = gen;
	return 0;
}

int buffer_purge(struct buffer *b, uint64_t *generation, struct lslm_error *err)
{
	int ret = need_write(b, err);
	uint64_t gen;

	if (!ret)
		ret = b->ops->purge(b, &gen, err);
	if (!ret && generation)
		*generation = gen;
	return ret;
}
