// SPDX-License-Identifier: MIT
/*
 * The bound of decoding: reading all matrices once, where they are, in the order and by the threads that decoding
 * does it, and doing nothing else.
 */
#include <stdatomic.h>

#include "base/clock.h"
#include "base/clones.h"
#include "cli/bench.h"

struct reading {
	const struct engine *e;
	unsigned int threads;
	_Atomic uint64_t sum; /* so that nothing is left out */
};

CLONES static uint64_t sum_of(const uint64_t *p, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += p[i];
	return sum;
}

static uint64_t read_share(const struct weight *w, unsigned int t, unsigned int n)
{
	const size_t words = weight_bytes(w) / sizeof(uint64_t);
	const size_t first = words * t / n, end = words * (t + 1) / n;
	const uint64_t *p = w->panels ? (const void *)w->panels : w->rows;

	return sum_of(p + first, end - first);
}

static void read_item(void *arg, uint32_t item, unsigned int thread)
{
	struct reading *r = arg;
	const struct weight *w = (const struct weight *)r->e->layers;
	const uint32_t n = r->e->model->params.n_layer * MATRICES_PER_LAYER;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += read_share(&w[i], item, r->threads);
	r->sum += sum + read_share(matrices_output(r->e->matrices), item, r->threads);
}

double bench_read_weights(const struct engine *e)
{
	struct reading r = { .e = e, .threads = pool_threads(e->pool) };
	const double start = clock_seconds();

	pool_run(e->pool, r.threads, read_item, &r);
	return clock_seconds() - start;
}

size_t bench_weight_bytes(const struct engine *e)
{
	struct matrices_stats s;

	matrices_stats(e->matrices, &s);
	return s.bytes;
}
