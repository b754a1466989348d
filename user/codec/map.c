// SPDX-License-Identifier: MIT
#include "codec/map.h"

#include <cblas.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/hash.h"
#include "codec/rows.h"

enum {
	AT_VERSION = 8,
	AT_FROM = 16,
	AT_TO = 28,
	AT_HASHES = 40,
	AT_EVALUATION = 136,
	AT_PARTS = 192,
	PART_BYTES = 16,
	MAX_WIDTH = 1 << 20,
};

static const char magic[8] = { 'L', 'S', 'L', 'M', ' ', 'm', 'a', 'p' };

uint32_t map_n_in(const struct map *m, const struct map_part *p)
{
	return p->count * rows_width(&m->from);
}

uint32_t map_n_out(const struct map *m)
{
	return m->to.n_head_kv * m->to.head_dim;
}

/* n_in < 2^20 and n_out <= 2^20, so nothing here overflows. */
static uint64_t part_floats(const struct map *m, const struct map_part *p)
{
	const uint64_t in = map_n_in(m, p), out = map_n_out(m);

	return out + (p->rank ? p->rank * (in + out) : in * out);
}

static int check_part(const struct map *m, const struct map_part *p, uint32_t i,
		      struct lslm_error *err)
{
	const uint32_t n = m->from.n_layer, out = map_n_out(m);

	if (p->count > n || p->first > n - p->count || p->count > MAX_WIDTH / rows_width(&m->from))
		return error_set(err, -EINVAL, "part %u of the map reads layers %u to %u of %u", i,
				 p->first, p->first + p->count, n);
	if (p->rank > out || (p->rank && !p->count))
		return error_set(err, -EINVAL, "part %u of the map has rank %u of %u", i, p->rank,
				 out);
	if (!(p->keep >= 0 && p->keep <= 1))
		return error_set(err, -EINVAL, "part %u of the map has a gate outside 0 to 1", i);
	return 0;
}

/* Takes parts' shapes as they are in m->parts; gives them memory. */
static int allocate(struct map *m, uint64_t limit, struct lslm_error *err)
{
	uint64_t total = 0;
	float *at;

	for (uint32_t i = 0; i < 2 * m->to.n_layer; i++) {
		int rc = check_part(m, &m->parts[i], i, err);

		if (rc)
			return rc;
		total += part_floats(m, &m->parts[i]);
		if (total > limit)
			return error_set(err, -EINVAL, "the map is cut short, or too large");
	}
	m->memory = calloc(total, sizeof(float));
	if (!m->memory)
		return error_set(err, -ENOMEM, "out of memory");
	at = m->memory;
	for (uint32_t i = 0; i < 2 * m->to.n_layer; i++) {
		struct map_part *p = &m->parts[i];
		float *const end = at + part_floats(m, p);

		p->bias = at;
		p->a = p->bias + map_n_out(m);
		p->b = p->rank ? p->a + (size_t)map_n_in(m, p) * p->rank : NULL;
		at = end;
	}
	return 0;
}

static int check_geometry(const struct map *m, struct lslm_error *err)
{
	int rc = kv_geometry_check(&m->from, err);

	if (!rc)
		rc = kv_geometry_check(&m->to, err);
	if (!rc && rows_width(&m->from) >= MAX_WIDTH)
		rc = error_set(err, -EINVAL, "the map's source is too wide");
	return rc;
}

int map_new_run(struct map **out, const struct kv_geometry *geo, const struct kv_run *run,
		struct lslm_error *err)
{
	int rc = kv_geometry_check(geo, err);
	struct map *m;

	if (!rc)
		rc = kv_run_check(run, geo, err);
	if (rc)
		return rc;
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	m->from = m->to = *geo;
	m->run = *run;
	m->evaluation.bar = PROOF_NO_WORSE;
	*out = m;
	return 0;
}

static int make(struct map **out, const struct kv_geometry *from, const struct kv_geometry *to,
		struct lslm_error *err)
{
	struct map *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	m->from = *from;
	m->to = *to;
	rc = check_geometry(m, err);
	if (!rc) {
		m->parts = calloc(2 * (size_t)to->n_layer, sizeof(*m->parts));
		rc = m->parts ? 0 : error_set(err, -ENOMEM, "out of memory");
	}
	if (rc)
		map_free(m);
	else
		*out = m;
	return rc;
}

int map_new(struct map **out, const struct kv_geometry *from, const struct kv_geometry *to,
	    const struct map_part *shape, struct lslm_error *err)
{
	struct map *m;
	int rc = make(&m, from, to, err);

	if (rc)
		return rc;
	memcpy(m->parts, shape, 2 * (size_t)to->n_layer * sizeof(*shape));
	rc = allocate(m, MAP_MAX_BYTES / sizeof(float), err);
	if (rc)
		map_free(m);
	else
		*out = m;
	return rc;
}

void map_free(struct map *m)
{
	if (!m)
		return;
	free(m->parts);
	free(m->memory);
	free(m);
}

static struct kv_hash fingerprint(const void *data, size_t size)
{
	struct kv_hash out = { 0 };
	struct hash h;

	hash_start(&h, "lslm map v1");
	hash_raw(&h, data, size);
	hash_finish(&h, out.b);
	return out;
}

static struct kv_geometry get_geometry(const uint8_t *p)
{
	return (struct kv_geometry){ get_le32(p), get_le32(p + 4), get_le32(p + 8) };
}

static void put_geometry(uint8_t *p, const struct kv_geometry *g)
{
	put_le32(p, g->n_layer);
	put_le32(p + 4, g->n_head_kv);
	put_le32(p + 8, g->head_dim);
}

static int get_weights(struct map *m, const uint8_t *at, size_t size, struct lslm_error *err)
{
	float *to = m->memory;

	for (size_t i = 0; i < size / sizeof(float); i++) {
		to[i] = get_lef32(at + i * sizeof(float));
		if (!isfinite(to[i]))
			return error_set(err, -EINVAL, "a weight of the map is not a number");
	}
	return 0;
}

/* Everything behind the geometry; nothing is allocated that the bytes present have not paid for. */
static int get_parts(struct map *m, const uint8_t *p, size_t size, struct lslm_error *err)
{
	const size_t table = AT_PARTS + 2 * (size_t)m->to.n_layer * PART_BYTES;
	uint64_t floats = 0;
	int rc;

	for (uint32_t i = 0; i < 2 * m->to.n_layer; i++) {
		const uint8_t *at = p + AT_PARTS + (size_t)i * PART_BYTES;

		m->parts[i] = (struct map_part){ .first = get_le32(at),
						 .count = get_le32(at + 4),
						 .rank = get_le32(at + 8),
						 .keep = get_lef32(at + 12) };
	}
	rc = allocate(m, (size - table) / sizeof(float), err);
	for (uint32_t i = 0; !rc && i < 2 * m->to.n_layer; i++)
		floats += part_floats(m, &m->parts[i]);
	if (!rc && floats * sizeof(float) != size - table)
		rc = error_set(err, -EINVAL, "the map has bytes that belong to nothing");
	return rc ? rc : get_weights(m, p + table, size - table, err);
}

/* With room for its parts, or its run. */
static int begin_body(struct map **out, const uint8_t *p, size_t size, bool is_run,
		      struct lslm_error *err)
{
	const struct kv_geometry from = get_geometry(p + AT_FROM), to = get_geometry(p + AT_TO);
	struct kv_run run;

	if (is_run) {
		if (size != AT_PARTS + KV_RUN_BYTES || kv_run_get(&run, p + AT_PARTS) ||
		    memcmp(&from, &to, sizeof(to)))
			return error_set(err, -EINVAL, "a map of layers: unknown form");
		return map_new_run(out, &to, &run, err);
	}
	if (to.n_layer > (size - AT_PARTS) / PART_BYTES / 2)
		return error_set(err, -EINVAL, "the map is cut short");
	return make(out, &from, &to, err);
}

static int parse_body(struct map **out, const uint8_t *p, size_t size, bool is_run,
		      struct lslm_error *err)
{
	struct map *m;
	int rc = begin_body(&m, p, size, is_run, err);

	if (rc)
		return rc;
	memcpy(m->model_from.b, p + AT_HASHES, KV_HASH_BYTES);
	memcpy(m->model_to.b, p + AT_HASHES + KV_HASH_BYTES, KV_HASH_BYTES);
	memcpy(m->tokenizer.b, p + AT_HASHES + 2 * KV_HASH_BYTES, KV_HASH_BYTES);
	rc = proof_get(&m->evaluation, p + AT_EVALUATION, err);
	if (!rc && (m->evaluation.bar == PROOF_NO_WORSE) != is_run)
		rc = error_set(err, -EINVAL, "the map was held against another kind's bar");
	if (!rc && !is_run)
		rc = get_parts(m, p, size, err);
	if (rc)
		map_free(m);
	else
		*out = m;
	return rc;
}

int map_parse(struct map **out, const void *data, size_t size, struct lslm_error *err)
{
	const uint8_t *p = data;
	struct kv_hash want, got;
	uint32_t version;
	int rc;

	if (size < AT_PARTS + KV_HASH_BYTES || memcmp(p, magic, sizeof(magic)))
		return error_set(err, -EINVAL, "not a map");
	version = get_le32(p + AT_VERSION);
	if ((version != MAP_VERSION && version != MAP_VERSION_RUN) || get_le32(p + AT_VERSION + 4))
		return error_set(err, -EINVAL, "a map of version %u; this program reads %d and %d",
				 version, MAP_VERSION, MAP_VERSION_RUN);
	size -= KV_HASH_BYTES;
	memcpy(want.b, p + size, KV_HASH_BYTES);
	got = fingerprint(p, size);
	if (!kv_hash_equal(&want, &got))
		return error_set(err, -EBADMSG, "the map is damaged: its digest is wrong");
	rc = parse_body(out, p, size, version == MAP_VERSION_RUN, err);
	if (!rc)
		(*out)->fingerprint = got;
	return rc;
}

int map_read(struct map **out, const char *path, struct lslm_error *err)
{
	size_t size;
	char *data;
	int rc = file_read(path, MAP_MAX_BYTES, &data, &size, err);

	if (rc)
		return rc;
	rc = map_parse(out, data, size, err);
	free(data);
	return rc ? error_prefix(err, rc, "%s", path) : 0;
}

static void put_head(uint8_t *p, const struct map *m)
{
	memcpy(p, magic, sizeof(magic));
	put_le32(p + AT_VERSION, map_is_run(m) ? MAP_VERSION_RUN : MAP_VERSION);
	put_geometry(p + AT_FROM, &m->from);
	put_geometry(p + AT_TO, &m->to);
	memcpy(p + AT_HASHES, m->model_from.b, KV_HASH_BYTES);
	memcpy(p + AT_HASHES + KV_HASH_BYTES, m->model_to.b, KV_HASH_BYTES);
	memcpy(p + AT_HASHES + 2 * KV_HASH_BYTES, m->tokenizer.b, KV_HASH_BYTES);
	proof_put(p + AT_EVALUATION, &m->evaluation);
	if (map_is_run(m))
		kv_run_put(p + AT_PARTS, &m->run);
	for (uint32_t i = 0; !map_is_run(m) && i < 2 * m->to.n_layer; i++) {
		uint8_t *at = p + AT_PARTS + (size_t)i * PART_BYTES;

		put_le32(at, m->parts[i].first);
		put_le32(at + 4, m->parts[i].count);
		put_le32(at + 8, m->parts[i].rank);
		put_lef32(at + 12, m->parts[i].keep);
	}
}

int map_write(struct map *m, const char *path, struct lslm_error *err)
{
	const size_t table =
		AT_PARTS + (map_is_run(m) ? KV_RUN_BYTES : 2 * (size_t)m->to.n_layer * PART_BYTES);
	const float *from = m->memory;
	uint64_t floats = 0;
	size_t size;
	uint8_t *p;
	int rc;

	for (uint32_t i = 0; !map_is_run(m) && i < 2 * m->to.n_layer; i++)
		floats += part_floats(m, &m->parts[i]);
	size = table + floats * sizeof(float);
	p = calloc(1, size + KV_HASH_BYTES);
	if (!p)
		return error_set(err, -ENOMEM, "out of memory");
	put_head(p, m);
	for (uint64_t i = 0; i < floats; i++)
		put_lef32(p + table + i * sizeof(float), from[i]);
	m->fingerprint = fingerprint(p, size);
	memcpy(p + size, m->fingerprint.b, KV_HASH_BYTES);
	rc = file_write(path, p, size + KV_HASH_BYTES, 0644, FILE_REPLACE, err);
	free(p);
	return rc;
}

bool map_is_run(const struct map *m)
{
	return !m->parts;
}

bool map_needs_own(const struct map *m)
{
	for (uint32_t i = 0; !map_is_run(m) && i < 2 * m->to.n_layer; i++)
		if (m->parts[i].keep > 0)
			return true;
	return false;
}

static bool is_own(const struct map *m, const struct map_part *p)
{
	bool zero = true;

	for (uint32_t i = 0; zero && i < map_n_out(m); i++)
		zero = p->bias[i] == 0;
	return zero && !p->count && p->keep == 1;
}

bool map_is_own(const struct map *m, uint32_t layer)
{
	return !map_is_run(m) && is_own(m, &m->parts[2 * layer]) &&
	       is_own(m, &m->parts[2 * layer + 1]);
}

bool map_is_proven(const struct map *m, char *why, size_t room)
{
	return proof_holds(&m->evaluation, why, room);
}

size_t map_scratch(const struct map *m)
{
	uint32_t width = 0, rank = 0;

	for (uint32_t i = 0; i < 2 * m->to.n_layer; i++) {
		width = m->parts[i].count > width ? m->parts[i].count : width;
		rank = m->parts[i].rank > rank ? m->parts[i].rank : rank;
	}
	return KV_BLOCK_TOKENS * ((size_t)width * rows_width(&m->from) + rank) + 1;
}

/* y += x W, y with the stride of whole rows. */
static void multiply(const struct map *m, const struct map_part *p, const float *x, float *y,
		     float *scratch)
{
	const int in = (int)map_n_in(m, p), out = (int)map_n_out(m), r = (int)p->rank;
	const int stride = (int)rows_width(&m->to), n = KV_BLOCK_TOKENS;

	if (!p->count)
		return;
	if (!r) {
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, out, in, 1, x, in, p->a,
			    out, 1, y, stride);
		return;
	}
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, r, in, 1, x, in, p->a, r, 0,
		    scratch, r);
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, out, r, 1, scratch, r, p->b, out,
		    1, y, stride);
}

/* Rows of several layers, which lie apart, side by side. */
static void gather(const struct map *m, const struct map_part *p, const float *x, float *out)
{
	const size_t width = rows_width(&m->from);

	for (uint32_t i = 0; i < KV_BLOCK_TOKENS; i++)
		for (uint32_t l = p->first; l < p->first + p->count; l++, out += width)
			memcpy(out, x + ((size_t)l * KV_BLOCK_TOKENS + i) * width,
			       width * sizeof(*out));
}

void map_rows(const struct map *m, const float *x, const float *own, float *y, float *scratch)
{
	const uint32_t n_out = map_n_out(m);
	const size_t width = rows_width(&m->to);

	for (uint32_t i = 0; i < 2 * m->to.n_layer; i++) {
		const struct map_part *p = &m->parts[i];
		const size_t at = (size_t)(i / 2) * KV_BLOCK_TOKENS * width + (i % 2) * n_out;

		for (uint32_t t = 0; t < KV_BLOCK_TOKENS; t++)
			for (uint32_t o = 0; o < n_out; o++)
				y[at + t * width + o] =
					p->bias[o] +
					(p->keep > 0 ? p->keep * own[at + t * width + o] : 0);
		gather(m, p, x, scratch);
		multiply(m, p, scratch, y + at, scratch + (size_t)KV_BLOCK_TOKENS * map_n_in(m, p));
	}
}
