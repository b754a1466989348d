// SPDX-License-Identifier: MIT
#include "compute/weights.h"

#include <sys/mman.h>

#include "compute/gemm.h"
#include "compute/pack.h"

enum {
	HUGE_PAGE = 2 << 20,
	PANELS = 4, /* per pool item */
};

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

static int allocate(struct weights_memory *memory, size_t size, struct lslm_error *err)
{
	memory->size = size + HUGE_PAGE;
	memory->base = mmap(NULL, memory->size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory->base == MAP_FAILED) {
		*memory = (struct weights_memory){ 0 };
		return error_set(err, -ENOMEM, "%zu MiB for packed weights: out of memory",
				 size >> 20);
	}
	madvise(memory->base, memory->size, MADV_HUGEPAGE);
	madvise(memory->base, memory->size, MADV_DONTDUMP);
	return 0;
}

int weights_pack(struct weights_memory *memory, struct weight *w, size_t n, struct pool *pool,
		 struct lslm_error *err)
{
	size_t size = 0;
	uint8_t *at;
	int rc;

	*memory = (struct weights_memory){ 0 };
	for (size_t i = 0; i < n; i++)
		if (pack_possible(w[i].type))
			size += pack_bytes(w[i].type, w[i].n_in, w[i].n_out);
	if (!size || !gemm_pays())
		return 0;
	rc = allocate(memory, size, err);
	if (rc)
		return rc;
	at = (uint8_t *)(((uintptr_t)memory->base + HUGE_PAGE - 1) & ~((uintptr_t)HUGE_PAGE - 1));
	for (size_t i = 0; i < n; i++) {
		if (!pack_possible(w[i].type))
			continue;
		w[i].panels = at;
		at += pack_bytes(w[i].type, w[i].n_in, w[i].n_out);
		pool_run(pool, (n_panels(&w[i]) + PANELS - 1) / PANELS, pack_item, &w[i]);
	}
	return 0;
}

void weights_free(struct weights_memory *memory)
{
	if (memory->base)
		munmap(memory->base, memory->size);
	*memory = (struct weights_memory){ 0 };
}
