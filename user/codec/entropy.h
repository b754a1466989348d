/* SPDX-License-Identifier: MIT */
/*
 * Level e: values rounded to multiples of a step and entropy-coded, about 2 bits each, nothing known beforehand.
 *
 * A half (K as it is, after RoPE, or V) has one step. Its channels, (head, dimension), differ in how large they are, and each has
 * a class of codec/rans.h, so small ones cost few bits and all have the same error. The encoder chooses the step so that a
 * block takes about ENTROPY_BITS per value: constant length makes a stripe's time on a link known
 * when a level is chosen. docs/protocol.md has the bytes, docs/quality.md why it is this and nothing cleverer.
 */
#ifndef LSLM_CODEC_ENTROPY_H
#define LSLM_CODEC_ENTROPY_H

#include "kv/geometry.h"

/* Bits per value that a block takes, everything in it counted. */
#define ENTROPY_BITS 2.28f

/* Bytes that a block takes at most. */
size_t entropy_bound(const struct kv_geometry *geo);

/* in: a block at f16. Returns bytes, <= entropy_bound(), all of which out must have. */
size_t entropy_encode(const struct kv_geometry *geo, const uint8_t *in, uint8_t *out);
/* out: the block at f16, padding included. -EBADMSG for what no encoder writes; out is garbage then. */
int entropy_decode(const struct kv_geometry *geo, const uint8_t *in, size_t size, uint8_t *out);

#endif
