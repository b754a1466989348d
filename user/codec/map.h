/* SPDX-License-Identifier: MIT */
/*
 * Maps: a larger model's context for a smaller one.
 *
 * A map makes, from the KV of model A (the cloud's), KV in the geometry of model B (the edge's), token by token: both
 * have the same tokenizer. Rows are those of codec/rows.h. For each layer of B and each half (K, V)
 *
 *   y = keep * own + x W + bias       x: rows of `count` layers of A from `first` on, side by side
 *
 * where own is what B itself computes for this token, in the cloud as well; keep is the gate of that layer (0: B need not run;
 * 1 with count 0: the layer is B's own). W is dense, [n_in][n_out], or of rank r, [n_in][r] times [r][n_out].
 *
 * File, all integers and floats little-endian:
 *
 *     0  "LSLM map", u32 version 1, u32 0
 *    16  geometry of A: u32 layers, KV heads, head size;  28  of B
 *    40  fingerprint of A (32 bytes);  72  of B;  104  of their tokenizer
 *   136  evaluation on text that the map was not made from (kv/proof.h)
 *   192  for each layer of B, K then V: u32 first, u32 count, u32 rank (0: dense), f32 keep
 *        for each of these again: f32 bias [n_out], f32 W, its factors one after the other
 *
 * Between models of one shape there is a simpler map: layers are taken as they are, but for a run of them that is computed at the edge (kv/run.h).
 * Such a file is of version 2, A and B have one geometry, and instead of parts and what follows it has
 *
 *   192  run: u32 first, u32 end, u32 values of the hidden state, u32 0
 *
 *   end - 32  BLAKE2b-256 of "lslm map v1" (base/hash.h) and everything before: the map's fingerprint
 *
 * The fingerprint covers the evaluation: a context that was made with a map says, by its key, with what proof.
 */
#ifndef LSLM_CODEC_MAP_H
#define LSLM_CODEC_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/geometry.h"
#include "kv/key.h"
#include "kv/proof.h"
#include "kv/run.h"

enum {
	MAP_VERSION = 1,
	MAP_VERSION_RUN = 2,
	MAP_MAX_BYTES = 1 << 30,
};

struct map_part {
	uint32_t first, count; /* layers of A */
	uint32_t rank;
	float keep;
	float *bias; /* [n_out] */
	float *a; /* [n_in][rank or n_out] */
	float *b; /* [rank][n_out]; NULL where dense */
};

struct map {
	struct kv_geometry from, to;
	struct kv_hash model_from, model_to, tokenizer;
	struct proof evaluation;
	struct kv_hash fingerprint; /* of the file as read or written */
	struct map_part *parts; /* [to.n_layer][2]; NULL: layers are taken as they are, but for */
	struct kv_run run;
	void *memory; /* of all weights */
};

/* Of every part: values of x and y. */
uint32_t map_n_in(const struct map *m, const struct map_part *p);
uint32_t map_n_out(const struct map *m);

/* shape: [to->n_layer * 2], of which first, count, rank and keep are used. Weights are 0. -EINVAL for shapes a file cannot have. */
int map_new(struct map **out, const struct kv_geometry *from, const struct kv_geometry *to,
	    const struct map_part *shape, struct lslm_error *err);
/* Of one shape: the layers outside the run as they are. -EINVAL for what is no run. */
int map_new_run(struct map **out, const struct kv_geometry *geo, const struct kv_run *run,
		struct lslm_error *err);
void map_free(struct map *m);

/* -EINVAL for bytes that are no map of this version, -EBADMSG for a wrong digest. Weights that are no numbers are refused. */
int map_parse(struct map **out, const void *data, size_t size, struct lslm_error *err);
int map_read(struct map **out, const char *path, struct lslm_error *err);
/* Fills in the fingerprint. */
int map_write(struct map *m, const char *path, struct lslm_error *err);

/* Is it one between models of one shape? Its values are not made by map_rows(). */
bool map_is_run(const struct map *m);
/* Does any layer need B's own values? Is this one B's own and nothing else? */
bool map_needs_own(const struct map *m);
bool map_is_own(const struct map *m, uint32_t layer);
/* Is it known to be better than B alone? See proof_holds(). */
bool map_is_proven(const struct map *m, char *why, size_t room);

/*
 * KV_BLOCK_TOKENS rows of all layers: x [from.n_layer][KV_BLOCK_TOKENS][rows_width(from)], own and y [to.n_layer][KV_BLOCK_TOKENS]
 * [rows_width(to)]. own may be NULL unless map_needs_own(). scratch: map_scratch() floats.
 */
void map_rows(const struct map *m, const float *x, const float *own, float *y, float *scratch);
size_t map_scratch(const struct map *m);

#endif
