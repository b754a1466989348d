// SPDX-License-Identifier: MIT
/* Integer products with sdot, which most arm64 processors from 2018 on have: four products of bytes and their sum at once. */
#include "compute/gemm.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>

#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif

#define SET    __attribute__((target("arch=armv8.2-a+dotprod")))
#define INLINE static inline __attribute__((always_inline)) SET

INLINE int32x4_t add_four(int32x4_t sum, int8x16_t w, int8x16_t a)
{
	return vdotq_s32(sum, w, a);
}

#include "compute/gemm_neon.h"

static bool usable(void)
{
	return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
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

const struct gemm_set gemm_dotprod = { "NEON dot products", usable, tile };
