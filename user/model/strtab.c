// SPDX-License-Identifier: MIT
#include "model/strtab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

void strtab_free(struct strtab *t)
{
	free(t->bytes);
	free(t->ends);
	free(t->slots);
	*t = (struct strtab){ 0 };
}

const char *strtab_get(const struct strtab *t, uint32_t i, size_t *len)
{
	size_t start = i ? t->ends[i - 1] : 0;

	*len = t->ends[i] - start;
	return t->bytes + start;
}

/* The slot that holds the string, or the empty one where it belongs. */
static uint32_t *find_slot(const struct strtab *t, const char *s, size_t len)
{
	uint32_t at = (uint32_t)XXH3_64bits(s, len) & t->mask;
	const char *other;
	size_t n;

	while (t->slots[at]) {
		other = strtab_get(t, t->slots[at] - 1, &n);
		if (n == len && memcmp(other, s, len) == 0)
			break;
		at = (at + 1) & t->mask;
	}
	return &t->slots[at];
}

int32_t strtab_find(const struct strtab *t, const char *s, size_t len)
{
	if (!t->n || len > t->longest)
		return -1;
	return (int32_t)*find_slot(t, s, len) - 1;
}

/* Room for one more string; the slots are never more than half full. */
static int grow(struct strtab *t)
{
	uint32_t cap = t->cap ? t->cap * 2 : 256;
	uint32_t *slots;
	size_t *ends;

	if (t->n < t->cap)
		return 0;
	if (t->n >= INT32_MAX / 4)
		return -E2BIG;
	ends = realloc(t->ends, cap * sizeof(*ends));
	if (!ends)
		return -ENOMEM;
	t->ends = ends;
	slots = calloc((size_t)cap * 2, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	free(t->slots);
	t->slots = slots;
	t->cap = cap;
	t->mask = cap * 2 - 1;
	for (uint32_t i = 0; i < t->n; i++) {
		size_t len;
		const char *s = strtab_get(t, i, &len);

		*find_slot(t, s, len) = i + 1;
	}
	return 0;
}

static int append(struct strtab *t, const char *s, size_t len)
{
	size_t used = t->n ? t->ends[t->n - 1] : 0, need;

	if (__builtin_add_overflow(used, len, &need))
		return -ENOMEM;
	if (need > t->bytes_cap || !t->bytes) {
		size_t cap = need + need / 2 + 64;
		char *bytes = realloc(t->bytes, cap);

		if (!bytes)
			return -ENOMEM;
		t->bytes = bytes;
		t->bytes_cap = cap;
	}
	memcpy(t->bytes + used, s, len);
	t->ends[t->n++] = need;
	if (len > t->longest)
		t->longest = len;
	return 0;
}

int32_t strtab_intern(struct strtab *t, const char *s, size_t len)
{
	int32_t i = strtab_find(t, s, len);
	int ret;

	if (i >= 0)
		return i;
	ret = grow(t);
	if (ret == 0)
		ret = append(t, s, len);
	if (ret < 0)
		return ret;
	/* After append() the search finds no equal string, as no slot refers to the new one. */
	*find_slot(t, s, len) = t->n;
	return (int32_t)t->n - 1;
}
