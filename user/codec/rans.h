/* SPDX-License-Identifier: MIT */
/*
 * Entropy coding of small integers: range asymmetric numeral systems (Duda 2014), 32 interleaved states.
 *
 * What is coded are matrices of 64 rows, the *parts* of a stream, row by row. Every column has a class, 0 to 15, that says
 * how large its integers are: class c > 0 is a normal distribution of standard deviation
 * 2^((c - 6) / 2), cut at +-rans_limit(c); class 0 is nothing but zeros and costs nothing. So a stream needs no tables:
 * docs/protocol.md defines them, in integers.
 *
 * The decoder gives back not the integer but four times the expected value of what was rounded to it,
 * which is a little nearer to zero.
 *
 * A decoder reads no byte outside what it was given, whatever is in there; one that comes to its end in
 * any other state than the encoder began with was given other bytes.
 */
#ifndef LSLM_CODEC_RANS_H
#define LSLM_CODEC_RANS_H

#include <stddef.h>
#include <stdint.h>

enum {
	RANS_ROWS = 64,
	RANS_CLASSES = 16,
	RANS_LANES = 32,
	RANS_MAX_COLUMNS = 1024,
	RANS_MAX_VALUE = 127,
};

/* Bytes that a stream of so many integers takes at most. */
size_t rans_bound(size_t n_values);

/* The largest magnitude in a class. */
int rans_limit(unsigned int class);
/* A class for every column of q, [64][columns] within +-RANS_MAX_VALUE: the nearest by sum of squares that holds its largest. */
void rans_classify(uint8_t *classes, const int16_t *q, uint32_t columns);
/* Bits of a value in units of 2^-8, of a column whose integers have this sum of squares. */
uint32_t rans_cost(float sum_of_squares);

/* Last part first, into the end of [start, start + size), which must be rans_bound() long. */
struct rans_encoder {
	uint8_t *start, *at, *end;
	uint32_t state[RANS_LANES];
};

void rans_encoder_begin(struct rans_encoder *e, uint8_t *start, size_t size);
/* q: [64][columns], within the limit of each column's class. */
void rans_encode(struct rans_encoder *e, const int16_t *q, const uint8_t *classes,
		 uint32_t columns);
/* Moves the stream to start; returns its bytes. */
size_t rans_encoder_end(struct rans_encoder *e);

struct rans_decoder {
	const uint8_t *at, *end;
	uint32_t state[RANS_LANES];
};

/* All of these: 0 or -EBADMSG. */
int rans_decoder_begin(struct rans_decoder *d, const uint8_t *in, size_t size);
/* v: [64][columns]; classes below RANS_CLASSES; columns may be 0. */
int rans_decode(struct rans_decoder *d, int16_t *v, const uint8_t *classes, uint32_t columns);
int rans_decoder_end(const struct rans_decoder *d);

/* "AVX-512", "AVX2" or "C": what decodes here, and with AVX-512 encodes, too; else plain C does. For tests and benchmarks, rans_use() takes another one, NULL the best. */
const char *rans_describe(void);
int rans_use(const char *name);

#endif
