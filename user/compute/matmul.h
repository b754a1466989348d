/* SPDX-License-Identifier: MIT */
/*
 * Products of activations with weight matrices.
 *
 *   y[i][o] = sum_k x[i][k] * w[o][k]      x: [m][n_in]   w: [n_out][n_in]   y: [m][n_out]
 *
 * x and y are fp32, w is in its file's type. For m >= MATMUL_GEMM_ROWS panels of w are
 * converted to fp32 in scratch that stays in cache, and OpenBLAS multiplies them,
 * single-threaded, one panel per pool item; below that each row of w is read once
 * and multiplied with every row of x. The panels do not depend on the number of
 * threads, so neither does the result.
 */
#ifndef LSLM_COMPUTE_MATMUL_H
#define LSLM_COMPUTE_MATMUL_H

#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "model/gguf.h"

enum {
	MATMUL_GEMM_ROWS = 8,
	MATMUL_PANEL = 64, /* rows of w per pool item */
};

/* One product of several that share x, as q, k and v do: one pass over the pool for all. */
struct matmul {
	const struct gguf_tensor *w; /* [n_out][n_in], n_in the same for all */
	float *y; /* [m][n_out] */
};

enum { MATMUL_MAX_BATCH = 3 };

/* Floats of scratch that matmul_run() needs per thread for rows of at most n_in. */
size_t matmul_scratch(uint64_t max_n_in);

/*
 * Does n products. scratch holds pool_threads() areas of `scratch_len` floats each, 64-byte
 * aligned.
 */
void matmul_run(struct pool *pool, const struct matmul *jobs, unsigned int n, const float *x,
		uint32_t m, float *scratch, size_t scratch_len);

/* Must be called once before the first product: the pool's threads are the only ones. */
void matmul_init(void);

/* For reports: how products are computed here, such as "OpenBLAS SkylakeX + avx512f". */
const char *matmul_describe(void);

#endif
