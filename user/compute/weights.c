// SPDX-License-Identifier: MIT
#include "compute/weights.h"

#include <assert.h>
#include <string.h>

#include "base/hash.h"
#include "compute/block.h"
#include "compute/gemm.h"
#include "compute/pack.h"

enum { PANELS = 4 }; /* per pool item */

struct weight weight_of(const struct gguf_tensor *t)
{
	/* The model's loader has bounded both sides to 2^20 or so. */
	return (struct weight){
		.type = t->type,
		.n_in = (uint32_t)t->ne[0],
		.n_out = (uint32_t)t->ne[1],
		.rows = t->data,
	};
}

static uint32_t n_panels(const struct weight *w)
{
	return (w->n_out + PACK_ROWS - 1) / PACK_ROWS;
}

static void pack_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct weight *w = arg;
	const size_t row = gguf_row_bytes(w->type, w->n_in);
	const size_t panel = pack_panel_bytes(w->type, w->n_in);
	const uint32_t end = (item + 1) * PANELS;

	for (uint32_t p = item * PANELS; p < end && p < n_panels(w); p++) {
		const uint32_t first = p * PACK_ROWS, left = w->n_out - first;

		pack_panel((uint8_t *)w->panels + p * panel, w->type,
			   (const uint8_t *)w->rows + first * row, w->n_in,
			   left < PACK_ROWS ? left : PACK_ROWS);
	}
}

static size_t padded(size_t n)
{
	return (n + PACK_WORD - 1) / PACK_WORD * PACK_WORD;
}

bool weight_is_packed(const struct weight *w)
{
	return gemm_pays() && pack_possible(w->type);
}

size_t weight_bytes(const struct weight *w)
{
	if (weight_is_packed(w))
		return pack_bytes(w->type, w->n_in, w->n_out);
	return padded(gguf_row_bytes(w->type, w->n_in) * w->n_out);
}

void weight_store(const struct weight *w, void *at, struct pool *pool)
{
	const size_t bytes = gguf_row_bytes(w->type, w->n_in) * w->n_out;
	struct weight to = *w;

	if (w->panels) {
		memcpy(at, w->panels, weight_bytes(w));
		return;
	}
	if (weight_is_packed(w)) {
		to.panels = at;
		pool_run(pool, (n_panels(&to) + PANELS - 1) / PANELS, pack_item, &to);
		return;
	}
	memcpy(at, w->rows, bytes);
	memset((uint8_t *)at + bytes, 0, padded(bytes) - bytes);
}

void weight_take(struct weight *w, const void *at)
{
	if (weight_is_packed(w))
		w->panels = at;
	else
		w->rows = at;
}

void weight_layout(uint8_t out[32])
{
	uint8_t rows[PACK_ROWS * 512], panel[PACK_ROWS * 1024];
	struct hash h;

	for (size_t i = 0; i < sizeof(rows); i++)
		rows[i] = (uint8_t)(i * 181 + i / 251);
	hash_start(&h, "lslm panels");
	hash_u32(&h, gemm_pays());
	for (unsigned int type = 0; type <= GGUF_BF16; type++) {
		const enum gguf_type t = (enum gguf_type)type;
		const uint32_t n_in = BLOCK_LARGE;

		if (!pack_possible(t))
			continue;
		assert(gguf_row_bytes(t, n_in) <= 512 &&
		       pack_panel_bytes(t, n_in) <= sizeof(panel));
		memset(panel, 0, sizeof(panel));
		pack_panel(panel, t, rows, n_in, PACK_ROWS);
		hash_u32(&h, type);
		hash_string(&h, panel, pack_panel_bytes(t, n_in));
	}
	hash_finish(&h, out);
}
