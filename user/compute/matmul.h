/* SPDX-License-Identifier: MIT */
/*
 * Products of activations with weight matrices.
 *
 *   y[i][o] = sum_k x[i][k] * w[o][k]      x: [m][n_in]   w: [n_out][n_in]   y: [m][n_out]
 *
 * x and y are fp32. Quantised weights are packed (compute/weights.h): x is rounded to 8 bits in
 * blocks of 32 columns and integer kernels multiply, see compute/gemm.h. With F32, F16 and BF16 weights
 * own kernels do (compute/dense.h), for BF16 on x rounded to bf16 where the processor has that;
 * else, for m >= MATMUL_BLAS_ROWS, panels are converted to fp32 in scratch that stays in cache, and OpenBLAS
 * multiplies them, single-threaded, one panel per pool item. No result depends on the number
 * of threads.
 */
#ifndef LSLM_COMPUTE_MATMUL_H
#define LSLM_COMPUTE_MATMUL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "compute/weights.h"

enum {
	MATMUL_BLAS_ROWS = 64,
	MATMUL_PANEL = 64, /* rows of w per pool item */
};

enum matmul_then {
	MATMUL_SET, /* y = product */
	MATMUL_ADD, /* y += product */
	MATMUL_SWIGLU, /* y = silu(product) * (product with up), which is left in up_y */
};

/* One product of several that share x, as q, k and v do: one pass over the pool for all. */
struct matmul {
	const struct weight *w; /* n_in the same for all */
	float *y; /* [m][n_out] */
	enum matmul_then then;
	const struct weight *up; /* MATMUL_SWIGLU: of the same shape */
	float *up_y;
};

/*
 * The m rows to multiply. make, if there is one, is called for runs of rows before they are read, on any
 * thread, and every row is in one run: what makes x, such as a norm, needs no pass of its own.
 */
struct matmul_rows {
	const float *x; /* [m][n_in] */
	uint32_t m;
	void (*make)(void *arg, uint32_t first, uint32_t n);
	void *arg;
};

enum { MATMUL_MAX_BATCH = 3 };

/* Memory that products work in, for rows of at most n_in and at most m of them. */
struct matmul_area {
	float *scratch; /* pool_threads() times scratch_len floats, at a multiple of 64 bytes each */
	size_t scratch_len; /* at least matmul_scratch(n_in) */
	uint8_t *acts; /* matmul_acts_bytes(m, n_in), at a multiple of 64 */
};

size_t matmul_scratch(uint64_t max_n_in);
size_t matmul_acts_bytes(uint32_t max_m, uint64_t max_n_in);

void matmul_run(struct pool *pool, const struct matmul *jobs, unsigned int n,
		const struct matmul_rows *rows, const struct matmul_area *area);

/* Must be called once before the first product: the pool's threads are the only ones. */
void matmul_init(void);

/*
 * Take another set of kernels than the best, for tests and measurements: a part of its name, such as
 * "AVX2". -ENOENT when there is none of that name, -ENOTSUP when this processor lacks it.
 */
int matmul_use(const char *name);

/* For reports: how products are computed here and why, such as "int8 by AVX2 (no AVX-512 VNNI here), ...". */
const char *matmul_describe(void);

#endif
