// SPDX-License-Identifier: MIT
/*
 * The user-space twin of the module's buffers.
 *
 * The file is the data, then one page (one huge page on hugetlb) with struct memfd_tail,
 * which only descriptors with write access can change. Holds are open-file-description
 * locks: they work on read-only descriptors, every process sees them, and the kernel ends
 * them when the last descriptor of that description is closed, so a crashed holder blocks
 * nobody. A holder read-locks one byte per nested hold inside a range of its own, chosen
 * at random so that holds can be counted; purging write-locks all of them at once,
 * which fails while any exists. None of the bytes lies inside the file.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/file.h"
#include "kv/buffer_backend.h"
#include "kv/memfd.h"
#include "lslm/page.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define MFD_HUGE_2_MIB (21U << 26)
#define HUGETLBFS_TYPE 0x958458f6

#define TAIL_MAGIC 0x6e6977546d6c736cULL

enum {
	HOLDS_BITS = 16, /* nested holds of one descriptor: less than 1 << 16 */
	RANGE_BITS = 31,
};
#define LOCKS_START ((int64_t)1 << 60)
#define LOCKS_BYTES ((int64_t)1 << (HOLDS_BITS + RANGE_BITS))

enum page_reason {
	PAGES_AS_ASKED,
	PAGES_NONE_FREE,
	PAGES_PURGED,
};

static const char *const page_reasons[] = {
	[PAGES_AS_ASKED] = "",
	[PAGES_NONE_FREE] = ("neither MADV_COLLAPSE (Linux 6.1) nor a hugetlb pool "
			     "(vm.nr_hugepages) gave 2 MiB pages"),
	[PAGES_PURGED] = "purged; will-need puts 2 MiB pages back",
};

struct memfd_tail {
	uint64_t magic;
	uint64_t data_bytes;
	uint32_t asked_huge;
	_Atomic uint32_t purgeable;
	_Atomic uint32_t retained;
	_Atomic uint32_t page_reason;
	_Atomic uint64_t page_size;
	_Atomic uint64_t generation;
};

static int probe(char reason[BUFFER_REASON_BYTES])
{
	struct lslm_error err;
	int fd = memfd_sealed("lslm-probe", lslm_page_size(), 0, &err);

	if (fd < 0) {
		snprintf(reason, BUFFER_REASON_BYTES, "%s", err.text);
		return fd;
	}
	close(fd);
	snprintf(reason, BUFFER_REASON_BYTES, "sealed memfd");
	return 0;
}

static int lock(const struct buffer *b, int how, short type, int64_t start, int64_t len)
{
	struct flock l = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = start,
		.l_len = len,
	};
	int ret;

	do {
		ret = fcntl(b->fd, how, &l);
	} while (ret && errno == EINTR);
	return ret ? -errno : 0;
}

/*
 * Locked bytes in [start, start + len) that belong to other descriptors. The kernel names any one
 * conflicting lock at a time, so what lies left and right of it is asked again; `budget`
 * bounds the questions, because the answer is only told to people.
 */
static uint64_t count_locked(const struct buffer *b, int64_t start, int64_t len, int *budget)
{
	struct flock l = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = start,
		.l_len = len,
	};
	int64_t from, to;

	if (len <= 0 || (*budget)-- <= 0)
		return 0;
	if (fcntl(b->fd, F_OFD_GETLK, &l) || l.l_type == F_UNLCK)
		return 0;
	from = l.l_start < start ? start : l.l_start;
	to = l.l_len && l.l_start + l.l_len < start + len ? l.l_start + l.l_len : start + len;
	return (uint64_t)(to - from) + count_locked(b, start, from - start, budget) +
	       count_locked(b, to, start + len - to, budget);
}

static int pick_range(struct buffer *b, struct lslm_error *err)
{
	uint32_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return error_sys(err, -errno, "buffer: no random number for a hold");
	b->hold_start = LOCKS_START + ((int64_t)(random >> (32 - RANGE_BITS)) << HOLDS_BITS);
	return 0;
}

static int map_tail(struct buffer *b, size_t bytes, struct lslm_error *err)
{
	int prot = PROT_READ | (b->writable ? PROT_WRITE : 0);
	void *p = mmap(NULL, bytes, prot, MAP_SHARED, b->fd, (off_t)b->size);

	if (p == MAP_FAILED)
		return error_sys(err, -errno, "buffer: cannot map its last page");
	b->tail = p;
	b->tail_bytes = bytes;
	return 0;
}

static int create_with(struct buffer *b, size_t size, size_t tail_bytes, unsigned int memfd_flags,
		       struct lslm_error *err)
{
	int ret;

	b->fd = memfd_sealed("lslm-buffer", size + tail_bytes, memfd_flags, err);
	if (b->fd < 0)
		return b->fd;
	b->size = size;
	b->writable = true;
	ret = buffer_map(b, err);
	return ret ? ret : map_tail(b, tail_bytes, err);
}

static void undo_create(struct buffer *b)
{
	if (b->tail)
		munmap(b->tail, b->tail_bytes);
	if (b->map != MAP_FAILED)
		munmap(b->map, b->size);
	if (b->fd >= 0)
		close(b->fd);
	b->tail = NULL;
	b->map = MAP_FAILED;
	b->fd = -1;
}

/*
 * Collapsing asks neither for a privilege nor for a setting of the machine, and keeps the seals, which files of an own
 * tmpfs mount cannot have. It needs a page to collapse, and one in each 2 MiB is enough: with all of
 * them there it would copy what is zero, 0.9 to 1.9 s a GiB instead of 0.06 (an own mount with huge=always: 0.04). What
 * was not collapsed is taken in small pages.
 */
static bool collapse(struct buffer *b)
{
	bool got = true;

	for (size_t at = 0; at < b->size; at += LSLM_HUGE_PAGE)
		got &= !madvise((char *)b->map + at, lslm_page_size(), MADV_POPULATE_WRITE);
	got = got && !madvise(b->map, b->size, MADV_COLLAPSE);
	return !madvise(b->map, b->size, MADV_POPULATE_WRITE) && got;
}

static bool create_hugetlb(struct buffer *b, size_t size)
{
	struct buffer plain = *b;

	b->fd = -1;
	b->map = MAP_FAILED;
	b->tail = NULL;
	if (create_with(b, size, LSLM_HUGE_PAGE, MFD_HUGETLB | MFD_HUGE_2_MIB, NULL)) {
		undo_create(b);
		*b = plain;
		return false;
	}
	undo_create(&plain);
	return true;
}

static int create(struct buffer *b, size_t size, unsigned int flags, struct lslm_error *err)
{
	bool huge = flags & BUFFER_HUGE, got = false;
	int ret = pick_range(b, err);

	if (!ret)
		ret = create_with(b, size, lslm_page_size(), 0, err);
	if (ret)
		return ret;
	if (huge)
		got = collapse(b) || create_hugetlb(b, size);
	b->tail->magic = TAIL_MAGIC;
	b->tail->data_bytes = size;
	b->tail->asked_huge = huge;
	b->tail->page_size = got ? LSLM_HUGE_PAGE : lslm_page_size();
	b->tail->page_reason = got || !huge ? PAGES_AS_ASKED : PAGES_NONE_FREE;
	b->tail->retained = 1;
	b->tail->generation = 1;
	return 0;
}

/* Where the tail starts depends on the file system alone, never on what the file says. */
static size_t tail_bytes_of(int fd)
{
	struct statfs fs;

	if (!fstatfs(fd, &fs) && (uint64_t)fs.f_type == HUGETLBFS_TYPE)
		return (size_t)fs.f_bsize;
	return lslm_page_size();
}

static int import_memfd(struct buffer *b, struct lslm_error *err)
{
	size_t size, tail_bytes = tail_bytes_of(b->fd);
	int mode = fcntl(b->fd, F_GETFL);
	int ret = memfd_check(b->fd, &size, err);

	if (ret)
		return ret;
	if (mode < 0 || (mode & O_ACCMODE) == O_WRONLY || size <= tail_bytes ||
	    size % lslm_page_size())
		return error_set(err, -EBADF, "descriptor %d is a memfd, but no buffer", b->fd);
	b->writable = (mode & O_ACCMODE) == O_RDWR;
	b->size = size - tail_bytes;
	ret = pick_range(b, err);
	if (!ret)
		ret = map_tail(b, tail_bytes, err);
	if (!ret && (b->tail->magic != TAIL_MAGIC || b->tail->data_bytes != b->size))
		ret = error_set(err, -EBADF, "descriptor %d is a memfd, but no buffer", b->fd);
	if (!ret)
		ret = buffer_map(b, err);
	return ret;
}

static void forget(struct buffer *b)
{
	/* The description may live on in another process, and the locks with it. */
	if (b->nest)
		lock(b, F_OFD_SETLK, F_UNLCK, b->hold_start, (int64_t)1 << HOLDS_BITS);
	if (b->tail)
		munmap(b->tail, b->tail_bytes);
}

static int ro_fd(struct buffer *b, struct lslm_error *err)
{
	return memfd_reopen_ro(b->fd, err);
}

static int query(struct buffer *b, struct buffer_info *info, struct lslm_error *err)
{
	uint32_t why = b->tail->page_reason;
	int ret, budget = 4096;
	struct stat st;

	ret = file_stat(b->fd, &st);
	if (ret)
		return error_sys(err, ret, "buffer: cannot stat");
	*info = (struct buffer_info){
		.backend = BUFFER_MEMFD,
		.id = st.st_ino,
		.generation = b->tail->generation,
		.size = b->size,
		.page_size = b->tail->page_size,
		.writable = b->writable,
		.purgeable = b->tail->purgeable,
		.retained = b->tail->retained,
		.holds = b->nest + (uint32_t)count_locked(b, LOCKS_START, LOCKS_BYTES, &budget),
		.page_reason = why <= PAGES_PURGED ? page_reasons[why] : "",
	};
	return 0;
}

static int hold(struct buffer *b, bool *retained, uint64_t *generation, struct lslm_error *err)
{
	int ret;

	if (b->nest >= (1 << HOLDS_BITS) - 1)
		return error_set(err, -EOVERFLOW, "buffer: held %u times already", b->nest);
	/* Waits for a purge that is under way; it cannot last, and a signal may end the process. */
	ret = lock(b, F_OFD_SETLKW, F_RDLCK, b->hold_start + b->nest, 1);
	if (ret)
		return error_sys(err, ret, "buffer: cannot take a hold");
	*retained = b->tail->retained;
	*generation = b->tail->generation;
	return 0;
}

static int release(struct buffer *b, struct lslm_error *err)
{
	int ret = lock(b, F_OFD_SETLK, F_UNLCK, b->hold_start + b->nest - 1, 1);

	return ret ? error_sys(err, ret, "buffer: cannot release a hold") : 0;
}

static int purgeable(struct buffer *b, struct lslm_error *err)
{
	b->tail->purgeable = 1;
	return 0;
}

static int will_need(struct buffer *b, bool *retained, uint64_t *generation, struct lslm_error *err)
{
	/* Under a hold, so that no purge comes between the two answers. */
	int ret = hold(b, retained, generation, err);

	if (ret)
		return ret;
	b->tail->purgeable = 0;
	b->tail->retained = 1;
	if (b->tail->page_reason == PAGES_PURGED) {
		bool got = collapse(b);

		b->tail->page_size = got ? LSLM_HUGE_PAGE : lslm_page_size();
		b->tail->page_reason = got ? PAGES_AS_ASKED : PAGES_NONE_FREE;
	}
	return lock(b, F_OFD_SETLK, F_UNLCK, b->hold_start + b->nest, 1);
}

static int punch(struct buffer *b, struct lslm_error *err)
{
	/* First: whoever holds next must not take zeroes for what was there. */
	b->tail->retained = 0;
	b->tail->generation++;
	if (fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)b->size))
		return error_sys(err, -errno, "buffer: cannot drop %zu bytes", b->size);
	if (b->tail_bytes == lslm_page_size() && b->tail->asked_huge) {
		b->tail->page_size = lslm_page_size();
		b->tail->page_reason = PAGES_PURGED;
	}
	return 0;
}

static int purge(struct buffer *b, uint64_t *generation, struct lslm_error *err)
{
	int ret = -EBUSY;

	/* Own locks do not conflict with each other, so own holds are asked for first. */
	if (!b->nest)
		ret = lock(b, F_OFD_SETLK, F_WRLCK, LOCKS_START, LOCKS_BYTES);
	if (ret == -EBUSY || ret == -EAGAIN || ret == -EACCES)
		return error_set(err, -EBUSY, "buffer: it is held, and cannot be purged");
	if (ret)
		return error_sys(err, ret, "buffer: cannot lock out its holders");
	ret = punch(b, err);
	*generation = b->tail->generation;
	lock(b, F_OFD_SETLK, F_UNLCK, LOCKS_START, LOCKS_BYTES);
	return ret;
}

static bool huge_works;

static void probe_huge(void)
{
	struct buffer *b;

	if (buffer_create(&b, BUFFER_MEMFD, LSLM_HUGE_PAGE, BUFFER_HUGE, NULL))
		return;
	huge_works = b->tail->page_size == LSLM_HUGE_PAGE;
	buffer_close(b);
}

static uint32_t features(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, probe_huge);
	return BUFFER_FEAT_RO_FD | BUFFER_FEAT_HOLD | BUFFER_FEAT_PURGE |
	       BUFFER_FEAT_CROSS_PROCESS_HOLD | (huge_works ? BUFFER_FEAT_HUGE : 0);
}

static const char *feature_reason(enum buffer_feature bit)
{
	switch (bit) {
	case BUFFER_FEAT_SHRINKER:
		return "a memfd is swapped or kept; only the module drops purgeable buffers under "
		       "memory pressure";
	case BUFFER_FEAT_QUOTA:
		return "memfd memory is limited by the memory cgroup alone";
	case BUFFER_FEAT_HUGE:
		return page_reasons[PAGES_NONE_FREE];
	case BUFFER_FEAT_RO_STRICT:
		return "root, and the same user after chmod, can reopen a memfd for writing through "
		       "/proc/self/fd";
	default:
		return "unknown feature";
	}
}

const struct buffer_ops buffer_memfd_ops = {
	.probe = probe,
	.features = features,
	.feature_reason = feature_reason,
	.create = create,
	.import = import_memfd,
	.forget = forget,
	.ro_fd = ro_fd,
	.query = query,
	.hold = hold,
	.release = release,
	.purgeable = purgeable,
	.will_need = will_need,
	.purge = purge,
};
