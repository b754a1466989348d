/* SPDX-License-Identifier: MIT */
/*
 * Where a context's values lie: block format v1, in bytes.
 *
 * block  = KV_BLOCK_TOKENS tokens x one layer x {K, V}: first K, then V, each
 *          [kv_head][KV_BLOCK_TOKENS][head_dim], little-endian, each starting at
 *          a multiple of 64 bytes. Keys are after RoPE at their absolute position.
 * stripe = one block position x all layers, contiguous, in layer order.
 * An E block, where a stripe has one (kv/run.h), is its first: the hidden state of the block's tokens, [KV_BLOCK_TOKENS][hidden],
 * f16 at level f16 and in memory where a level is decoded, else like a half of q8 (compute/kvq.h) of hidden / 32 heads of 32.
 * It counts as a layer wherever blocks are counted.
 * Only full blocks are stored; the last n_tokens % KV_BLOCK_TOKENS tokens of a
 * context are recomputed where they are used.
 *
 * A segment in memory is a run of stripes of one level: block (stripe s, layer l) starts at
 * s * stripe_bytes + l * block_bytes. The same arithmetic serves files, buffers
 * and the wire, so it is in this file only.
 *
 * Levels. f16, q8 and q4 are read where they lie (compute/kvq.h has the layout of the latter two). e and p
 * travel in another form, of a length that differs from unit to unit (codec/codec.h); they are
 * decoded to f16, so everything here that is about memory takes them for f16.
 * In a buffer stripes of several levels stand side by side: each starts at a multiple of the
 * *pitch*, which is the size of the largest stripe that may come. Every function here is exact or
 * says so: kv_geometry_check() has ruled out overflow beforehand.
 */
#ifndef LSLM_KV_GEOMETRY_H
#define LSLM_KV_GEOMETRY_H

#include <stdbool.h>
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
	KV_MAX_HIDDEN = 1 << 16,
	KV_HIDDEN_ALIGN = 32,
};

/* How a block's values are stored, finest first. Numbered as on the wire and in files. */
enum kv_level { KV_LEVEL_F16 = 0, KV_LEVEL_Q8, KV_LEVEL_Q4, KV_LEVEL_E, KV_LEVEL_P, KV_LEVELS };

struct kv_geometry {
	uint32_t n_layer;
	uint32_t n_head_kv;
	uint32_t head_dim;
	uint32_t hidden; /* of the E block, which is one of the n_layer; 0: there is none */
};

/* -EINVAL for a zero or over-limit field; after 0 no product below can overflow size_t. */
int kv_geometry_check(const struct kv_geometry *geo, struct lslm_error *err);

/* "f16"; NULL for a number that is no level of this version. */
const char *kv_level_name(uint32_t level);
/* The level of that name; -EINVAL when there is none. */
int kv_level_parse(const char *name);

/* Bits 1 << enum kv_level of names with commas between them; -EINVAL for another name or none. */
int kv_levels_parse(const char *list, uint32_t *bits, struct lslm_error *err);

/* The level at which it lies in memory: its own, or f16 for those that are decoded on arrival. */
enum kv_level kv_level_in_memory(enum kv_level level);
/* Has every unit of it the size that the geometry gives, kv_block_bytes()? */
bool kv_level_is_plain(enum kv_level level);
/* What is decoded, checked and sent at once: n_layer blocks of a stripe, or 1, the stripe as a whole. */
uint32_t kv_level_units(const struct kv_geometry *geo, enum kv_level level);

/* Values of a token in a layer, of K or of V. */
size_t kv_channels(const struct kv_geometry *geo);

/* Bytes in memory of K alone (V starts there), of a block of K and V, of a stripe. */
size_t kv_half_bytes(const struct kv_geometry *geo, enum kv_level level);
size_t kv_block_bytes(const struct kv_geometry *geo, enum kv_level level);
size_t kv_stripe_bytes(const struct kv_geometry *geo, enum kv_level level);
/* Is this block of a stripe an E block? Bytes in memory of it, or of one of K and V; where in the stripe it begins. */
bool kv_is_hidden(const struct kv_geometry *geo, uint32_t block);
size_t kv_unit_bytes(const struct kv_geometry *geo, enum kv_level level, uint32_t block);
size_t kv_unit_offset(const struct kv_geometry *geo, enum kv_level level, uint32_t block);

#endif
