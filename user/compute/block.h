/* SPDX-License-Identifier: MIT */
/*
 * The quantised blocks of ggml as they stand in a file, for those who take them apart: quant.c,
 * which turns them into floats, and pack.c, which lays them out for the integer kernels.
 *
 * The _0 and _1 types have BLOCK_SMALL elements each, the K types BLOCK_LARGE. All fields are
 * little-endian; d, m and dmin are halves.
 */
#ifndef LSLM_COMPUTE_BLOCK_H
#define LSLM_COMPUTE_BLOCK_H

#include <stdint.h>
#include <string.h>

#include "compute/half.h"

enum {
	BLOCK_SMALL = 32, /* elements of a block of the _0 and _1 types */
	BLOCK_LARGE = 256, /* of the K types */
};

struct q8_0 {
	uint16_t d;
	int8_t q[BLOCK_SMALL];
};

struct q4_0 {
	uint16_t d;
	uint8_t q[BLOCK_SMALL / 2];
};

struct q4_1 {
	uint16_t d, m;
	uint8_t q[BLOCK_SMALL / 2];
};

struct q5_0 {
	uint16_t d;
	uint8_t high[BLOCK_SMALL / 8];
	uint8_t q[BLOCK_SMALL / 2];
};

struct q5_1 {
	uint16_t d, m;
	uint8_t high[BLOCK_SMALL / 8];
	uint8_t q[BLOCK_SMALL / 2];
};

struct q4_k {
	uint16_t d, dmin;
	uint8_t scales[12];
	uint8_t q[BLOCK_LARGE / 2];
};

struct q5_k {
	uint16_t d, dmin;
	uint8_t scales[12];
	uint8_t high[BLOCK_LARGE / 8];
	uint8_t q[BLOCK_LARGE / 2];
};

struct q6_k {
	uint8_t low[BLOCK_LARGE / 2];
	uint8_t high[BLOCK_LARGE / 4];
	int8_t scales[BLOCK_LARGE / 16];
	uint16_t d;
};

_Static_assert(sizeof(struct q8_0) == 34 && sizeof(struct q4_0) == 18 &&
		       sizeof(struct q4_1) == 20 && sizeof(struct q5_0) == 22 &&
		       sizeof(struct q5_1) == 24 && sizeof(struct q4_k) == 144 &&
		       sizeof(struct q5_k) == 176 && sizeof(struct q6_k) == 210,
	       "blocks have no padding");

/*
 * Values of five bits, one a byte. Bit j of the 32 high ones belongs to element j; eight of them
 * become eight bytes at once (in little-endian order): copies of the byte, each with one of its bits left, which carries
 * into the top of its byte and comes down as 16.
 */
INLINE void five_bits(const uint8_t *high, const uint8_t *q, uint8_t *value)
{
	for (int k = 0; k < BLOCK_SMALL / 8; k++) {
		uint64_t spread = high[k] * 0x0101010101010101u & 0x8040201008040201u;

		spread = (spread + 0x7f7f7f7f7f7f7f7f) >> 3 & 0x1010101010101010;
		memcpy(value + 8 * k, &spread, 8);
	}
	for (int j = 0; j < BLOCK_SMALL / 2; j++)
		value[j] |= q[j] & 15;
	for (int j = 0; j < BLOCK_SMALL / 2; j++)
		value[j + BLOCK_SMALL / 2] |= q[j] >> 4;
}

/*
 * Scale and minimum of group i of 8, 6 bits each, from 12 bytes: groups 0 to 3 have
 * the low six bits of bytes i and i + 4; groups 4 to 7 have the nibbles of byte i + 4, and
 * their upper two bits are what the first four groups left over.
 */
INLINE void six_bits(const uint8_t *s, int i, int *scale, int *min)
{
	if (i < 4) {
		*scale = s[i] & 63;
		*min = s[i + 4] & 63;
	} else {
		*scale = (s[i + 4] & 15) | s[i - 4] >> 6 << 4;
		*min = s[i + 4] >> 4 | s[i] >> 6 << 4;
	}
}

#endif
