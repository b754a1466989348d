// SPDX-License-Identifier: MIT
#include "engine/eval_coder.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <zstd.h>

#include "codec/codec.h"
#include "compute/kvq.h"
#include "compute/quant.h"
#include "kv/manifest.h"

enum { GROUP = 32, ZSTD_LEVEL = 3 };

/* A block of ggml's: a scale and 32 quants. Kept apart, so that zstd sees like beside like. */
static size_t q8_bytes(size_t n)
{
	return n + n / GROUP * sizeof(uint16_t);
}

static size_t q4_bytes(size_t n)
{
	return n / 2 + n / GROUP * sizeof(uint16_t);
}

static void q8_encode(uint8_t *out, const float *x, size_t n)
{
	uint16_t *scales = (uint16_t *)(out + n);

	for (size_t g = 0; g < n / GROUP; g++, x += GROUP) {
		float max = 0, inverse;

		for (uint32_t i = 0; i < GROUP; i++)
			max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
		scales[g] = f32_to_f16(max / 127);
		inverse = max > 0 ? 127 / max : 0;
		for (uint32_t i = 0; i < GROUP; i++)
			*out++ = (uint8_t)(int8_t)roundf(x[i] * inverse);
	}
}

static void q8_decode(float *x, const uint8_t *in, size_t n)
{
	const uint16_t *scales = (const uint16_t *)(in + n);

	for (size_t g = 0; g < n / GROUP; g++) {
		const float scale = f16_to_f32(scales[g]);

		for (uint32_t i = 0; i < GROUP; i++)
			*x++ = (float)(int8_t)*in++ * scale;
	}
}

static uint8_t q4_quant(float x)
{
	return (uint8_t)(x < -8 ? 0 : x > 7 ? 15 : (int)floorf(x + 8.5f));
}

static void q4_encode(uint8_t *out, const float *x, size_t n)
{
	uint16_t *scales = (uint16_t *)(out + n / 2);

	for (size_t g = 0; g < n / GROUP; g++, x += GROUP) {
		float max = 0, inverse;

		for (uint32_t i = 0; i < GROUP; i++)
			max = fabsf(x[i]) > fabsf(max) ? x[i] : max;
		scales[g] = f32_to_f16(max / -8);
		inverse = max == 0 ? 0 : -8 / max;
		for (uint32_t i = 0; i < GROUP / 2; i++)
			*out++ = (uint8_t)(q4_quant(x[i] * inverse) |
					   q4_quant(x[i + GROUP / 2] * inverse) << 4);
	}
}

static void q4_decode(float *x, const uint8_t *in, size_t n)
{
	const uint16_t *scales = (const uint16_t *)(in + n / 2);

	for (size_t g = 0; g < n / GROUP; g++, x += GROUP) {
		const float scale = f16_to_f32(scales[g]);

		for (uint32_t i = 0; i < GROUP / 2; i++, in++) {
			x[i] = (float)((*in & 15) - 8) * scale;
			x[i + GROUP / 2] = (float)((*in >> 4) - 8) * scale;
		}
	}
}

/* Memory for one block: its values as floats, as quants, and what zstd makes of those. */
struct bench {
	const struct kv_geometry *geo;
	size_t n; /* values of a block */
	float *x;
	uint8_t *quants, *packed;
	size_t room; /* of packed */
};

struct eval_coder {
	const char *name;
	enum kv_level level; /* where encode is NULL: one of ours */
	/* Encode the n values at b->x; returns the bytes that travel. */
	size_t (*encode)(struct bench *b);
	void (*decode)(struct bench *b, size_t size);
};

static size_t q8_0_encode(struct bench *b)
{
	q8_encode(b->quants, b->x, b->n);
	return q8_bytes(b->n);
}

static void q8_0_decode(struct bench *b, size_t size)
{
	q8_decode(b->x, b->quants, b->n);
}

static size_t q4_0_encode(struct bench *b)
{
	q4_encode(b->quants, b->x, b->n);
	return q4_bytes(b->n);
}

static void q4_0_decode(struct bench *b, size_t size)
{
	q4_decode(b->x, b->quants, b->n);
}

static void rotate(struct bench *b)
{
	for (size_t i = 0; i < b->n; i += b->geo->head_dim)
		kvq_rotate(b->x + i, b->geo->head_dim);
}

static size_t q4_0h_encode(struct bench *b)
{
	rotate(b);
	return q4_0_encode(b);
}

static void q4_0h_decode(struct bench *b, size_t size)
{
	q4_0_decode(b, size);
	rotate(b);
}

/* 0: zstd failed, which its bound rules out. */
static size_t zstd_encode(struct bench *b)
{
	size_t size;

	q8_encode(b->quants, b->x, b->n);
	size = ZSTD_compress(b->packed, b->room, b->quants, q8_bytes(b->n), ZSTD_LEVEL);
	return ZSTD_isError(size) ? 0 : size;
}

static void zstd_decode(struct bench *b, size_t size)
{
	ZSTD_decompress(b->quants, q8_bytes(b->n), b->packed, size);
	q8_decode(b->x, b->quants, b->n);
}

static const struct eval_coder coders[] = {
	{ "f16", KV_LEVEL_F16 },
	{ "q8", KV_LEVEL_Q8 },
	{ "q4", KV_LEVEL_Q4 },
	{ "e", KV_LEVEL_E },
	{ "p", KV_LEVEL_P },
	{ "q8_0", .encode = q8_0_encode, .decode = q8_0_decode },
	{ "q4_0", .encode = q4_0_encode, .decode = q4_0_decode },
	{ "q4_0h", .encode = q4_0h_encode, .decode = q4_0h_decode },
	{ "q8_zstd", .encode = zstd_encode, .decode = zstd_decode },
};

enum { N_CODERS = sizeof(coders) / sizeof(coders[0]) };

const struct eval_coder *eval_coder_at(uint32_t i)
{
	return i < N_CODERS ? &coders[i] : NULL;
}

const struct eval_coder *eval_coder_find(const char *name)
{
	for (uint32_t i = 0; i < N_CODERS; i++)
		if (!strcmp(coders[i].name, name))
			return &coders[i];
	return NULL;
}

const char *eval_coder_name(const struct eval_coder *c)
{
	return c->name;
}

bool eval_coder_needs_calibration(const struct eval_coder *c)
{
	return !c->encode && c->level == KV_LEVEL_P;
}

static double processor_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static int code_block(const struct eval_coder *c, struct bench *b, uint16_t *values,
		      struct eval_cost *cost, struct lslm_error *err)
{
	const double start = processor_seconds();
	double between;
	size_t size;

	f16_row_to_f32(values, b->x, b->n);
	size = c->encode(b);
	between = processor_seconds();
	if (!size)
		return error_set(err, -EIO, "zstd could not compress a block");
	c->decode(b, size);
	f32_row_to_f16(b->x, values, b->n);
	cost->decode_s += processor_seconds() - between;
	cost->encode_s += between - start;
	cost->payload += size;
	return 0;
}

/* Memory for one stripe on its way through a level. */
struct parcel {
	const struct calibration *cal;
	uint8_t *bytes;
	uint32_t *lengths; /* of its units */
};

static int code_stripe(const struct eval_coder *c, const struct kv_geometry *geo,
		       const struct parcel *p, uint32_t first, uint8_t *stripe,
		       struct eval_cost *cost, struct lslm_error *err)
{
	const uint32_t units = codec_units(geo, c->level);
	const double start = processor_seconds();
	const uint8_t *at = p->bytes;
	const size_t size =
		codec_encode(geo, c->level, p->cal, first, stripe, p->bytes, p->lengths);
	const double between = processor_seconds();
	int rc = size ? 0 : error_set(err, -ENOMEM, "out of memory for encoding a stripe");

	cost->payload += size;
	for (uint32_t u = 0; !rc && u < units; at += p->lengths[u++])
		rc = codec_decode(geo, c->level, p->cal, first, u, at, p->lengths[u],
				  stripe + (units > 1 ? kv_unit_offset(geo, KV_LEVEL_F16, u) : 0),
				  err);
	cost->decode_s += processor_seconds() - between;
	cost->encode_s += between - start;
	/* Where units differ in length, the manifest says how long each is. */
	if (!codec_in_place(c->level))
		cost->overhead += units * sizeof(*p->lengths);
	return rc;
}

static int code_stripes(const struct eval_coder *c, const struct kv_geometry *geo,
			const struct calibration *cal, uint32_t n, uint8_t *stripes,
			struct eval_cost *cost, struct lslm_error *err)
{
	struct parcel p = { .cal = cal };
	int rc = codec_check(geo, c->level, cal, err);

	if (rc)
		return rc;
	p.bytes = malloc(codec_stripe_bound(geo, c->level));
	p.lengths = malloc(codec_units(geo, c->level) * sizeof(*p.lengths));
	if (!p.bytes || !p.lengths)
		rc = error_set(err, -ENOMEM, "out of memory");
	for (uint32_t s = 0; !rc && s < n; s++)
		rc = code_stripe(c, geo, &p, s * KV_BLOCK_TOKENS,
				 stripes + s * kv_stripe_bytes(geo, KV_LEVEL_F16), cost, err);
	free(p.bytes);
	free(p.lengths);
	return rc;
}

/* Padding of a half, where there is any, lies behind the values of K and of V. */
static int code_all(const struct eval_coder *c, struct bench *b, uint32_t n_halves,
		    uint8_t *stripes, struct eval_cost *cost, struct lslm_error *err)
{
	const size_t half = kv_half_bytes(b->geo, KV_LEVEL_F16);
	int rc = 0;

	for (uint32_t i = 0; !rc && i < n_halves; i++)
		rc = code_block(c, b, (uint16_t *)(stripes + i * half), cost, err);
	return rc;
}

static int bench_make(struct bench *b, const struct kv_geometry *geo, struct lslm_error *err)
{
	b->geo = geo;
	b->n = (size_t)geo->n_head_kv * KV_BLOCK_TOKENS * geo->head_dim;
	b->room = ZSTD_compressBound(q8_bytes(b->n));
	b->x = malloc(b->n * sizeof(*b->x));
	b->quants = malloc(q8_bytes(b->n));
	b->packed = malloc(b->room);
	return b->x && b->quants && b->packed ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int add_manifest(const struct kv_geometry *geo, const int32_t *tokens, uint32_t n_tokens,
			struct eval_cost *cost, struct lslm_error *err)
{
	struct manifest *m;
	size_t size;
	int rc = manifest_new(&m, geo, tokens, n_tokens, KV_LEVEL_F16, err);

	if (rc)
		return rc;
	rc = manifest_encoded_size(m, &size, err);
	manifest_free(m);
	cost->overhead += rc ? 0 : size;
	return rc;
}

int eval_coder_run(const struct eval_coder *c, const struct kv_geometry *geo,
		   const struct calibration *cal, const int32_t *tokens, uint32_t n_tokens,
		   uint8_t *stripes, struct eval_cost *cost, struct lslm_error *err)
{
	const uint32_t n_stripes = n_tokens / KV_BLOCK_TOKENS;
	const uint32_t n_halves = n_stripes * (geo->n_layer - (geo->hidden > 0)) * 2;
	struct bench b = { 0 };
	int rc;

	if (c->encode && geo->hidden)
		return error_set(err, -ENOTSUP, "%s has no hidden state", c->name);
	rc = bench_make(&b, geo, err);
	if (!rc) {
		cost->values += n_halves * (uint64_t)b.n +
				n_stripes * (uint64_t)KV_BLOCK_TOKENS * geo->hidden;
		rc = c->encode ? code_all(c, &b, n_halves, stripes, cost, err) :
				 code_stripes(c, geo, cal, n_stripes, stripes, cost, err);
	}
	if (!rc)
		rc = add_manifest(geo, tokens, n_tokens, cost, err);
	free(b.x);
	free(b.quants);
	free(b.packed);
	return rc;
}
