/* SPDX-License-Identifier: MIT */
/*
 * Integer products: packed weights times 8-bit activations, one file per instruction set.
 *
 * A tile is one panel of weights (16 outputs) times one tile of activations (1 to 8 rows). Sums
 * over 32 columns (16 for Q6_K) are exact integers; they are scaled and added up as floats, column by
 * column, so that sets differ only by what fused multiply-adds do not round.
 */
#ifndef LSLM_COMPUTE_GEMM_H
#define LSLM_COMPUTE_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/gguf.h"

struct gemm_tile {
	enum gguf_type type;
	uint32_t n_in;
	const uint8_t *panel; /* see compute/pack.h */
	const uint8_t *acts; /* see compute/acts.h */
	uint32_t rows; /* that acts is laid out for: 1, 2, 4 or 8 */
	uint32_t m; /* of them that are wanted, 1..rows */
	uint32_t n; /* outputs that are wanted, 1..16 */
	bool ahead; /* the panel behind this one comes next: ask for it meanwhile */
	bool add; /* to what is at y */
	float *y;
	size_t stride; /* floats from one row of y to the next */
};

struct gemm_set {
	const char *name; /* "avx512-vnni" */
	bool (*usable)(void); /* on this processor */
	void (*tile)(const struct gemm_tile *t);
};

/* For sets that have a function of their own for each packed type, TYPE_tile(): FOR(TYPE) for all, and a table of them. */
#define GEMM_TYPES(FOR) \
	FOR(Q8_0) FOR(Q4_0) FOR(Q4_1) FOR(Q5_0) FOR(Q5_1) FOR(Q4_K) FOR(Q5_K) FOR(Q6_K)
#define GEMM_ENTRY(type) [GGUF_##type] = type##_tile,

/* Best first; the last one, plain C, is usable everywhere. */
enum { GEMM_SETS = 5 };
extern const struct gemm_set *const gemm_sets[GEMM_SETS];
extern const struct gemm_set gemm_vnni, gemm_avx2, gemm_dotprod, gemm_neon, gemm_c;

/* The best usable set. */
const struct gemm_set *gemm_best(void);

/*
 * Is it faster than turning weights into floats for a library? Plain C is not: where nothing else is
 * usable, weights are not packed.
 */
bool gemm_pays(void);

#endif
