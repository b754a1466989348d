// SPDX-License-Identifier: MIT
#include "codec/halves.h"

#include <stdlib.h>
#include <string.h>

#include "compute/quant.h"

float *halves_angles(const struct turn_params *turn, uint32_t first)
{
	float *cs = malloc((size_t)KV_BLOCK_TOKENS * (turn->dims + 1) * sizeof(*cs));

	for (uint32_t t = 0; cs && t < KV_BLOCK_TOKENS; t++)
		turn_angles(cs + (size_t)t * turn->dims, turn, first + t);
	return cs;
}

void halves_gather(float *rows, const uint16_t *half, const struct kv_geometry *geo,
		   const struct turn_params *turn, const float *cs)
{
	const uint32_t d = geo->head_dim;

	for (uint32_t h = 0; h < geo->n_head_kv; h++)
		for (uint32_t t = 0; t < KV_BLOCK_TOKENS; t++) {
			float *row = rows + ((size_t)t * geo->n_head_kv + h) * d;

			f16_row_to_tame(half + ((size_t)h * KV_BLOCK_TOKENS + t) * d, row, d);
			if (cs)
				turn_head(row, turn, cs + (size_t)t * turn->dims, true);
		}
}

void halves_scatter(uint16_t *half, float *rows, const struct kv_geometry *geo,
		    const struct turn_params *turn, const float *cs)
{
	const size_t used = sizeof(*half) * KV_BLOCK_TOKENS * kv_channels(geo);
	const uint32_t d = geo->head_dim;

	for (uint32_t h = 0; h < geo->n_head_kv; h++)
		for (uint32_t t = 0; t < KV_BLOCK_TOKENS; t++) {
			float *row = rows + ((size_t)t * geo->n_head_kv + h) * d;

			if (cs)
				turn_head(row, turn, cs + (size_t)t * turn->dims, false);
			f32_row_to_f16(row, half + ((size_t)h * KV_BLOCK_TOKENS + t) * d, d);
		}
	memset((uint8_t *)half + used, 0, kv_half_bytes(geo, KV_LEVEL_F16) - used);
}
