// SPDX-License-Identifier: MIT
#include "codec/calibration.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "codec/calibration_file.h"
#include "compute/matmul.h"

#define MAX_RATE  64.0 /* radians per position */
#define MAX_VALUE 65504.0f

uint32_t calibration_groups(const struct kv_geometry *geo)
{
	return (uint32_t)((kv_channels(geo) + CALIBRATION_MAX_WIDTH - 1) / CALIBRATION_MAX_WIDTH);
}

void calibration_span(const struct kv_geometry *geo, uint32_t group, uint32_t *first,
		      uint32_t *width)
{
	const uint64_t n = kv_channels(geo), groups = calibration_groups(geo);

	*first = (uint32_t)(n * group / groups);
	*width = (uint32_t)(n * (group + 1) / groups) - *first;
}

/* --- reading --- */

struct reader {
	const uint8_t *at, *end;
	float *floats; /* where the next ones go */
};

/* n floats within +-MAX_VALUE. */
static const float *read_floats(struct reader *r, uint32_t n)
{
	float *to = r->floats;

	if ((size_t)(r->end - r->at) < n * sizeof(float))
		return NULL;
	for (uint32_t i = 0; i < n; i++, r->at += sizeof(float)) {
		to[i] = get_lef32(r->at);
		if (!(fabsf(to[i]) <= MAX_VALUE))
			return NULL;
	}
	r->floats += n;
	return to;
}

static const float *read_components(struct reader *r, uint32_t n)
{
	float *to = r->floats;

	if ((size_t)(r->end - r->at) < n * sizeof(int16_t))
		return NULL;
	for (uint32_t i = 0; i < n; i++, r->at += sizeof(int16_t)) {
		to[i] = (int16_t)get_le16(r->at);
		if (fabsf(to[i]) > CALIBRATION_UNITY)
			return NULL;
	}
	r->floats += n;
	return to;
}

static int read_group(struct calibration *cal, struct calibration_group *g, uint32_t number,
		      struct reader *r)
{
	calibration_span(&cal->geo, number, &g->first, &g->width);
	if (r->end - r->at < 4)
		return -EBADMSG;
	g->kept = get_le32(r->at);
	r->at += 4;
	if (g->kept > g->width)
		return -EBADMSG;
	g->mean = read_floats(r, g->width);
	g->components = g->mean ? read_components(r, g->kept * g->width) : NULL;
	return g->components ? 0 : -EBADMSG;
}

static int read_halves(struct calibration *cal, struct reader *r)
{
	for (uint32_t i = 0; i < 2 * cal->geo.n_layer; i++) {
		struct calibration_half *half = &cal->halves[i];
		const float *unit = read_floats(r, 1);

		if (!unit || !(*unit >= CALIBRATION_LEAST_UNIT))
			return -EBADMSG;
		half->unit = *unit;
		for (uint32_t k = 0; k < cal->n_groups; k++) {
			int rc = read_group(cal, &half->groups[k], k, r);

			if (rc)
				return rc;
		}
	}
	return r->at == r->end ? 0 : -EBADMSG;
}

static int read_header(struct calibration *cal)
{
	const uint8_t *h = cal->data;

	if (cal->size < CALIBRATION_HEADER || memcmp(h, CALIBRATION_MAGIC, 8) ||
	    get_le32(h + 8) != CALIBRATION_VERSION || get_le32(h + 36) > 1)
		return -EBADMSG;
	cal->geo = (struct kv_geometry){ get_le32(h + 12), get_le32(h + 16), get_le32(h + 20) };
	cal->turn.dims = get_le32(h + 24);
	cal->turn.halves = get_le32(h + 28) == 1;
	cal->n_tokens = get_le32(h + 32);
	cal->weighed = get_le32(h + 36) == 1;
	memcpy(cal->model.b, h + 40, KV_HASH_BYTES);
	if (kv_geometry_check(&cal->geo, NULL) || get_le32(h + 28) > 1 ||
	    cal->turn.dims > cal->geo.head_dim || cal->turn.dims % 2 ||
	    cal->size - CALIBRATION_HEADER < cal->turn.dims / 2 * sizeof(double))
		return -EBADMSG;
	for (uint32_t i = 0; i < cal->turn.dims / 2; i++) {
		cal->turn.rates[i] = get_lef64(h + CALIBRATION_HEADER + i * sizeof(double));
		if (!(fabs(cal->turn.rates[i]) <= MAX_RATE))
			return -EBADMSG;
	}
	return 0;
}

/* Nothing is allocated for a geometry whose means alone would need more bytes than there are. */
static int allocate(struct calibration *cal)
{
	const size_t halves = 2 * (size_t)cal->geo.n_layer;
	const uint64_t width = (uint64_t)cal->geo.n_head_kv * cal->geo.head_dim;
	struct calibration_group *groups;

	cal->n_groups = calibration_groups(&cal->geo);
	if (halves * (4 + 4 * (uint64_t)cal->n_groups + 4 * width) > cal->size)
		return -EBADMSG;
	/* Every float comes from at least two bytes. */
	cal->memory = malloc(cal->size / 2 * sizeof(float));
	cal->halves = calloc(halves, sizeof(*cal->halves));
	groups = calloc(halves * cal->n_groups, sizeof(*groups));
	if (cal->halves)
		cal->halves[0].groups = groups; /* so that it is freed */
	else
		free(groups);
	if (!cal->memory || !cal->halves || !groups)
		return -ENOMEM;
	for (size_t i = 0; i < halves; i++)
		cal->halves[i].groups = groups + i * cal->n_groups;
	return 0;
}

static int take(struct calibration *cal)
{
	struct reader r = { .end = cal->data + cal->size };
	int rc = read_header(cal);

	if (!rc)
		rc = allocate(cal);
	if (rc)
		return rc;
	r.at = cal->data + CALIBRATION_HEADER + cal->turn.dims / 2 * sizeof(double);
	r.floats = cal->memory;
	cal->fingerprint = kv_digest(cal->data, cal->size);
	return read_halves(cal, &r);
}

int calibration_parse(struct calibration **out, const void *data, size_t size,
		      struct lslm_error *err)
{
	struct calibration *cal = calloc(1, sizeof(*cal));
	int rc;

	matmul_init(); /* one thread for BLAS: callers have their own */
	if (cal)
		cal->data = malloc(size ? size : 1);
	if (!cal || !cal->data) {
		free(cal);
		return error_set(err, -ENOMEM, "calibration of %zu bytes: out of memory", size);
	}
	memcpy(cal->data, data, size);
	cal->size = size;
	rc = take(cal);
	if (rc) {
		calibration_free(cal);
		return error_set(err, rc,
				 rc == -ENOMEM ?
					 "out of memory" :
					 "not a calibration of this version, or a damaged one");
	}
	*out = cal;
	return 0;
}

int calibration_open(struct calibration **out, const char *path, struct lslm_error *err)
{
	size_t size;
	char *data;
	int rc = file_read(path, CALIBRATION_MAX_BYTES, &data, &size, err);

	if (rc)
		return rc;
	rc = calibration_parse(out, data, size, err);
	free(data);
	return rc ? error_prefix(err, rc, "%s", path) : 0;
}

void calibration_free(struct calibration *cal)
{
	if (!cal)
		return;
	if (cal->halves)
		free(cal->halves[0].groups);
	free(cal->halves);
	free(cal->memory);
	free(cal->data);
	free(cal);
}

int calibration_match(const struct calibration *cal, const struct kv_geometry *geo,
		      const struct kv_hash *model, struct lslm_error *err)
{
	if (memcmp(&cal->geo, geo, sizeof(*geo)))
		return error_set(
			err, -EINVAL,
			"the calibration is for %u layers of %u heads of %u, not %u of %u of %u; make "
			"one with lslm calibrate",
			cal->geo.n_layer, cal->geo.n_head_kv, cal->geo.head_dim, geo->n_layer,
			geo->n_head_kv, geo->head_dim);
	if (model && !kv_hash_equal(&cal->model, model))
		return error_set(err, -EINVAL,
				 "the calibration is for another model; make one with lslm "
				 "calibrate");
	return 0;
}

/* --- several --- */

int calibrations_open(struct calibrations *s, const char *const *paths, uint32_t n,
		      struct lslm_error *err)
{
	struct calibration *cal;
	int rc = 0;

	if (!n)
		return 0;
	s->v = calloc(n, sizeof(struct calibration *));
	if (!s->v)
		return error_set(err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; !rc && i < n; i++) {
		rc = calibration_open(&cal, paths[i], err);
		if (rc)
			break;
		if (calibrations_for(s, &cal->model))
			rc = error_set(err, -EEXIST,
				       "%s: there is another calibration for its model already",
				       paths[i]);
		s->v[s->n++] = cal;
	}
	return rc;
}

void calibrations_free(struct calibrations *s)
{
	for (uint32_t i = 0; i < s->n; i++)
		calibration_free(s->v[i]);
	free(s->v);
	*s = (struct calibrations){ 0 };
}

const struct calibration *calibrations_named(const struct calibrations *s,
					     const struct kv_hash *fingerprint)
{
	for (uint32_t i = 0; s && i < s->n; i++)
		if (kv_hash_equal(&s->v[i]->fingerprint, fingerprint))
			return s->v[i];
	return NULL;
}

const struct calibration *calibrations_for(const struct calibrations *s,
					   const struct kv_hash *model)
{
	for (uint32_t i = 0; s && i < s->n; i++)
		if (kv_hash_equal(&s->v[i]->model, model))
			return s->v[i];
	return NULL;
}
