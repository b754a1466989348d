/* SPDX-License-Identifier: MIT */
/*
 * The .lskv file: header, manifest, stripes.
 *
 * Writing is atomic: a temporary file beside the target, mode 0600, fsync, rename,
 * fsync of the directory. A failure leaves the old file, or none.
 * Reading validates the header and that the file is as long as the manifest says;
 * the blocks themselves are verified by whoever uses them, against the digests.
 * The stripe area starts at a multiple of LSLM_DIRECT_ALIGN in the file, as each level does in it. A plain
 * level is laid out as in memory, so blocks whose size is a multiple as well (n_head_kv * head_dim a
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
 * Write a context. stripe_data(arg, lv, s) returns the s-th stripe at level m->levels[lv], valid until the next
 * call, or NULL to give up (-ECANCELED). It is called level by level, once for each stripe in order.
 * Where a level is not plain (kv_level_is_plain()) it also says what each unit has in
 * m->levels[lv].unit_bytes; the manifest's digests and all offsets are filled in here, then it is signed
 * (manifest_encode()).
 */
typedef const void *lskv_stripe_fn(void *arg, uint32_t lv, uint32_t stripe);
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
/* File offset of a unit of a stripe. */
uint64_t lskv_unit_offset(const struct lskv *f, const struct manifest_level *lv, uint32_t stripe,
			  uint32_t unit);
/* The digest of a unit as it is in the file, whatever the manifest says; -errno where it cannot be read. */
int lskv_unit_digest(const struct lskv *f, const struct manifest_level *lv, uint32_t stripe,
		     uint32_t unit, struct kv_hash *digest);

#endif
