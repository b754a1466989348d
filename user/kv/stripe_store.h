/* SPDX-License-Identifier: MIT */
/*
 * The stripe store: verified stripes of published contexts, kept on disk over restarts.
 *
 *   DIR/KEY/LEVEL-STRIPE    a header of STRIPE_STORE_HEADER bytes, then the stripe as it travels
 *
 *   0   8   "lslmstrp"
 *   8   u32 version: 1 plain, 2 encrypted
 *   12  u32 level
 *   16  32  key of the context
 *   48  u32 stripe
 *   52  u32 zero
 *   56  u64 bytes that follow, as plain; little-endian like all of it
 *
 * With a key what follows is a nonce of 24 bytes, the blocks encrypted by XChaCha20-Poly1305, and its tag of 16; the header
 * is authenticated along. A store with a key takes plain files for wrong, and one without takes
 * encrypted ones so.
 *
 * KV can be turned back into its text, so DIR has mode 0700 and belongs to whoever runs this; one that
 * others can write is refused. Nothing is believed for having been stored: a stripe is checked
 * block by block against the signed manifest when it is loaded. One that is wrong in any way is deleted
 * and counted. Links are never followed below DIR.
 *
 * Files appear whole (temporary name, fsync, rename) and may vanish at any time, which is a
 * miss: any number of processes share a store. It is bounded by bytes and by age since the last
 * use, which is the file's modification time; least recently used goes first.
 *
 * A pinned context has a file DIR/KEY/pinned, a header and the u64 bytes that are set aside for it: as many of its stripes, those used last,
 * go for no reason but that they are wrong. What is set aside for all pins together is no more than the bound. It stays over restarts.
 *
 * Only what a publisher has signed belongs here, so whoever saves has verified it; blocks computed on
 * this machine are never saved. A store is used by several threads at a time.
 */
#ifndef LSLM_KV_STRIPE_STORE_H
#define LSLM_KV_STRIPE_STORE_H

#include <stdint.h>

#include "base/error.h"
#include "kv/manifest.h"

struct stripe_store;

enum {
	STRIPE_STORE_HEADER = 64,
	STRIPE_STORE_KEY = 32,
	STRIPE_STORE_SEAL = 24 + 16, /* bytes that encryption adds */
	STRIPE_STORE_DEFAULT_MIB = 4096,
	STRIPE_STORE_DEFAULT_DAYS = 30,
};

struct stripe_store_opts {
	const char *dir; /* NULL: $XDG_CACHE_HOME/lslm/stripes */
	uint64_t max_bytes; /* 0: STRIPE_STORE_DEFAULT_MIB */
	uint64_t max_age_s; /* 0: STRIPE_STORE_DEFAULT_DAYS */
	const uint8_t *key; /* [STRIPE_STORE_KEY] to encrypt with, copied; NULL: none */
};

struct stripe_store_stats {
	uint64_t loaded; /* stripes */
	uint64_t saved;
	uint64_t wrong; /* deleted, because they were not what was signed */
	uint64_t evicted;
};

/*
 * Makes the directory where it is missing, and drops what is too old or too much. -EACCES for a directory
 * of somebody else or one that others can write.
 */
int stripe_store_open(struct stripe_store **out, const struct stripe_store_opts *opts,
		      struct lslm_error *err);
/*
 * A key from a file of 64 hexadecimal digits. -EACCES when others than its owner may read it; -EINVAL: it holds
 * something else.
 */
int stripe_store_read_key(const char *path, uint8_t key[STRIPE_STORE_KEY], struct lslm_error *err);
/* Nobody else uses it any more. NULL is allowed. */
void stripe_store_close(struct stripe_store *s);

/*
 * The stripe as it travels to place (as long as the manifest says), verified: 0. -ENOENT when it is not there,
 * -EBADMSG when it was wrong and is not there any more; place holds anything then.
 */
int stripe_store_load(struct stripe_store *s, const struct manifest *m,
		      const struct manifest_level *lv, uint32_t stripe, void *place);

/*
 * Keep a verified stripe. One that is there already is left. -EDQUOT where what is pinned leaves no room for it, -EFBIG where the store's bound or
 * the file system has no room for it, -ENOSPC, -EDQUOT, -EROFS, ...: nothing is left behind.
 * Under RLIMIT_FSIZE the caller has SIGXFSZ blocked or ignored.
 */
int stripe_store_save(struct stripe_store *s, const struct manifest *m,
		      const struct manifest_level *lv, uint32_t stripe, const void *data,
		      struct lslm_error *err);

/*
 * Set so many bytes aside for this context, as of stripe_store_bytes(); once more: so many in place of before. -EDQUOT: they
 * do not fit beside the other pins.
 */
int stripe_store_pin(struct stripe_store *s, const struct kv_hash *key, uint64_t bytes,
		     struct lslm_error *err);
/* Where it was not pinned, nothing happens. */
void stripe_store_unpin(struct stripe_store *s, const struct kv_hash *key);
/* How many there are; of them at most max are put into keys. */
size_t stripe_store_pins(struct stripe_store *s, struct kv_hash *keys, size_t max);
/* What a stripe of so many bytes takes. */
uint64_t stripe_store_bytes(const struct stripe_store *s, size_t stripe);

void stripe_store_stats(const struct stripe_store *s, struct stripe_store_stats *out);

#endif
