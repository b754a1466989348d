// SPDX-License-Identifier: MIT
/*
 * Principal components: mean and covariance of every group in double precision, its eigenvectors by LAPACK. This runs once per
 * model, on one machine; what others need is in the file.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include "base/bytes.h"
#include "codec/calibration.h"
#include "codec/calibration_file.h"
#include "codec/halves.h"
#include "codec/steps.h"
#include "compute/matmul.h"

/* Components of less deviation than this times the half's unit are not worth their bytes: no step in use reaches them. */
#define LEAST_DEVIATION 0.2

#define LEAST_DIVERGENCE 1e-12

/* How far errors' harm may move a half's unit, in bits: what was measured on some text need not hold on all. */
#define LARGEST_SHIFT 2.0

/* LAPACK's eigenvalues and vectors of a symmetric matrix; its 64-bit twin is not linked. */
void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w,
	     double *work, const int *lwork, int *iwork, const int *liwork, int *info);

struct moments {
	double *sum; /* [width] */
	double *products; /* [width][width], upper triangle */
};

struct harm {
	double error, divergence; /* sums */
	uint32_t n;
};

struct calibrator {
	struct kv_geometry geo;
	struct turn_params turn;
	struct kv_hash model;
	uint32_t n_groups;
	uint64_t n_tokens;
	struct moments *moments; /* [n_layer][2][n_groups] */
	struct harm *harm; /* [n_layer][2] */
	double *memory;
	float *rows; /* [64][channels], one half */
	double *wide; /* [64][CALIBRATION_MAX_WIDTH] */
};

static int allocate(struct calibrator *c)
{
	const size_t halves = 2 * (size_t)c->geo.n_layer;
	size_t one = 0;
	double *at;

	for (uint32_t g = 0; g < c->n_groups; g++) {
		uint32_t first, width;

		calibration_span(&c->geo, g, &first, &width);
		one += width + (size_t)width * width;
	}
	c->moments = calloc(halves * c->n_groups, sizeof(*c->moments));
	c->harm = calloc(halves, sizeof(*c->harm));
	c->memory = calloc(halves * one, sizeof(double));
	c->rows = malloc(KV_BLOCK_TOKENS * kv_channels(&c->geo) * sizeof(float));
	c->wide = malloc(KV_BLOCK_TOKENS * CALIBRATION_MAX_WIDTH * sizeof(double));
	if (!c->moments || !c->harm || !c->memory || !c->rows || !c->wide)
		return -ENOMEM;
	at = c->memory;
	for (size_t i = 0; i < halves * c->n_groups; i++) {
		uint32_t first, width;

		calibration_span(&c->geo, (uint32_t)(i % c->n_groups), &first, &width);
		c->moments[i].sum = at;
		c->moments[i].products = at + width;
		at += width + (size_t)width * width;
	}
	return 0;
}

int calibrator_new(struct calibrator **out, const struct kv_geometry *geo,
		   const struct turn_params *turn, const struct kv_hash *model,
		   struct lslm_error *err)
{
	struct calibrator *c;

	if (kv_channels(geo) > STEPS_MAX_CHANNELS)
		return error_set(
			err, -ENOTSUP,
			"%u heads of %u are more than %d channels, which cannot be calibrated",
			geo->n_head_kv, geo->head_dim, STEPS_MAX_CHANNELS);
	matmul_init(); /* one thread for BLAS: callers have their own */
	c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	c->geo = *geo;
	c->turn = *turn;
	c->model = *model;
	c->n_groups = calibration_groups(geo);
	if (allocate(c)) {
		calibrator_free(c);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*out = c;
	return 0;
}

void calibrator_free(struct calibrator *c)
{
	if (!c)
		return;
	free(c->moments);
	free(c->harm);
	free(c->memory);
	free(c->rows);
	free(c->wide);
	free(c);
}

static void add_group(struct calibrator *c, struct moments *m, uint32_t first, uint32_t width)
{
	const size_t row = kv_channels(&c->geo);

	for (uint32_t t = 0; t < KV_BLOCK_TOKENS; t++)
		for (uint32_t i = 0; i < width; i++) {
			const double v = c->rows[t * row + first + i];

			c->wide[(size_t)t * width + i] = v;
			m->sum[i] += v;
		}
	cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)width, KV_BLOCK_TOKENS, 1, c->wide,
		    (int)width, 1, m->products, (int)width);
}

int calibrator_add(struct calibrator *c, const uint8_t *stripe, uint32_t first)
{
	const size_t half = kv_half_bytes(&c->geo, KV_LEVEL_F16);
	float *cs = halves_angles(&c->turn, first);

	if (!cs)
		return -ENOMEM;
	for (uint32_t i = 0; i < 2 * c->geo.n_layer; i++) {
		halves_gather(c->rows, (const uint16_t *)(stripe + i * half), &c->geo, &c->turn,
			      i % 2 ? NULL : cs);
		for (uint32_t g = 0; g < c->n_groups; g++) {
			uint32_t from, width;

			calibration_span(&c->geo, g, &from, &width);
			add_group(c, &c->moments[(size_t)i * c->n_groups + g], from, width);
		}
	}
	c->n_tokens += KV_BLOCK_TOKENS;
	free(cs);
	return 0;
}

void calibrator_weigh(struct calibrator *c, uint32_t half, double error, double divergence)
{
	c->harm[half].error += error;
	c->harm[half].divergence += divergence;
	c->harm[half].n++;
}

uint32_t calibrator_n_weighed(const struct calibrator *c)
{
	return c->harm[2 * c->geo.n_layer - 1].n;
}

/* --- from moments to the file's bytes --- */

struct fit {
	const struct calibrator *c;
	uint8_t *at; /* of the file */
	double *units; /* [n_layer][2] */
	double *matrix, *values, *work;
	int *iwork;
	int n_work, n_iwork;
};

static double mean_of(const struct fit *f, const struct moments *m, uint32_t i)
{
	return m->sum[i] / (double)f->c->n_tokens;
}

/* Upper triangle, row by row, which to Fortran is the lower one. */
static void covariance(const struct fit *f, const struct moments *m, uint32_t width)
{
	for (uint32_t i = 0; i < width; i++)
		for (uint32_t k = i; k < width; k++)
			f->matrix[(size_t)i * width + k] =
				m->products[(size_t)i * width + k] / (double)f->c->n_tokens -
				mean_of(f, m, i) * mean_of(f, m, k);
}

static void put_float(struct fit *f, double v)
{
	put_lef32(f->at, (float)v);
	f->at += sizeof(float);
}

/* Root of the mean variance of a half's channels; never zero. */
static double unit_of(const struct fit *f, const struct moments *m)
{
	double sum = 0;

	for (uint32_t g = 0; g < f->c->n_groups; g++) {
		uint32_t first, width;

		calibration_span(&f->c->geo, g, &first, &width);
		for (uint32_t i = 0; i < width; i++)
			sum += m[g].products[(size_t)i * width + i] / (double)f->c->n_tokens -
			       mean_of(f, &m[g], i) * mean_of(f, &m[g], i);
	}
	return fmax(sqrt(fmax(sum, 0) / (double)kv_channels(&f->c->geo)), CALIBRATION_LEAST_UNIT);
}

/* Of errors as large as the half's own values, as a power of two; 0 where nobody weighed. */
static double harm_of(const struct fit *f, uint32_t half)
{
	const struct harm *h = &f->c->harm[half];
	const double rms = f->units[half];

	if (!(h->error > 0))
		return 0;
	return log2(fmax(h->divergence, LEAST_DIVERGENCE) / h->error * rms * rms);
}

/*
 * Divergence grows with the square of errors, so it is least, at so many bits, where each half's is the same: steps go with one
 * over the root of the harm that an error of one does. To relative errors that is a shift against the average.
 */
static void fit_units(struct fit *f)
{
	const uint32_t n = 2 * f->c->geo.n_layer;
	double mean = 0;

	for (uint32_t i = 0; i < n; i++)
		f->units[i] = unit_of(f, &f->c->moments[(size_t)i * f->c->n_groups]);
	for (uint32_t i = 0; i < n; i++)
		mean += harm_of(f, i) / n;
	for (uint32_t i = 0; i < n; i++) {
		double shift = (harm_of(f, i) - mean) / 2;

		shift = fmax(fmin(shift, LARGEST_SHIFT), -LARGEST_SHIFT);

		f->units[i] = fmax(f->units[i] * exp2(-shift), CALIBRATION_LEAST_UNIT);
	}
}

static int fit_group(struct fit *f, const struct moments *m, uint32_t width, double unit)
{
	const int n = (int)width;
	uint8_t *count = f->at;
	uint32_t kept = 0;
	int info;

	covariance(f, m, width);
	dsyevd_("V", "L", &n, f->matrix, &n, f->values, f->work, &f->n_work, f->iwork, &f->n_iwork,
		&info);
	if (info)
		return -EINVAL;
	f->at += 4;
	for (uint32_t i = 0; i < width; i++)
		put_float(f, mean_of(f, m, i));
	/* Largest last; a vector is a column to Fortran, so a row here. */
	for (uint32_t k = width; k-- > 0;) {
		const double *v = f->matrix + (size_t)k * width;

		if (!(f->values[k] > pow(LEAST_DEVIATION * unit, 2)))
			break;
		for (uint32_t i = 0; i < width; i++, f->at += 2)
			put_le16(f->at, (uint16_t)(int16_t)lrint(v[i] * CALIBRATION_UNITY));
		kept++;
	}
	put_le32(count, kept);
	return 0;
}

static int fit_all(struct fit *f)
{
	for (uint32_t i = 0; i < 2 * f->c->geo.n_layer; i++) {
		const struct moments *m = &f->c->moments[(size_t)i * f->c->n_groups];
		const double unit = f->units[i];

		put_float(f, unit);
		for (uint32_t g = 0; g < f->c->n_groups; g++) {
			uint32_t first, width;
			int rc;

			calibration_span(&f->c->geo, g, &first, &width);
			rc = fit_group(f, &m[g], width, unit);
			if (rc)
				return rc;
		}
	}
	return 0;
}

static void put_header(struct fit *f)
{
	const struct calibrator *c = f->c;
	const uint32_t fields[] = { CALIBRATION_VERSION,
				    c->geo.n_layer,
				    c->geo.n_head_kv,
				    c->geo.head_dim,
				    c->turn.dims,
				    c->turn.halves,
				    (uint32_t)(c->n_tokens < UINT32_MAX ? c->n_tokens : UINT32_MAX),
				    calibrator_n_weighed(c) > 0 };

	memcpy(f->at, CALIBRATION_MAGIC, 8);
	for (uint32_t i = 0; i < 8; i++)
		put_le32(f->at + 8 + 4 * i, fields[i]);
	memcpy(f->at + 40, c->model.b, KV_HASH_BYTES);
	f->at += CALIBRATION_HEADER;
	for (uint32_t i = 0; i < c->turn.dims / 2; i++, f->at += sizeof(double))
		put_lef64(f->at, c->turn.rates[i]);
}

static size_t largest_file(const struct calibrator *c)
{
	size_t half = 4;

	for (uint32_t g = 0; g < c->n_groups; g++) {
		uint32_t first, width;

		calibration_span(&c->geo, g, &first, &width);
		half += 4 + 4 * (size_t)width + 2 * (size_t)width * width;
	}
	return CALIBRATION_HEADER + c->turn.dims / 2 * sizeof(double) + half * 2 * c->geo.n_layer;
}

int calibrator_finish(const struct calibrator *c, struct calibration **out, struct lslm_error *err)
{
	const size_t width = CALIBRATION_MAX_WIDTH;
	uint8_t *data = malloc(largest_file(c));
	struct fit f = {
		.c = c,
		.at = data,
		.n_work = (int)(1 + 6 * width + 2 * width * width),
		.n_iwork = (int)(3 + 5 * width),
	};
	int rc = -ENOMEM;

	f.units = malloc(2 * c->geo.n_layer * sizeof(double));
	f.matrix = malloc(width * width * sizeof(double));
	f.values = malloc(width * sizeof(double));
	f.work = malloc((size_t)f.n_work * sizeof(double));
	f.iwork = malloc((size_t)f.n_iwork * sizeof(int));
	if (c->n_tokens < width && c->n_tokens < kv_channels(&c->geo))
		rc = error_set(
			err, -EINVAL,
			"%llu tokens are too few to calibrate with; the text should have thousands",
			(unsigned long long)c->n_tokens);
	else if (data && f.units && f.matrix && f.values && f.work && f.iwork) {
		put_header(&f);
		fit_units(&f);
		rc = fit_all(&f);
		if (rc)
			error_set(err, rc, "the eigenvalues of the text's values do not converge");
		else
			rc = calibration_parse(out, data, (size_t)(f.at - data), err);
	} else
		error_set(err, rc, "out of memory");
	free(data);
	free(f.units);
	free(f.matrix);
	free(f.values);
	free(f.work);
	free(f.iwork);
	return rc;
}
