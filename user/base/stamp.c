// SPDX-License-Identifier: MIT
#include "base/stamp.h"

#include <sys/stat.h>
#include <time.h>

#include "base/bytes.h"
#include "base/file.h"

static uint64_t nanoseconds(struct timespec t)
{
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int stamp_of(int fd, struct stamp *stamp)
{
	struct stat st;
	int ret = file_stat(fd, &st);

	if (ret)
		return ret;
	*stamp = (struct stamp){
		.dev = st.st_dev,
		.ino = st.st_ino,
		.size = (uint64_t)st.st_size,
		.mtime = nanoseconds(st.st_mtim),
		.ctime = nanoseconds(st.st_ctim),
		.links = st.st_nlink,
	};
	return 0;
}

bool stamp_equal(const struct stamp *a, const struct stamp *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime == b->mtime &&
	       a->ctime == b->ctime;
}

void stamp_put(const struct stamp *stamp, uint8_t bytes[STAMP_BYTES])
{
	put_le64(bytes, stamp->dev);
	put_le64(bytes + 8, stamp->ino);
	put_le64(bytes + 16, stamp->size);
	put_le64(bytes + 24, stamp->mtime);
	put_le64(bytes + 32, stamp->ctime);
}

bool stamp_unchanged(int fd, const struct stamp *then)
{
	struct stamp now = { 0 };

	return !stamp_of(fd, &now) && now.size == then->size && now.mtime == then->mtime &&
	       (now.ctime == then->ctime || now.links != then->links);
}
