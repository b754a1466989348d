/* SPDX-License-Identifier: MIT */
/*
 * q8 and q4: blocks that attention reads in place.
 *
 * A half (K or V of a block) is [kv_head][64 tokens] rows of head_dim values. A row is cut into groups of
 * min(32, head_dim) values, the last of which may be shorter; groups never cross a head. A group has one f16 scale:
 *
 *   q8: x = scale * quant, an int8; scale = max|x| / 127
 *   q4: x = scale * (quant - 8), quant 0..15; scale, which may be negative, is the best of several around
 *       (x of largest magnitude) / -8
 *
 * Layout of a half: all quants, then all scales, each in the order [kv_head][token][group], and zeros up to a
 * multiple of 64 bytes. q8 quants are one byte each; a q4 group of g values takes (g + 1) / 2 bytes, whose
 * byte i holds value i in its low half and value i + (g + 1) / 2, where there is one, in its high half.
 *
 * q4 keys are rotated before they are quantised: each run of kvq_rotation(head_dim) values of a head is
 * multiplied by the orthonormal Hadamard matrix of that order (Sylvester's), which spreads a few large channels over all of
 * them. Rotation keeps products, so attention rotates the query instead of undoing it. q8 keys and all values are as they are.
 */
#ifndef LSLM_COMPUTE_KVQ_H
#define LSLM_COMPUTE_KVQ_H

#include <stddef.h>
#include <stdint.h>

enum {
	KVQ_GROUP = 32,
	KVQ_TOKENS = 64,
	KVQ_MAX_DIM = 1024, /* as KV_MAX_HEAD_DIM */
};

/* Bits of a quant. */
enum kvq_bits {
	KVQ_Q8 = 8,
	KVQ_Q4 = 4,
};

/* Groups of a row of d values, and bytes of a row's quants. */
uint32_t kvq_groups(uint32_t d);
size_t kvq_row_bytes(uint32_t d, enum kvq_bits bits);
/* Bytes of a half, padding included; where in it the scales begin. */
size_t kvq_half_bytes(uint32_t n_head_kv, uint32_t d, enum kvq_bits bits);
size_t kvq_scales_offset(uint32_t n_head_kv, uint32_t d, enum kvq_bits bits);

/* The largest power of two that divides d, if it is at least 8; else 1, which is no rotation. */
uint32_t kvq_rotation(uint32_t d);
/* Multiply every run of kvq_rotation(d) values of x[d] by the Hadamard matrix; its own inverse. */
void kvq_rotate(float *x, uint32_t d);

/* A half from [kv_head][64][d] f16 and back. rotate: of q4 keys. */
void kvq_encode(uint8_t *out, const uint16_t *in, uint32_t n_head_kv, uint32_t d,
		enum kvq_bits bits, int rotate);
void kvq_decode(uint16_t *out, const uint8_t *in, uint32_t n_head_kv, uint32_t d,
		enum kvq_bits bits, int rotate);

#endif
