// SPDX-License-Identifier: MIT
#include "compute/gemm.h"

#include "compute/pack.h"

const struct gemm_set *const gemm_sets[GEMM_SETS] = { &gemm_vnni, &gemm_avx2, &gemm_c };

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

void gemm_row_by_tiles(const struct gemm_row *r, void (*tile)(const struct gemm_tile *t))
{
	struct gemm_tile t = {
		.type = r->type,
		.n_in = r->n_in,
		.panel = r->panels,
		.acts = r->acts,
		.rows = 1,
		.m = 1,
		.add = r->add,
		.y = r->y,
	};

	for (uint32_t left = r->n; left; left -= t.n) {
		t.n = left < PACK_ROWS ? left : PACK_ROWS;
		tile(&t);
		t.panel += pack_panel_bytes(r->type, r->n_in);
		t.y += t.n;
	}
}
