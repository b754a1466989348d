// SPDX-License-Identifier: MIT
#include "kv/memfd.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

/* From Linux 6.3; older C libraries lack the name, older kernels answer EINVAL. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum { SEALS = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL };

static int make(const char *name, unsigned int extra)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | extra;
	int fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, flags);
	return fd < 0 ? -errno : fd;
}

static int make_sized(const char *name, size_t size, unsigned int extra, struct lslm_error *err)
{
	int fd, ret;

	if (size > INT64_MAX)
		return error_set(err, -EINVAL, "%s: %zu bytes are more than a file can have", name,
				 size);
	fd = make(name, extra);
	if (fd < 0)
		return error_sys(err, fd, "%s: cannot create a memfd", name);
	if (ftruncate(fd, (off_t)size) || fchmod(fd, 0400)) {
		ret = error_sys(err, -errno, "%s: cannot size a memfd of %zu bytes", name, size);
		close(fd);
		return ret;
	}
	return fd;
}

/* fd, or -errno and it is closed. */
static int seal(int fd, const char *name, int seals, struct lslm_error *err)
{
	int ret;

	if (!fcntl(fd, F_ADD_SEALS, seals))
		return fd;
	ret = error_sys(err, -errno, "%s: cannot seal a memfd", name);
	close(fd);
	return ret;
}

int memfd_sealed(const char *name, size_t size, unsigned int extra, struct lslm_error *err)
{
	int fd = make_sized(name, size, extra, err);

	return fd < 0 ? fd : seal(fd, name, SEALS, err);
}

int memfd_constant(const char *name, const void *data, size_t size, struct lslm_error *err)
{
	int fd = make_sized(name, size, 0, err), ret;

	if (fd < 0)
		return fd;
	ret = file_pwrite_all(fd, data, size, 0);
	if (ret < 0) {
		close(fd);
		return error_sys(err, ret, "%s: cannot write a memfd", name);
	}
	return seal(fd, name, SEALS | F_SEAL_WRITE, err);
}

int memfd_reopen_ro(int fd, struct lslm_error *err)
{
	char path[64];
	int ro;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	if (ro < 0)
		return error_sys(err, -errno, "%s: cannot reopen read-only (is /proc mounted?)",
				 path);
	return ro;
}

int memfd_check(int fd, size_t *size, struct lslm_error *err)
{
	int ret, seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (seals < 0)
		return error_set(err, -EBADF, "descriptor %d is no memfd", fd);
	if ((seals & SEALS) != SEALS)
		return error_set(err, -EBADF, "descriptor %d is a memfd that can still be resized",
				 fd);
	ret = file_stat(fd, &st);
	if (ret)
		return error_sys(err, ret, "descriptor %d", fd);
	*size = (size_t)st.st_size;
	return 0;
}
