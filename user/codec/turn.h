/* SPDX-License-Identifier: MIT */
/*
 * Rotary position embedding as a level needs it: undone and done again with the same numbers on every machine.
 *
 * The engine's own (compute/ops.h) uses the C library's cosine, whose last bit differs between libraries; here angles
 * and their cosines are made by additions and products alone.
 */
#ifndef LSLM_CODEC_TURN_H
#define LSLM_CODEC_TURN_H

#include <stdbool.h>
#include <stdint.h>

enum { TURN_MAX_DIMS = 1024 };

struct turn_params {
	uint32_t dims; /* the first so many dimensions of a head are turned; even, may be 0 */
	bool halves; /* (i, i + dims/2) are a pair; else (2i, 2i + 1) */
	double rates[TURN_MAX_DIMS / 2]; /* radians per position of each pair, within -64..64 */
};

/* base^(-2i/dims) * scale / factors[i], as the model has it; factors may be NULL. */
void turn_rates(struct turn_params *p, double base, double scale, const float *factors);

/* cs: [dims], cosine and sine of pair i at a position, at 2i and 2i + 1. */
void turn_angles(float *cs, const struct turn_params *p, uint32_t position);

/* Turn one head at a position's angles; back: the other way. */
void turn_head(float *x, const struct turn_params *p, const float *cs, bool back);

#endif
