// SPDX-License-Identifier: MIT
#include "kv/hugemem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kv/buffer.h"
#include "lslm/page.h"

#define MAP_HUGE_2_MIB (21 << 26)

static void say(struct hugemem *m, const char *kind, const char *what)
{
	const size_t at = strlen(m->why);

	snprintf(m->why + at, sizeof(m->why) - at, "%s%s: %.100s", at ? "; " : "", kind, what);
}

static void unmap(struct hugemem *m)
{
	if (m->map)
		munmap(m->map, m->map_bytes);
	m->map = NULL;
}

static bool from_module(struct hugemem *m)
{
	struct lslm_error err = { 0 };

	if (buffer_backend_active() != BUFFER_KERNEL ||
	    buffer_create(&m->buffer, BUFFER_KERNEL, m->size, BUFFER_HUGE, &err)) {
		m->buffer = NULL;
		say(m, "module", err.code ? err.text : "not loaded");
		return false;
	}
	m->kind = "module";
	m->data = buffer_data(m->buffer);
	return true;
}

/* Address space for so much, at a multiple of 2 MiB. */
static void *reserve(struct hugemem *m, size_t bytes)
{
	void *p = mmap(NULL, bytes + LSLM_HUGE_PAGE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	m->map = p;
	m->map_bytes = bytes + LSLM_HUGE_PAGE;
	return (void *)lslm_round_up((uintptr_t)p, LSLM_HUGE_PAGE);
}

static int set(int fs, unsigned int what, const char *key, const char *value)
{
	return (int)syscall(SYS_fsconfig, fs, what, key, value, 0);
}

/* A file system for one file, which is nowhere in the tree and ends with the last mapping: its descriptor, or -1. */
static int mount_for(size_t bytes)
{
	const int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	char size[24];
	int mount = -1;

	if (fs < 0)
		return -1;
	snprintf(size, sizeof(size), "%zu", bytes);
	if (!set(fs, FSCONFIG_SET_STRING, "size", size) &&
	    !set(fs, FSCONFIG_SET_STRING, "huge", "always") &&
	    !set(fs, FSCONFIG_CMD_CREATE, NULL, NULL))
		mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
	close(fs);
	return mount;
}

/* 2 MiB pages whatever the machine's settings say, short of denying them to shared memory. */
static bool from_mount(struct hugemem *m)
{
	const size_t bytes = lslm_round_up(m->size, LSLM_HUGE_PAGE);
	const int mount = mount_for(bytes);
	int fd = -1, err = errno;
	void *at = NULL;

	if (mount >= 0) {
		fd = openat(mount, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0400);
		if (fd >= 0 && !ftruncate(fd, (off_t)bytes))
			at = reserve(m, bytes);
		if (at && mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) !=
				  MAP_FAILED)
			m->data = at;
		err = errno;
		close(mount);
	}
	if (fd >= 0)
		close(fd);
	if (!m->data) {
		unmap(m);
		say(m, "tmpfs", strerror(err));
		return false;
	}
	m->kind = "tmpfs";
	return true;
}

/* Without MAP_NORESERVE the pool must hold all of it now, so that no page fault can fail later. */
static bool from_pool(struct hugemem *m)
{
	const size_t bytes = lslm_round_up(m->size, LSLM_HUGE_PAGE);
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2_MIB, -1, 0);

	if (p == MAP_FAILED) {
		say(m, "hugetlb", "pool too small");
		return false;
	}
	m->kind = "hugetlb";
	m->data = m->map = p;
	m->map_bytes = bytes;
	return true;
}

static bool from_anywhere(struct hugemem *m)
{
	const size_t bytes = lslm_round_up(m->size, LSLM_HUGE_PAGE);

	m->data = reserve(m, bytes);
	if (!m->data || mprotect(m->data, bytes, PROT_READ | PROT_WRITE)) {
		unmap(m);
		return false;
	}
	m->kind = "anonymous";
	madvise(m->data, bytes, MADV_HUGEPAGE);
	return true;
}

int hugemem_create(struct hugemem *m, size_t size, struct lslm_error *err)
{
	*m = (struct hugemem){ .size = size };
	if (!from_module(m) && !from_mount(m) && !from_pool(m) && !from_anywhere(m))
		return error_set(err, -ENOMEM, "%zu MiB of memory: out of memory", size >> 20);
	/* All of it: no page of 2 MiB lies in two mappings. */
	madvise(m->data, lslm_round_up(size, LSLM_HUGE_PAGE), MADV_DONTDUMP);
	return 0;
}

void hugemem_free(struct hugemem *m)
{
	if (m->buffer)
		buffer_close(m->buffer);
	else
		unmap(m);
	*m = (struct hugemem){ 0 };
}
