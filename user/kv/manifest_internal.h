/* SPDX-License-Identifier: MIT */
/* What a manifest (manifest.c) and its bytes (manifest_wire.c) have in common: what it may say at all. */
#ifndef LSLM_KV_MANIFEST_INTERNAL_H
#define LSLM_KV_MANIFEST_INTERNAL_H

#include "kv/manifest.h"

/* Leaves room for everything else in the 63 bits of a file's size. */
#define MANIFEST_AREA_LIMIT (UINT64_C(1) << 62)

/* Of the whole context at this level. */
size_t manifest_units(const struct manifest *m, enum kv_level level);
/* Zeroed tables for a level of m; on -ENOMEM some are there, for manifest_free(). */
int manifest_alloc_level(const struct manifest *m, struct manifest_level *lv, enum kv_level level);
/* Was it made through a map? */
bool manifest_is_mapped(const struct manifest *m);

/* Each 0, or -EINVAL and what is wrong. Geometry and counts, before anything is allocated by them: */
int manifest_check_sizes(const struct manifest *m, struct lslm_error *err);
int manifest_check_title(const uint8_t *s, size_t n, struct lslm_error *err);
int manifest_check_tokens(const struct manifest *m, struct lslm_error *err);
/* Every unit of a size that can be, every stripe where sizes put it; *end: where the last level ends. */
int manifest_check_levels(const struct manifest *m, uint64_t *end, struct lslm_error *err);

#endif
