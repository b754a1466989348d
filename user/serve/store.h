/* SPDX-License-Identifier: MIT */
/*
 * The cloud's store: one directory, one file KEY.lskv per context.
 *
 * The directory is 0700 and its files 0600, because a context is its text in
 * other form. A file appears under its key only when it is whole: whoever adds one
 * writes it under a name from store_incoming() first. What a killed process
 * left there is removed at the next start. One process uses a store at a time.
 *
 * What is in it is bounded: when a new context would pass a limit, those that were not used for the longest time go
 * first, of the same salt where it is that tenant's limit. Pinned ones stay. The time of the last use is the file's time of modification,
 * which this program sets itself; a pin is an empty file KEY.pin beside the context.
 *
 * A key names one set of bits for as long as it is there: adding it again keeps the
 * first copy, so that a receiver can resume in the middle of it, unless that copy
 * is found damaged. Removing a context does not disturb those who are reading it.
 *
 * Every call may be made from any thread.
 */
#ifndef LSLM_SERVE_STORE_H
#define LSLM_SERVE_STORE_H

#include <limits.h>
#include <stdbool.h>

#include "kv/lskv.h"

struct store;

/* Creates the directory when it is missing. -EACCES when others may read it, -EBUSY when it is in use. */
int store_open(struct store **out, const char *dir, struct lslm_error *err);
void store_close(struct store *s);

struct store_limits {
	uint64_t max_bytes; /* of all contexts; 0: none */
	unsigned int ttl_s; /* unused for so long: removed by store_expire(); 0: never */
	/* Told of every context that is removed for want of room or for its age. NULL: nobody. */
	void (*gone)(void *arg, const struct kv_hash *key);
	void *arg;
};

/* Before other threads use the store. */
void store_limit(struct store *s, const struct store_limits *limits);

/* A fresh name in the store's directory. The caller creates the file, and adds or unlinks it. */
void store_incoming(struct store *s, char path[PATH_MAX]);
/*
 * The file at path becomes KEY.lskv, or is dropped because a whole copy is there already. Either way
 * the name is gone afterwards, also on failure. quota: bytes that contexts of its salt may take; 0: no limit. -EDQUOT: it does not fit,
 * or everything that could make room is pinned.
 */
int store_add(struct store *s, const char *path, const struct kv_hash *key, uint64_t quota,
	      struct lslm_error *err);
/*
 * How many bytes a new file of this key may have to be taken, all that is not pinned being removed for it; quota as above, of this
 * salt's contexts. No limit: UINT64_MAX, as for one that is here already.
 */
uint64_t store_most(struct store *s, const struct kv_hash *key, const struct kv_hash *salt,
		    uint64_t quota);
/* Is there a whole copy? Every block is read for that. */
bool store_has(struct store *s, const struct kv_hash *key);

/* -ENOENT for an unknown key, other errors for a damaged file. It counts as a use. */
int store_get(struct store *s, const struct kv_hash *key, struct lskv **out,
	      struct lslm_error *err);
/* The same, and it does not. */
int store_peek(struct store *s, const struct kv_hash *key, struct lskv **out,
	       struct lslm_error *err);
int store_remove(struct store *s, const struct kv_hash *key, struct lslm_error *err);

/* All keys there are; *keys is malloc'd for the caller. */
int store_list(struct store *s, struct kv_hash **keys, size_t *n, struct lslm_error *err);

/* -ENOENT for an unknown key. Pinning again changes nothing. */
int store_pin(struct store *s, const struct kv_hash *key, bool pinned, struct lslm_error *err);
bool store_is_pinned(struct store *s, const struct kv_hash *key);
/* Remove what is too old; to be called from time to time. Returns how many were. */
unsigned int store_expire(struct store *s);

/* Every block of every level against its digest. -EBADMSG names the first that differs. */
int store_verify(const struct lskv *f, struct lslm_error *err);

#endif
