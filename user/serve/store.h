/* SPDX-License-Identifier: MIT */
/*
 * The cloud's store: one directory, one file KEY.lskv per context.
 *
 * The directory is 0700 and its files 0600, because a context is its text in
 * other form. A file appears under its key only when it is whole: whoever adds one
 * writes it under a name from store_incoming() first. What a killed process
 * left there is removed at the next start. One process uses a store at a time.
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

#include "kv/lskv.h"

struct store;

/* Creates the directory when it is missing. -EACCES when others may read it, -EBUSY when it is in use. */
int store_open(struct store **out, const char *dir, struct lslm_error *err);
void store_close(struct store *s);

/* A fresh name in the store's directory. The caller creates the file, and adds or unlinks it. */
void store_incoming(struct store *s, char path[PATH_MAX]);
/*
 * The file at path becomes KEY.lskv, or is dropped because a whole copy is there already. Either way
 * the name is gone afterwards, also on failure.
 */
int store_add(struct store *s, const char *path, const struct kv_hash *key, struct lslm_error *err);

/* -ENOENT for an unknown key, other errors for a damaged file. */
int store_get(struct store *s, const struct kv_hash *key, struct lskv **out,
	      struct lslm_error *err);
int store_remove(struct store *s, const struct kv_hash *key, struct lslm_error *err);

/* All keys there are; *keys is malloc'd for the caller. */
int store_list(struct store *s, struct kv_hash **keys, size_t *n, struct lslm_error *err);

/* Every block of every level against its digest. -EBADMSG names the first that differs. */
int store_verify(const struct lskv *f, struct lslm_error *err);

#endif
