// SPDX-License-Identifier: MIT
#include "codec/rows.h"

#include <string.h>

#include "compute/ops.h"
#include "compute/quant.h"

uint32_t rows_width(const struct kv_geometry *geo)
{
	return 2 * geo->n_head_kv * geo->head_dim;
}

/* direction 1: as a key at this position is turned; -1: back. */
static void angles(float *cs, const struct model *m, uint32_t position, float direction)
{
	const struct model_params *p = &m->params;

	ops_rope_angles(cs, position, p->rope_dims, p->rope_base, p->rope_scale, m->rope_factors);
	for (uint32_t i = 1; i < p->rope_dims; i += 2)
		cs[i] *= direction;
}

void rows_get(float *rows, size_t stride, const struct model *m, const struct kv_geometry *geo,
	      const uint8_t *in, uint32_t first)
{
	const uint16_t *keys = (const uint16_t *)in;
	const uint16_t *values = (const uint16_t *)(in + kv_half_bytes(geo, KV_LEVEL_F16));
	const uint32_t d = geo->head_dim, half = geo->n_head_kv * d;
	float cs[KV_MAX_HEAD_DIM];

	for (uint32_t i = 0; i < KV_BLOCK_TOKENS; i++, rows += stride) {
		angles(cs, m, first + i, -1);
		for (uint32_t h = 0; h < geo->n_head_kv; h++) {
			const size_t at = ((size_t)h * KV_BLOCK_TOKENS + i) * d;

			f16_row_to_f32(keys + at, rows + h * d, d);
			f16_row_to_f32(values + at, rows + half + h * d, d);
			ops_rope_turn(rows + h * d, cs, m->params.rope_dims,
				      m->params.rope_layout == ROPE_HALVES);
		}
	}
}

void rows_put(uint8_t *out, const float *rows, size_t stride, const struct model *m,
	      const struct kv_geometry *geo, uint32_t first)
{
	uint16_t *keys = (uint16_t *)out;
	uint16_t *values = (uint16_t *)(out + kv_half_bytes(geo, KV_LEVEL_F16));
	const uint32_t d = geo->head_dim, half = geo->n_head_kv * d;
	float cs[KV_MAX_HEAD_DIM], key[KV_MAX_HEAD_DIM];

	for (uint32_t i = 0; i < KV_BLOCK_TOKENS; i++, rows += stride) {
		angles(cs, m, first + i, 1);
		for (uint32_t h = 0; h < geo->n_head_kv; h++) {
			const size_t at = ((size_t)h * KV_BLOCK_TOKENS + i) * d;

			memcpy(key, rows + h * d, d * sizeof(*key));
			ops_rope_turn(key, cs, m->params.rope_dims,
				      m->params.rope_layout == ROPE_HALVES);
			f32_row_to_f16(key, keys + at, d);
			f32_row_to_f16(rows + half + h * d, values + at, d);
		}
	}
}
