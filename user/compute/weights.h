/* SPDX-License-Identifier: MIT */
/*
 * Matrices as products take them: as they stand in the file, and packed for the integer kernels
 * where the type is a quantised one.
 *
 * Packing happens once, at load, on all threads, into one piece of anonymous memory that asks
 * for 2 MiB pages: decoding reads all of it for every token, and is a quarter faster with them.
 */
#ifndef LSLM_COMPUTE_WEIGHTS_H
#define LSLM_COMPUTE_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/pool.h"
#include "model/gguf.h"

/* [n_out][n_in] */
struct weight {
	enum gguf_type type;
	uint32_t n_in, n_out;
	const void *rows; /* of the file */
	const uint8_t
		*panels; /* see compute/pack.h; NULL for F32, F16 and BF16, or if !gemm_pays() */
};

/* One that is not packed yet; t must outlive it. */
struct weight weight_of(const struct gguf_tensor *t);

struct weights_memory {
	void *base;
	size_t size;
};

/*
 * Pack those of n weights that can be. memory then holds all panels and is the caller's to give
 * to weights_free(). -ENOMEM with a line.
 */
int weights_pack(struct weights_memory *memory, struct weight *w, size_t n, struct pool *pool,
		 struct lslm_error *err);
void weights_free(struct weights_memory *memory);

#endif
