// SPDX-License-Identifier: MIT
/*
 * Integer products in plain C: for processors without a set of their own, and to read before the
 * others. All of them do this, 16 rows in a register.
 */
#include "compute/acts.h"
#include "compute/gemm.h"
#include "compute/half.h"
#include "compute/pack.h"

enum {
	WORDS = PACK_COLUMNS / 4,
	Q6_HALVES = 2, /* of 32 columns, with a scale each */
};

/* One byte a code, in the order of the words. */
static void expand(enum gguf_type type, const uint8_t *words, uint8_t *codes)
{
	const uint8_t *high = words + 4 * PACK_WORD;

	if (type == GGUF_Q8_0) {
		memcpy(codes, words, WORDS * PACK_WORD);
		return;
	}
	for (int g = 0; g < WORDS; g++)
		for (int i = 0; i < PACK_WORD; i++) {
			unsigned int code = words[g % 4 * PACK_WORD + i] >> g / 4 * 4 & 15;

			if (type == GGUF_Q5_0 || type == GGUF_Q5_1 || type == GGUF_Q5_K)
				code |= (high[i] >> g & 1u) << 4;
			if (type == GGUF_Q6_K)
				code |= (high[g / 4 * PACK_WORD + i] >> g % 4 * 2 & 3u) << 4;
			codes[g * PACK_WORD + i] = (uint8_t)code;
		}
}

/* What 32 columns of a panel are scaled with. min is to be added. */
struct scales {
	float d[Q6_HALVES][PACK_ROWS];
	float min[PACK_ROWS];
};

static uint16_t half_at(const uint8_t *p)
{
	uint16_t h;

	memcpy(&h, p, sizeof(h));
	return h;
}

static void read_scales(enum gguf_type type, const uint8_t *s, uint32_t b, struct scales *out)
{
	const uint8_t *scale = s + 64 + b % 8 * PACK_ROWS, *min = scale + 8 * PACK_ROWS;
	const int8_t *q6 = (const int8_t *)s + 32 + b % 8 * 2 * PACK_ROWS;

	for (int r = 0; r < PACK_ROWS; r++) {
		const float d = half_to_float(half_at(s + 2 * r));

		out->d[0][r] = d;
		out->d[1][r] = d;
		out->min[r] = 0;
		if (type == GGUF_Q4_1 || type == GGUF_Q5_1)
			out->min[r] = half_to_float(half_at(s + 32 + 2 * r));
		if (type == GGUF_Q4_K || type == GGUF_Q5_K) {
			out->d[0][r] = out->d[1][r] = d * (float)scale[r];
			out->min[r] = -half_to_float(half_at(s + 32 + 2 * r)) * (float)min[r];
		}
		if (type == GGUF_Q6_K) {
			out->d[0][r] = d * (float)q6[r];
			out->d[1][r] = d * (float)q6[PACK_ROWS + r];
		}
	}
}

/* Where the sum over half h of row i's block starts: what the offset of all its codes amounts to. */
static int32_t start(enum gguf_type type, const int32_t *n, uint32_t rows, uint32_t i, int h)
{
	const int32_t half = n[(2 + h) * rows + i]; /* - 32 * sum */

	switch (type) {
	case GGUF_Q8_0:
		return half * 4;
	case GGUF_Q4_0:
		return half / 4;
	case GGUF_Q5_0:
		return half / 2;
	case GGUF_Q6_K:
		return half;
	default:
		return 0;
	}
}

static void half_block(const uint8_t *codes, const int8_t *q, int32_t *sums)
{
	for (int g = 0; g < WORDS / 2; g++)
		for (int r = 0; r < PACK_ROWS; r++)
			for (int j = 0; j < 4; j++)
				sums[r] += codes[g * PACK_WORD + 4 * r + j] * q[4 * g + j];
}

static void block(const struct gemm_tile *t, const uint8_t *codes, const struct scales *s,
		  const uint8_t *act, float (*acc)[PACK_ROWS])
{
	const float *f = (const float *)(act + t->rows * ACTS_BLOCK);
	const int32_t *n = (const int32_t *)(f + 2 * t->rows);

	for (uint32_t i = 0; i < t->m; i++)
		for (int h = 0; h < Q6_HALVES; h++) {
			const int32_t from = start(t->type, n, t->rows, i, h);
			int32_t sums[PACK_ROWS];

			for (int r = 0; r < PACK_ROWS; r++)
				sums[r] = from;
			half_block(codes + h * WORDS / 2 * PACK_WORD,
				   (const int8_t *)act + i * ACTS_BLOCK + 16 * h, sums);
			for (int r = 0; r < PACK_ROWS; r++)
				acc[i][r] += (float)sums[r] * (s->d[h][r] * f[i]);
			for (int r = 0; h == 0 && r < PACK_ROWS; r++)
				acc[i][r] += s->min[r] * f[t->rows + i];
		}
}

static void tile(const struct gemm_tile *t)
{
	const struct pack_layout *l = pack_layout(t->type);
	const uint32_t n_blocks = t->n_in / PACK_COLUMNS, span = l->span / PACK_COLUMNS;
	const uint8_t *scales = t->panel + (size_t)n_blocks * l->codes;
	float acc[ACTS_ROWS][PACK_ROWS] = { { 0 } };

	for (uint32_t b = 0; b < n_blocks; b++) {
		uint8_t codes[WORDS * PACK_WORD];
		struct scales s;

		expand(t->type, t->panel + (size_t)b * l->codes, codes);
		read_scales(t->type, scales + (size_t)(b / span) * l->scales, b, &s);
		block(t, codes, &s, t->acts + (size_t)b * t->rows * ACTS_BLOCK_BYTES, acc);
	}
	for (uint32_t i = 0; i < t->m; i++)
		for (uint32_t r = 0; r < t->n; r++) {
			float *y = t->y + i * t->stride + r;

			*y = (t->add ? *y : 0) + acc[i][r];
		}
}

static bool usable(void)
{
	return true;
}

const struct gemm_set gemm_c = { "portable C", usable, tile };
