/* SPDX-License-Identifier: MIT */
/*
 * Attention's products with a block of q8 or q4 keys or values, as compute/kvq.h lays them out, in place.
 *
 * Where the processor has what it takes (kvint_fast()) they are products of integers: a query, or weights
 * times the scales of values, becomes 16-bit integers with one scale, as two planes of eight bits, which the processor
 * multiplies with quants, exactly. The error of that is 2^-16 of the largest element. Elsewhere a block is made
 * into floats, for kvtile_multiply().
 */
#ifndef LSLM_COMPUTE_KVINT_H
#define LSLM_COMPUTE_KVINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compute/kvq.h"

/* One head of a half. */
struct kvint_head {
	const uint8_t *quants; /* [KVQ_TOKENS] rows */
	const uint16_t *scales; /* [KVQ_TOKENS][kvq_groups(d)] f16 */
	uint32_t d;
	enum kvq_bits bits;
};

struct kvint_head kvint_head(const uint8_t *half, uint32_t n_head_kv, uint32_t head, uint32_t d,
			     enum kvq_bits bits);

/* AVX-512 with VNNI and VBMI, and d a multiple of 16, at least 32. */
bool kvint_fast(uint32_t d);

/*
 * The following only where kvint_fast(). Floats of scratch that a block needs, `ready` below; floats that one query
 * takes as integers; making it so.
 */
size_t kvint_ready(uint32_t d);
size_t kvint_query_floats(uint32_t d);
void kvint_query(float *out, const float *q, uint32_t d, enum kvq_bits bits);

/*
 * p[r][j] = q_r . k_j for n keys, p: [rows][KVQ_TOKENS]; scores up to the next multiple of 16 are written too, of whatever
 * stands there. queries: of kvint_query(), one after the other. next: what will be read soon, or NULL.
 */
void kvint_scores(float *p, const float *queries, uint32_t rows, const struct kvint_head *k,
		  uint32_t n, float *ready, const struct kvint_head *next);
/* acc[r][i] += sum_j p[r][j] v[j][i] for n values; p: [rows][KVQ_TOKENS], none negative, 0 behind n. */
void kvint_values(float *acc, size_t width, const float *p, uint32_t rows,
		  const struct kvint_head *v, uint32_t n, float *ready,
		  const struct kvint_head *next);

/* n rows as floats: out[j * ld + i], or turned, out[i * ld + j]. */
void kvint_rows(float *out, size_t ld, const struct kvint_head *h, uint32_t n);
void kvint_turned(float *out, size_t ld, const struct kvint_head *h, uint32_t n);

/* For tests: without integers; false gives them back. */
void kvint_limit(bool no_integers);

#endif
