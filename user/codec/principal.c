// SPDX-License-Identifier: MIT
/*
 * A stripe: one step (f16), in units of each half's own; the classes of all components, two to a byte, in the order of layers, K
 * before V, groups; one stream of codec/rans.h, whose parts are the groups.
 */
#include "codec/principal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include "base/bytes.h"
#include "base/clones.h"
#include "codec/rans.h"
#include "codec/halves.h"
#include "codec/steps.h"
#include "compute/half.h"
#include "compute/quant.h"

enum {
	STEP_BYTES = 2,
	ROWS = KV_BLOCK_TOKENS,
	LANES = 16,
	MOST = CALIBRATION_MAX_WIDTH,
	EXACT = 1 << 24, /* up to which floats are integers */
	/* Of a row's coordinates in steps: their norm times CALIBRATION_UNITY times 4 stays below EXACT. */
	LARGEST_NORM = 1000,
};

static size_t components(const struct calibration *cal)
{
	size_t n = 0;

	for (uint32_t i = 0; i < 2 * cal->geo.n_layer; i++)
		for (uint32_t g = 0; g < cal->n_groups; g++)
			n += cal->halves[i].groups[g].kept;
	return n;
}

size_t principal_bound(const struct kv_geometry *geo)
{
	const size_t n = 2 * geo->n_layer * kv_channels(geo);

	return STEP_BYTES + (n + 1) / 2 + rans_bound(ROWS * n);
}

/* --- forward --- */

struct forward {
	const struct calibration *cal;
	float *all; /* [ROWS][kept] of every group, in units */
	float *squares; /* of every component */
	float *rows; /* [ROWS][channels] */
	float whole[ROWS * MOST];
	float back[ROWS]; /* what integers of a row are worth */
	int16_t q[ROWS * MOST];
	uint8_t classes[MOST];
};

/*
 * A row without its mean as integers that are as large as they can be while products stay exact. Their
 * error is 40 dB below that of the step. The largest is found as an integer, which any order of looking leaves the same.
 */
CLONES static void to_integers(float *to, const float *row, const float *mean, uint32_t n,
			       float limit, float *back)
{
	int32_t largest = 0;
	int exponent;
	float up;

	for (uint32_t i = 0; i < n; i++) {
		const float v = row[i] - mean[i];
		const int32_t magnitude = (int32_t)bits_of(fabsf(v));

		to[i] = v;
		largest = magnitude > largest ? magnitude : largest;
	}
	frexpf(float_of((uint32_t)largest) / limit, &exponent);
	up = ldexpf(1, -exponent);
	*back = ldexpf(1, exponent);
	for (uint32_t i = 0; i < n; i++)
		to[i] = to[i] * up + 0x1.8p23f - 0x1.8p23f;
}

CLONES static void scale_row(float *x, float scale, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		x[i] *= scale;
}

/* Coordinates in the half's units. */
static void project(struct forward *f, const struct calibration_half *half,
		    const struct calibration_group *g, float *to)
{
	const float limit =
		floorf((float)(EXACT / CALIBRATION_UNITY - 32) / sqrtf((float)g->width));
	const float unit = 1 / (half->unit * CALIBRATION_UNITY);

	if (!g->kept)
		return;
	for (uint32_t t = 0; t < ROWS; t++)
		to_integers(f->whole + (size_t)t * g->width,
			    f->rows + t * kv_channels(&f->cal->geo) + g->first, g->mean, g->width,
			    limit, &f->back[t]);
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, ROWS, (int)g->kept, (int)g->width, 1,
		    f->whole, (int)g->width, g->components, (int)g->width, 0, to, (int)g->kept);
	for (uint32_t t = 0; t < ROWS; t++)
		scale_row(to + (size_t)t * g->kept, f->back[t] * unit, g->kept);
}

/* The largest norm of a row, its sums in an order that is the same everywhere. */
CLONES static float largest_norm(const float *x, uint32_t n)
{
	float largest = 0;

	for (uint32_t t = 0; t < ROWS; t++, x += n) {
		float sums[LANES] = { 0 };
		uint32_t i = 0;

		for (; i + LANES <= n; i += LANES)
			for (uint32_t k = 0; k < LANES; k++)
				sums[k] += x[i + k] * x[i + k];
		for (; i < n; i++)
			sums[0] += x[i] * x[i];
		for (uint32_t k = 1; k < LANES; k++)
			sums[0] += sums[k];
		largest = sums[0] > largest ? sums[0] : largest;
	}
	return sqrtf(largest);
}

/* Everything's coordinates and their squares; returns what RANS_MAX_VALUE steps must be at least. */
static float project_all(struct forward *f, const float *cs, const uint8_t *in)
{
	const struct calibration *cal = f->cal;
	float *to = f->all, *squares = f->squares, largest = 0;

	for (uint32_t i = 0; i < 2 * cal->geo.n_layer; i++) {
		const uint8_t *half = in + i * kv_half_bytes(&cal->geo, KV_LEVEL_F16);

		halves_gather(f->rows, (const uint16_t *)half, &cal->geo, &cal->turn,
			      i % 2 ? NULL : cs);
		for (uint32_t k = 0; k < cal->n_groups; k++) {
			const struct calibration_group *g = &cal->halves[i].groups[k];
			float peak, norm;

			project(f, &cal->halves[i], g, to);
			peak = steps_measure(squares, to, ROWS, g->kept);
			norm = largest_norm(to, g->kept) * RANS_MAX_VALUE / LARGEST_NORM;
			largest = peak > largest ? peak : largest;
			largest = norm > largest ? norm : largest;
			to += (size_t)ROWS * g->kept;
			squares += g->kept;
		}
	}
	return largest;
}

/* Bits left for values, in rans_cost()'s units over all components. */
static uint64_t cost_for(const struct calibration *cal, size_t n_components)
{
	const float values = 2 * (float)cal->geo.n_layer * ROWS * (float)kv_channels(&cal->geo);
	const float fixed = 8 * (RANS_LANES * 4 + STEP_BYTES + 36) + 4 * (float)n_components;
	const float bits = PRINCIPAL_BITS * values - fixed;

	return bits < values / 2 ? (uint64_t)(256 / 2 * values / ROWS) :
				   (uint64_t)(256 * bits / ROWS);
}

/* Backwards, as the coder wants it. */
static size_t code(struct forward *f, float step, uint8_t *classes, uint8_t *stream, size_t room,
		   size_t n_components)
{
	const struct calibration *cal = f->cal;
	const float *from = f->all + ROWS * n_components;
	size_t at = n_components;
	struct rans_encoder e;

	rans_encoder_begin(&e, stream, room);
	for (uint32_t i = 2 * cal->geo.n_layer; i-- > 0;)
		for (uint32_t k = cal->n_groups; k-- > 0;) {
			const uint32_t kept = cal->halves[i].groups[k].kept;

			from -= (size_t)ROWS * kept;
			at -= kept;
			steps_quantise(f->q, from, 1 / step, (size_t)ROWS * kept);
			rans_classify(f->classes, f->q, kept);
			steps_put_classes(classes, at, f->classes, kept);
			rans_encode(&e, f->q, f->classes, kept);
		}
	return rans_encoder_end(&e);
}

static size_t encode(struct forward *f, const float *cs, const uint8_t *in, uint8_t *out)
{
	const size_t n = components(f->cal), head = STEP_BYTES + (n + 1) / 2;
	const float largest = project_all(f, cs, in);
	const uint32_t step = steps_choose(f->squares, n, largest, cost_for(f->cal, n));

	put_le16(out, steps_half(step));
	memset(out + STEP_BYTES, 0, head - STEP_BYTES);
	return head + code(f, steps_value(step), out + STEP_BYTES, out + head,
			   principal_bound(&f->cal->geo) - head, n);
}

size_t principal_encode(const struct calibration *cal, uint32_t first, const uint8_t *in,
			uint8_t *out)
{
	const size_t n = components(cal);
	float *cs = halves_angles(&cal->turn, first);
	struct forward *f = malloc(sizeof(*f));
	size_t size = 0;

	if (f) {
		f->cal = cal;
		f->all = malloc((ROWS * n + 1) * sizeof(float));
		f->squares = calloc(n + 1, sizeof(float));
		f->rows = malloc(ROWS * kv_channels(&cal->geo) * sizeof(float));
		if (cs && f->all && f->squares && f->rows)
			size = encode(f, cs, in, out);
		free(f->all);
		free(f->squares);
		free(f->rows);
	}
	free(f);
	free(cs);
	return size;
}

/* --- back --- */

struct backward {
	const struct calibration *cal;
	const uint8_t *classes;
	struct rans_decoder d;
	float step;
	float *rows; /* [ROWS][channels] */
	float whole[ROWS * MOST], product[ROWS * MOST];
	int16_t v[ROWS * MOST];
	uint8_t own[MOST];
};

CLONES static void to_floats(float *to, const int16_t *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = v[i];
}

CLONES static void add_mean(float *row, const float *product, const float *mean, float scale,
			    uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		row[i] = mean[i] + product[i] * scale;
}

/* Components of class 0 at the end are all zero: most of a group's, often. */
static uint32_t used(const uint8_t *classes, uint32_t n)
{
	while (n && classes[n - 1] == 0)
		n--;
	return n;
}

static int restore_group(struct backward *b, const struct calibration_half *half,
			 const struct calibration_group *g, size_t at)
{
	const float scale = b->step / (4 * CALIBRATION_UNITY) * half->unit;
	const int width = (int)g->width, kept = (int)g->kept;
	int n, rc;

	steps_get_classes(b->own, b->classes, at, g->kept);
	rc = rans_decode(&b->d, b->v, b->own, g->kept);
	if (rc)
		return rc;
	n = (int)used(b->own, g->kept);
	to_floats(b->whole, b->v, (size_t)ROWS * g->kept);
	if (n)
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, ROWS, width, n, 1, b->whole,
			    kept, g->components, width, 0, b->product, width);
	else
		memset(b->product, 0, ROWS * g->width * sizeof(float));
	for (uint32_t t = 0; t < ROWS; t++)
		add_mean(b->rows + t * kv_channels(&b->cal->geo) + g->first,
			 b->product + (size_t)t * g->width, g->mean, scale, g->width);
	return 0;
}

static int decode(struct backward *b, const float *cs, uint8_t *out)
{
	const struct calibration *cal = b->cal;
	size_t at = 0;

	for (uint32_t i = 0; i < 2 * cal->geo.n_layer; i++) {
		uint8_t *half = out + i * kv_half_bytes(&cal->geo, KV_LEVEL_F16);

		for (uint32_t k = 0; k < cal->n_groups; k++) {
			int rc = restore_group(b, &cal->halves[i], &cal->halves[i].groups[k], at);

			if (rc)
				return rc;
			at += cal->halves[i].groups[k].kept;
		}
		halves_scatter((uint16_t *)half, b->rows, &cal->geo, &cal->turn, i % 2 ? NULL : cs);
	}
	return rans_decoder_end(&b->d);
}

int principal_decode(const struct calibration *cal, uint32_t first, const uint8_t *in, size_t size,
		     uint8_t *out)
{
	const size_t n = components(cal), head = STEP_BYTES + (n + 1) / 2;
	struct backward *b;
	float *cs;
	int rc = -ENOMEM;

	if (size < head || !steps_valid(get_le16(in)) || (n % 2 && in[head - 1] >> 4))
		return -EBADMSG;
	b = malloc(sizeof(*b));
	cs = halves_angles(&cal->turn, first);
	if (b) {
		b->cal = cal;
		b->classes = in + STEP_BYTES;
		b->step = f16_to_f32(get_le16(in));
		b->rows = malloc(ROWS * kv_channels(&cal->geo) * sizeof(float));
		if (cs && b->rows) {
			rc = rans_decoder_begin(&b->d, in + head, size - head);
			if (!rc)
				rc = decode(b, cs, out);
		}
		free(b->rows);
	}
	free(b);
	free(cs);
	return rc;
}
