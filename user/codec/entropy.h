/* SPDX-License-Identifier: MIT */
/*
 * Level e: values rounded to multiples of a step and entropy-coded, about 2 bits each, nothing known beforehand.
 *
 * A half (K as it is, after RoPE, or V) has one step. Its channels, (head, dimension), differ in how large they are, and each has
 * a class of codec/rans.h, so small ones cost few bits and all have the same error. The encoder chooses the steps so that a
 * stripe takes about ENTROPY_BITS per value: constant length makes its time on a link known when a level is chosen. Where it has the
 * model's calibration halves whose errors do more harm have smaller steps, else all halves take equally many bits; a
 * decoder need not know which. docs/protocol.md has the bytes, docs/codec.md why it is this and nothing cleverer.
 */
#ifndef LSLM_CODEC_ENTROPY_H
#define LSLM_CODEC_ENTROPY_H

#include "codec/calibration.h"
#include "kv/geometry.h"

/* Bits per value that a stripe takes, everything in it counted. */
#define ENTROPY_BITS 2.25f

/* Bytes that a block takes at most. */
size_t entropy_bound(const struct kv_geometry *geo);

/* Steps (codec/steps.h) of a stripe at f16, [n_layer][2], in the ratio of the calibration's units. -ENOMEM. */
int entropy_steps(const struct kv_geometry *geo, const struct calibration *cal, const uint8_t *in,
		  uint32_t *steps);
/*
 * in: a block at f16; steps: K's and V's, or NULL for those at which they take equally many bits. Returns bytes, <= entropy_bound(), all of
 * which out must have.
 */
size_t entropy_encode(const struct kv_geometry *geo, const uint8_t *in, const uint32_t *steps,
		      uint8_t *out);
/* out: the block at f16, padding included. -EBADMSG for what no encoder writes; out is garbage then. */
int entropy_decode(const struct kv_geometry *geo, const uint8_t *in, size_t size, uint8_t *out);

#endif
