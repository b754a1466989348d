// SPDX-License-Identifier: MIT
#include "compute/gemm.h"

const struct gemm_set *const gemm_sets[GEMM_SETS] = { &gemm_vnni, &gemm_avx2, &gemm_dotprod,
						      &gemm_neon, &gemm_c };

const struct gemm_set *gemm_best(void)
{
	unsigned int i = 0;

	while (!gemm_sets[i]->usable())
		i++;
	return gemm_sets[i];
}

bool gemm_pays(void)
{
	return gemm_best() != &gemm_c;
}
