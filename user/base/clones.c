// SPDX-License-Identifier: MIT
#include "base/clones.h"

const char *clones_active(void)
{
#ifdef LSLM_HAVE_CLONES
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
		return "avx512f";
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		return "avx2+fma";
#endif
	return "portable";
}
