// SPDX-License-Identifier: MIT
/*
 * What attention costs while decoding, without a model around it: all layers of a context of a given shape in 2 MiB
 * pages, once read from end to end and once attended to by one query of each user, in turn. The ratio of the two is
 * what a machine's memory leaves to be gained.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/clones.h"
#include "base/pool.h"
#include "cli/bench.h"
#include "compute/attention.h"
#include "compute/kvq.h"
#include "kv/geometry.h"
#include "kv/hugemem.h"

/* Contexts are visited in turn until so many bytes have passed: more than caches hold. */
enum { SPREAD = 256 << 20, MAX_COPIES = 64, MAX_USERS = 512 };
/* Tokens behind the context that each user has for itself. */
enum { OWN = ATTENTION_BLOCK };
/* Reading is shared out in so many pieces. */
enum { PIECES = 64 };

const char *const bench_kv[] = { "f16", "q8", "q4", "bf16", NULL };

struct attend {
	const struct bench_values *v;
	struct kv_geometry geo;
	uint32_t n_head, context, users;
	size_t half, stripe, context_bytes, own_bytes;
	uint32_t copies;
	struct pool *pool;
	struct hugemem shared, own; /* [copies] contexts; [users] stripes */
	float *q, *out, *partials, *scratch;
	size_t scratch_len;
	uint64_t sums[PIECES];
	const uint8_t *reading;
	size_t piece;
	double *seconds; /* read, attention; wall, then processor */
};

static int parse(struct attend *b, struct lslm_error *err)
{
	const char *shape = b->v->shape;
	struct kv_geometry *g = &b->geo;
	char end;

	if (sscanf(shape, "%u/%u/%u/%u%c", &b->n_head, &g->n_head_kv, &g->head_dim, &g->n_layer,
		   &end) != 4 ||
	    kv_geometry_check(g, err) || b->n_head == 0 || b->n_head > KV_MAX_HEADS ||
	    b->n_head % g->n_head_kv)
		return error_set(err, -EINVAL,
				 "--shape %s: must be query heads / key-value heads / head size / "
				 "layers, as 32/4/64/22",
				 shape);
	return 0;
}

/* Halves of both signs and of magnitudes that keys and values have; as good for quants and scales. */
static void fill(uint8_t *p, size_t bytes)
{
	uint64_t x = 88172645463325252u;
	uint16_t *h = (uint16_t *)(void *)p;

	for (size_t i = 0; i < bytes / 2; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		h[i] = (uint16_t)((x & 0x8fff) | 0x3000);
	}
}

static size_t half_bytes(const struct attend *b)
{
	switch ((enum attention_format)b->v->kv) {
	case ATTENTION_Q8:
		return kvq_half_bytes(b->geo.n_head_kv, b->geo.head_dim, KVQ_Q8);
	case ATTENTION_Q4:
		return kvq_half_bytes(b->geo.n_head_kv, b->geo.head_dim, KVQ_Q4);
	case ATTENTION_F16:
	case ATTENTION_ROUNDED:
		break;
	}
	return kv_half_bytes(&b->geo, KV_LEVEL_F16);
}

static int prepare(struct attend *b, struct lslm_error *err)
{
	const size_t row = (size_t)b->n_head * b->geo.head_dim;
	size_t floats;
	int rc = pool_create(&b->pool, b->v->threads, err);

	if (rc)
		return rc;
	b->half = half_bytes(b);
	b->stripe = 2 * b->half * b->geo.n_layer;
	b->context_bytes = b->stripe * (b->context / ATTENTION_BLOCK);
	b->own_bytes = b->stripe * b->users;
	b->copies = (uint32_t)(SPREAD / (b->context_bytes + b->own_bytes) + 1);
	if (b->copies > MAX_COPIES)
		b->copies = MAX_COPIES;
	rc = hugemem_create(&b->shared, b->context_bytes * b->copies, err);
	if (!rc)
		rc = hugemem_create(&b->own, b->own_bytes, err);
	if (rc)
		return rc;
	fill(b->shared.data, b->context_bytes * b->copies);
	fill(b->own.data, b->own_bytes);
	b->scratch_len = attention_scratch(b->n_head, b->geo.n_head_kv, b->geo.head_dim);
	floats = attention_partials(b->n_head, b->geo.head_dim);
	if (posix_memalign((void **)&b->scratch, 64,
			   pool_threads(b->pool) * b->scratch_len * sizeof(float)) ||
	    posix_memalign((void **)&b->partials, 64, floats * sizeof(float)) ||
	    posix_memalign((void **)&b->q, 64, b->users * row * sizeof(float)) ||
	    posix_memalign((void **)&b->out, 64, b->users * row * sizeof(float)))
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < b->users * row; i++)
		b->q[i] = (float)(i * 7919 % 1000) / 500 - 1;
	b->seconds = calloc(4 * (size_t)b->v->repeat, sizeof(double));
	return b->seconds ? 0 : error_set(err, -ENOMEM, "out of memory");
}

CLONES static uint64_t sum_of(const uint64_t *p, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += p[i];
	return sum;
}

static void read_piece(void *arg, uint32_t item, unsigned int thread)
{
	struct attend *b = arg;

	b->sums[item] = sum_of((const uint64_t *)(const void *)(b->reading + item * b->piece),
			       b->piece / sizeof(uint64_t));
}

static void read_all(struct attend *b, const uint8_t *p, size_t bytes)
{
	b->reading = p;
	b->piece = bytes / PIECES / sizeof(uint64_t) * sizeof(uint64_t);
	pool_run(b->pool, PIECES, read_piece, b);
}

static void attend_all(struct attend *b, const uint8_t *context)
{
	struct attention_segment segments[MAX_USERS][2];
	struct attention_member members[MAX_USERS];
	const struct attention a = {
		.members = members,
		.n_members = b->users,
		.n_head = b->n_head,
		.n_head_kv = b->geo.n_head_kv,
		.head_dim = b->geo.head_dim,
		.q = b->q,
		.out = b->out,
		.partials = b->partials,
		.apart = b->v->apart,
	};

	for (uint32_t l = 0; l < b->geo.n_layer; l++) {
		for (uint32_t u = 0; u < b->users; u++) {
			const size_t at = l * 2 * b->half;

			segments[u][0] = (struct attention_segment){ .format = b->v->kv,
								     .base = context + at,
								     .stride = b->stripe,
								     .value_offset = b->half,
								     .n_tokens = b->context };
			segments[u][1] = segments[u][0];
			segments[u][1].base = (const uint8_t *)b->own.data + u * b->stripe + at;
			/* What users have for themselves is not rounded. */
			if (segments[u][1].format == ATTENTION_ROUNDED)
				segments[u][1].format = ATTENTION_F16;
			segments[u][1].first = b->context;
			segments[u][1].n_tokens = OWN;
			members[u] = (struct attention_member){ .segments = segments[u],
								.n_segments = 2,
								.m = 1,
								.pos = b->context + OWN - 1 };
		}
		attention_run(b->pool, &a, b->scratch, b->scratch_len);
	}
}

static void measure(struct attend *b, uint32_t i)
{
	const uint32_t n = b->v->repeat;
	const uint8_t *context = (const uint8_t *)b->shared.data + i % b->copies * b->context_bytes;
	double wall = clock_seconds(), cpu = bench_cpu_seconds();

	read_all(b, context, b->context_bytes);
	read_all(b, b->own.data, b->own_bytes);
	b->seconds[i] = clock_seconds() - wall;
	b->seconds[2 * n + i] = bench_cpu_seconds() - cpu;
	/* Another context: what was just read is partly still in caches. */
	context = (const uint8_t *)b->shared.data +
		  (i + b->copies / 2) % b->copies * b->context_bytes;
	wall = clock_seconds();
	cpu = bench_cpu_seconds();
	attend_all(b, context);
	b->seconds[n + i] = clock_seconds() - wall;
	b->seconds[3 * n + i] = bench_cpu_seconds() - cpu;
}

static int report(const struct attend *b, struct lslm_error *err)
{
	const uint32_t n = b->v->repeat;
	const size_t bytes = b->context_bytes + b->own_bytes;
	double s[4];
	json_t *o;
	int rc;

	for (uint32_t i = 0; i < 4; i++)
		s[i] = bench_median(b->seconds + i * n, n);
	if (!b->v->json) {
		printf("attention of %u users to %u tokens they share and %d of their own each, shape "
		       "%s, %s, %u threads, %s memory\n"
		       "%.1f MB: read in %.2f ms (%.1f GB/s), attended to in %.2f ms, %.2f times as "
		       "long; in processor time %.2f and %.2f ms, %.2f times\n",
		       b->users, b->context, OWN, b->v->shape, bench_kv[b->v->kv],
		       pool_threads(b->pool), b->shared.kind, (double)bytes * 1e-6, s[0] * 1e3,
		       (double)bytes / s[0] * 1e-9, s[1] * 1e3, s[1] / s[0], s[2] * 1e3, s[3] * 1e3,
		       s[3] / s[2]);
		return 0;
	}
	o = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f}",
		      "bench", "attention", "shape", b->v->shape, "kv", bench_kv[b->v->kv], "users",
		      (json_int_t)b->users, "tokens", (json_int_t)b->context, "threads",
		      (json_int_t)pool_threads(b->pool), "repeat", (json_int_t)n, "memory",
		      b->shared.kind, "bytes", (json_int_t)bytes, "read_s", s[0], "attention_s",
		      s[1], "ratio", s[1] / s[0], "read_cpu_s", s[2], "attention_cpu_s", s[3],
		      "cpu_ratio", s[3] / s[2]);
	rc = o ? json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) : -1;
	json_decref(o);
	putchar('\n');
	return rc ? error_set(err, -EINVAL, "%s: not printable as JSON", b->v->shape) : 0;
}

int bench_attention(const struct bench_values *v, struct lslm_error *err)
{
	struct attend b = { .v = v, .users = v->users ? v->users : 1 };
	int rc = parse(&b, err);

	b.context = v->depth / ATTENTION_BLOCK * ATTENTION_BLOCK;
	if (!b.context)
		b.context = 4096;
	if (!rc)
		rc = prepare(&b, err);
	if (!rc)
		measure(&b, 0); /* caches, pages, clock */
	for (uint32_t i = 0; !rc && i < v->repeat; i++)
		measure(&b, i);
	if (!rc)
		rc = report(&b, err);
	hugemem_free(&b.shared);
	hugemem_free(&b.own);
	pool_destroy(b.pool);
	free(b.scratch);
	free(b.partials);
	free(b.q);
	free(b.out);
	free(b.seconds);
	return rc;
}
