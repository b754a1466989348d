// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <math.h>

#include "compute/attention.h"
#include "compute/kvtile.h"
#include "compute/matmul.h"
#include "compute/quant.h"

/* Keys and values of one layer, token-major, as they were before they went into segments. */
struct world {
	uint32_t n_head, n_head_kv, d, n, m;
	float *k, *v; /* [n][n_head_kv][d], exactly representable in f16 */
	float *q; /* [m][n_head][d] */
	uint64_t seed;
};

static float uniform(struct world *w)
{
	w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
	return (float)((int32_t)(w->seed >> 33) % 2001 - 1000) / 1000;
}

static float *random_row(struct world *w, size_t n, float scale, int round)
{
	float *x = malloc(n * sizeof(*x));

	for (size_t i = 0; i < n; i++) {
		x[i] = uniform(w) * scale;
		if (round)
			x[i] = f16_to_f32(f32_to_f16(x[i]));
	}
	return x;
}

static void world_make(struct world *w)
{
	const size_t kv = (size_t)w->n * w->n_head_kv * w->d;

	w->k = random_row(w, kv, 2, 1);
	w->v = random_row(w, kv, 1, 1);
	w->q = random_row(w, (size_t)w->m * w->n_head * w->d, 2, 0);
}

static void world_free(struct world *w)
{
	free(w->k);
	free(w->v);
	free(w->q);
}

/* The definition, in double, over all tokens at once; the last m of the n tokens ask. */
static void reference(const struct world *w, double *out)
{
	double *p = malloc(w->n * sizeof(*p));

	for (uint32_t i = 0; i < w->m; i++)
		for (uint32_t h = 0; h < w->n_head; h++) {
			const float *q = w->q + ((size_t)i * w->n_head + h) * w->d;
			const uint32_t g = h / (w->n_head / w->n_head_kv);
			const uint32_t seen = w->n - w->m + i + 1;
			double sum = 0, max = -INFINITY;
			double *o = out + ((size_t)i * w->n_head + h) * w->d;

			for (uint32_t j = 0; j < seen; j++) {
				p[j] = 0;
				for (uint32_t x = 0; x < w->d; x++)
					p[j] += (double)q[x] *
						w->k[((size_t)j * w->n_head_kv + g) * w->d + x];
				p[j] /= sqrt(w->d);
				max = p[j] > max ? p[j] : max;
			}
			for (uint32_t j = 0; j < seen; j++)
				sum += p[j] = exp(p[j] - max);
			for (uint32_t x = 0; x < w->d; x++) {
				o[x] = 0;
				for (uint32_t j = 0; j < seen; j++)
					o[x] += p[j] / sum *
						w->v[((size_t)j * w->n_head_kv + g) * w->d + x];
			}
		}
	free(p);
}

/* Tokens first .. first + n of the world as a segment; unused slots hold poison. */
static struct attention_segment pack(const struct world *w, uint32_t first, uint32_t n)
{
	const size_t half = (size_t)w->n_head_kv * ATTENTION_BLOCK * w->d * 2;
	const size_t blocks = n / ATTENTION_BLOCK + 1;
	uint8_t *base = malloc(blocks * 2 * half);

	memset(base, 0x7e, blocks * 2 * half); /* 0x7e7e is a NaN in f16 */
	for (uint32_t t = 0; t < n; t++)
		for (uint32_t g = 0; g < w->n_head_kv; g++) {
			const size_t from = ((size_t)(first + t) * w->n_head_kv + g) * w->d;
			uint16_t *at = (uint16_t *)(base + t / ATTENTION_BLOCK * 2 * half) +
				       ((size_t)g * ATTENTION_BLOCK + t % ATTENTION_BLOCK) * w->d;

			f32_row_to_f16(w->k + from, at, w->d);
			f32_row_to_f16(w->v + from, at + half / 2, w->d);
		}
	return (struct attention_segment){ .base = base,
					   .stride = 2 * half,
					   .value_offset = half,
					   .first = first,
					   .n_tokens = n };
}

/* Split n tokens over `parts` segments of uneven, possibly zero length; the last holds the queries. */
static void run_split(struct world *w, uint32_t parts, unsigned int threads, float *out)
{
	struct attention_segment segments[9];
	const size_t len = attention_scratch(w->n_head, w->n_head_kv, w->d);
	const struct attention_member member = {
		.segments = segments,
		.n_segments = parts,
		.m = w->m,
		.pos = w->n - w->m,
	};
	struct attention a = {
		.members = &member,
		.n_members = 1,
		.n_head = w->n_head,
		.n_head_kv = w->n_head_kv,
		.head_dim = w->d,
		.q = w->q,
		.out = out,
	};
	struct lslm_error err;
	struct pool *pool;
	float *scratch;
	uint32_t at = 0;

	a.partials = malloc(attention_partials(w->n_head, w->d) * sizeof(float));

	assert_ok(pool_create(&pool, threads, &err), &err);
	scratch = malloc(threads * len * sizeof(*scratch));
	for (uint32_t i = 0; i < parts; i++) {
		const uint32_t left = w->n - at;
		uint32_t n = i + 1 == parts ? left : left * (i * 37 % 90) / 100;

		segments[i] = pack(w, at, n);
		at += n;
	}
	attention_run(pool, &a, scratch, len);
	for (uint32_t i = 0; i < parts; i++)
		free((void *)segments[i].base);
	free(scratch);
	free(a.partials);
	pool_destroy(pool);
}

static const struct world shapes[] = {
	{ .n_head = 1, .n_head_kv = 1, .d = 32, .n = 1, .m = 1 },
	{ .n_head = 4, .n_head_kv = 2, .d = 32, .n = 63, .m = 1 },
	{ .n_head = 4, .n_head_kv = 4, .d = 64, .n = 64, .m = 64 },
	{ .n_head = 6, .n_head_kv = 2, .d = 64, .n = 65, .m = 3 },
	{ .n_head = 9, .n_head_kv = 3, .d = 64, .n = 300, .m = 17 },
	{ .n_head = 8, .n_head_kv = 1, .d = 128, .n = 511, .m = 1 },
	{ .n_head = 2, .n_head_kv = 2, .d = 20, .n = 200, .m = 33 },
	/* One query whose keys are shared out in parts. */
	{ .n_head = 9, .n_head_kv = 3, .d = 64, .n = 257, .m = 1 },
	{ .n_head = 4, .n_head_kv = 2, .d = 20, .n = 1500, .m = 1 },
	{ .n_head = 2, .n_head_kv = 1, .d = 48, .n = 2000, .m = 2 },
	{ .n_head = 36, .n_head_kv = 18, .d = 16, .n = 300, .m = 1 },
};

/* 1 to 8 segments give what one gives, and what the definition gives, to fp32 rounding. */
static void attention__segmented_equals_concatenated(void **state)
{
	matmul_init();
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		struct world w = shapes[i];
		const size_t n_out = (size_t)w.m * w.n_head * w.d;
		double *want = malloc(n_out * sizeof(*want));
		float *got = malloc(n_out * sizeof(*got));

		w.seed = i + 1;
		world_make(&w);
		reference(&w, want);
		for (uint32_t parts = 1; parts <= 8; parts++) {
			/* With every instruction set that there is. */
			kvtile_limit(parts % 3 == 1, parts % 3 == 2);
			run_split(&w, parts, 1 + parts % 3, got);
			kvtile_limit(false, false);
			for (size_t x = 0; x < n_out; x++)
				if (!(fabs(got[x] - want[x]) < 4e-6))
					fail_msg("shape %zu, %u segments, value %zu: %.9g, "
						 "expected %.9g",
						 i, parts, x, (double)got[x], want[x]);
		}
		free(want);
		free(got);
		world_free(&w);
	}
}

/* Bits must not depend on how many threads there are, for tiles and for parts. */
static void attention__independent_of_threads(void **state)
{
	static const size_t which[] = { 4, 7, 8 };

	for (size_t i = 0; i < ARRAY_LEN(which); i++) {
		struct world w = shapes[which[i]];
		const size_t n_out = (size_t)w.m * w.n_head * w.d;
		float *one = malloc(n_out * sizeof(*one)), *four = malloc(n_out * sizeof(*four));

		w.seed = 3;
		world_make(&w);
		run_split(&w, 3, 1, one);
		run_split(&w, 3, 4, four);
		assert_memory_equal(one, four, n_out * sizeof(*one));
		free(one);
		free(four);
		world_free(&w);
	}
}

/*
 * A batch: members over one shared segment of n_shared tokens, each with `own` tokens of its own behind it, which lie in
 * blocks listed back to front; the last m of a member's tokens ask.
 */
struct crowd {
	struct world w; /* n: shared and all own tokens; m: all queries */
	uint32_t n_shared, n_members;
	struct {
		uint32_t own, m;
	} members[9];
};

struct member_memory {
	struct attention_segment segments[2];
	const uint8_t *blocks[8];
};

/* The same tokens, block by block in memory of their own and in another order. */
static void scatter(struct member_memory *m)
{
	struct attention_segment *s = &m->segments[1];
	const size_t bytes = s->stride, offset = 192;
	const uint32_t n = s->n_tokens / ATTENTION_BLOCK + 1;

	for (uint32_t b = n; b-- > 0;) {
		uint8_t *copy = malloc(offset + bytes);

		memcpy(copy + offset, s->base + b * bytes, bytes);
		m->blocks[b] = copy;
	}
	free((void *)s->base);
	s->base = NULL;
	s->stride = 0;
	s->blocks = m->blocks;
	s->blocks_offset = offset;
}

/* The member's own world: shared tokens and its own, as reference() wants them. */
static void member_world(struct world *out, const struct crowd *c, uint32_t i, uint32_t own_at,
			 uint32_t query_at)
{
	const size_t row = (size_t)c->w.n_head_kv * c->w.d;
	const uint32_t n = c->n_shared + c->members[i].own;

	*out = c->w;
	out->n = n;
	out->m = c->members[i].m;
	out->k = malloc((size_t)n * row * sizeof(float));
	out->v = malloc((size_t)n * row * sizeof(float));
	memcpy(out->k, c->w.k, c->n_shared * row * sizeof(float));
	memcpy(out->v, c->w.v, c->n_shared * row * sizeof(float));
	memcpy(out->k + c->n_shared * row, c->w.k + own_at * row,
	       c->members[i].own * row * sizeof(float));
	memcpy(out->v + c->n_shared * row, c->w.v + own_at * row,
	       c->members[i].own * row * sizeof(float));
	out->q = c->w.q + (size_t)query_at * c->w.n_head * c->w.d;
}

/* One run over n members; out as of attention_run(). */
static void run_members(const struct crowd *c, const struct attention_member *members, uint32_t n,
			const float *q, unsigned int threads, float *out)
{
	const size_t len = attention_scratch(c->w.n_head, c->w.n_head_kv, c->w.d);
	const struct attention a = {
		.members = members,
		.n_members = n,
		.n_head = c->w.n_head,
		.n_head_kv = c->w.n_head_kv,
		.head_dim = c->w.d,
		.q = q,
		.out = out,
		.partials = malloc(attention_partials(c->w.n_head, c->w.d) * sizeof(float)),
	};
	float *scratch = malloc(threads * len * sizeof(*scratch));
	struct lslm_error err;
	struct pool *pool;

	assert_ok(pool_create(&pool, threads, &err), &err);
	attention_run(pool, &a, scratch, len);
	pool_destroy(pool);
	free(scratch);
	free(a.partials);
}

static const struct crowd crowds[] = {
	{ .w = { .n_head = 8, .n_head_kv = 2, .d = 64 },
	  .n_shared = 320,
	  .n_members = 9,
	  .members = { { 1, 1 },
		       { 70, 1 },
		       { 200, 40 },
		       { 64, 1 },
		       { 65, 1 },
		       { 3, 3 },
		       { 300, 1 },
		       { 2, 1 },
		       { 129, 1 } } },
	{ .w = { .n_head = 6, .n_head_kv = 6, .d = 20 },
	  .n_shared = 64,
	  .n_members = 3,
	  .members = { { 1, 1 }, { 1, 1 }, { 90, 2 } } },
};

static void crowd_make(struct crowd *c, uint64_t seed)
{
	c->w.n = c->n_shared;
	c->w.m = 0;
	for (uint32_t i = 0; i < c->n_members; i++) {
		c->w.n += c->members[i].own;
		c->w.m += c->members[i].m;
	}
	c->w.seed = seed;
	world_make(&c->w);
}

/* Every member of a batch gets what it would get alone, whatever the others are, to the bit, and it is right. */
static void attention__batch_equals_each_alone(void **state)
{
	for (size_t x = 0; x < ARRAY_LEN(crowds); x++) {
		struct crowd c = crowds[x];
		struct attention_segment shared;
		struct attention_member members[9];
		struct member_memory memory[9];
		const size_t row = (size_t)c.w.n_head * c.w.d;
		float *together, *alone;
		uint32_t own_at = c.n_shared, query_at = 0;

		crowd_make(&c, x + 20);
		together = malloc(c.w.m * row * sizeof(*together));
		alone = malloc(c.w.m * row * sizeof(*alone));
		shared = pack(&c.w, 0, c.n_shared);
		for (uint32_t i = 0; i < c.n_members; i++) {
			const uint32_t own = c.members[i].own;

			memory[i].segments[0] = shared;
			memory[i].segments[1] = pack(&c.w, own_at, own);
			memory[i].segments[1].first = c.n_shared;
			scatter(&memory[i]);
			members[i] = (struct attention_member){
				.segments = memory[i].segments,
				.n_segments = 2,
				.m = c.members[i].m,
				.pos = c.n_shared + own - c.members[i].m,
			};
			own_at += own;
		}
		run_members(&c, members, c.n_members, c.w.q, 2, together);
		own_at = c.n_shared;
		for (uint32_t i = 0; i < c.n_members; i++) {
			const size_t n = members[i].m * row;
			double *want = malloc(n * sizeof(*want));
			struct world w;

			member_world(&w, &c, i, own_at, query_at);
			reference(&w, want);
			run_members(&c, &members[i], 1, w.q, 1, alone);
			assert_memory_equal(alone, together + query_at * row, n * sizeof(*alone));
			for (size_t y = 0; y < n; y++)
				assert_true(fabs(alone[y] - want[y]) < 4e-6);
			own_at += c.members[i].own;
			query_at += members[i].m;
			free(want);
			free(w.k);
			free(w.v);
			for (uint32_t b = 0; b <= c.members[i].own / ATTENTION_BLOCK; b++)
				free((void *)memory[i].blocks[b]);
		}
		free((void *)shared.base);
		free(together);
		free(alone);
		world_free(&c.w);
	}
}

/* Scores of +-10^4: exp() of them overflows unless the maximum is taken out first. */
static void attention__large_scores_do_not_overflow(void **state)
{
	struct world w = { .n_head = 1, .n_head_kv = 1, .d = 32, .n = 130, .m = 1, .seed = 5 };
	double want[32];
	float got[32];

	world_make(&w);
	for (size_t i = 0; i < 32; i++)
		w.q[i] *= 3000;
	reference(&w, want);
	run_split(&w, 4, 1, got);
	for (size_t i = 0; i < 32; i++)
		assert_true(fabs(got[i] - want[i]) < 1e-3);
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attention__segmented_equals_concatenated),
		cmocka_unit_test(attention__independent_of_threads),
		cmocka_unit_test(attention__batch_equals_each_alone),
		cmocka_unit_test(attention__large_scores_do_not_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
