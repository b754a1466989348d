/* SPDX-License-Identifier: MIT */
/*
 * Matrices as products take them: as they stand in the file, and packed for the integer kernels
 * where the type is a quantised one.
 *
 * Where they are packed, and when, is up to the engine (engine/matrices.h).
 */
#ifndef LSLM_COMPUTE_WEIGHTS_H
#define LSLM_COMPUTE_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

/*
 * Bytes of the matrix where products read it, packed or as in the file; a multiple of 64.
 * weight_store() puts it at `at`, a multiple of 64, on all threads of the pool, which may be NULL for floats and for one that
 * is packed somewhere already; weight_take() reads it from there from now on.
 */
bool weight_is_packed(const struct weight *w); /* or will be, by its type and this processor */
size_t weight_bytes(const struct weight *w);
void weight_store(const struct weight *w, void *at, struct pool *pool);
void weight_take(struct weight *w, const void *at);

/*
 * BLAKE2b-256 over what packing makes of one block of every type: another layout, whether anybody
 * thought of giving it another number or not, is another value.
 */
void weight_layout(uint8_t out[32]);

#endif
