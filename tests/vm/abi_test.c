// SPDX-License-Identifier: MIT
/*
 * Every rule that linux/lslm.h states about an argument, a right or a limit, broken one at a
 * time, with the exact errno. Run as root with the module loaded; `abi_test --off` instead
 * expects it to be loaded with huge=0 shrinker=0, and `abi_test --no-btf` to be built without BTF.
 */
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "session.h"

enum where { DEVICE, BUFFER, BUFFER_RO, SESSION, KINDS };

static int fds[KINDS];
/* What good session calls need: slot 0 stays bound, slot 1 is bound anew, slot 2 is unbound. */
static int free_socket, bindable;
static uint32_t bound_generation, unit_bytes = 64;
static struct lslm_range range;
static size_t page;

static const struct {
	const char *name;
	unsigned long cmd;
	size_t size;
	size_t reserved; /* offset of __reserved, or 0 */
	enum where where;
	bool needs_write;
	bool silent; /* writes nothing back */
} calls[] = {
	{ "GET_INFO", LSLM_GET_INFO, sizeof(struct lslm_get_info), 0, DEVICE, false },
	{ "GET_STATS", LSLM_GET_STATS, sizeof(struct lslm_get_stats), 0, DEVICE, false },
	{ "BUF_CREATE", LSLM_BUF_CREATE, sizeof(struct lslm_buf_create),
	  offsetof(struct lslm_buf_create, __reserved), DEVICE, false },
	{ "BUF_RO_FD", LSLM_BUF_RO_FD, sizeof(struct lslm_buf_ro_fd),
	  offsetof(struct lslm_buf_ro_fd, __reserved), BUFFER, false },
	{ "HOLD", LSLM_HOLD, sizeof(struct lslm_hold), offsetof(struct lslm_hold, __reserved),
	  BUFFER, false },
	{ "RELEASE", LSLM_RELEASE, sizeof(struct lslm_release), 0, BUFFER, false, true },
	{ "QUERY", LSLM_QUERY, sizeof(struct lslm_query), 0, BUFFER, false },
	{ "PURGEABLE", LSLM_PURGEABLE, sizeof(struct lslm_purgeable), 0, BUFFER, true, true },
	{ "WILL_NEED", LSLM_WILL_NEED, sizeof(struct lslm_will_need),
	  offsetof(struct lslm_will_need, __reserved), BUFFER, true },
	{ "PURGE", LSLM_PURGE, sizeof(struct lslm_purge), 0, BUFFER, true },
	{ "SESSION_CREATE", LSLM_SESSION_CREATE, sizeof(struct lslm_session_create),
	  offsetof(struct lslm_session_create, __reserved), DEVICE, false },
	{ "SESSION_KEY", LSLM_SESSION_KEY, sizeof(struct lslm_session_key),
	  offsetof(struct lslm_session_key, __reserved), SESSION, false, true },
	{ "REGION_BIND", LSLM_REGION_BIND, sizeof(struct lslm_region_bind), 0, SESSION, false },
	{ "REGION_UNBIND", LSLM_REGION_UNBIND, sizeof(struct lslm_region_unbind),
	  offsetof(struct lslm_region_unbind, __reserved), SESSION, false, true },
	{ "REGION_MISSING", LSLM_REGION_MISSING, sizeof(struct lslm_region_missing), 0, SESSION,
	  false },
	{ "SESSION_STATS", LSLM_SESSION_STATS, sizeof(struct lslm_session_stats), 0, SESSION,
	  false },
};

#define CALLS (sizeof(calls) / sizeof(calls[0]))

/* A correct argument of call i in a page-sized zeroed area. */
static uint32_t *good_argument(size_t i, void *area)
{
	uint32_t *arg = memset(area, 0, page);

	arg[0] = calls[i].size;
	switch (calls[i].cmd) {
	case LSLM_BUF_CREATE:
		((struct lslm_buf_create *)arg)->bytes = page;
		break;
	case LSLM_SESSION_CREATE:
		((struct lslm_session_create *)arg)->socket = free_socket;
		((struct lslm_session_create *)arg)->slots = 1;
		((struct lslm_session_create *)arg)->ring_entries = 64;
		break;
	case LSLM_REGION_BIND:
		((struct lslm_region_bind *)arg)->slot = 1;
		((struct lslm_region_bind *)arg)->buffer = bindable;
		((struct lslm_region_bind *)arg)->chunk = 256;
		((struct lslm_region_bind *)arg)->n_units = 1;
		((struct lslm_region_bind *)arg)->units = (uintptr_t)&unit_bytes;
		break;
	case LSLM_REGION_UNBIND:
		((struct lslm_region_unbind *)arg)->slot = 2;
		break;
	case LSLM_REGION_MISSING:
		((struct lslm_region_missing *)arg)->generation = bound_generation;
		((struct lslm_region_missing *)arg)->max_ranges = 1;
		((struct lslm_region_missing *)arg)->ranges = (uintptr_t)&range;
		break;
	}
	return arg;
}

/*
 * Make a call that should work work: RELEASE needs a hold, UNBIND a region; a hold and a
 * descriptor are given back.
 */
static int call_good(size_t i, uint32_t *arg)
{
	int fd = fds[calls[i].where], ret;

	if (calls[i].cmd == LSLM_RELEASE)
		buf_hold(fd, NULL, NULL);
	if (calls[i].cmd == LSLM_REGION_UNBIND)
		region_bind(fd, 2, bindable, 0, 256, 1, 64);
	ret = call(fd, calls[i].cmd, arg);
	if (ret)
		return ret;
	if (calls[i].cmd == LSLM_HOLD)
		buf_release(fd);
	if (calls[i].cmd == LSLM_BUF_CREATE)
		close(((struct lslm_buf_create *)arg)->out_fd);
	if (calls[i].cmd == LSLM_BUF_RO_FD)
		close(((struct lslm_buf_ro_fd *)arg)->out_fd);
	if (calls[i].cmd == LSLM_SESSION_CREATE)
		close(((struct lslm_session_create *)arg)->out_fd);
	return 0;
}

static void test_sizes(size_t i, void *area)
{
	const char *name = calls[i].name;
	uint32_t *arg = good_argument(i, area);
	int fd = fds[calls[i].where];

	is(call_good(i, arg), 0, "%s works", name);
	arg = good_argument(i, area);
	arg[0] = 0;
	is(call(fd, calls[i].cmd, arg), -EINVAL, "%s size 0", name);
	arg[0] = calls[i].size - 1;
	is(call(fd, calls[i].cmd, arg), -EINVAL, "%s size below the first form", name);
	arg[0] = calls[i].size + 8;
	is(call_good(i, arg), 0, "%s larger structure, zero tail", name);
	arg = good_argument(i, area);
	arg[0] = page;
	is(call_good(i, arg), 0, "%s structure of a page, zero tail", name);
	arg = good_argument(i, area);
	arg[0] = page + 1;
	is(call(fd, calls[i].cmd, arg), -E2BIG, "%s structure above a page", name);
	arg[0] = calls[i].size + 1;
	((char *)arg)[calls[i].size] = 1;
	is(call(fd, calls[i].cmd, arg), -E2BIG, "%s non-zero first byte of the tail", name);
	((char *)arg)[calls[i].size] = 0;
	arg[0] = page;
	((char *)arg)[page - 1] = 1;
	is(call(fd, calls[i].cmd, arg), -E2BIG, "%s non-zero last byte of the tail", name);
}

static void test_fields(size_t i, void *area)
{
	const char *name = calls[i].name;
	int fd = fds[calls[i].where], bit, refused = 0, want = 0;
	uint32_t valid = calls[i].cmd == LSLM_BUF_CREATE ? LSLM_BUF_CREATE_VALID : 0;
	uint32_t *arg;

	for (bit = 0; bit < 32; bit++) {
		if (valid >> bit & 1)
			continue;
		arg = good_argument(i, area);
		arg[1] = UINT32_C(1) << bit;
		want++;
		refused += call(fd, calls[i].cmd, arg) == -EOPNOTSUPP;
	}
	is(refused, want, "%s refuses every unknown flag", name);
	if (!calls[i].reserved)
		return;
	arg = good_argument(i, area);
	*(uint32_t *)((char *)arg + calls[i].reserved) = 1;
	is(call(fd, calls[i].cmd, arg), -EINVAL, "%s reserved member", name);
	*(uint32_t *)((char *)arg + calls[i].reserved) = 0x80000000;
	is(call(fd, calls[i].cmd, arg), -EINVAL, "%s reserved member, high bit", name);
	arg[1] = 0x80000000;
	is(call(fd, calls[i].cmd, arg), -EOPNOTSUPP, "%s flags come before reserved", name);
}

static void test_addresses(size_t i, void *area)
{
	const char *name = calls[i].name;
	int fd = fds[calls[i].where];
	struct lslm_get_stats before, after;
	uint64_t generation = buf_query(fds[BUFFER]).out_generation;
	bool answers = !calls[i].silent;
	void *arg;

	is(call(fd, calls[i].cmd, NULL), -EFAULT, "%s NULL", name);
	is(call(fd, calls[i].cmd, (char *)area + page - 2), -EFAULT, "%s size is cut off", name);
	/* Only the last member lies beyond what is mapped. */
	arg = good_argument(i, area);
	arg = memmove((char *)area + page - calls[i].size + 4, arg, calls[i].size - 4);
	is(call(fd, calls[i].cmd, arg), -EFAULT, "%s structure is cut off", name);

	arg = good_argument(i, area);
	before = dev_stats(fds[DEVICE]);
	mprotect(area, page, PROT_READ);
	if (answers)
		is(call(fd, calls[i].cmd, arg), -EFAULT, "%s answer cannot be written", name);
	else
		is(call_good(i, arg), 0, "%s takes a constant argument", name);
	mprotect(area, page, PROT_READ | PROT_WRITE);
	after = dev_stats(fds[DEVICE]);
	ok(before.out_holds == after.out_holds && before.out_buffers == after.out_buffers &&
		   before.out_created == after.out_created &&
		   generation == buf_query(fds[BUFFER]).out_generation,
	   "%s changes nothing then", name);
}

static void test_numbers(size_t i, void *area)
{
	uint32_t *arg = good_argument(i, area);
	const char *name = calls[i].name;
	enum where other = calls[i].where == DEVICE ? BUFFER : DEVICE;
	unsigned int nr = _IOC_NR(calls[i].cmd);
	int fd = fds[calls[i].where];

	is(call(fds[other], calls[i].cmd, arg), -ENOTTY, "%s on the wrong kind", name);
	is(call(fd, _IOWR(LSLM_TYPE, nr, uint32_t), arg), -ENOTTY, "%s with a size in it", name);
	is(call(fd, _IO('l', nr), arg), -ENOTTY, "%s of another type", name);
	if (calls[i].needs_write) {
		is(call(fds[BUFFER_RO], calls[i].cmd, arg), -EACCES, "%s read-only", name);
		arg[1] = 1;
		is(call(fds[BUFFER_RO], calls[i].cmd, arg), -EOPNOTSUPP,
		   "%s flags come before rights", name);
	}
}

static void test_unknown_numbers(void *area)
{
	int unknown = 0, nr, kind;
	uint32_t *arg = memset(area, 0, page);

	arg[0] = UINT32_MAX; /* the known ones answer E2BIG */
	for (kind = 0; kind < KINDS; kind++)
		for (nr = 0; nr < 256; nr++)
			unknown += call(fds[kind], _IO(LSLM_TYPE, nr), arg) == -ENOTTY;
	/* 4 calls on a device, 7 on either buffer descriptor, 5 on a session are known. */
	is(unknown, KINDS * 256 - 4 - 7 - 7 - 5, "every other number is ENOTTY");
}

static void test_create_limits(void)
{
	struct lslm_get_info info = dev_info(fds[DEVICE]);
	struct lslm_get_stats before = dev_stats(fds[DEVICE]), after;
	int dev = fds[DEVICE], other = dev_open(), a, b;

	is(buf_create(dev, 0, 0), -EINVAL, "no bytes");
	is(buf_create(dev, UINT64_MAX, 0), -EFBIG, "2^64 - 1 bytes");
	is(buf_create(dev, INT64_MAX, 0), -EFBIG, "2^63 - 1 bytes");
	is(buf_create(dev, info.out_max_buffer_bytes + 1, 0), -EFBIG, "a byte above the most");

	write_text(PARAM("max_buffer_mb"), "1");
	is(buf_create(dev, (1 << 20) + 1, 0), -EFBIG, "a byte above max_buffer_mb");
	a = buf_create(dev, 1 << 20, 0);
	ok(a >= 0, "exactly max_buffer_mb");
	is(dev_info(dev).out_max_buffer_bytes, 1 << 20, "max_buffer_mb is reported");
	close(a);
	write_text(PARAM("max_buffer_mb"), "0");

	write_text(PARAM("quota_mb"), "2");
	is(dev_info(dev).out_quota_bytes, 2 << 20, "quota_mb is reported");
	is(buf_create(dev, (2 << 20) - page + 1, 0), -EDQUOT,
	   "a byte above the quota"); /* 1 page is in use */
	a = buf_create(dev, (2 << 20) - page, 0);
	ok(a >= 0, "exactly the quota");
	is(buf_create(dev, 1, 0), -EDQUOT, "the quota is used up");
	b = buf_create(other, 2 << 20, 0);
	ok(b >= 0, "another open has a quota of its own");
	is(dev_info(dev).out_quota_used_bytes, 2 << 20, "used quota is reported");
	is(dev_info(other).out_used_bytes - info.out_used_bytes, (4 << 20) - page,
	   "use by all is reported");
	close(a);
	close(b);
	write_text(PARAM("quota_mb"), "0");

	write_text(PARAM("limit_mb"), "3");
	a = buf_create(dev, 2 << 20, 0);
	ok(a >= 0, "within the limit for all");
	is(buf_create(other, 1 << 20, 0), -ENOSPC, "above the limit for all");
	write_text(PARAM("limit_mb"), "1");
	is(buf_create(other, 1, 0), -ENOSPC, "a limit lowered below what is used");
	write_text(PARAM("limit_mb"), "0");
	close(a);

	write_text(PARAM("max_buffers"), "3");
	a = buf_create(dev, 1, 0);
	ok(a >= 0, "within the number of buffers");
	is(buf_create(other, 1, 0), -ENOSPC, "above the number of buffers");
	close(a);
	write_text(PARAM("max_buffers"), "1024");
	close(other);

	after = dev_stats(dev);
	is(after.out_refused - before.out_refused, 9, "refusals are counted");
	is(after.out_bytes, before.out_bytes, "nothing is left of them");
	is(after.out_clients, before.out_clients, "nor of the other open");
	is(dev_info(dev).out_used_bytes, info.out_used_bytes, "nor in what is used");
}

static void test_no_descriptor(void)
{
	struct rlimit old, none = { 0 };
	struct lslm_get_stats before = dev_stats(fds[DEVICE]), after;

	getrlimit(RLIMIT_NOFILE, &old);
	none.rlim_max = old.rlim_max;
	setrlimit(RLIMIT_NOFILE, &none);
	is(buf_create(fds[DEVICE], page, 0), -EMFILE, "BUF_CREATE without a descriptor left");
	is(buf_ro(fds[BUFFER]), -EMFILE, "BUF_RO_FD without a descriptor left");
	setrlimit(RLIMIT_NOFILE, &old);
	after = dev_stats(fds[DEVICE]);
	is(after.out_buffers, before.out_buffers, "no buffer is left of it");
}

static bool join_cgroup(const char *dir, const char *max)
{
	char path[128], pid[16];

	if (mkdir(dir, 0700) && errno != EEXIST)
		return false;
	snprintf(path, sizeof(path), "%s/memory.max", dir);
	if (access(path, W_OK))
		return false;
	write_text(path, max);
	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	snprintf(pid, sizeof(pid), "%d", getpid());
	write_text(path, pid);
	return true;
}

static long long cgroup_shmem(const char *dir)
{
	char path[128], line[128];
	long long bytes = -1;
	FILE *f;

	snprintf(path, sizeof(path), "%s/memory.stat", dir);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "shmem %lld", &bytes) == 1)
			break;
	if (f)
		fclose(f);
	return bytes;
}

/* A buffer that was purged, and of which one page has been touched since. */
static int refill_without_room(const char *dir, int fd, size_t bytes)
{
	struct lslm_query before, after;
	char path[128], *p = buf_map(fd, bytes, PROT_READ | PROT_WRITE);
	int ret;

	p[page] = 7;
	before = buf_query(fd);
	snprintf(path, sizeof(path), "%s/memory.max", dir);
	write_text(path, "6291456");
	ret = buf_will_need(fd, NULL, NULL);
	write_text(path, "16777216");
	after = buf_query(fd);
	ret = ret == -ENOMEM && !memcmp(&before, &after, sizeof(before)) && p[page] == 7;
	munmap(p, bytes);
	return ret;
}

/* In a child, which exits with a bit for each thing that went wrong. */
static int in_small_cgroup(const char *dir)
{
	int wrong = 0, fd;
	uint32_t retained;

	if (!join_cgroup(dir, "16777216"))
		return 128;
	fd = buf_create(fds[DEVICE], 8 << 20, 0);
	if (fd < 0 || cgroup_shmem(dir) < 8 << 20)
		wrong |= 1;
	if (buf_create(fds[DEVICE], 64 << 20, 0) != -ENOMEM)
		wrong |= 2;
	if (cgroup_shmem(dir) > 9 << 20)
		wrong |= 4; /* what did not fit is given back */
	buf_purge(fd, NULL);
	if (cgroup_shmem(dir) >= 8 << 20)
		wrong |= 8;
	if (!refill_without_room(dir, fd, 8 << 20))
		wrong |= 32;
	if (buf_will_need(fd, &retained, NULL) || retained || cgroup_shmem(dir) < 8 << 20)
		wrong |= 16;
	return wrong;
}

static void test_no_memory(void)
{
	static const char dir[] = "/sys/fs/cgroup/lslm-test";
	struct lslm_get_stats before = dev_stats(fds[DEVICE]), after;
	int status = -1;
	pid_t pid;

	if (!access("/sys/fs/cgroup/cgroup.subtree_control", W_OK)) {
		int fd = open("/sys/fs/cgroup/cgroup.subtree_control", O_WRONLY);

		if (write(fd, "+memory", 7) < 0)
			printf("# no memory controller: %s\n", strerror(errno));
		close(fd);
	}
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(in_small_cgroup(dir));
	waitpid(pid, &status, 0);
	rmdir(dir);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 128) {
		skip("no memory cgroups here", "creator's cgroup");
		return;
	}
	ok(WIFEXITED(status), "a cgroup without room kills nobody");
	is(WEXITSTATUS(status) & 1, 0, "pages are charged to the creator's cgroup");
	is(WEXITSTATUS(status) & 2, 0, "ENOMEM when that has no room");
	is(WEXITSTATUS(status) & 4, 0, "pages of the failed attempt are given back");
	is(WEXITSTATUS(status) & 8, 0, "a purge gives the charge back");
	is(WEXITSTATUS(status) & 32, 0, "WILL_NEED without room changes nothing");
	is(WEXITSTATUS(status) & 16, 0, "WILL_NEED charges the lost pages again");
	after = dev_stats(fds[DEVICE]);
	is(after.out_no_memory - before.out_no_memory, 2, "both are counted");
	is(after.out_buffers, before.out_buffers, "no buffer is left of it");
}

static void test_hold_errors(void)
{
	int ro = buf_ro(fds[BUFFER]), max = dev_info(fds[DEVICE]).out_max_holds, i, ret = 0;

	is(buf_release(fds[BUFFER]), -ENOENT, "RELEASE without a hold");
	is(buf_hold(fds[BUFFER], NULL, NULL), 0, "HOLD");
	is(buf_release(ro), -ENOENT, "RELEASE does not end another description's hold");
	is(buf_release(fds[BUFFER]), 0, "RELEASE");
	is(buf_release(fds[BUFFER]), -ENOENT, "RELEASE once more");

	for (i = 0; i < max && !ret; i++)
		ret = buf_hold(ro, NULL, NULL);
	is(ret, 0, "%d holds by one description", max);
	is(buf_hold(ro, NULL, NULL), -EOVERFLOW, "one more");
	is(buf_query(ro).out_holds, max, "it was not taken");
	is(buf_hold(fds[BUFFER], NULL, NULL), 0, "another description still can");
	buf_release(fds[BUFFER]);
	close(ro);
	is(buf_query(fds[BUFFER]).out_holds, 0, "close ends them all");
}

static void test_mmap(void)
{
	int rw = buf_create(fds[DEVICE], 4 * page, 0), ro = buf_ro(rw);
	const int both = PROT_READ | PROT_WRITE;

	is(map_error(rw, 4 * page, both, MAP_SHARED, 0), 0, "mmap all");
	is(map_error(rw, page, both, MAP_SHARED, 3 * page), 0, "mmap the last page");
	is(map_error(rw, 4 * page, both, MAP_PRIVATE, 0), -EINVAL, "mmap private");
	is(map_error(ro, 4 * page, PROT_READ, MAP_PRIVATE, 0), -EINVAL, "mmap private, read-only");
	is(map_error(rw, 5 * page, both, MAP_SHARED, 0), -EINVAL, "mmap beyond the end");
	is(map_error(rw, 2 * page, both, MAP_SHARED, 3 * page), -EINVAL, "mmap across the end");
	is(map_error(rw, page, both, MAP_SHARED, 4 * page), -EINVAL, "mmap past the end");
	is(map_error(rw, page, both, MAP_SHARED, (off_t)1 << 52), -EINVAL, "mmap far past the end");
	is(map_error(rw, page, PROT_READ | PROT_EXEC, MAP_SHARED, 0), -EPERM, "mmap executable");
	is(map_error(ro, 4 * page, PROT_READ, MAP_SHARED, 0), 0, "mmap read-only");
	is(map_error(ro, 4 * page, both, MAP_SHARED, 0), -EACCES, "mmap RW of a read-only fd");
	is(map_error(ro, 4 * page, PROT_WRITE, MAP_SHARED, 0), -EACCES, "mmap W of a read-only fd");
	close(rw);
	close(ro);
}

static void test_mapping_stays_read_only(void)
{
	int rw = buf_create(fds[DEVICE], 4 * page, 0), ro = buf_ro(rw), mem;
	char *p = buf_map(ro, 4 * page, PROT_READ), byte = 1, path[32];
	struct iovec from = { &byte, 1 }, to = { p, 1 };

	is(mprotect(p, page, PROT_READ | PROT_WRITE) ? -errno : 0, -EACCES, "mprotect RW");
	is(mprotect(p, page, PROT_READ | PROT_EXEC) ? -errno : 0, -EACCES, "mprotect executable");
	is(madvise(p, page, MADV_REMOVE) ? -errno : 0, -EACCES, "MADV_REMOVE read-only");
	is(process_vm_writev(getpid(), &from, 1, &to, 1, 0) < 0 ? -errno : 0, -EFAULT,
	   "process_vm_writev");
	mem = open("/proc/self/mem", O_RDWR);
	ok(pwrite(mem, &byte, 1, (off_t)(uintptr_t)p) < 0, "write to /proc/self/mem");
	close(mem);
	is(syscall(SYS_remap_file_pages, p, page, 0, 1, 0) ? -errno : 0, -EINVAL,
	   "remap_file_pages");
	is(p[0], 0, "nothing got through");

	snprintf(path, sizeof(path), "/proc/self/fd/%d", ro);
	is(open(path, O_RDWR) < 0 ? -errno : 0, -ENXIO, "opening it again RW through /proc");
	is(open(path, O_RDONLY) < 0 ? -errno : 0, -ENXIO, "opening it again RO through /proc");
	is(fcntl(ro, F_SETFL, O_RDWR), 0, "F_SETFL is taken");
	is(map_error(ro, page, PROT_READ | PROT_WRITE, MAP_SHARED, 0), -EACCES,
	   "and changes nothing");
	is(fcntl(ro, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC, "a read-only fd is close-on-exec");
	is(fcntl(rw, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC, "a read-write fd is close-on-exec");
	munmap(p, 4 * page);
	close(ro);
	close(rw);
}

/* What maps the file behind a buffer anew, by a mapping of it, passes the descriptor by. */
static void test_remap(void)
{
	const int both = PROT_READ | PROT_WRITE, rw = buf_create(fds[DEVICE], 4 * page, 0);
	char *p = buf_map(rw, 4 * page, both);

	p[page] = 1;
	is(syscall(SYS_remap_file_pages, p, page, 0, 1, 0) ? -errno : 0, 0,
	   "remap_file_pages of a read-write mapping");
	is(p[0], 1, "does what it should");
	is(mprotect(p, page, PROT_READ | PROT_EXEC) ? -errno : 0, -EACCES,
	   "and makes nothing executable");
	munmap(p, 4 * page);
	close(rw);
}

static void test_no_file_io(void)
{
	int rw = buf_create(fds[DEVICE], 4 * page, 0);
	char byte = 1, *p = buf_map(rw, 4 * page, PROT_READ | PROT_WRITE);

	is(madvise(p, page, MADV_REMOVE) ? -errno : 0, -EOPNOTSUPP, "MADV_REMOVE");
	is(ftruncate(rw, 0) ? -errno : 0, -EINVAL, "ftruncate");
	is(fallocate(rw, 0, 0, page) ? -errno : 0, -ENODEV, "fallocate");
	is(write(rw, &byte, 1) < 0 ? -errno : 0, -EINVAL, "write");
	is(read(rw, &byte, 1) < 0 ? -errno : 0, -EINVAL, "read");
	is(lseek(rw, 0, SEEK_END) < 0 ? -errno : 0, -ESPIPE, "lseek");
	is(mremap(p, 4 * page, 8 * page, MREMAP_MAYMOVE) == MAP_FAILED ? -errno : 0, 0,
	   "mremap beyond the end is the kernel's to allow");
	close(rw);
}

/* Touching a page that mremap() put beyond the end must be SIGBUS, never memory. */
static void test_beyond_end(void)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		int rw = buf_create(fds[DEVICE], page, 0);
		char *p = buf_map(rw, page, PROT_READ | PROT_WRITE);

		p = mremap(p, page, 2 * page, MREMAP_MAYMOVE);
		if (p == MAP_FAILED)
			_exit(1);
		p[page] = 1;
		_exit(0);
	}
	waitpid(pid, &status, 0);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "beyond the end is SIGBUS");
}

static void test_create_huge(bool off)
{
	struct lslm_get_info info = dev_info(fds[DEVICE]);
	int fd = buf_create(fds[DEVICE], page, LSLM_BUF_HUGE);

	if (info.out_features >> LSLM_FEATURE_HUGE & 1) {
		ok(fd >= 0, "LSLM_BUF_HUGE is taken when the feature is on");
		ok(info.out_huge_page_size > info.out_page_size, "its page size is reported");
		close(fd);
		fd = buf_create(fds[DEVICE], 0, LSLM_BUF_HUGE);
		is(fd, -EINVAL, "no bytes, huge");
	} else {
		is(fd, -EOPNOTSUPP, "LSLM_BUF_HUGE is refused when the feature is off");
		is(info.out_huge_page_size, 0, "no page size then");
	}
	is(info.out_features >> LSLM_FEATURE_HUGE & 1, !off, "the feature is as expected");
}

static void test_info(bool off)
{
	struct lslm_get_info info = dev_info(fds[DEVICE]);
	struct {
		struct lslm_get_info known;
		uint64_t later[4];
	} larger = { .known.size = sizeof(larger) };
	int i, consistent = 0;

	for (i = 0; i < LSLM_FEATURE_COUNT; i++)
		consistent += (info.out_features >> i & 1) == (info.out_off[i] == LSLM_OFF_UNKNOWN);
	is(consistent, LSLM_FEATURE_COUNT, "a feature is on, or there is a reason");
	is(info.out_features >> LSLM_FEATURE_COUNT, 0, "no feature that the header does not know");
	is(info.out_off[LSLM_FEATURE_SHRINKER], off ? LSLM_OFF_PARAM : 0, "shrinker's reason");
	is(info.out_off[LSLM_FEATURE_HUGE], off ? LSLM_OFF_PARAM : 0, "huge pages' reason");
	is(info.out_page_size, page, "page size");
	is(info.size, sizeof(info), "size says what was filled");
	is(call(fds[DEVICE], LSLM_GET_INFO, &larger), 0, "GET_INFO for a newer program");
	is(larger.known.size, sizeof(info), "size says how much of it is known here");
	printf("# module %u.%u.%u, features 0x%llx\n", info.out_version[0], info.out_version[1],
	       info.out_version[2], (unsigned long long)info.out_features);
}

static void test_no_btf(void)
{
	static const enum lslm_feature features[] = { LSLM_FEATURE_BTF, LSLM_FEATURE_PLACE_XDP,
						      LSLM_FEATURE_PLACE_TC };
	const struct lslm_get_info info = dev_info(fds[DEVICE]);

	for (int i = 0; i < 3; i++) {
		is(info.out_features >> features[i] & 1, 0, "feature %d is off", features[i]);
		is(info.out_off[features[i]], LSLM_OFF_NO_BTF, "for want of BTF");
	}
	is(info.out_features >> LSLM_FEATURE_SESSION & 1, 1, "sessions work without");
}

static void open_all(void)
{
	fds[DEVICE] = dev_open();
	fds[BUFFER] = buf_create(fds[DEVICE], page, 0);
	fds[BUFFER_RO] = buf_ro(fds[BUFFER]);
	fds[SESSION] = session_create(fds[DEVICE], udp_socket(AF_INET), 3, 64, NULL);
	if (fds[BUFFER] < 0 || fds[BUFFER_RO] < 0 || fds[SESSION] < 0)
		bail("cannot make a buffer or a session");
	free_socket = udp_socket(AF_INET);
	/* Of another open, so that this one's quota is what the tests of it expect. */
	bindable = buf_create(dev_open(), page, 0);
	bound_generation = region_bind(fds[SESSION], 0, bindable, 0, 256, 1, 64);
}

int main(int argc, char **argv)
{
	bool off = argc > 1 && !strcmp(argv[1], "--off");
	char *area;
	size_t i;

	page = sysconf(_SC_PAGESIZE);
	/* One page for arguments, and nothing behind it. */
	area = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(area + page, page);
	open_all();
	if (argc > 1 && !strcmp(argv[1], "--no-btf")) {
		test_no_btf();
		return tap_done();
	}
	test_info(off);
	test_create_huge(off);
	if (off)
		return tap_done();
	for (i = 0; i < CALLS; i++) {
		test_sizes(i, area);
		test_fields(i, area);
		test_addresses(i, area);
		test_numbers(i, area);
	}
	test_unknown_numbers(area);
	test_create_limits();
	test_no_descriptor();
	test_no_memory();
	test_hold_errors();
	test_mmap();
	test_mapping_stays_read_only();
	test_remap();
	test_no_file_io();
	test_beyond_end();
	return tap_done();
}
