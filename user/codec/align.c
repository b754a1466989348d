// SPDX-License-Identifier: MIT
#include "codec/align.h"

#include <cblas.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* LAPACK's, in OpenBLAS: a positive definite system, by Cholesky. Its header is in a package of its own. */
extern void dposv_(const char *uplo, const int *n, const int *nrhs, double *a, const int *lda,
		   double *b, const int *ldb, int *info);

struct align {
	uint32_t n_from, n_to;
	uint32_t wf, wt;
	double count;
	double *sum_x; /* [n_from][wf] */
	double *sum_y; /* [n_to][wt] */
	double *xx; /* [n_from][wf][wf] sums of products, not centred */
	double *yy; /* [n_to][wt][wt] */
	double *xy; /* [n_from][n_to][wf][wt] */
	double *x, *y; /* rows of one call as doubles */
	uint32_t room; /* rows that fit there */
};

void align_destroy(struct align *a)
{
	if (!a)
		return;
	free(a->sum_x);
	free(a->x);
	free(a);
}

enum { ROOM = 64 };

int align_create(struct align **out, uint32_t n_from, uint32_t width_from, uint32_t n_to,
		 uint32_t width_to, struct lslm_error *err)
{
	const size_t x = (size_t)n_from * width_from, y = (size_t)n_to * width_to;
	const size_t sums = x + y + x * width_from + y * width_to + x * y;
	struct align *a = calloc(1, sizeof(*a));

	if (!a)
		return error_set(err, -ENOMEM, "out of memory");
	a->n_from = n_from;
	a->n_to = n_to;
	a->wf = width_from;
	a->wt = width_to;
	a->sum_x = calloc(sums, sizeof(*a->sum_x));
	a->x = calloc(ROOM * (size_t)(width_from + width_to), sizeof(*a->x));
	if (!a->sum_x || !a->x) {
		align_destroy(a);
		return error_set(err, -ENOMEM, "sums of %zu MiB: out of memory", sums >> 17);
	}
	a->sum_y = a->sum_x + x;
	a->xx = a->sum_y + y;
	a->yy = a->xx + x * width_from;
	a->xy = a->yy + y * width_to;
	a->y = a->x + ROOM * (size_t)width_from;
	*out = a;
	return 0;
}

static void to_double(double *out, const float *in, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = in[i];
}

/* sum += x'y of n rows */
static void add_product(double *sum, const double *x, uint32_t wx, const double *y, uint32_t wy,
			uint32_t n)
{
	cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)wx, (int)wy, (int)n, 1, x,
		    (int)wx, y, (int)wy, 1, sum, (int)wy);
}

static void add_rows(double *sum, const double *x, uint32_t width, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < width; k++)
			sum[k] += x[(size_t)i * width + k];
}

/* At most ROOM rows, that begin at row `at` of n. */
static void add_some(struct align *a, const float *x, const float *y, uint32_t n, uint32_t at,
		     uint32_t m)
{
	for (uint32_t j = 0; j < a->n_to; j++) {
		to_double(a->y, y + ((size_t)j * n + at) * a->wt, (size_t)m * a->wt);
		add_rows(a->sum_y + (size_t)j * a->wt, a->y, a->wt, m);
		add_product(a->yy + (size_t)j * a->wt * a->wt, a->y, a->wt, a->y, a->wt, m);
	}
	for (uint32_t i = 0; i < a->n_from; i++) {
		to_double(a->x, x + ((size_t)i * n + at) * a->wf, (size_t)m * a->wf);
		add_rows(a->sum_x + (size_t)i * a->wf, a->x, a->wf, m);
		add_product(a->xx + (size_t)i * a->wf * a->wf, a->x, a->wf, a->x, a->wf, m);
		for (uint32_t j = 0; j < a->n_to; j++) {
			to_double(a->y, y + ((size_t)j * n + at) * a->wt, (size_t)m * a->wt);
			add_product(a->xy + ((size_t)i * a->n_to + j) * a->wf * a->wt, a->x, a->wf,
				    a->y, a->wt, m);
		}
	}
	a->count += m;
}

void align_add(struct align *a, const float *x, const float *y, uint32_t n)
{
	for (uint32_t at = 0; at < n; at += ROOM)
		add_some(a, x, y, n, at, n - at < ROOM ? n - at : ROOM);
}

/* Squared Frobenius norm of the centred product. */
static double norm2(const double *sum, const double *x, uint32_t wx, const double *y, uint32_t wy,
		    double count)
{
	double total = 0;

	for (uint32_t i = 0; i < wx; i++)
		for (uint32_t k = 0; k < wy; k++) {
			const double c = sum[(size_t)i * wy + k] - x[i] * y[k] / count;

			total += c * c;
		}
	return total;
}

double align_similarity(const struct align *a, uint32_t i, uint32_t j)
{
	const double *x = a->sum_x + (size_t)i * a->wf, *y = a->sum_y + (size_t)j * a->wt;
	const double xx = norm2(a->xx + (size_t)i * a->wf * a->wf, x, a->wf, x, a->wf, a->count);
	const double yy = norm2(a->yy + (size_t)j * a->wt * a->wt, y, a->wt, y, a->wt, a->count);
	const double xy = norm2(a->xy + ((size_t)i * a->n_to + j) * a->wf * a->wt, x, a->wf, y,
				a->wt, a->count);
	const double below = sqrt(xx) * sqrt(yy);

	return below > 0 ? xy / below : 0;
}

/*
 * best(i, j): the best sum for layers 0..j with m(j) <= i. It is best(i - 1, j), or similarity(i, j) more than best(i, j - 1).
 */
void align_assign(const double *s, uint32_t n_from, uint32_t n_to, uint32_t *m)
{
	double *best = calloc((size_t)n_from * n_to, sizeof(*best));
	uint32_t i = n_from - 1;

	for (uint32_t j = 0; j < n_to; j++)
		m[j] = j * n_from / n_to; /* what is left without memory: in proportion */
	if (!best)
		return;
	for (uint32_t j = 0; j < n_to; j++)
		for (uint32_t k = 0; k < n_from; k++) {
			const double take =
				s[(size_t)k * n_to + j] + (j ? best[(size_t)k * n_to + j - 1] : 0);
			const double leave = k ? best[(size_t)(k - 1) * n_to + j] : -INFINITY;

			best[(size_t)k * n_to + j] = take > leave ? take : leave;
		}
	for (uint32_t j = n_to; j-- > 0; m[j] = i)
		while (i && best[(size_t)i * n_to + j] == best[(size_t)(i - 1) * n_to + j])
			i--;
	free(best);
}

/* The system of one ridge regression: centred, and the right side transposed, as Fortran wants it. */
struct ridge {
	double *c; /* [wf][wf] */
	double *b; /* [n][wf] */
	double variance; /* of the n columns, times the count */
	double explained;
};

static void fill(const struct align *a, uint32_t i, uint32_t j, uint32_t first, uint32_t n,
		 double lambda, struct ridge *r)
{
	const double *x = a->sum_x + (size_t)i * a->wf, *y = a->sum_y + (size_t)j * a->wt + first;
	const double *xx = a->xx + (size_t)i * a->wf * a->wf;
	const double *xy = a->xy + ((size_t)i * a->n_to + j) * a->wf * a->wt + first;
	const double *yy = a->yy + (size_t)j * a->wt * a->wt;
	double trace = 0;

	for (uint32_t k = 0; k < a->wf; k++) {
		for (uint32_t l = 0; l < a->wf; l++)
			r->c[(size_t)k * a->wf + l] =
				xx[(size_t)k * a->wf + l] - x[k] * x[l] / a->count;
		for (uint32_t l = 0; l < n; l++)
			r->b[(size_t)l * a->wf + k] =
				xy[(size_t)k * a->wt + l] - x[k] * y[l] / a->count;
		trace += r->c[(size_t)k * a->wf + k];
	}
	for (uint32_t k = 0; k < a->wf; k++)
		r->c[(size_t)k * a->wf + k] += lambda * trace / a->wf;
	for (uint32_t l = 0; l < n; l++)
		r->variance += yy[(size_t)(first + l) * (a->wt + 1)] - y[l] * y[l] / a->count;
}

/*
 * With C the centred X'X, B the centred X'Y and W = (C + k)^-1 B, the residual is Y'Y - 2 W'B + W'CW
 * = Y'Y - W'B - k W'W; of that only the sum of the diagonal.
 */
static void finish(const struct align *a, uint32_t i, uint32_t j, uint32_t first, uint32_t n,
		   const double *right, struct ridge *r, float *w, float *bias)
{
	const double *x = a->sum_x + (size_t)i * a->wf, *y = a->sum_y + (size_t)j * a->wt + first;

	for (uint32_t l = 0; l < n; l++) {
		const double *column = r->b + (size_t)l * a->wf;
		double at_mean = 0;

		for (uint32_t k = 0; k < a->wf; k++) {
			w[(size_t)k * n + l] = (float)column[k];
			at_mean += x[k] * column[k];
			r->explained += column[k] * right[(size_t)l * a->wf + k];
		}
		bias[l] = (float)((y[l] - at_mean) / a->count);
	}
}

int align_ridge(const struct align *a, uint32_t i, uint32_t j, uint32_t first, uint32_t n,
		double lambda, float *w, float *bias, double *fit, struct lslm_error *err)
{
	const size_t square = (size_t)a->wf * a->wf, right = (size_t)n * a->wf;
	const int wf = (int)a->wf, columns = (int)n;
	struct ridge r = { .c = calloc(square + 2 * right, sizeof(double)) };
	int info;

	if (!r.c)
		return error_set(err, -ENOMEM, "out of memory");
	r.b = r.c + square;
	fill(a, i, j, first, n, lambda, &r);
	memcpy(r.b + right, r.b, right * sizeof(*r.b));
	dposv_("U", &wf, &columns, r.c, &wf, r.b, &wf, &info);
	if (!info)
		finish(a, i, j, first, n, r.b + right, &r, w, bias);
	free(r.c);
	if (info)
		return error_set(err, -EDOM,
				 "layer %u of the larger model varies in too few directions; "
				 "more text or a larger --ridge helps",
				 i);
	*fit = r.variance > 0 ? r.explained / r.variance : 1;
	return 0;
}
