// SPDX-License-Identifier: MIT
#include "compute/pack.h"

#include "compute/block.h"

enum {
	NIBBLES = PACK_NIBBLES,
	K_SCALES = 64, /* where the 6-bit scales begin behind d and dmin */
	K_MINS = K_SCALES + 8 * PACK_ROWS,
	Q6_SCALES = 32,
};

_Static_assert(K_MINS + 8 * PACK_ROWS == PACK_K_SCALES, "d, dmin, scales, minima");
_Static_assert(Q6_SCALES + 16 * PACK_ROWS + 32 == PACK_Q6_SCALES, "d, scales, nothing");

bool pack_possible(enum gguf_type type)
{
	return type < sizeof(pack_layouts) / sizeof(pack_layouts[0]) && pack_layouts[type].codes;
}

size_t pack_panel_bytes(enum gguf_type type, uint64_t n_in)
{
	const struct pack_layout *l = pack_layout(type);

	return n_in / PACK_COLUMNS * l->codes + (n_in + l->span - 1) / l->span * l->scales;
}

size_t pack_bytes(enum gguf_type type, uint64_t n_in, uint64_t n_out)
{
	return (n_out + PACK_ROWS - 1) / PACK_ROWS * pack_panel_bytes(type, n_in);
}

/* --- codes of a row, 32 of them, to their places --- */

/* Four bytes of each of n words, at row r. */
static void spread(uint8_t *words, unsigned int r, const uint8_t *bytes, unsigned int n)
{
	for (unsigned int g = 0; g < n; g++)
		memcpy(words + g * PACK_WORD + 4 * r, bytes + 4 * g, 4);
}

static void put_nibbles(uint8_t *words, unsigned int r, const uint8_t *code)
{
	uint8_t nibbles[16];

	for (int j = 0; j < 16; j++)
		nibbles[j] = (uint8_t)((code[j] & 15) | code[j + 16] << 4);
	spread(words, r, nibbles, 4);
}

/* Bit 4 of each. */
static void put_fifth(uint8_t *words, unsigned int r, const uint8_t *code)
{
	uint8_t high[4] = { 0 };

	for (int j = 0; j < 32; j++)
		high[j % 4] |= (uint8_t)((code[j] >> 4 & 1) << j / 4);
	memcpy(words + NIBBLES + 4 * r, high, 4);
}

/* Bits 4 and 5 of each. */
static void put_upper(uint8_t *words, unsigned int r, const uint8_t *code)
{
	uint8_t high[8] = { 0 };

	for (int j = 0; j < 32; j++)
		high[j / 16 * 4 + j % 4] |= (uint8_t)((code[j] >> 4 & 3) << j % 16 / 4 * 2);
	spread(words + NIBBLES, r, high, 2);
}

/* --- the blocks of one row --- */

struct place {
	uint8_t *codes; /* of the block's first 32 columns */
	uint8_t *scales; /* of its span; where that is longer than the block, the block's own */
	unsigned int r;
};

static void put_half(uint8_t *scales, unsigned int r, uint16_t half)
{
	memcpy(scales + 2 * r, &half, sizeof(half));
}

static void q8_0(const struct place *at, const void *block)
{
	const struct q8_0 *b = block;
	uint8_t code[BLOCK_SMALL];

	for (int j = 0; j < BLOCK_SMALL; j++)
		code[j] = (uint8_t)(b->q[j] ^ 0x80);
	spread(at->codes, at->r, code, 8);
	put_half(at->scales, at->r, b->d);
}

/* The file's own nibbles stand as wanted. */
static void q4_0(const struct place *at, const void *block)
{
	const struct q4_0 *b = block;

	spread(at->codes, at->r, b->q, 4);
	put_half(at->scales, at->r, b->d);
}

static void q4_1(const struct place *at, const void *block)
{
	const struct q4_1 *b = block;

	spread(at->codes, at->r, b->q, 4);
	put_half(at->scales, at->r, b->d);
	put_half(at->scales + 32, at->r, b->m);
}

static void q5_0(const struct place *at, const void *block)
{
	const struct q5_0 *b = block;
	uint8_t code[BLOCK_SMALL];

	five_bits(b->high, b->q, code);
	spread(at->codes, at->r, b->q, 4);
	put_fifth(at->codes, at->r, code);
	put_half(at->scales, at->r, b->d);
}

static void q5_1(const struct place *at, const void *block)
{
	const struct q5_1 *b = block;
	uint8_t code[BLOCK_SMALL];

	five_bits(b->high, b->q, code);
	spread(at->codes, at->r, b->q, 4);
	put_fifth(at->codes, at->r, code);
	put_half(at->scales, at->r, b->d);
	put_half(at->scales + 32, at->r, b->m);
}

static void k_scales(const struct place *at, uint16_t d, uint16_t dmin, const uint8_t *packed)
{
	put_half(at->scales, at->r, d);
	put_half(at->scales + 32, at->r, dmin);
	for (int i = 0; i < 8; i++) {
		int scale, min;

		six_bits(packed, i, &scale, &min);
		at->scales[K_SCALES + i * PACK_ROWS + at->r] = (uint8_t)scale;
		at->scales[K_MINS + i * PACK_ROWS + at->r] = (uint8_t)min;
	}
}

static void q4_k(const struct place *at, const void *block)
{
	const struct q4_k *b = block;

	for (int i = 0; i < 8; i++) {
		uint8_t code[32];

		for (int j = 0; j < 32; j++)
			code[j] = b->q[i / 2 * 32 + j] >> i % 2 * 4 & 15;
		put_nibbles(at->codes + i * NIBBLES, at->r, code);
	}
	k_scales(at, b->d, b->dmin, b->scales);
}

static void q5_k(const struct place *at, const void *block)
{
	const struct q5_k *b = block;

	for (int i = 0; i < 8; i++) {
		uint8_t code[32], *words = at->codes + i * (NIBBLES + PACK_WORD);

		for (int j = 0; j < 32; j++)
			code[j] = (uint8_t)((b->q[i / 2 * 32 + j] >> i % 2 * 4 & 15) |
					    (b->high[j] >> i & 1) << 4);
		put_nibbles(words, at->r, code);
		put_fifth(words, at->r, code);
	}
	k_scales(at, b->d, b->dmin, b->scales);
}

static void q6_k(const struct place *at, const void *block)
{
	const struct q6_k *b = block;

	for (int i = 0; i < 8; i++) {
		const uint8_t *low = b->low + i / 4 * 64 + i % 2 * 32, *high = b->high + i / 4 * 32;
		uint8_t code[32], *words = at->codes + i * (NIBBLES + 2 * PACK_WORD);

		for (int j = 0; j < 32; j++)
			code[j] = (uint8_t)((low[j] >> i % 4 / 2 * 4 & 15) |
					    (high[j] >> i % 4 * 2 & 3) << 4);
		put_nibbles(words, at->r, code);
		put_upper(words, at->r, code);
	}
	put_half(at->scales, at->r, b->d);
	for (int i = 0; i < 16; i++)
		at->scales[Q6_SCALES + i * PACK_ROWS + at->r] = (uint8_t)b->scales[i];
}

static void (*const packers[])(const struct place *at, const void *block) = {
	[GGUF_Q8_0] = q8_0, [GGUF_Q4_0] = q4_0, [GGUF_Q4_1] = q4_1, [GGUF_Q5_0] = q5_0,
	[GGUF_Q5_1] = q5_1, [GGUF_Q4_K] = q4_k, [GGUF_Q5_K] = q5_k, [GGUF_Q6_K] = q6_k,
};

/* Of the block of the file that begins at this column. */
static struct place place_of(uint8_t *panel, const struct pack_layout *l, uint64_t column,
			     unsigned int r)
{
	const uint64_t k = column % l->span / PACK_COLUMNS, run = column / l->span;
	uint8_t *scales = panel + run * (l->span / PACK_COLUMNS * l->codes + l->scales);

	return (struct place){
		.codes = scales + l->scales + k * l->codes,
		.scales = scales + k * PACK_HALVES,
		.r = r,
	};
}

void pack_panel(uint8_t *panel, enum gguf_type type, const void *rows, uint64_t n_in,
		unsigned int n)
{
	const struct pack_layout *l = pack_layout(type);
	const size_t block = gguf_type_block_bytes(type);
	const uint32_t columns = gguf_type_block(type);
	const uint8_t *src = rows;

	/* The last rows, and what scales are filled up with. */
	if (n < PACK_ROWS || n_in % l->span || type == GGUF_Q6_K)
		memset(panel, 0, pack_panel_bytes(type, n_in));
	for (unsigned int r = 0; r < n; r++)
		for (uint64_t at = 0; at < n_in; at += columns, src += block) {
			const struct place place = place_of(panel, l, at, r);

			packers[type](&place, src);
		}
}
