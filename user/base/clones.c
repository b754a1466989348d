// SPDX-License-Identifier: MIT
#include "base/clones.h"

const char *clones_active(void)
{
#ifdef LSLM_HAVE_CLONES
	__builtin_cpu_init();
	if (__builtin_cpu_supports("x86-64-v4"))
		return "avx512f";
	if (__builtin_cpu_supports("x86-64-v3"))
		return "avx2+fma";
#endif
	return "portable";
}
