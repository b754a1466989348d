// SPDX-License-Identifier: MIT
#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct file_atomic {
	int fd;
	char *target;
	char *temp;
};

static void forget(struct file_atomic *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f->target);
	free(f->temp);
	free(f);
}

/* Where the new file has to go, with symbolic links followed. */
static int resolve(const char *path, char **target, struct lslm_error *err)
{
	struct stat st;

	*target = realpath(path, NULL);
	if (!*target) {
		if (errno != ENOENT || !*path)
			return error_sys(err, -errno, "%s: cannot write", path);
		*target = strdup(path);
		if (!*target)
			return error_set(err, -ENOMEM, "%s: out of memory", path);
		return 0;
	}
	if (stat(*target, &st) == 0 && !S_ISREG(st.st_mode)) {
		free(*target);
		*target = NULL;
		return error_set(err, -EINVAL, "%s: is there and is not a regular file", path);
	}
	return 0;
}

/* Length of the directory part, with its slash; 0 for a bare name. */
static size_t dir_len(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) + 1 : 0;
}

int file_atomic_open(struct file_atomic **out, const char *path, mode_t mode,
		     struct lslm_error *err)
{
	struct file_atomic *f = calloc(1, sizeof(*f));
	int ret;

	*out = NULL;
	if (!f)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	f->fd = -1;
	ret = resolve(path, &f->target, err);
	if (ret < 0)
		goto err_free;
	/* A fixed short name: one made from the target's could exceed NAME_MAX. */
	if (asprintf(&f->temp, "%.*s" FILE_ATOMIC_PREFIX "XXXXXX", (int)dir_len(f->target),
		     f->target) < 0) {
		f->temp = NULL;
		ret = error_set(err, -ENOMEM, "%s: out of memory", path);
		goto err_free;
	}
	f->fd = mkostemp(f->temp, O_CLOEXEC);
	if (f->fd < 0) {
		ret = error_sys(err, -errno, "%s: cannot create a file beside it", path);
		goto err_free;
	}
	if (fchmod(f->fd, mode) < 0) {
		ret = error_sys(err, -errno, "%s: cannot set its mode", path);
		unlink(f->temp);
		goto err_free;
	}
	*out = f;
	return 0;
err_free:
	forget(f);
	return ret;
}

int file_atomic_fd(const struct file_atomic *f)
{
	return f->fd;
}

void file_atomic_abort(struct file_atomic *f)
{
	if (!f)
		return;
	unlink(f->temp);
	forget(f);
}

/* The rename is durable once the directory is; a filesystem without that says EINVAL. */
static int sync_dir(const char *target)
{
	char *dir = strndup(target, dir_len(target));
	int fd, ret = 0;

	if (!dir)
		return -ENOMEM;
	fd = open(*dir ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(dir);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0 && errno != EINVAL)
		ret = -errno;
	close(fd);
	return ret;
}

/* link() and not rename(): it refuses an existing target, without a race and on every filesystem. */
static int create_target(const struct file_atomic *f)
{
	if (link(f->temp, f->target) < 0)
		return -errno;
	unlink(f->temp);
	return 0;
}

int file_atomic_commit(struct file_atomic *f, enum file_commit how, struct lslm_error *err)
{
	int ret = 0;

	if (fsync(f->fd) < 0)
		ret = -errno;
	else if (how == FILE_CREATE)
		ret = create_target(f);
	else if (rename(f->temp, f->target) < 0)
		ret = -errno;
	if (ret < 0) {
		error_sys(err, ret, "%s: cannot write", f->target);
		unlink(f->temp);
	} else {
		ret = sync_dir(f->target);
		if (ret < 0)
			error_sys(err, ret, "%s: written, but its directory cannot be synced",
				  f->target);
	}
	forget(f);
	return ret;
}

int file_write(const char *path, const void *data, size_t size, mode_t mode, enum file_commit how,
	       struct lslm_error *err)
{
	struct file_atomic *f;
	int ret;

	ret = file_atomic_open(&f, path, mode, err);
	if (ret < 0)
		return ret;
	ret = file_pwrite_all(f->fd, data, size, 0);
	if (ret < 0) {
		file_atomic_abort(f);
		return error_sys(err, ret, "%s: cannot write", path);
	}
	return file_atomic_commit(f, how, err);
}

int file_pread_all(int fd, void *data, size_t size, uint64_t offset)
{
	char *p = data;

	while (size) {
		ssize_t n = pread(fd, p, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		p += n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int file_pwrite_all(int fd, const void *data, size_t size, uint64_t offset)
{
	const char *p = data;

	while (size) {
		ssize_t n = pwrite(fd, p, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		p += n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int file_stat(int fd, struct stat *st)
{
	return syscall(SYS_fstat, fd, st) ? -errno : 0;
}

static int read_fd(int fd, const char *path, size_t max, char **data, size_t *size,
		   struct lslm_error *err)
{
	struct stat st;
	char *buf;
	int ret;

	if (fstat(fd, &st) < 0)
		return error_sys(err, -errno, "%s: cannot read", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "%s: is not a regular file", path);
	if ((uint64_t)st.st_size > max)
		return error_set(err, -EFBIG, "%s: has %lld bytes, at most %zu are expected", path,
				 (long long)st.st_size, max);
	buf = malloc((size_t)st.st_size + 1);
	if (!buf)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	ret = file_pread_all(fd, buf, (size_t)st.st_size, 0);
	if (ret < 0) {
		free(buf);
		return error_sys(err, ret, "%s: cannot read", path);
	}
	buf[st.st_size] = 0;
	*data = buf;
	*size = (size_t)st.st_size;
	return 0;
}

int file_read(const char *path, size_t max, char **data, size_t *size, struct lslm_error *err)
{
	/* O_NONBLOCK: a pipe of that name must not hang the open; it is refused just after. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int ret;

	if (fd < 0)
		return error_sys(err, -errno, "%s: cannot open", path);
	ret = read_fd(fd, path, max, data, size, err);
	close(fd);
	return ret;
}

int file_read_secret(const char *path, const char *what, size_t max, char **data, size_t *size,
		     struct lslm_error *err)
{
	struct stat st;

	if (!stat(path, &st) && (st.st_mode & 077))
		return error_set(err, -EACCES,
				 "%s: others may read this %s (mode %o); make it yours alone with "
				 "chmod 600",
				 path, what, st.st_mode & 0777);
	return file_read(path, max, data, size, err);
}

static int make_dir(const char *path, mode_t mode)
{
	struct stat st;

	if (mkdir(path, mode) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (stat(path, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int file_mkdirs(const char *path, mode_t mode, struct lslm_error *err)
{
	char *copy = strdup(path);
	int ret = 0;

	if (!copy)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	for (char *p = copy + (*copy == '/'); *p && ret == 0; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		ret = make_dir(copy, mode);
		*p = '/';
	}
	if (ret == 0)
		ret = make_dir(copy, mode);
	free(copy);
	return ret < 0 ? error_sys(err, ret, "%s: cannot create the directory", path) : 0;
}

int file_make_parent(const char *path, mode_t mode, struct lslm_error *err)
{
	const char *slash = strrchr(path, '/');
	char *dir;
	int ret;

	if (!slash || slash == path)
		return 0;
	dir = strndup(path, (size_t)(slash - path));
	if (!dir)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	ret = file_mkdirs(dir, mode, err);
	free(dir);
	return ret;
}

int file_xdg_path(char **out, enum file_xdg kind, const char *name, struct lslm_error *err)
{
	static const struct {
		const char *variable;
		const char *below_home;
	} dirs[] = {
		[FILE_XDG_CACHE] = { "XDG_CACHE_HOME", ".cache" },
		[FILE_XDG_CONFIG] = { "XDG_CONFIG_HOME", ".config" },
		[FILE_XDG_DATA] = { "XDG_DATA_HOME", ".local/share" },
	};
	const char *base = getenv(dirs[kind].variable);
	const char *home = getenv("HOME");
	int n;

	*out = NULL;
	if (base && base[0] == '/')
		n = asprintf(out, "%s/lslm/%s", base, name);
	else if (home && home[0] == '/')
		n = asprintf(out, "%s/%s/lslm/%s", home, dirs[kind].below_home, name);
	else
		return error_set(err, -ENOENT, "no place for %s: set HOME or %s", name,
				 dirs[kind].variable);
	if (n < 0) {
		*out = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

int file_cache_path(char **out, const char *dir, const char *name, struct lslm_error *err)
{
	char *in;
	int ret = file_xdg_path(&in, FILE_XDG_CACHE, dir, err);

	*out = NULL;
	if (ret)
		return ret;
	ret = file_mkdirs(in, 0700, err);
	if (!ret && asprintf(out, "%s/%s", in, name) < 0) {
		*out = NULL;
		ret = error_set(err, -ENOMEM, "%s: out of memory", in);
	}
	free(in);
	return ret;
}
