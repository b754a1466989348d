/* SPDX-License-Identifier: MIT */
/*
 * What a file was when it was looked at: enough to see that it is another one, or was written to. Times
 * are in nanoseconds; two changes within one tick of the file system's clock look like one.
 */
#ifndef LSLM_BASE_STAMP_H
#define LSLM_BASE_STAMP_H

#include <stdbool.h>
#include <stdint.h>

struct stamp {
	uint64_t dev, ino, size, mtime, ctime;
	uint64_t links; /* kept in memory only */
};

enum { STAMP_BYTES = 40 }; /* of the first five, as stamp_put() writes them */

/* -errno of file_stat(). */
int stamp_of(int fd, struct stamp *stamp);
bool stamp_equal(const struct stamp *a, const struct stamp *b);
void stamp_put(const struct stamp *stamp, uint8_t bytes[STAMP_BYTES]);

/*
 * Was the open file written to since? A name that was removed or replaced changes the ctime as well, but not
 * what a descriptor reads; so ctime counts while the number of names is the same.
 */
bool stamp_unchanged(int fd, const struct stamp *then);

#endif
