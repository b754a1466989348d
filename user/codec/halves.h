/* SPDX-License-Identifier: MIT */
/*
 * Halves at f16, [kv_head][64][head_dim], as 64 rows of channels, keys with their position taken out, and back.
 *
 * codec/rows.h is not for levels: it turns by the engine's angles, whose last bit may differ from one machine to the next.
 */
#ifndef LSLM_CODEC_HALVES_H
#define LSLM_CODEC_HALVES_H

#include "codec/turn.h"
#include "kv/geometry.h"

/* Angles of 64 positions from first on, turn_angles() each: [64][turn->dims], malloc'd; NULL without memory. */
float *halves_angles(const struct turn_params *turn, uint32_t first);

/* rows: [64][n_head_kv * head_dim]. cs: halves_angles() for keys, NULL for values. */
void halves_gather(float *rows, const uint16_t *half, const struct kv_geometry *geo,
		   const struct turn_params *turn, const float *cs);
/* Overwrites rows. Pads the half with zeros. */
void halves_scatter(uint16_t *half, float *rows, const struct kv_geometry *geo,
		    const struct turn_params *turn, const float *cs);

#endif
