/* SPDX-License-Identifier: MIT */
/*
 * Files that are whole or absent.
 *
 * A file_atomic is a temporary file beside its target. Commit makes it durable and
 * puts it in the target's place in one step, so that a reader, a crash or a full
 * disk sees the old file or the new one, never a part. Whoever opened it commits
 * or aborts it; both end it. A process that is killed in between leaves a file
 * named FILE_ATOMIC_PREFIX "XXXXXX", which nothing reads.
 *
 * A target that is a symbolic link keeps being one; a target that is not a
 * regular file (a device, a pipe) is refused, because the rename would replace it.
 */
#ifndef LSLM_BASE_FILE_H
#define LSLM_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/error.h"

struct file_atomic;

#define FILE_ATOMIC_PREFIX ".lslm-"

enum file_commit {
	FILE_REPLACE, /* an existing target is replaced */
	FILE_CREATE, /* an existing target is left alone: -EEXIST */
};

int file_atomic_open(struct file_atomic **out, const char *path, mode_t mode,
		     struct lslm_error *err);
int file_atomic_fd(const struct file_atomic *f);
int file_atomic_commit(struct file_atomic *f, enum file_commit how, struct lslm_error *err);
void file_atomic_abort(struct file_atomic *f); /* NULL is allowed */

/* The three steps at once. */
int file_write(const char *path, const void *data, size_t size, mode_t mode, enum file_commit how,
	       struct lslm_error *err);

/*
 * A whole regular file of at most max bytes, malloc'd, with a NUL after the last byte that *size
 * does not count. -EFBIG for a larger one, -EINVAL for something that is not a regular file.
 */
int file_read(const char *path, size_t max, char **data, size_t *size, struct lslm_error *err);
/* The same of a secret: -EACCES where others than its owner may read it. what names it, a noun. */
int file_read_secret(const char *path, const char *what, size_t max, char **data, size_t *size,
		     struct lslm_error *err);

/* All of it or an error: short transfers and EINTR are repeated. -ENODATA at end of file. */
int file_pread_all(int fd, void *data, size_t size, uint64_t offset);
int file_pwrite_all(int fd, const void *data, size_t size, uint64_t offset);

/*
 * fstat() that is the call of that name, as C libraries before glibc 2.39 ask by newfstatat(), which a confined
 * process may not (serve/syscalls.h). For descriptors that one has; -errno.
 */
int file_stat(int fd, struct stat *st);

/* Create a directory and its missing parents, each with this mode. One that exists is fine. */
int file_mkdirs(const char *path, mode_t mode, struct lslm_error *err);
/* The same for the directory that a file of this path would lie in. */
int file_make_parent(const char *path, mode_t mode, struct lslm_error *err);

/*
 * "$XDG_CACHE_HOME/lslm/NAME" and so on, malloc'd, after the XDG base directory rules: a relative
 * value counts as unset, and then it is ~/.cache, ~/.config or ~/.local/share. Nothing is created.
 * -ENOENT when HOME is unset as well.
 */
enum file_xdg {
	FILE_XDG_CACHE,
	FILE_XDG_CONFIG,
	FILE_XDG_DATA,
};

int file_xdg_path(char **out, enum file_xdg kind, const char *name, struct lslm_error *err);
/* "$XDG_CACHE_HOME/lslm/DIR/NAME", likewise, but its directory is made: it is the user's alone. */
int file_cache_path(char **out, const char *dir, const char *name, struct lslm_error *err);

#endif
