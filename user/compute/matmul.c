// SPDX-License-Identifier: MIT
#include "compute/matmul.h"

#include <cblas.h>
#include <pthread.h>
#include <stdio.h>

#include "base/clones.h"
#include "compute/quant.h"

struct run {
	const struct matmul *jobs;
	unsigned int n;
	uint32_t first[MATMUL_MAX_BATCH + 1]; /* job j has items first[j] .. first[j + 1] */
	const float *x;
	uint32_t m;
	float *scratch;
	size_t scratch_len;
};

size_t matmul_scratch(uint64_t max_n_in)
{
	return (size_t)max_n_in * MATMUL_PANEL;
}

static uint32_t panels(const struct gguf_tensor *w)
{
	return (uint32_t)((w->ne[1] + MATMUL_PANEL - 1) / MATMUL_PANEL);
}

static void small_panel(const struct run *r, const struct matmul *job, uint64_t row, uint64_t end)
{
	const uint64_t n_in = job->w->ne[0], n_out = job->w->ne[1];
	const size_t row_bytes = gguf_row_bytes(job->w->type, n_in);

	for (; row < end; row++) {
		const void *w = (const char *)job->w->data + row * row_bytes;

		for (uint32_t i = 0; i < r->m; i++)
			job->y[i * n_out + row] = quant_dot(job->w->type, w, r->x + i * n_in, n_in);
	}
}

static void gemm_panel(const struct run *r, const struct matmul *job, uint64_t row, uint64_t end,
		       float *scratch)
{
	const uint64_t n_in = job->w->ne[0], n_out = job->w->ne[1];
	const size_t row_bytes = gguf_row_bytes(job->w->type, n_in);
	const char *w = (const char *)job->w->data + row * row_bytes;
	const float *panel = (const float *)w;

	if (job->w->type != GGUF_F32) {
		quant_dequantize(job->w->type, w, scratch, (end - row) * n_in);
		panel = scratch;
	}
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)r->m, (blasint)(end - row),
		    (blasint)n_in, 1.0f, r->x, (blasint)n_in, panel, (blasint)n_in, 0.0f,
		    job->y + row, (blasint)n_out);
}

static void panel_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct run *r = arg;
	const struct matmul *job;
	uint64_t row, end;
	unsigned int j = 0;

	while (item >= r->first[j + 1])
		j++;
	job = &r->jobs[j];
	row = (uint64_t)(item - r->first[j]) * MATMUL_PANEL;
	end = row + MATMUL_PANEL < job->w->ne[1] ? row + MATMUL_PANEL : job->w->ne[1];
	if (r->m < MATMUL_GEMM_ROWS)
		small_panel(r, job, row, end);
	else
		gemm_panel(r, job, row, end, r->scratch + thread * r->scratch_len);
}

void matmul_run(struct pool *pool, const struct matmul *jobs, unsigned int n, const float *x,
		uint32_t m, float *scratch, size_t scratch_len)
{
	struct run r = {
		.jobs = jobs,
		.n = n,
		.x = x,
		.m = m,
		.scratch = scratch,
		.scratch_len = scratch_len,
	};

	for (unsigned int j = 0; j < n; j++)
		r.first[j + 1] = r.first[j] + panels(jobs[j].w);
	pool_run(pool, r.first[n], panel_item, &r);
}

static char description[96];

static void init_once(void)
{
	openblas_set_num_threads(1);
	snprintf(description, sizeof(description), "OpenBLAS %s + %s", openblas_get_corename(),
		 clones_active());
}

void matmul_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init_once);
}

const char *matmul_describe(void)
{
	matmul_init();
	return description;
}
