/* SPDX-License-Identifier: MIT */
/*
 * Where a context's values lie: block format v1, in bytes.
 *
 * block  = KV_BLOCK_TOKENS tokens x one layer x {K, V}: first K, then V, each
 *          [kv_head][KV_BLOCK_TOKENS][head_dim], little-endian, each starting at
 *          a multiple of 64 bytes. Keys are after RoPE at their absolute position.
 * stripe = one block position x all layers, contiguous, in layer order.
 * Only full blocks are stored; the last n_tokens % KV_BLOCK_TOKENS tokens of a
 * context are recomputed where they are used.
 *
 * A segment in memory is a run of stripes: block (stripe s, layer l) starts at
 * s * stripe_bytes + l * block_bytes. The same arithmetic serves files, buffers
 * and the wire, so it is in this file only. Every function here is exact or
 * says so: kv_geometry_check() has ruled out overflow beforehand.
 */
#ifndef LSLM_KV_GEOMETRY_H
#define LSLM_KV_GEOMETRY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
	KV_FORMAT_VERSION = 1, /* of this layout; part of every key */
	KV_BLOCK_TOKENS = 64,
	KV_ALIGN = 64,
	KV_MAX_LAYERS = 1024,
	KV_MAX_HEADS = 1024,
	KV_MAX_HEAD_DIM = 1024,
	KV_MAX_TOKENS = 1 << 24,
};

/* How a block's values are stored. Numbered as on the wire and in files. */
enum kv_level {
	KV_LEVEL_F16 = 0,
	KV_LEVEL_Q8 = 1,
	KV_LEVEL_Q4 = 2,
	KV_LEVEL_E = 3,
	KV_LEVEL_P = 4,
};

struct kv_geometry {
	uint32_t n_layer;
	uint32_t n_head_kv;
	uint32_t head_dim;
};

/* -EINVAL for a zero or over-limit field; after 0 no product below can overflow size_t. */
int kv_geometry_check(const struct kv_geometry *geo, struct lslm_error *err);

/* "f16"; NULL for a number that is no level of this version. */
const char *kv_level_name(uint32_t level);

/* Bytes of K alone (V starts there), of a block, of a stripe. */
size_t kv_half_bytes(const struct kv_geometry *geo, enum kv_level level);
size_t kv_block_bytes(const struct kv_geometry *geo, enum kv_level level);
size_t kv_stripe_bytes(const struct kv_geometry *geo, enum kv_level level);

#endif
