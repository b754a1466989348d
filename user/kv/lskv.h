/* SPDX-License-Identifier: MIT */
/*
 * The .lskv file: header, manifest, stripes.
 *
 * Writing is atomic: a temporary file beside the target, mode 0600, fsync, rename,
 * fsync of the directory. A failure leaves the old file, or none.
 * Reading validates the header and that the file is as long as the manifest says;
 * the blocks themselves are verified by whoever uses them, against the digests.
 * The stripe area starts at a multiple of LSLM_DIRECT_ALIGN in the file; within it a level is
 * laid out as in memory, so blocks whose size is a multiple as well (n_head_kv * head_dim a
 * multiple of 32 at f16, which every common model has) can be read with O_DIRECT.
 *
 * A file that is open is not locked: one that is replaced stays readable as it was, one that is
 * changed in place fails its digests.
 */
#ifndef LSLM_KV_LSKV_H
#define LSLM_KV_LSKV_H

#include "kv/manifest.h"

struct lskv;

/*
 * Write a context of one level. stripe_data(arg, s) returns the s-th stripe (stripe_bytes long),
 * valid until the next call, or NULL to give up (-ECANCELED). It is called once for each stripe,
 * in order. The manifest's digests are filled in here, then it is signed (manifest_encode()).
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
/* File offset of the stripe area. */
uint64_t lskv_area_offset(const struct lskv *f);
/* File offset of a block of a level. */
uint64_t lskv_block_offset(const struct lskv *f, const struct manifest_level *lv, uint32_t stripe,
			   uint32_t layer);

#endif
