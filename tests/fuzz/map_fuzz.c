// SPDX-License-Identifier: MIT
/*
 * Map files: any bytes in front of a digest that is right. What is accepted can be used to its last weight.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "codec/map.h"
#include "codec/rows.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static float *rows(const struct kv_geometry *g)
{
	return calloc((size_t)g->n_layer * KV_BLOCK_TOKENS, rows_width(g) * sizeof(float));
}

static void use(const struct map *m)
{
	float *x = rows(&m->from), *own = rows(&m->to), *y = rows(&m->to);
	float *scratch = map_is_run(m) ? NULL : malloc(map_scratch(m) * sizeof(*scratch));
	char why[200];

	if (!map_is_run(m) && x && own && y && scratch)
		map_rows(m, x, own, y, scratch);
	for (uint32_t l = 0; l < m->to.n_layer; l++)
		map_is_own(m, l);
	map_is_proven(m, why, sizeof(why));
	free(x);
	free(own);
	free(y);
	free(scratch);
}

/* Few sizes, so that what is accepted is small enough to be used. */
static void tame(uint8_t *p, size_t size)
{
	for (size_t i = 16; i < 40 && i < size; i++)
		p[i] = i % 4 ? 0 : p[i] % 8;
}

static void check(const uint8_t *data, size_t size, int tamed)
{
	uint8_t *copy = malloc(size + HASH_BYTES);
	struct lslm_error err;
	struct map *m;
	struct hash h;

	if (!copy)
		return;
	memcpy(copy, data, size);
	memcpy(copy, "LSLM map\1\0\0\0\0\0\0", size < 16 ? size : 16);
	if (tamed)
		tame(copy, size);
	hash_start(&h, "lslm map v1");
	hash_raw(&h, copy, size);
	hash_finish(&h, copy + size);
	if (!map_parse(&m, copy, size + HASH_BYTES, &err)) {
		if (tamed)
			use(m);
		map_free(m);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lslm_error err;
	struct map *m;

	if (!map_parse(&m, data, size, &err))
		map_free(m);
	check(data, size, 0);
	check(data, size, 1);
	return 0;
}
