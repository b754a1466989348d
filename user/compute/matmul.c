// SPDX-License-Identifier: MIT
#include "compute/matmul.h"

#include <cblas.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/clones.h"
#include "compute/acts.h"
#include "compute/gemm.h"
#include "compute/pack.h"
#include "compute/quant.h"

static const struct gemm_set *set; /* of matmul_init(), or matmul_use() */

enum { SHARES = 4 }; /* items per thread, see rows_per_item() */

struct run {
	const struct matmul *jobs;
	unsigned int n;
	uint32_t first[MATMUL_MAX_BATCH + 1]; /* job j has items first[j] .. first[j + 1] */
	uint32_t rows; /* of w per item */
	const float *x;
	uint32_t m;
	const struct matmul_area *area;
};

size_t matmul_scratch(uint64_t max_n_in)
{
	return (size_t)max_n_in * MATMUL_PANEL;
}

size_t matmul_acts_bytes(uint32_t max_m, uint64_t max_n_in)
{
	return acts_bytes(max_m, max_n_in);
}

/* --- floats --- */

static void small_panel(const struct run *r, const struct matmul *job, uint32_t row, uint32_t end)
{
	const size_t n_in = job->w->n_in, n_out = job->w->n_out;
	const size_t row_bytes = gguf_row_bytes(job->w->type, n_in);

	for (; row < end; row++) {
		const void *w = (const char *)job->w->rows + row * row_bytes;

		for (uint32_t i = 0; i < r->m; i++)
			job->y[i * n_out + row] = quant_dot(job->w->type, w, r->x + i * n_in, n_in);
	}
}

static void blas_panel(const struct run *r, const struct matmul *job, uint32_t row, uint32_t end,
		       float *scratch)
{
	const size_t n_in = job->w->n_in, n_out = job->w->n_out;
	const size_t row_bytes = gguf_row_bytes(job->w->type, n_in);
	const char *w = (const char *)job->w->rows + row * row_bytes;
	const float *panel = (const float *)w;

	if (job->w->type != GGUF_F32) {
		quant_dequantize(job->w->type, w, scratch, (end - row) * n_in);
		panel = scratch;
	}
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)r->m, (blasint)(end - row),
		    (blasint)n_in, 1.0f, r->x, (blasint)n_in, panel, (blasint)n_in, 0.0f,
		    job->y + row, (blasint)n_out);
}

/* --- integers --- */

static void packed_panels(const struct run *r, const struct matmul *job, uint32_t row, uint32_t end)
{
	const struct weight *w = job->w;
	const size_t panel = pack_panel_bytes(w->type, w->n_in);

	for (uint32_t t = 0; t < acts_tiles(r->m); t++)
		for (uint32_t o = row; o < end; o += PACK_ROWS) {
			const uint32_t left = r->m - t * ACTS_ROWS;
			const struct gemm_tile tile = {
				.type = w->type,
				.n_in = w->n_in,
				.panel = w->panels + o / PACK_ROWS * panel,
				.acts = r->area->acts + acts_tile_offset(t, w->n_in),
				.rows = acts_tile_rows(r->m, t),
				.m = left < ACTS_ROWS ? left : ACTS_ROWS,
				.n = end - o < PACK_ROWS ? end - o : PACK_ROWS,
				.y = job->y + (size_t)t * ACTS_ROWS * w->n_out + o,
				.stride = w->n_out,
			};

			set->tile(&tile);
		}
}

static void fill_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct run *r = arg;

	acts_fill(r->area->acts, r->x, r->m, r->jobs[0].w->n_in, item);
}

/* A single tile takes less time than waking the pool. */
static void fill(struct pool *pool, struct run *r)
{
	bool wanted = false;

	for (unsigned int j = 0; j < r->n; j++)
		wanted |= r->jobs[j].w->panels != NULL;
	if (wanted && r->m <= ACTS_ROWS)
		fill_item(r, 0, 0);
	else if (wanted)
		pool_run(pool, acts_tiles(r->m), fill_item, r);
}

/* --- both --- */

static void panel_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct run *r = arg;
	const struct matmul *job;
	uint32_t row, end;
	unsigned int j = 0;

	while (item >= r->first[j + 1])
		j++;
	job = &r->jobs[j];
	row = (item - r->first[j]) * r->rows;
	end = row + r->rows < job->w->n_out ? row + r->rows : job->w->n_out;
	if (job->w->panels)
		packed_panels(r, job, row, end);
	else if (r->m < MATMUL_GEMM_ROWS)
		small_panel(r, job, row, end);
	else
		blas_panel(r, job, row, end, r->area->scratch + thread * r->area->scratch_len);
}

/*
 * Rows of w per item. With one or two rows of x all that counts is to read w at the speed of memory, in
 * runs that are long beside what the kernels ask for ahead, and even shares; some more items than
 * threads, so that one which was preempted costs a part of its share and not all.
 */
static uint32_t rows_per_item(const struct pool *pool, const struct matmul *jobs, unsigned int n,
			      uint32_t m)
{
	const unsigned int threads = pool_threads(pool);
	uint32_t total = 0, rows;

	if (m > 2)
		return MATMUL_PANEL;
	for (unsigned int j = 0; j < n; j++)
		total += jobs[j].w->n_out;
	rows = threads == 1 ? total : total / (threads * SHARES);
	return (rows / PACK_ROWS + 1) * PACK_ROWS;
}

void matmul_run(struct pool *pool, const struct matmul *jobs, unsigned int n, const float *x,
		uint32_t m, const struct matmul_area *area)
{
	struct run r = {
		.jobs = jobs,
		.n = n,
		.rows = rows_per_item(pool, jobs, n, m),
		.x = x,
		.m = m,
		.area = area,
	};

	for (unsigned int j = 0; j < n; j++)
		r.first[j + 1] = r.first[j] + (jobs[j].w->n_out + r.rows - 1) / r.rows;
	fill(pool, &r);
	pool_run(pool, r.first[n], panel_item, &r);
}

/* --- which kernels --- */

static void init_once(void)
{
	openblas_set_num_threads(1);
	set = gemm_best();
}

void matmul_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init_once);
}

int matmul_use(const char *name)
{
	matmul_init();
	for (int s = 0; s < GEMM_SETS; s++)
		if (strstr(gemm_sets[s]->name, name)) {
			if (!gemm_sets[s]->usable())
				return -ENOTSUP;
			set = gemm_sets[s];
			return 0;
		}
	return -ENOENT;
}

const char *matmul_describe(void)
{
	static _Thread_local char text[192];
	int at;

	matmul_init();
	at = snprintf(text, sizeof(text), "int8 by %s (", set->name);
	for (int s = 0; s < GEMM_SETS && gemm_sets[s] != set; s++)
		at += snprintf(
			text + at, sizeof(text) - (size_t)at, "%s %s; ",
			gemm_sets[s]->usable() ? "not chosen:" : "not here:", gemm_sets[s]->name);
	at -= text[at - 1] == ' ' ? 2 : 0;
	snprintf(text + at, sizeof(text) - (size_t)at, "%s), floats by OpenBLAS %s and %s",
		 set == gemm_sets[0] ? "the best there is" : "", openblas_get_corename(),
		 clones_active());
	return text;
}
