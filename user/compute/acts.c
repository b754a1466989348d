// SPDX-License-Identifier: MIT
#include "compute/acts.h"

#include <stdbool.h>
#include <string.h>

#include "base/clones.h"
#include "compute/acts_avx512.h"
#include "compute/half.h"

uint32_t acts_tiles(uint32_t m)
{
	return (m + ACTS_ROWS - 1) / ACTS_ROWS;
}

uint32_t acts_tile_rows(uint32_t m, uint32_t tile)
{
	const uint32_t left = m - tile * ACTS_ROWS;

	return left > 4 ? ACTS_ROWS : left > 2 ? 4 : left;
}

size_t acts_tile_offset(uint32_t tile, uint64_t n_in)
{
	return (size_t)tile * ACTS_ROWS * (n_in / ACTS_BLOCK) * ACTS_BLOCK_BYTES;
}

size_t acts_bytes(uint32_t m, uint64_t n_in)
{
	return acts_tile_offset(acts_tiles(m), n_in);
}

/*
 * Adding 1.5 * 2^23 leaves a float whose low bits are the rounded integer: unlike a
 * conversion it has a result for infinities and NaNs, whatever it is.
 */
INLINE int32_t rounded(float f)
{
	return (int32_t)(bits_of(f + 0x1.8p23f) - bits_of(0x1.8p23f));
}

/* Magnitudes of floats are in the order of their bits, and integers have a maximum that vectorises. */
INLINE float largest(const float *x)
{
	int32_t max = 0;

	for (int j = 0; j < ACTS_BLOCK; j++) {
		const int32_t magnitude = (int32_t)(bits_of(x[j]) & 0x7fffffff);

		max = magnitude > max ? magnitude : max;
	}
	return float_of((uint32_t)max);
}

struct sums {
	float step;
	int32_t half[2];
};

INLINE struct sums block(int8_t *q, const float *x)
{
	const float max = largest(x);
	/* Below this the inverse would overflow, and a step so small is nothing to anyone. NaN is not below. */
	const bool nothing = max < 1e-30f;
	const float inverse = nothing ? 0 : 127 / max;
	struct sums s = { .step = nothing ? 0 : max / 127 };

	for (int h = 0; h < 2; h++) {
		int32_t sum = 0;

		for (int j = 16 * h; j < 16 * h + 16; j++) {
			const int8_t v = (int8_t)rounded(x[j] * inverse);

			q[j] = v;
			sum += v;
		}
		s.half[h] = sum;
	}
	return s;
}

CLONES void acts_row(uint8_t *tile, const float *x, uint64_t n_blocks, uint32_t rows, uint32_t r)
{
	for (uint64_t b = 0; b < n_blocks; b++, tile += (size_t)rows * ACTS_BLOCK_BYTES) {
		const struct sums s = block((int8_t *)tile + r * ACTS_BLOCK, x + b * ACTS_BLOCK);
		const int32_t sum = s.half[0] + s.half[1];
		float *f = (float *)(tile + rows * ACTS_BLOCK);
		int32_t *n = (int32_t *)(f + 2 * rows);

		f[r] = s.step;
		f[rows + r] = s.step * (float)sum;
		n[r] = -8 * sum;
		n[rows + r] = -128 * sum;
		n[2 * rows + r] = -32 * s.half[0];
		n[3 * rows + r] = -32 * s.half[1];
	}
}

void acts_fill(uint8_t *acts, const float *x, uint32_t m, uint64_t n_in, uint32_t tile)
{
	const uint32_t rows = acts_tile_rows(m, tile), first = tile * ACTS_ROWS;
	const uint64_t n_blocks = n_in / ACTS_BLOCK;
	const bool avx512 = acts_has_avx512();
	uint8_t *at = acts + acts_tile_offset(tile, n_in);

	if (first + rows > m)
		memset(at, 0, n_blocks * rows * ACTS_BLOCK_BYTES);
	for (uint32_t r = 0; r < rows && first + r < m; r++) {
		const float *from = x + (size_t)(first + r) * n_in;

		if (avx512)
			acts_row_avx512(at, from, n_blocks, rows, r);
		else
			acts_row(at, from, n_blocks, rows, r);
	}
}
