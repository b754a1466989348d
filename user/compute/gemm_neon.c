// SPDX-License-Identifier: MIT
/*
 * Integer products with what every arm64 processor has: products of bytes to 16 bits, and pairs of them added to 32.
 * gemm_dotprod.c is three to four times fewer instructions, where the processor has its one.
 */
#include "compute/gemm.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define SET
#define INLINE static inline __attribute__((always_inline))

INLINE int32x4_t add_four(int32x4_t sum, int8x16_t w, int8x16_t a)
{
	const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(a));
	const int16x8_t high = vmull_high_s8(w, a);

	return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}

#include "compute/gemm_neon.h"

static bool usable(void)
{
	return true;
}
#else
static void tile(const struct gemm_tile *t)
{
}

static bool usable(void)
{
	return false;
}
#endif

const struct gemm_set gemm_neon = { "plain NEON", usable, tile };
