/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * A region's bookkeeping: which bytes of it a datagram may bring, and which have come.
 *
 * A region is a run of *units* (blocks), each cut into *chunks*: a chunk starts at every
 * multiple of `chunk` bytes from the unit's start and ends there or with the unit, so none
 * straddles two units. A datagram carries exactly one chunk. One bit per chunk makes placement
 * idempotent, one count per unit tells when the unit is complete, exactly once.
 *
 * Pure: no allocation, no locking, no I/O. The owner allocates lslm_region_bytes() of zeroed,
 * 8-byte aligned memory and gives it to lslm_region_init().
 */
#ifndef LSLM_REGION_H
#define LSLM_REGION_H

#include <linux/types.h>

#include "lslm/wire.h"

/*
 * Slots and offsets come from anybody, before anything is authenticated: the kernel keeps them in
 * bounds on paths not taken, too.
 */
#ifdef __KERNEL__
#include <linux/nospec.h>
#define LSLM_NOSPEC(i, n) array_index_nospec(i, n)
#else
#define LSLM_NOSPEC(i, n) (i)
#endif

enum {
	LSLM_REGION_UNITS_MAX = 4096,
	LSLM_REGION_CHUNKS_MAX = 1 << 22,
};

#define LSLM_REGION_BYTES_MAX (1U << 30)

/* Chunks first .. first + count - 1, numbered through the region. */
struct lslm_range {
	__u32 first;
	__u32 count;
};

struct lslm_region {
	__u32 length; /* bytes */
	__u32 chunk;
	__u32 n_units;
	__u32 n_chunks;
	__u32 unit_bytes; /* of every unit, 0 when they differ */
	__u32 chunks_missing;
	__u32 units_missing;
	__u64 *bits; /* [n_chunks], set: has come */
	__u32 *start; /* [n_units + 1] offset of each unit */
	__u32 *first; /* [n_units + 1] number of each unit's first chunk */
	__u32 *missing; /* [n_units] chunks of it that have not come */
};

static inline __u32 lslm_chunks_of(__u32 bytes, __u32 chunk)
{
	return bytes / chunk + !!(bytes % chunk);
}

/*
 * Non-zero when these may be a region: total length and number of chunks are stored then. The
 * units' lengths come from user space, so nothing is assumed of them.
 */
static inline int lslm_region_fits(const __u32 *units, __u32 n_units, __u32 chunk, __u32 *length,
				   __u32 *n_chunks)
{
	__u64 bytes = 0, chunks = 0;
	__u32 i;

	if (!n_units || n_units > LSLM_REGION_UNITS_MAX || chunk < LSLM_CHUNK_MIN ||
	    chunk > LSLM_CHUNK_MAX || chunk % LSLM_CHUNK_ALIGN)
		return 0;
	for (i = 0; i < n_units; i++) {
		if (!units[i])
			return 0;
		bytes += units[i];
		chunks += lslm_chunks_of(units[i], chunk);
	}
	if (bytes > LSLM_REGION_BYTES_MAX || chunks > LSLM_REGION_CHUNKS_MAX)
		return 0;
	*length = (__u32)bytes;
	*n_chunks = (__u32)chunks;
	return 1;
}

static inline __u32 lslm_region_words(__u32 n_chunks)
{
	return (n_chunks + 63) / 64;
}

/* Memory that lslm_region_init() wants, for what lslm_region_fits() accepted. */
static inline __u64 lslm_region_bytes(__u32 n_units, __u32 n_chunks)
{
	return 8ULL * lslm_region_words(n_chunks) + 4ULL * (3 * n_units + 2);
}

/* What lslm_region_fits() accepted; memory is zeroed and outlives the region. */
static inline void lslm_region_init(struct lslm_region *r, void *memory, const __u32 *units,
				    __u32 n_units, __u32 chunk, __u32 n_chunks)
{
	__u32 i;

	r->bits = (__u64 *)memory;
	r->start = (__u32 *)(r->bits + lslm_region_words(n_chunks));
	r->first = r->start + n_units + 1;
	r->missing = r->first + n_units + 1;
	r->chunk = chunk;
	r->n_units = n_units;
	r->n_chunks = n_chunks;
	r->unit_bytes = units[0];
	r->chunks_missing = n_chunks;
	r->units_missing = n_units;
	r->start[0] = 0;
	r->first[0] = 0;
	for (i = 0; i < n_units; i++) {
		r->missing[i] = lslm_chunks_of(units[i], chunk);
		r->start[i + 1] = r->start[i] + units[i];
		r->first[i + 1] = r->first[i] + r->missing[i];
		if (units[i] != r->unit_bytes)
			r->unit_bytes = 0;
	}
	r->length = r->start[n_units];
}

/* A unit that was complete before: nothing is ever placed there. */
static inline void lslm_region_skip_unit(struct lslm_region *r, __u32 unit)
{
	__u32 i;

	if (!r->missing[unit])
		return;
	for (i = r->first[unit]; i < r->first[unit + 1]; i++)
		r->bits[i / 64] |= 1ULL << (i % 64);
	r->chunks_missing -= r->missing[unit];
	r->missing[unit] = 0;
	r->units_missing--;
}

/* The unit that offset, which is below r->length, lies in. */
static inline __u32 lslm_region_unit(const struct lslm_region *r, __u32 offset)
{
	__u32 low = 0, high = r->n_units, middle;

	if (r->unit_bytes)
		return offset / r->unit_bytes;
	while (high - low > 1) {
		middle = low + (high - low) / 2;
		if (r->start[middle] <= offset)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* Non-zero when length bytes at offset are one chunk: its unit and number are stored then. */
static inline int lslm_region_find(const struct lslm_region *r, __u64 offset, __u32 length,
				   __u32 *unit, __u32 *chunk)
{
	__u32 at, u, within, left;

	if (offset >= r->length)
		return 0;
	at = LSLM_NOSPEC((__u32)offset, r->length);
	u = lslm_region_unit(r, at);
	within = at - r->start[u];
	left = r->start[u + 1] - at;
	if (within % r->chunk || length != (left < r->chunk ? left : r->chunk))
		return 0;
	*unit = u;
	*chunk = r->first[u] + within / r->chunk;
	return 1;
}

/* Offset and length of a chunk; chunk is below r->n_chunks. */
static inline void lslm_region_chunk(const struct lslm_region *r, __u32 chunk, __u32 *offset,
				     __u32 *length)
{
	__u32 low = 0, high = r->n_units, middle, left;

	if (r->unit_bytes) {
		low = chunk / r->first[1];
	} else {
		while (high - low > 1) {
			middle = low + (high - low) / 2;
			if (r->first[middle] <= chunk)
				low = middle;
			else
				high = middle;
		}
	}
	*offset = r->start[low] + (chunk - r->first[low]) * r->chunk;
	left = r->start[low + 1] - *offset;
	*length = left < r->chunk ? left : r->chunk;
}

static inline int lslm_region_has(const struct lslm_region *r, __u32 chunk)
{
	return r->bits[chunk / 64] >> (chunk % 64) & 1;
}

/* A chunk that was not there has come. Non-zero when its unit is complete with it. */
static inline int lslm_region_mark(struct lslm_region *r, __u32 unit, __u32 chunk)
{
	r->bits[chunk / 64] |= 1ULL << (chunk % 64);
	r->chunks_missing--;
	if (--r->missing[unit])
		return 0;
	r->units_missing--;
	return 1;
}

/* Runs of chunks that have not come, from chunk `from` on, at most max of them. */
static inline __u32 lslm_region_missing(const struct lslm_region *r, __u32 from,
					struct lslm_range *ranges, __u32 max)
{
	__u32 n = 0, i = from;

	while (i < r->n_chunks && n < max) {
		/* Whole words that have come are the common case. */
		if (!(i % 64) && r->bits[i / 64] == ~0ULL) {
			i += 64;
			continue;
		}
		if (lslm_region_has(r, i)) {
			i++;
			continue;
		}
		/* Not looked at again: the module reads while chunks come, and a range is never empty. */
		ranges[n].first = i;
		do
			i++;
		while (i < r->n_chunks && !lslm_region_has(r, i));
		ranges[n].count = i - ranges[n].first;
		n++;
	}
	return n;
}

#endif
