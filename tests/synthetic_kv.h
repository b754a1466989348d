/* SPDX-License-Identifier: MIT */
/* Keys and values as a model might make them, and a calibration made from them, for what fuzzes and measures levels. */
#ifndef LSLM_TESTS_SYNTHETIC_KV_H
#define LSLM_TESTS_SYNTHETIC_KV_H

#include <stdlib.h>

#include "codec/calibration.h"
#include "compute/quant.h"

/* Bell-shaped, neighbouring channels alike, some larger than others; malloc'd. */
static inline uint8_t *synthetic_stripe(const struct kv_geometry *geo, uint64_t seed)
{
	const size_t half = kv_half_bytes(geo, KV_LEVEL_F16);
	uint8_t *stripe = calloc(1, kv_stripe_bytes(geo, KV_LEVEL_F16));
	float last = 0;

	for (uint32_t i = 0; stripe && i < 2 * geo->n_layer; i++)
		for (uint32_t k = 0; k < geo->n_head_kv * KV_BLOCK_TOKENS * geo->head_dim; k++) {
			float sum = 0;

			for (int n = 0; n < 4; n++) {
				seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
				sum += (float)(seed >> 40) / (1 << 23) - 1;
			}
			last = k % geo->head_dim ? 0.7f * last + sum : sum;
			((uint16_t *)(stripe + i * half))[k] =
				f32_to_f16(last * (float)(1 + k % geo->head_dim % 3));
		}
	return stripe;
}

static inline int synthetic_calibration(struct calibration **out, const struct kv_geometry *geo)
{
	struct turn_params turn = { .dims = geo->head_dim / 2 * 2 };
	const struct kv_hash model = { .b = "synthetic" };
	struct calibrator *c = NULL;
	int rc;

	turn_rates(&turn, 1e4, 1, NULL);
	rc = calibrator_new(&c, geo, &turn, &model, NULL);
	for (uint32_t s = 0; !rc && s < 8; s++) {
		uint8_t *stripe = synthetic_stripe(geo, s + 2);

		rc = stripe ? calibrator_add(c, stripe, s * KV_BLOCK_TOKENS) : -1;
		free(stripe);
	}
	if (!rc)
		rc = calibrator_finish(c, out, NULL);
	calibrator_free(c);
	return rc;
}

#endif
