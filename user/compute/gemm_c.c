// SPDX-License-Identifier: MIT
/*
 * Integer products in plain C: for processors without a set of their own, and to read before the
 * others. All of them do this, 16 rows in a register.
 *
 * The integers are floats here: sums over 16 columns stay below 2^24, so they are as exact, and every processor
 * multiplies and adds vectors of floats, while few have a fitting instruction for bytes.
 */
#include "compute/acts.h"
#include "compute/gemm.h"
#include "compute/half.h"
#include "compute/pack.h"

enum {
	WORDS = PACK_COLUMNS / 4,
	Q6_HALVES = 2, /* of 32 columns, with a scale each */
};

typedef float lanes __attribute__((vector_size(16), may_alias));

enum { LANES = 4, VECTORS = PACK_ROWS / LANES };

/* Codes of 32 columns, column by column: the loops that use them run over rows, and vectorise. */
struct codes {
	_Alignas(16) float at[PACK_COLUMNS][PACK_ROWS];
};

/* Words g of nibbles, shifted; and what stands above them, shifted, of which `mask` is taken. */
static void put_word(struct codes *c, int g, const uint8_t *word, int shift, const uint8_t *high,
		     int high_shift, int mask)
{
	for (int j = 0; j < 4; j++)
		for (int r = 0; r < PACK_ROWS; r++)
			c->at[4 * g + j][r] = (float)((word[4 * r + j] >> shift & 15) |
						      (high[4 * r + j] >> high_shift & mask) << 4);
}

static void expand(enum gguf_type type, const uint8_t *words, struct codes *c)
{
	const uint8_t *high = words + 4 * PACK_WORD;

	for (int g = 0; g < WORDS; g++) {
		const uint8_t *word = words + g % 4 * PACK_WORD;

		if (type == GGUF_Q8_0)
			for (int j = 0; j < 4; j++)
				for (int r = 0; r < PACK_ROWS; r++)
					c->at[4 * g + j][r] = words[g * PACK_WORD + 4 * r + j];
		else if (type == GGUF_Q5_0 || type == GGUF_Q5_1 || type == GGUF_Q5_K)
			put_word(c, g, word, g / 4 * 4, high, g, 1);
		else if (type == GGUF_Q6_K)
			put_word(c, g, word, g / 4 * 4, high + g / 4 * PACK_WORD, g % 4 * 2, 3);
		else
			put_word(c, g, word, g / 4 * 4, word, 0, 0);
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

/* s: of the run in which this is block b. */
static void read_scales(enum gguf_type type, const uint8_t *s, uint32_t b, struct scales *out)
{
	const uint8_t *scale = s + 64 + b * PACK_ROWS, *min = scale + 8 * PACK_ROWS;
	const int8_t *q6 = (const int8_t *)s + 32 + b * 2 * PACK_ROWS;
	const uint8_t *own = s + pack_halves_at(type, b);

	for (int r = 0; r < PACK_ROWS; r++) {
		const float d = half_to_float(half_at(own + 2 * r));

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

static void half_block(const struct codes *c, int h, const int8_t *q, float from,
		       float sums[PACK_ROWS])
{
	const lanes start_of = { from, from, from, from };
	lanes a = start_of, b = start_of, d = start_of, e = start_of, *to = (lanes *)sums;

	for (int k = 16 * h; k < 16 * h + 16; k++) {
		const lanes *column = (const lanes *)c->at[k];
		const float x = q[k];

		a += column[0] * x;
		b += column[1] * x;
		d += column[2] * x;
		e += column[3] * x;
	}
	to[0] = a;
	to[1] = b;
	to[2] = d;
	to[3] = e;
}

_Static_assert(VECTORS == 4, "half_block() names them");

static void block(const struct gemm_tile *t, const struct codes *codes, const struct scales *s,
		  const uint8_t *act, float (*acc)[PACK_ROWS])
{
	const float *f = (const float *)(act + t->rows * ACTS_BLOCK);
	const int32_t *n = (const int32_t *)(f + 2 * t->rows);

	for (uint32_t i = 0; i < t->m; i++)
		for (int h = 0; h < Q6_HALVES; h++) {
			_Alignas(16) float sums[PACK_ROWS];

			half_block(codes, h, (const int8_t *)act + i * ACTS_BLOCK,
				   (float)start(t->type, n, t->rows, i, h), sums);
			for (int r = 0; r < PACK_ROWS; r++)
				acc[i][r] += sums[r] * (s->d[h][r] * f[i]);
			for (int r = 0; h == 0 && r < PACK_ROWS; r++)
				acc[i][r] += s->min[r] * f[t->rows + i];
		}
}

static void tile(const struct gemm_tile *t)
{
	const struct pack_layout *l = pack_layout(t->type);
	const uint8_t *words = t->panel, *act = t->acts;
	uint32_t left = t->n_in / PACK_COLUMNS;
	float acc[ACTS_ROWS][PACK_ROWS] = { { 0 } };

	while (left) {
		const uint32_t n = pack_run_blocks(l, left);
		const uint8_t *scales = words;

		words += l->scales;
		for (uint32_t b = 0; b < n; b++) {
			struct codes codes;
			struct scales s;

			expand(t->type, words, &codes);
			read_scales(t->type, scales, b, &s);
			block(t, &codes, &s, act, acc);
			words += l->codes;
			act += t->rows * ACTS_BLOCK_BYTES;
		}
		left -= n;
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
