// SPDX-License-Identifier: MIT
#include "compute/matmul.h"

#include <cblas.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/clones.h"
#include "compute/acts.h"
#include "compute/dense.h"
#include "compute/gemm.h"
#include "compute/ops.h"
#include "compute/pack.h"
#include "compute/quant.h"

static const struct gemm_set *set; /* of matmul_init(), or matmul_use() */

/* Items of a product per thread, and what makes one worth it. */
enum { SHARES = 4, SHARE_BYTES = 128 << 10 };
enum { FEW_TILES = 4 }; /* see packed_panels() */

enum form { FORM_FLOATS, FORM_BYTES, FORM_BF16 };

struct run {
	const struct matmul *jobs;
	unsigned int n;
	unsigned int threads;
	uint32_t first[MATMUL_MAX_BATCH +
		       1]; /* of a thread's items, job j has first[j] .. first[j + 1] */
	uint32_t share[MATMUL_MAX_BATCH]; /* rows of w per item */
	struct matmul_rows in;
	enum form form; /* that area->acts holds */
	const struct matmul_area *area;
};

size_t matmul_scratch(uint64_t max_n_in)
{
	return (size_t)max_n_in * MATMUL_PANEL;
}

size_t matmul_acts_bytes(uint32_t max_m, uint64_t max_n_in)
{
	const size_t bytes = acts_bytes(max_m, max_n_in);
	const size_t bf16 = (size_t)max_m * max_n_in * sizeof(uint16_t);

	return bytes > bf16 ? bytes : bf16;
}

/* Rows row .. end of one matrix, which is one of a job's, and where they go. */
struct part {
	const struct weight *w;
	float *y;
	bool add;
	uint32_t row, end;
};

/* --- floats --- */

static void dense_panel(const struct run *r, const struct part *p, float *scratch)
{
	const struct weight *w = p->w;
	const struct dense d = {
		.type = w->type,
		.w = (const char *)w->rows + p->row * gguf_row_bytes(w->type, w->n_in),
		.x = r->in.x,
		.rounded = w->type == GGUF_BF16 && r->form == FORM_BF16 ?
				   (const uint16_t *)r->area->acts :
				   NULL,
		.n_in = w->n_in,
		.n = p->end - p->row,
		.m = r->in.m,
		.add = p->add,
		.y = p->y + p->row,
		.stride = w->n_out,
	};

	dense_multiply(&d, scratch);
}

static void blas_panel(const struct run *r, const struct part *p, float *scratch)
{
	const size_t n_in = p->w->n_in, n_out = p->w->n_out;
	const size_t row_bytes = gguf_row_bytes(p->w->type, n_in);
	const char *w = (const char *)p->w->rows + p->row * row_bytes;
	const float *panel = (const float *)w;

	if (p->w->type != GGUF_F32) {
		quant_dequantize(p->w->type, w, scratch, (p->end - p->row) * n_in);
		panel = scratch;
	}
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)r->in.m,
		    (blasint)(p->end - p->row), (blasint)n_in, 1.0f, r->in.x, (blasint)n_in, panel,
		    (blasint)n_in, p->add ? 1.0f : 0.0f, p->y + p->row, (blasint)n_out);
}

/* --- integers --- */

/* Row tile t of the activations with the panel of rows o .., of so many bytes. */
static void packed_panel(const struct run *r, const struct part *p, uint32_t t, uint32_t o,
			 size_t bytes, bool ahead)
{
	const struct weight *w = p->w;
	const uint32_t left = r->in.m - t * ACTS_ROWS;
	const struct gemm_tile tile = {
		.type = w->type,
		.n_in = w->n_in,
		.panel = w->panels + o / PACK_ROWS * bytes,
		.acts = r->area->acts + acts_tile_offset(t, w->n_in),
		.rows = acts_tile_rows(r->in.m, t),
		.m = left < ACTS_ROWS ? left : ACTS_ROWS,
		.n = p->end - o < PACK_ROWS ? p->end - o : PACK_ROWS,
		.ahead = ahead && o + PACK_ROWS < p->w->n_out,
		.add = p->add,
		.y = p->y + (size_t)t * ACTS_ROWS * w->n_out + o,
		.stride = w->n_out,
	};

	set->tile(&tile);
}

/*
 * With few row tiles a panel is used up while it is in the first cache, and the next one fetched meanwhile: what
 * a batch that decodes needs is mostly weights from memory. With many, the activations are what should stay.
 */
static void packed_panels(const struct run *r, const struct part *p)
{
	const uint32_t tiles = acts_tiles(r->in.m);
	const size_t bytes = pack_panel_bytes(p->w->type, p->w->n_in);

	if (tiles <= FEW_TILES) {
		for (uint32_t o = p->row; o < p->end; o += PACK_ROWS)
			for (uint32_t t = 0; t < tiles; t++)
				packed_panel(r, p, t, o, bytes, t == tiles - 1);
		return;
	}
	for (uint32_t t = 0; t < tiles; t++)
		for (uint32_t o = p->row; o < p->end; o += PACK_ROWS)
			packed_panel(r, p, t, o, bytes, false);
}

/* --- both --- */

/* A form of x that only some of the products need; the floats are always there. */
static enum form form_of(const struct run *r)
{
	bool bf16 = dense_has_bf16() && r->in.m > 1;

	for (unsigned int j = 0; j < r->n; j++) {
		const struct matmul *job = &r->jobs[j];

		if (job->w->panels || (job->up && job->up->panels))
			return FORM_BYTES;
		bf16 &= job->w->type == GGUF_BF16;
	}
	return bf16 ? FORM_BF16 : FORM_FLOATS;
}

static void rows_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct run *r = arg;
	const uint32_t first = item * ACTS_ROWS, left = r->in.m - first;
	const uint32_t n = left < ACTS_ROWS ? left : ACTS_ROWS;
	const size_t n_in = r->jobs[0].w->n_in, at = first * n_in;

	if (r->in.make)
		r->in.make(r->in.arg, first, n);
	if (r->form == FORM_BYTES)
		acts_fill(r->area->acts, r->in.x, r->in.m, n_in, item);
	if (r->form == FORM_BF16)
		dense_round((uint16_t *)r->area->acts + at, r->in.x + at, n * n_in);
}

/* A single tile takes less time than waking the pool. */
static void make_rows(struct pool *pool, struct run *r)
{
	if (!r->in.make && r->form == FORM_FLOATS)
		return;
	if (r->in.m <= ACTS_ROWS)
		rows_item(r, 0, 0);
	else
		pool_run(pool, acts_tiles(r->in.m), rows_item, r);
}

static void multiply(const struct run *r, const struct part *p, unsigned int thread)
{
	float *scratch = r->area->scratch + thread * r->area->scratch_len;

	if (p->w->panels)
		packed_panels(r, p);
	else if (r->in.m < MATMUL_BLAS_ROWS || r->form == FORM_BF16)
		dense_panel(r, p, scratch);
	else
		blas_panel(r, p, scratch);
}

/* Where thread t's rows of w begin. */
static uint32_t share_row(const struct run *r, const struct weight *w, unsigned int t)
{
	const uint64_t panels = (w->n_out + PACK_ROWS - 1) / PACK_ROWS;
	const uint64_t row = panels * t / r->threads * PACK_ROWS;

	return row < w->n_out ? (uint32_t)row : w->n_out;
}

/* Thread t's item k; the same thread has its other ones, as far as nobody takes them from it. */
static void panel_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct run *r = arg;
	const unsigned int t = item / r->first[r->n];
	const uint32_t k = item % r->first[r->n];
	const struct matmul *job;
	struct part p;
	unsigned int j = 0;
	uint32_t last;

	while (k >= r->first[j + 1])
		j++;
	job = &r->jobs[j];
	last = share_row(r, job->w, t + 1);
	p = (struct part){ job->w, job->y, job->then == MATMUL_ADD };
	p.row = share_row(r, job->w, t) + (k - r->first[j]) * r->share[j];
	if (p.row >= last)
		return;
	p.end = last - p.row > r->share[j] ? p.row + r->share[j] : last;
	multiply(r, &p, thread);
	if (job->then != MATMUL_SWIGLU)
		return;
	p.w = job->up;
	p.y = job->up_y;
	multiply(r, &p, thread);
	for (uint32_t i = 0; i < r->in.m; i++) {
		const size_t at = (size_t)i * p.w->n_out + p.row;

		ops_swiglu(job->y + at, job->up_y + at, p.end - p.row);
	}
}

/*
 * Rows of w per item, for threads that have at most `rows` of it. With one or two rows of x all that counts is to
 * read w at the speed of memory, in even shares and long runs; some more items than threads, so that
 * one which was preempted costs a part of its share and not all.
 */
static uint32_t rows_per_item(const struct run *r, const struct weight *w, uint32_t rows)
{
	const uint64_t row_bytes = gguf_row_bytes(w->type, w->n_in);
	uint64_t least = SHARE_BYTES / row_bytes;

	if (r->in.m > 2)
		return MATMUL_PANEL;
	if (r->threads == 1)
		return rows;
	least = least > rows / SHARES ? least : rows / SHARES;
	return (uint32_t)((least + PACK_ROWS - 1) / PACK_ROWS * PACK_ROWS);
}

static void cut(struct run *r)
{
	for (unsigned int j = 0; j < r->n; j++) {
		const struct weight *w = r->jobs[j].w;
		uint32_t most = 0;

		for (unsigned int t = 0; t < r->threads; t++) {
			const uint32_t rows = share_row(r, w, t + 1) - share_row(r, w, t);

			most = rows > most ? rows : most;
		}
		r->share[j] = rows_per_item(r, w, most);
		r->first[j + 1] = r->first[j] + (most + r->share[j] - 1) / r->share[j];
	}
}

void matmul_run(struct pool *pool, const struct matmul *jobs, unsigned int n,
		const struct matmul_rows *rows, const struct matmul_area *area)
{
	struct run r = {
		.jobs = jobs,
		.n = n,
		.threads = pool_threads(pool),
		.in = *rows,
		.area = area,
	};

	cut(&r);
	r.form = form_of(&r);
	make_rows(pool, &r);
	pool_run(pool, r.threads * r.first[n], panel_item, &r);
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
	at = snprintf(text, sizeof(text), "%s by %s (",
		      gemm_pays() ? "int8" : "not int8, which would be", set->name);
	for (int s = 0; s < GEMM_SETS && gemm_sets[s] != set; s++)
		at += snprintf(
			text + at, sizeof(text) - (size_t)at, "%s %s; ",
			gemm_sets[s]->usable() ? "not chosen:" : "not here:", gemm_sets[s]->name);
	at -= text[at - 1] == ' ' ? 2 : 0;
	snprintf(text + at, sizeof(text) - (size_t)at, "%s), floats by OpenBLAS %s and %s%s",
		 set == gemm_sets[0] ? "the best there is" : "", openblas_get_corename(),
		 clones_active(), dense_has_bf16() ? ", bf16 by AVX-512 BF16" : "");
	return text;
}
