/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the kernel module share: TAP output and the calls of linux/lslm.h as
 * functions that return 0 (or a descriptor) or a negative errno.
 */
#ifndef TESTS_VM_DEVICE_H
#define TESTS_VM_DEVICE_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/lslm.h>

static int tap_cases, tap_failed;

__attribute__((format(printf, 2, 3))) static inline bool ok(bool good, const char *fmt, ...)
{
	va_list ap;

	tap_cases++;
	tap_failed += !good;
	printf("%sok %d - ", good ? "" : "not ", tap_cases);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	return good;
}

/* One case: got and want are equal; both are printed when they are not. */
__attribute__((format(printf, 3, 4))) static inline bool is(long long got, long long want,
							    const char *fmt, ...)
{
	char name[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	if (ok(got == want, "%s", name))
		return true;
	printf("# got %lld, want %lld\n", got, want);
	return false;
}

__attribute__((format(printf, 2, 3))) static inline void skip(const char *why, const char *fmt, ...)
{
	va_list ap;

	printf("ok %d - ", ++tap_cases);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf(" # SKIP %s\n", why);
}

static inline int tap_done(void)
{
	printf("1..%d\n", tap_cases);
	return tap_failed ? 1 : 0;
}

static inline void bail(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

static inline int call(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) < 0 ? -errno : 0;
}

static inline int dev_open(void)
{
	int fd = open(LSLM_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		bail(LSLM_DEVICE);
	return fd;
}

static inline int buf_create(int dev, uint64_t bytes, uint32_t flags)
{
	struct lslm_buf_create arg = { .size = sizeof(arg), .flags = flags, .bytes = bytes };
	int ret = call(dev, LSLM_BUF_CREATE, &arg);

	return ret ? ret : arg.out_fd;
}

static inline int buf_ro(int fd)
{
	struct lslm_buf_ro_fd arg = { .size = sizeof(arg) };
	int ret = call(fd, LSLM_BUF_RO_FD, &arg);

	return ret ? ret : arg.out_fd;
}

static inline int buf_hold(int fd, uint32_t *retained, uint64_t *generation)
{
	struct lslm_hold arg = { .size = sizeof(arg) };
	int ret = call(fd, LSLM_HOLD, &arg);

	if (retained)
		*retained = arg.out_retained;
	if (generation)
		*generation = arg.out_generation;
	return ret;
}

static inline int buf_release(int fd)
{
	struct lslm_release arg = { .size = sizeof(arg) };

	return call(fd, LSLM_RELEASE, &arg);
}

static inline int buf_purgeable(int fd)
{
	struct lslm_purgeable arg = { .size = sizeof(arg) };

	return call(fd, LSLM_PURGEABLE, &arg);
}

static inline int buf_will_need(int fd, uint32_t *retained, uint64_t *generation)
{
	struct lslm_will_need arg = { .size = sizeof(arg) };
	int ret = call(fd, LSLM_WILL_NEED, &arg);

	if (retained)
		*retained = arg.out_retained;
	if (generation)
		*generation = arg.out_generation;
	return ret;
}

static inline int buf_purge(int fd, uint64_t *generation)
{
	struct lslm_purge arg = { .size = sizeof(arg) };
	int ret = call(fd, LSLM_PURGE, &arg);

	if (generation)
		*generation = arg.out_generation;
	return ret;
}

static inline struct lslm_query buf_query(int fd)
{
	struct lslm_query arg = { .size = sizeof(arg) };

	if (call(fd, LSLM_QUERY, &arg))
		bail("LSLM_QUERY");
	return arg;
}

static inline struct lslm_get_info dev_info(int fd)
{
	struct lslm_get_info arg = { .size = sizeof(arg) };

	if (call(fd, LSLM_GET_INFO, &arg))
		bail("LSLM_GET_INFO");
	return arg;
}

static inline struct lslm_get_stats dev_stats(int fd)
{
	struct lslm_get_stats arg = { .size = sizeof(arg) };

	if (call(fd, LSLM_GET_STATS, &arg))
		bail("LSLM_GET_STATS");
	return arg;
}

static inline bool dev_has(int fd, enum lslm_feature feature)
{
	return dev_info(fd).out_features >> feature & 1;
}

static inline void *buf_map(int fd, size_t bytes, int prot)
{
	void *p = mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* What mapping it so says, which is then undone. */
static inline int map_error(int fd, size_t bytes, int prot, int flags, off_t at)
{
	void *p = mmap(NULL, bytes, prot, flags, fd, at);

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, bytes);
	return 0;
}

static inline void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		bail(path);
	close(fd);
}

#define PARAM(name) "/sys/module/lslm/parameters/" name

#endif
