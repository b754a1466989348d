/* SPDX-License-Identifier: MIT */
/*
 * CLONES: compile a plain loop for several instruction sets, chosen at load time.
 *
 * The function stays ordinary C. Where the compiler and the C library support it
 * (GCC on x86-64 with glibc) it is built three times and the dynamic linker picks
 * one by what CPUID says of features (the name of a processor would only match that vendor's);
 * elsewhere there is the one portable build. CLONES_FAST also lets
 * sums be reordered, without which a reduction cannot be vectorised; only for
 * functions whose result is defined up to rounding.
 *
 * clones_active() says which build runs: "avx512f", "avx2+fma" or "portable".
 */
#ifndef LSLM_BASE_CLONES_H
#define LSLM_BASE_CLONES_H

#include <features.h> /* __GLIBC__ */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__) && \
	!defined(__SANITIZE_ADDRESS__)
#define LSLM_HAVE_CLONES 1
#define CLONES		 __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#define CLONES_FAST                                                                  \
	__attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"), \
		       optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")))
#else
#define CLONES
#define CLONES_FAST
#endif

const char *clones_active(void);

#endif
