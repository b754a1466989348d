/* SPDX-License-Identifier: MIT */
/*
 * A table of distinct byte strings, numbered from 0 in the order they came.
 *
 * It holds a vocabulary: token id = number. The strings lie end to end in one block, so that
 * the table's memory is their bytes and about 24 bytes more for each. Not for sharing while
 * strings are added; afterwards it is only read.
 */
#ifndef LSLM_MODEL_STRTAB_H
#define LSLM_MODEL_STRTAB_H

#include <stddef.h>
#include <stdint.h>

struct strtab {
	uint32_t n;
	size_t longest; /* bytes of the longest string */
	/* private */
	uint32_t cap, mask;
	size_t bytes_cap;
	char *bytes;
	size_t *ends; /* string i is bytes[ends[i - 1], ends[i]) */
	uint32_t *slots; /* open addressing; number + 1, or 0 */
};

/* Zeroed memory is an empty table. */
void strtab_free(struct strtab *t);

/* The number of a string, or -1. */
int32_t strtab_find(const struct strtab *t, const char *s, size_t len);

/*
 * The number of a string, which is added where it is new: it was new if that is the n of
 * before. -ENOMEM, -E2BIG at INT32_MAX / 4 strings.
 */
int32_t strtab_intern(struct strtab *t, const char *s, size_t len);

/* String i < n, not NUL-terminated; valid until the next strtab_intern(). */
const char *strtab_get(const struct strtab *t, uint32_t i, size_t *len);

#endif
