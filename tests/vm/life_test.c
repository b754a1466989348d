// SPDX-License-Identifier: MIT
/*
 * How buffers of the module live: shared between processes, held, purged by request and by
 * memory pressure, accounted until the last mapping is gone, and what is seen of it from
 * outside. Run as root with the module loaded and nobody else using it.
 */
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include <linux/io_uring.h>

#include "device.h"

static int dev;
static size_t page;

static bool all_bytes(const char *p, size_t n, char want)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (p[i] != want)
			return false;
	return true;
}

static int wait_child(pid_t pid)
{
	int status = -1;

	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int send_fd(int sock, int fd)
{
	char byte = 0, space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = space,
			      .msg_controllen = sizeof(space) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	return sendmsg(sock, &msg, 0) == 1 ? 0 : -errno;
}

static int receive_fd(int sock)
{
	char byte, space[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = space,
			      .msg_controllen = sizeof(space) };
	struct cmsghdr *c;
	int fd = -1;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) == 1 && (c = CMSG_FIRSTHDR(&msg)))
		memcpy(&fd, CMSG_DATA(c), sizeof(int));
	return fd;
}

static void sync_send(int sock)
{
	if (write(sock, "x", 1) != 1)
		_exit(99);
}

static void sync_wait(int sock)
{
	char byte;

	if (read(sock, &byte, 1) != 1)
		_exit(99);
}

static void test_zeroed_and_shared(void)
{
	size_t bytes = 64 * page;
	int fd = buf_create(dev, bytes - 5, 0);
	struct lslm_query q = buf_query(fd);
	char *p = buf_map(fd, bytes, PROT_READ | PROT_WRITE);
	pid_t pid;

	is(q.out_bytes, bytes, "size is rounded up to pages");
	is(q.out_resident_bytes, bytes, "every page is there from the start");
	is(q.out_generation, 1, "the first generation is 1");
	is(q.out_flags, LSLM_BUF_WRITABLE | LSLM_BUF_RETAINED, "flags of a new buffer");
	is(q.out_page_size, page, "page size of a new buffer");
	ok(all_bytes(p, bytes, 0), "it is zeroed");

	pid = fork();
	if (!pid) {
		memset(p, 7, bytes);
		_exit(0);
	}
	wait_child(pid);
	ok(all_bytes(p, bytes, 7), "a forked child's writes are seen");
	munmap(p, bytes);
	close(fd);
}

/* In the child: a stranger that has nothing but the socket. */
static int use_received(int sock)
{
	size_t bytes = 4 * page;
	int fd = receive_fd(sock);
	char *p;

	if (fd < 0 || buf_map(fd, bytes, PROT_READ | PROT_WRITE))
		return 1;
	p = buf_map(fd, bytes, PROT_READ);
	if (!p || !all_bytes(p, bytes, 9))
		return 2;
	if (buf_query(fd).out_flags & LSLM_BUF_WRITABLE)
		return 3;
	if (buf_hold(fd, NULL, NULL))
		return 4;
	sync_send(sock);
	sync_wait(sock);
	if (!all_bytes(p, bytes, 9))
		return 5;
	return 0; /* and exits with the hold */
}

static void test_passed_on(void)
{
	size_t bytes = 4 * page;
	int fd = buf_create(dev, bytes, 0), ro = buf_ro(fd), pair[2];
	char *p = buf_map(fd, bytes, PROT_READ | PROT_WRITE);
	uint64_t generation = 0;
	pid_t pid;

	memset(p, 9, bytes);
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		close(fd);
		close(ro);
		munmap(p, bytes);
		if (setuid(65534))
			_exit(98);
		_exit(use_received(pair[1]));
	}
	is(send_fd(pair[0], ro), 0, "a read-only fd is sent");
	close(ro);
	sync_wait(pair[0]);
	is(buf_purge(fd, NULL), -EBUSY, "PURGE while another process holds it read-only");
	is(buf_query(fd).out_holds, 1, "its hold is seen");
	sync_send(pair[0]);
	is(wait_child(pid), 0, "another user reads it, and cannot write it");
	is(buf_query(fd).out_holds, 0, "a process that exits holds nothing");
	is(buf_purge(fd, &generation), 0, "PURGE once nobody holds it");
	is(generation, 2, "the generation grew");
	close(pair[0]);
	close(pair[1]);
	munmap(p, bytes);
	close(fd);
}

static void test_purge(void)
{
	size_t bytes = 16 * page;
	int fd = buf_create(dev, bytes, 0), ro = buf_ro(fd);
	char *rw_map = buf_map(fd, bytes, PROT_READ | PROT_WRITE);
	const char *ro_map = buf_map(ro, bytes, PROT_READ);
	struct lslm_get_stats before = dev_stats(dev), after;
	uint32_t retained = 7;
	uint64_t generation = 0;

	memset(rw_map, 3, bytes);
	is(buf_purge(fd, &generation), 0, "PURGE of a needed buffer");
	is(generation, 2, "it answers the new generation");
	is(buf_query(fd).out_resident_bytes, 0, "its pages are gone");
	is(buf_query(fd).out_flags & LSLM_BUF_RETAINED, 0, "QUERY says lost");
	is(buf_hold(ro, &retained, &generation), 0, "HOLD of a lost buffer");
	ok(!retained && generation == 2, "it says lost, and the generation");
	buf_release(ro);
	ok(all_bytes(ro_map, bytes, 0), "mappings stay and read as zeroes");
	is(buf_purge(fd, &generation), 0, "PURGE again");
	is(generation, 3, "is another generation");

	is(buf_will_need(fd, &retained, &generation), 0, "WILL_NEED");
	ok(!retained && generation == 3, "it says lost once");
	is(buf_query(fd).out_resident_bytes, bytes, "and brings the pages back");
	ok(buf_query(fd).out_flags & LSLM_BUF_RETAINED, "QUERY says retained from then on");
	memset(rw_map, 4, bytes);
	ok(all_bytes(ro_map, bytes, 4), "old mappings see what is written then");
	is(buf_will_need(fd, &retained, &generation), 0, "WILL_NEED of a needed buffer");
	ok(retained && generation == 3, "it says retained");

	after = dev_stats(dev);
	is(after.out_purges_asked - before.out_purges_asked, 2, "purges are counted");
	ok(after.out_purged_bytes - before.out_purged_bytes >= bytes, "so are their bytes");
	munmap(rw_map, bytes);
	munmap((void *)ro_map, bytes);
	close(fd);
	close(ro);
}

static void test_hold_sharing(void)
{
	int fd = buf_create(dev, page, 0), copy = dup(fd), ro = buf_ro(fd), second = buf_ro(ro);
	pid_t pid;

	buf_hold(fd, NULL, NULL);
	is(buf_release(copy), 0, "dup() shares holds");
	buf_hold(fd, NULL, NULL);
	close(fd);
	is(buf_query(copy).out_holds, 1, "close of a duplicate ends nothing");
	pid = fork();
	if (!pid)
		_exit(0);
	wait_child(pid);
	is(buf_query(copy).out_holds, 1, "nor does a child that inherited it");
	ok(second >= 0, "a read-only fd makes another");
	buf_hold(ro, NULL, NULL);
	buf_hold(second, NULL, NULL);
	is(buf_query(copy).out_holds, 3, "holds of all descriptions count");
	close(second);
	close(ro);
	is(buf_query(copy).out_holds, 1, "closing those ends theirs");
	is(buf_purge(copy, NULL), -EBUSY, "PURGE while it holds itself");
	buf_release(copy);
	is(buf_purge(copy, NULL), 0, "PURGE when it does not");
	close(copy);
}

static int ring_register(int fd, size_t bytes, int *ring)
{
	struct io_uring_params params = { 0 };
	struct iovec iov = { buf_map(fd, bytes, PROT_READ | PROT_WRITE), bytes };
	int ret;

	*ring = syscall(SYS_io_uring_setup, 4, &params);
	ret = syscall(SYS_io_uring_register, *ring, IORING_REGISTER_BUFFERS, &iov, 1) ? -errno : 0;
	munmap(iov.iov_base, bytes);
	return ret;
}

static void drop_caches(void)
{
	write_text("/proc/sys/vm/drop_caches", "2");
}

static void test_pinned(uint32_t flags)
{
	const char *kind = flags & LSLM_BUF_HUGE ? "2 MiB pages" : "small pages";
	int fd = buf_create(dev, 4 << 20, flags), ring = -1;

	is(ring_register(fd, 4 << 20, &ring), 0, "io_uring takes it as a fixed buffer, %s", kind);
	is(buf_purge(fd, NULL), -EBUSY, "PURGE while pages are pinned, %s", kind);
	buf_purgeable(fd);
	drop_caches();
	is(buf_query(fd).out_generation, 1, "memory pressure leaves it alone, %s", kind);
	close(ring);
	while (buf_purge(fd, NULL) == -EBUSY)
		usleep(10000); /* the ring goes in the background */
	is(buf_query(fd).out_generation, 2, "PURGE when they are not, %s", kind);
	close(fd);
}

static void test_shrinker(void)
{
	size_t bytes = 1 << 20;
	int fd = buf_create(dev, bytes, 0), ro = buf_ro(fd), needed = buf_create(dev, bytes, 0);
	char *p = buf_map(fd, bytes, PROT_READ | PROT_WRITE);
	struct lslm_get_stats before = dev_stats(dev);
	uint32_t retained = 7;
	uint64_t generation = 0;

	memset(p, 5, bytes);
	drop_caches();
	ok(all_bytes(p, bytes, 5), "a needed buffer survives memory pressure");
	is(buf_purgeable(fd), 0, "PURGEABLE");
	is(buf_purgeable(fd), 0, "PURGEABLE again");
	ok(buf_query(fd).out_flags & LSLM_BUF_PURGEABLE, "QUERY says purgeable");
	is(buf_will_need(fd, &retained, &generation), 0, "WILL_NEED without pressure between");
	ok(retained && generation == 1, "it is retained");
	buf_purgeable(fd);
	buf_hold(ro, NULL, NULL);
	drop_caches();
	ok(all_bytes(p, bytes, 5), "a purgeable one survives while held, read-only");
	is(buf_will_need(fd, &retained, &generation), 0, "WILL_NEED while held");
	ok(retained && generation == 1, "it is retained too");
	buf_purgeable(fd);
	buf_release(ro);
	drop_caches();
	is(buf_query(fd).out_resident_bytes, 0, "unheld it is purged");
	ok(all_bytes(p, bytes, 0), "its mapping reads as zeroes");
	is(buf_query(needed).out_resident_bytes, bytes, "its needed neighbour is not");
	is(buf_will_need(fd, &retained, &generation), 0, "WILL_NEED after that");
	ok(!retained && generation == 2, "it says lost, one generation on");
	is(dev_stats(dev).out_purges_pressure - before.out_purges_pressure, 1, "it is counted");
	drop_caches();
	is(buf_query(fd).out_resident_bytes, bytes, "needed again, it survives");
	munmap(p, bytes);
	close(fd);
	close(ro);
	close(needed);
}

static void test_idle_order(void)
{
	int fds[3], i;
	struct lslm_get_stats before;

	for (i = 0; i < 3; i++) {
		fds[i] = buf_create(dev, 1 << 20, 0);
		buf_purgeable(fds[i]);
	}
	/* The first becomes the most recently used; a mapping alone does not protect the others. */
	buf_hold(fds[0], NULL, NULL);
	buf_release(fds[0]);
	before = dev_stats(dev);
	drop_caches();
	is(dev_stats(dev).out_purges_pressure - before.out_purges_pressure, 3, "all idle ones go");
	drop_caches();
	is(dev_stats(dev).out_purges_pressure - before.out_purges_pressure, 3,
	   "an empty one is not purged again");
	for (i = 0; i < 3; i++)
		close(fds[i]);
}

static size_t meminfo(const char *what)
{
	char line[128], name[64];
	size_t kb = 0, found = 0;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%63[^:]: %zu", name, &kb) == 2 && !strcmp(name, what))
			found = kb << 10;
	if (f)
		fclose(f);
	return found;
}

/* Real pressure: a child that needs memory which is there only if a purgeable buffer goes. */
static void test_real_pressure(void)
{
	size_t bytes = meminfo("MemTotal") / 4 / page * page, need;
	int fd = buf_create(dev, bytes, 0);
	uint32_t retained = 7;
	pid_t pid;

	if (!ok(fd >= 0, "a buffer of a quarter of the memory"))
		return;
	buf_purgeable(fd);
	need = meminfo("MemAvailable") + bytes / 2;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		char *p = mmap(NULL, need, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		size_t i;

		write_text("/proc/self/oom_score_adj", "1000");
		for (i = 0; p != MAP_FAILED && i < need; i += page)
			p[i] = 1;
		_exit(p == MAP_FAILED);
	}
	is(wait_child(pid), 0, "memory pressure finds it before the OOM killer finds anybody");
	is(buf_query(fd).out_resident_bytes, 0, "it is purged");
	is(buf_will_need(fd, &retained, NULL), 0, "WILL_NEED afterwards");
	is(retained, 0, "says lost");
	close(fd);
}

/* Under a hold a sample that was not zero never changes. Exits with what it saw go wrong. */
static int read_under_holds(int ro, size_t bytes, int stop)
{
	volatile const char *p = buf_map(ro, bytes, PROT_READ);
	int seen = 0;
	char byte;

	while (recv(stop, &byte, 1, MSG_DONTWAIT) < 0) {
		uint64_t generation;
		uint32_t retained;
		size_t i;
		char first[16];

		if (buf_hold(ro, &retained, &generation))
			return 2;
		for (i = 0; i < 16; i++)
			first[i] = p[i * page];
		sched_yield();
		for (i = 0; i < 16; i++)
			if (first[i] && p[i * page] != first[i])
				return 3;
		if (buf_query(ro).out_generation != generation)
			return 4;
		seen |= retained && first[0];
		buf_release(ro);
		usleep(2000); /* or three readers never let a purge in */
	}
	return seen ? 0 : 5;
}

static void test_purge_against_readers(void)
{
	size_t bytes = 16 * page;
	int fd = buf_create(dev, bytes, 0), stop[2], i, j, busy = 0, purged = 0, bad = 0;
	char *p = buf_map(fd, bytes, PROT_READ | PROT_WRITE);
	time_t deadline = time(NULL) + 600;
	pid_t pids[3];

	memset(p, 100, bytes);
	socketpair(AF_UNIX, SOCK_DGRAM, 0, stop);
	fflush(stdout);
	for (i = 0; i < 3; i++) {
		int ro = buf_ro(fd); /* a description for each reader */

		pids[i] = fork();
		if (!pids[i])
			_exit(read_under_holds(ro, bytes, stop[1]));
		close(ro);
	}
	for (i = 0; time(NULL) < deadline && (purged < 50 || busy < 50); i++) {
		uint32_t retained;

		if (i % 8) {
			int ret = buf_purge(fd, NULL);

			purged += !ret;
			busy += ret == -EBUSY;
			bad += ret && ret != -EBUSY;
		} else {
			buf_purgeable(fd);
			drop_caches();
		}
		bad += buf_will_need(fd, &retained, NULL) != 0;
		/* A fresh generation is filled once: under a hold nothing may change it. */
		if (!retained)
			for (j = 0; j < 16; j++)
				p[j * page] = 1 + (i % 100);
	}
	for (i = 0; i < 3; i++)
		sync_send(stop[0]);
	for (i = 0; i < 3; i++)
		is(wait_child(pids[i]), 0, "reader %d saw nothing change under a hold", i);
	ok(purged >= 50 && busy >= 50, "there were purges, and refusals");
	printf("# %d purged, %d busy\n", purged, busy);
	is(bad, 0, "and nothing else");
	is(buf_query(fd).out_holds, 0, "no hold is left");
	munmap(p, bytes);
	close(fd);
}

static void test_accounted_until_unmapped(void)
{
	struct lslm_get_stats before = dev_stats(dev);
	int other = dev_open(), fd = buf_create(other, 8 * page, 0), status;
	char *p = buf_map(fd, 8 * page, PROT_READ | PROT_WRITE);

	close(other);
	is(dev_stats(dev).out_clients, before.out_clients + 1, "a buffer keeps its client");
	close(fd);
	memset(p, 1, 8 * page);
	ok(all_bytes(p, 8 * page, 1), "a mapping outlives both descriptors");
	is(dev_stats(dev).out_buffers, before.out_buffers + 1, "and still counts as a buffer");
	is(dev_stats(dev).out_bytes, before.out_bytes + 8 * page, "and its bytes");
	munmap(p, 4 * page);
	is(dev_stats(dev).out_buffers, before.out_buffers + 1, "half a mapping too");
	munmap(p + 4 * page, 4 * page);
	is(dev_stats(dev).out_buffers, before.out_buffers, "unmapped it is gone");
	is(dev_stats(dev).out_bytes, before.out_bytes, "with its bytes");
	is(dev_stats(dev).out_clients, before.out_clients, "and its client");

	fflush(stdout);
	if (!fork()) {
		/* Everything at once, and no clean-up: exit does it. */
		int own = dev_open(), a = buf_create(own, page, 0), b = buf_ro(a);

		buf_hold(a, NULL, NULL);
		buf_hold(b, NULL, NULL);
		buf_purgeable(a);
		_exit(buf_map(b, page, PROT_READ) ? 0 : 1);
	}
	wait(&status);
	is(dev_stats(dev).out_buffers, before.out_buffers, "exit leaves no buffer");
	is(dev_stats(dev).out_holds, before.out_holds, "and no hold");
}

static void test_busy_module(void)
{
	int fd = buf_create(dev, page, 0), status;
	void *p = buf_map(fd, page, PROT_READ);

	fflush(stdout);
	/* The device descriptor and the buffer's are close-on-exec; the mapping is this process's. */
	if (!fork()) {
		execlp("rmmod", "rmmod", "lslm", (char *)NULL);
		_exit(127);
	}
	wait(&status);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 1,
	   "rmmod is refused while something is open");
	close(fd);
	close(dev);
	is(syscall(SYS_delete_module, "lslm", O_NONBLOCK) ? -errno : 0, -EWOULDBLOCK,
	   "rmmod is refused while only a mapping is left");
	dev = dev_open();
	munmap(p, page);
}

static void test_ids(void)
{
	uint64_t last = 0, id;
	int i, fd, rising = 0;

	for (i = 0; i < 4; i++) {
		fd = buf_create(dev, page, 0);
		id = buf_query(fd).out_id;
		rising += id > last;
		last = id;
		close(fd);
	}
	is(rising, 4, "ids are never used again");
}

static void test_huge(void)
{
	size_t huge = dev_info(dev).out_huge_page_size, mapped = 0;
	int fd = buf_create(dev, 2 * huge + page, LSLM_BUF_HUGE);
	struct lslm_query q = buf_query(fd);
	uint32_t retained;
	char line[128];
	char *p = buf_map(fd, 2 * huge + page, PROT_READ | PROT_WRITE);
	FILE *f;

	is(q.out_huge_bytes, 2 * huge, "whole huge pages are given");
	is(q.out_page_size, huge, "and reported as the page size");
	is((uintptr_t)p % huge, 0, "mmap aligns it by itself");
	memset(p, 1, 2 * huge + page);
	f = fopen("/proc/self/smaps", "r");
	while (f && fgets(line, sizeof(line), f)) {
		size_t kb;

		if (sscanf(line, "ShmemPmdMapped: %zu kB", &kb) == 1)
			mapped += kb << 10;
	}
	if (f)
		fclose(f);
	is(mapped, 2 * huge, "the processor maps them whole");
	buf_purge(fd, NULL);
	is(buf_query(fd).out_huge_bytes, 0, "a purge frees them");
	is(buf_will_need(fd, &retained, NULL), 0, "WILL_NEED gives pages again");
	is(buf_query(fd).out_huge_bytes, 2 * huge, "huge ones");
	munmap(p, 2 * huge + page);
	close(fd);
	fd = buf_create(dev, huge - page, LSLM_BUF_HUGE);
	is(buf_query(fd).out_page_size, page, "a buffer below one huge page has small ones");
	close(fd);
}

/* Value of a line "name:\tN" in fdinfo, or -1. */
static long long fdinfo(int fd, const char *name)
{
	char path[64], line[128];
	long long value = -1;
	size_t n = strlen(name);
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, n) && line[n] == ':')
			value = strtoll(line + n + 1, NULL, 10);
	if (f)
		fclose(f);
	return value;
}

static void test_fdinfo(void)
{
	int fd = buf_create(dev, 2 * page, 0), ro = buf_ro(fd);

	buf_hold(fd, NULL, NULL);
	buf_hold(ro, NULL, NULL);
	buf_hold(ro, NULL, NULL);
	is(fdinfo(ro, "lslm-id"), buf_query(fd).out_id, "fdinfo: id");
	is(fdinfo(ro, "lslm-bytes"), 2 * page, "fdinfo: bytes");
	is(fdinfo(ro, "lslm-resident-bytes"), 2 * page, "fdinfo: resident-bytes");
	is(fdinfo(ro, "lslm-huge-bytes"), 0, "fdinfo: huge-bytes");
	is(fdinfo(ro, "lslm-writable"), 0, "fdinfo: writable, read-only");
	is(fdinfo(fd, "lslm-writable"), 1, "fdinfo: writable, read-write");
	is(fdinfo(ro, "lslm-generation"), 1, "fdinfo: generation");
	is(fdinfo(ro, "lslm-retained"), 1, "fdinfo: retained");
	is(fdinfo(ro, "lslm-purgeable"), 0, "fdinfo: purgeable");
	is(fdinfo(ro, "lslm-holds"), 3, "fdinfo: holds by all");
	is(fdinfo(ro, "lslm-holds-here"), 2, "fdinfo: holds by this one");
	is(fdinfo(dev, "lslm-used-bytes"), dev_info(dev).out_quota_used_bytes,
	   "fdinfo: used-bytes");
	is(fdinfo(dev, "lslm-quota-bytes"), dev_info(dev).out_quota_bytes, "fdinfo: quota-bytes");
	close(fd);
	close(ro);
}

/* The events of one short life, in order, with the fields that docs/abi.md promises. */
static void test_trace(void)
{
	static const char dir[] = "/sys/kernel/tracing";
	char want[7][160], line[512];
	int fd, ro, i = 0;
	unsigned long long id;
	FILE *f;

	if (access("/sys/kernel/tracing/events/lslm", F_OK)) {
		skip("tracefs is not mounted", "trace events");
		return;
	}
	write_text("/sys/kernel/tracing/trace", "");
	write_text("/sys/kernel/tracing/events/lslm/enable", "1");
	fd = buf_create(dev, page, 0);
	id = buf_query(fd).out_id;
	ro = buf_ro(fd);
	buf_hold(ro, NULL, NULL);
	buf_hold(ro, NULL, NULL);
	close(ro);
	buf_purgeable(fd);
	buf_purge(fd, NULL);
	buf_will_need(fd, NULL, NULL);
	close(fd);
	write_text("/sys/kernel/tracing/events/lslm/enable", "0");

	snprintf(want[0], 160, "buf_create: id=%llu bytes=%zu huge_bytes=0 flags=0x0 error=0", id,
		 page);
	snprintf(want[1], 160, "buf_hold: id=%llu generation=1 holds=1 retained=1", id);
	snprintf(want[2], 160, "buf_hold: id=%llu generation=1 holds=2 retained=1", id);
	snprintf(want[3], 160, "buf_release: id=%llu generation=1 holds=0 count=2", id);
	snprintf(want[4], 160, "buf_purgeable: id=%llu generation=1", id);
	snprintf(want[5], 160, "buf_purge: id=%llu generation=2 bytes=%zu reason=asked", id, page);
	snprintf(want[6], 160, "buf_will_need: id=%llu generation=2 retained=0", id);
	snprintf(line, sizeof(line), "%s/trace", dir);
	f = fopen(line, "r");
	while (f && i < 7 && fgets(line, sizeof(line), f)) {
		if (line[0] == '#')
			continue;
		if (!strstr(line, want[i])) {
			printf("# got  %s# want %s\n", line, want[i]);
			break;
		}
		i++;
	}
	is(i, 7, "trace events of a life, in order");
	snprintf(want[0], 160, "buf_free: id=%llu generation=2 bytes=%zu", id, page);
	ok(f && fgets(line, sizeof(line), f) && strstr(line, want[0]), "and of its end");
	if (f)
		fclose(f);
}

static void test_debugfs(void)
{
	int fd = buf_create(dev, page, 0);
	unsigned long long id = buf_query(fd).out_id, got = 0;
	char line[256];
	FILE *f = fopen("/sys/kernel/debug/lslm/buffers", "r");

	if (!f) {
		skip("debugfs is not mounted", "debugfs lists the buffer");
	} else {
		while (got != id && fgets(line, sizeof(line), f))
			got = strtoull(line, NULL, 10);
		is(got, id, "debugfs lists the buffer");
		fclose(f);
	}
	close(fd);
}

static void test_bytes_add_up(void)
{
	struct lslm_get_stats s = dev_stats(dev);

	is(s.out_buffers, 0, "no buffer is left");
	is(s.out_bytes, 0, "no byte is left");
	is(s.out_holds, 0, "no hold is left");
	is(s.out_clients, 1, "no client but this");
	is(s.out_created - s.out_freed, 0, "as many were freed as made");
}

int main(void)
{
	page = sysconf(_SC_PAGESIZE);
	dev = dev_open();
	write_text("/proc/sys/vm/drop_caches", "4"); /* not a line in the log for each */
	test_zeroed_and_shared();
	test_passed_on();
	test_purge();
	test_hold_sharing();
	test_pinned(0);
	test_purge_against_readers();
	test_accounted_until_unmapped();
	test_busy_module();
	test_ids();
	test_fdinfo();
	test_trace();
	test_debugfs();
	if (dev_has(dev, LSLM_FEATURE_HUGE)) {
		test_huge();
		test_pinned(LSLM_BUF_HUGE);
	} else {
		skip("LSLM_FEATURE_HUGE is off", "2 MiB pages");
	}
	if (dev_has(dev, LSLM_FEATURE_SHRINKER)) {
		test_shrinker();
		test_idle_order();
		test_real_pressure();
	} else {
		skip("LSLM_FEATURE_SHRINKER is off", "memory pressure");
	}
	test_bytes_add_up();
	return tap_done();
}
