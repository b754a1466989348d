// SPDX-License-Identifier: MIT
/*
 * Levels on a model's own keys and values: bits per value, everything counted, and the rates of one thread. The first
 * three quarters of the tokens calibrate level p, the last quarter is measured. zstd is the baseline that knows nothing of models.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "cli/bench.h"
#include "codec/codec.h"
#include "engine/calibrate.h"
#include "engine/engine.h"
#include "engine/sequence.h"
#include "kv/key.h"

enum { TOKENS = 1024, MANIFEST_BYTES = KV_HASH_BYTES + 4 /* of a unit: digest, length */ };

struct run {
	struct model *model;
	struct engine *engine;
	struct sequence *seq;
	struct calibration *cal;
	uint32_t first, n; /* stripes that are measured */
	uint8_t *coded, *out;
	uint32_t *lengths;
	double *encode, *decode; /* seconds of each repetition */
	double bytes;
};

static const char *const names[] = { "f16", "q8", "q4", "e", "p" };

static int fill(struct run *r, uint32_t tokens, struct lslm_error *err)
{
	int32_t ids[ENGINE_BATCH];
	int rc = sequence_create(&r->seq, &r->engine->geo, tokens, err);

	for (uint32_t at = 0, m; !rc && at < tokens; at += m) {
		m = tokens - at < ENGINE_BATCH ? tokens - at : ENGINE_BATCH;
		for (uint32_t i = 0; i < m; i++)
			ids[i] = (int32_t)((at + i) * 7919u % r->model->params.n_vocab);
		rc = engine_forward(r->engine, r->seq, ids, m, NULL, 0, err);
	}
	return rc;
}

static const uint8_t *stripe(const struct run *r, uint32_t s)
{
	return r->seq->memory + s * kv_stripe_bytes(&r->engine->geo, KV_LEVEL_F16);
}

static int calibrate(struct run *r, struct lslm_error *err)
{
	struct calibrator *c = NULL;
	int rc = calibrate_begin(r->engine, &c, err);

	for (uint32_t s = 0; !rc && s < r->first; s++)
		rc = calibrator_add(c, stripe(r, s), s * KV_BLOCK_TOKENS);
	if (!rc)
		rc = calibrator_finish(c, &r->cal, err);
	calibrator_free(c);
	return rc;
}

static int decode(struct run *r, enum kv_level level, uint32_t s, struct lslm_error *err)
{
	const struct kv_geometry *geo = &r->engine->geo;
	const uint32_t units = codec_units(geo, level);
	const size_t unit = kv_stripe_bytes(geo, KV_LEVEL_F16) / units;
	size_t at = 0;
	int rc = 0;

	for (uint32_t u = 0; !rc && u < units; u++) {
		rc = codec_decode(geo, level, r->cal, s * KV_BLOCK_TOKENS, u, r->coded + at,
				  r->lengths[u], r->out + u * unit, err);
		at += r->lengths[u];
	}
	return rc;
}

static int measure(struct run *r, enum kv_level level, uint32_t i, struct lslm_error *err)
{
	const struct kv_geometry *geo = &r->engine->geo;
	int rc = 0;

	r->encode[i] = r->decode[i] = r->bytes = 0;
	for (uint32_t s = r->first; !rc && s < r->first + r->n; s++) {
		const double start = bench_cpu_seconds();
		const size_t size = codec_encode(geo, level, r->cal, s * KV_BLOCK_TOKENS,
						 stripe(r, s), r->coded, r->lengths);
		double middle;

		if (!size)
			return error_set(err, -ENOMEM, "out of memory for encoding a stripe");
		r->bytes += (double)size;
		r->bytes += (double)codec_units(geo, level) * MANIFEST_BYTES;
		middle = bench_cpu_seconds();
		rc = decode(r, level, s, err);
		r->encode[i] += middle - start;
		r->decode[i] += bench_cpu_seconds() - middle;
	}
	return rc;
}

/* zstd -3 on the bytes of q8. */
static int measure_zstd(struct run *r, uint32_t i, struct lslm_error *err)
{
	const size_t size = kv_stripe_bytes(&r->engine->geo, KV_LEVEL_Q8);
	const size_t bound = ZSTD_compressBound(size);
	uint8_t *packed = malloc(bound);
	size_t n = 0;

	r->encode[i] = r->decode[i] = r->bytes = 0;
	for (uint32_t s = r->first; packed && s < r->first + r->n; s++) {
		double start = bench_cpu_seconds();

		codec_encode(&r->engine->geo, KV_LEVEL_Q8, NULL, 0, stripe(r, s), r->coded,
			     r->lengths);
		n = ZSTD_compress(packed, bound, r->coded, size, 3);
		if (ZSTD_isError(n))
			break;
		r->bytes += (double)n + MANIFEST_BYTES;
		r->encode[i] += bench_cpu_seconds() - start;
		start = bench_cpu_seconds();
		n = ZSTD_decompress(r->coded, size, packed, n);
		r->decode[i] += bench_cpu_seconds() - start;
	}
	free(packed);
	return ZSTD_isError(n) || !packed ? error_set(err, -EIO, "zstd fails") : 0;
}

static void report(struct run *r, const char *name, const struct bench_values *v, json_t *levels)
{
	const struct kv_geometry *geo = &r->engine->geo;
	const double values =
		2.0 * KV_BLOCK_TOKENS * r->n * geo->n_layer * geo->n_head_kv * geo->head_dim;
	const double bits = 8 * r->bytes / values;
	const double in = 2 * values / bench_median(r->encode, v->repeat);
	const double out = 2 * values / bench_median(r->decode, v->repeat);

	if (!v->json)
		printf("%-11s %6.3f bits per value, encoded at %.2f, decoded at %.2f GB/s of f16\n",
		       name, bits, in / 1e9, out / 1e9);
	json_array_append_new(levels,
			      json_pack("{s:s, s:f, s:f, s:f}", "level", name, "bits_per_value",
					bits, "encode_bytes_per_s", in, "decode_bytes_per_s", out));
}

static int allocate(struct run *r, uint32_t repeat, struct lslm_error *err)
{
	const struct kv_geometry *geo = &r->engine->geo;
	size_t bound = 0;

	for (int level = KV_LEVEL_F16; level <= KV_LEVEL_P; level++) {
		const size_t n = codec_stripe_bound(geo, (enum kv_level)level);

		bound = n > bound ? n : bound;
	}
	r->coded = malloc(bound);
	r->out = malloc(kv_stripe_bytes(geo, KV_LEVEL_F16));
	r->lengths = calloc(geo->n_layer, sizeof(*r->lengths));
	r->encode = calloc(2 * (size_t)repeat, sizeof(double));
	if (!r->coded || !r->out || !r->lengths || !r->encode)
		return error_set(err, -ENOMEM, "out of memory");
	r->decode = r->encode + repeat;
	return 0;
}

static int run_all(struct run *r, const struct bench_values *v, json_t *levels,
		   struct lslm_error *err)
{
	int rc = 0;

	for (int level = KV_LEVEL_F16; !rc && level <= KV_LEVEL_P; level++) {
		for (uint32_t i = 0; !rc && i < v->repeat; i++)
			rc = measure(r, (enum kv_level)level, i, err);
		if (!rc)
			report(r, names[level], v, levels);
	}
	for (uint32_t i = 0; !rc && i < v->repeat; i++)
		rc = measure_zstd(r, i, err);
	if (!rc)
		report(r, "q8, zstd -3", v, levels);
	return rc;
}

int bench_codec(const struct bench_values *v, struct lslm_error *err)
{
	const uint32_t stripes = (v->tokens ? v->tokens : TOKENS) / KV_BLOCK_TOKENS;
	json_t *levels = json_array(), *o;
	struct run r = { .first = stripes - stripes / 4, .n = stripes / 4 };
	int rc = r.n ? 0 : error_set(err, -EINVAL, "-n: at least %d tokens", 4 * KV_BLOCK_TOKENS);

	if (!rc)
		rc = model_open(&r.model, v->model, err);
	if (!rc)
		rc = engine_create(&r.engine, r.model, v->threads, err);
	if (!rc)
		rc = fill(&r, stripes * KV_BLOCK_TOKENS, err);
	if (!rc)
		rc = calibrate(&r, err);
	if (!rc)
		rc = allocate(&r, v->repeat, err);
	if (!rc)
		rc = run_all(&r, v, levels, err);
	if (!rc && v->json) {
		o = json_pack("{s:s, s:s, s:I, s:s, s:O}", "bench", "codec", "model", v->model,
			      "tokens", (json_int_t)stripes * KV_BLOCK_TOKENS, "compute",
			      codec_describe(), "levels", levels);
		json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
		putchar('\n');
		json_decref(o);
	}
	json_decref(levels);
	calibration_free(r.cal);
	sequence_destroy(r.seq);
	engine_destroy(r.engine);
	model_close(r.model);
	free(r.coded);
	free(r.out);
	free(r.lengths);
	free(r.encode);
	return rc;
}
