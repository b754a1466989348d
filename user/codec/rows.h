/* SPDX-License-Identifier: MIT */
/*
 * A block as rows of floats, one per token: its key as it was before RoPE, then its value.
 *
 * Keys are stored turned by their position, so that the same content has another key wherever it stands. What learns from keys or makes
 * them wants them as the projection gave them; the turn is undone and done here. It is exact up to rounding.
 *
 *   row of token i: [n_head_kv * head_dim] key, [n_head_kv * head_dim] value
 *
 * codec/halves.h is not for maps: its angles, the same on every machine, may differ in the last bit from the engine's, used here.
 */
#ifndef LSLM_CODEC_ROWS_H
#define LSLM_CODEC_ROWS_H

#include <stdint.h>

#include "kv/geometry.h"
#include "model/model.h"

/* Floats of a row. */
uint32_t rows_width(const struct kv_geometry *geo);

/*
 * KV_BLOCK_TOKENS rows from the f16 block at in, whose first token stands at position first, and back. stride: floats from one
 * row to the next. m gives RoPE's parameters; geo is that model's.
 */
void rows_get(float *rows, size_t stride, const struct model *m, const struct kv_geometry *geo,
	      const uint8_t *in, uint32_t first);
void rows_put(uint8_t *out, const float *rows, size_t stride, const struct model *m,
	      const struct kv_geometry *geo, uint32_t first);

#endif
