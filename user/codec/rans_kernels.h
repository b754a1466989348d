/* SPDX-License-Identifier: MIT */
/* Between codec/rans.c and its kernels for one instruction set each. */
#ifndef LSLM_CODEC_RANS_KERNELS_H
#define LSLM_CODEC_RANS_KERNELS_H

#include <stdbool.h>

#include "codec/rans.h"

enum {
	RANS_SYMBOLS = 2 * RANS_MAX_VALUE + 1, /* of a class */
	RANS_SCALE_BITS = 11,
	RANS_SCALE = 1 << RANS_SCALE_BITS,
	RANS_LOWEST = 1 << 16, /* of a state between two values; words of 16 bits keep it there */
};

/*
 * What the lowest bits of a state stand for, per class: bits 0 to 10 frequency - 1, bits 11 to 21 slot - start,
 * bits 22 to 31 the value, signed.
 */
typedef uint32_t rans_slots[RANS_CLASSES][RANS_SCALE];

/* Of the value q of a class, at q + RANS_MAX_VALUE: bits 0 to 10 frequency - 1, bits 11 to 21 start. */
typedef uint32_t rans_symbols[RANS_CLASSES][RANS_SYMBOLS];

/*
 * Decode `groups` times RANS_LANES values as long as the input has a word for every lane. offsets: class *
 * RANS_SCALE of each column, repeated so that RANS_LANES can be read from any column. Returns
 * the groups done; the rest is done by the plain decoder.
 */
typedef size_t rans_kernel(struct rans_decoder *d, const uint32_t *slots, int16_t *v,
			   const uint32_t *offsets, uint32_t columns, size_t groups);

/*
 * Encode `groups` times RANS_LANES values, the last ones first, and write as the plain encoder does. offsets: where q = 0 of each column's
 * class is among the symbols, repeated likewise.
 */
typedef void rans_encode_kernel(struct rans_encoder *e, const uint32_t *symbols, const int16_t *q,
				const uint32_t *offsets, uint32_t columns, size_t groups);

struct rans_set {
	const char *name;
	bool (*usable)(void);
	rans_kernel *decode;
	rans_encode_kernel *encode; /* NULL: plain C does */
};

extern const struct rans_set rans_avx512, rans_avx2;

#endif
