// SPDX-License-Identifier: MIT
#include "engine/eval_coder.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <zstd.h>

#include "codec/kvq.h"
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
	/* Encode the n values at b->x; returns the bytes that travel. NULL: nothing is done. */
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
	{ "f16" },
	{ "q8_0", q8_0_encode, q8_0_decode },
	{ "q4_0", q4_0_encode, q4_0_decode },
	{ "q4_0h", q4_0h_encode, q4_0h_decode },
	{ "q8_zstd", zstd_encode, zstd_decode },
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

int eval_coder_run(const struct eval_coder *c, const struct kv_geometry *geo, const int32_t *tokens,
		   uint32_t n_tokens, uint8_t *stripes, struct eval_cost *cost,
		   struct lslm_error *err)
{
	const uint32_t n_halves = n_tokens / KV_BLOCK_TOKENS * geo->n_layer * 2;
	struct bench b = { 0 };
	int rc = bench_make(&b, geo, err);

	if (!rc) {
		cost->values += n_halves * (uint64_t)b.n;
		if (c->encode)
			rc = code_all(c, &b, n_halves, stripes, cost, err);
		else
			cost->payload += n_halves * (uint64_t)kv_half_bytes(geo, KV_LEVEL_F16);
	}
	if (!rc)
		rc = add_manifest(geo, tokens, n_tokens, cost, err);
	free(b.x);
	free(b.quants);
	free(b.packed);
	return rc;
}
