/* SPDX-License-Identifier: MIT */
/*
 * The .lskv file: header, manifest, stripes.
 *
 * Writing is atomic: a temporary file beside the target, mode 0600, fsync, rename,
 * fsync of the directory. A failure leaves the old file, or none.
 * Reading validates the header and that the file is as long as the manifest says;
 * the blocks themselves are verified by whoever uses them, against the digests.
 * Stripes start at a multiple of LSLM_DIRECT_ALIGN in the file, so that they can be
 * read with O_DIRECT.
 */
#ifndef LSLM_KV_LSKV_H
#define LSLM_KV_LSKV_H

#include "kv/manifest.h"

struct lskv;

/*
 * Write a context. stripe_data(arg, s) returns the s-th stripe (stripe_bytes long), valid until
 * the next call. The manifest's digests, offsets and lengths are filled in here, then it is signed.
 */
typedef const void *lskv_stripe_fn(void *arg, uint32_t stripe);
int lskv_write(const char *path, struct manifest *m, const uint8_t seckey[MANIFEST_SECKEY_BYTES],
	       lskv_stripe_fn *stripe_data, void *arg, struct lslm_error *err);

int lskv_open(struct lskv **out, const char *path, struct lslm_error *err);
void lskv_close(struct lskv *f);

const struct manifest *lskv_manifest(const struct lskv *f);
/* The manifest's bytes as in the file, for verifying and for sending. */
const void *lskv_manifest_data(const struct lskv *f, size_t *size);
int lskv_fd(const struct lskv *f);
/* File offset of a block of a level. */
uint64_t lskv_block_offset(const struct lskv *f, const struct manifest_level *lv, uint32_t stripe,
			   uint32_t layer);

#endif
