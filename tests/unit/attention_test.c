// SPDX-License-Identifier: MIT
#include "attention_rig.h"

#include "compute/kvint.h"
#include "compute/kvtile.h"
#include "compute/matmul.h"

/* What the layout says about one value: written down a second time, plainly. */
static double quant_value(const struct world *w, const uint8_t *half, uint32_t g, uint32_t t,
			  uint32_t i, enum attention_format format)
{
	const uint32_t groups = (w->d + 31) / 32, group = i / 32, at = i % 32;
	const uint32_t size = w->d - group * 32 < 32 ? w->d - group * 32 : 32;
	const size_t row = (size_t)g * ATTENTION_BLOCK + t, rows = (size_t)w->n_head_kv * 64;
	const size_t bytes = format == ATTENTION_Q8 ? w->d : w->d / 32 * 16 + (w->d % 32 + 1) / 2;
	uint16_t scale;

	memcpy(&scale, half + rows * bytes + (row * groups + group) * 2, 2);
	if (format == ATTENTION_Q8)
		return (double)f16_to_f32(scale) * (int8_t)half[row * bytes + i];
	half += row * bytes + group * 16 + at % ((size + 1) / 2);
	return (double)f16_to_f32(scale) * ((at < (size + 1) / 2 ? *half & 15 : *half >> 4) - 8);
}

/* Tokens first .. first + n are seen through a format. Rotation is undone by itself. */
static void see_as(struct world *w, uint32_t first, uint32_t n, enum attention_format format)
{
	uint8_t *half = malloc(half_bytes(w, format));

	for (uint32_t side = 0; format != ATTENTION_F16 && side < 2; side++)
		for (uint32_t b = 0; b < n; b += ATTENTION_BLOCK) {
			const uint32_t left = n - b, m = left < 64 ? left : 64;
			const int rotate = !side && format == ATTENTION_Q4;

			pack_half(half, w, side ? w->v : w->k, first + b, m, format, rotate);
			for (size_t x = 0; x < (size_t)m * w->n_head_kv; x++) {
				const uint32_t t = (uint32_t)(x / w->n_head_kv);
				const uint32_t g = (uint32_t)(x % w->n_head_kv);
				float *to = (side ? w->seen_v : w->seen_k) +
					    ((size_t)(first + b + t) * w->n_head_kv + g) * w->d;

				for (uint32_t i = 0; i < w->d; i++)
					to[i] = (float)quant_value(w, half, g, t, i, format);
				if (rotate)
					kvq_rotate(to, w->d);
			}
		}
	free(half);
}

/* Split n tokens over `parts` segments of uneven, possibly zero length; the last holds the queries. */
static void run_split(struct world *w, enum attention_format format, uint32_t parts,
		      unsigned int threads, float *out)
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

		segments[i] = pack(w, at, n, format);
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
			run_split(&w, ATTENTION_F16, parts, 1 + parts % 3, got);
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

/* Head sizes with whole and short groups, and one that no vector code takes; groups of 1 to 8 query heads. */
static const struct world quant_shapes[] = {
	{ .n_head = 3, .n_head_kv = 3, .d = 32, .n = 65, .m = 1 },
	{ .n_head = 6, .n_head_kv = 2, .d = 48, .n = 300, .m = 1 },
	{ .n_head = 9, .n_head_kv = 3, .d = 64, .n = 700, .m = 1 },
	{ .n_head = 16, .n_head_kv = 2, .d = 64, .n = 190, .m = 5 },
	{ .n_head = 10, .n_head_kv = 2, .d = 80, .n = 130, .m = 18 },
	{ .n_head = 7, .n_head_kv = 1, .d = 96, .n = 90, .m = 1 },
	{ .n_head = 4, .n_head_kv = 2, .d = 128, .n = 333, .m = 2 },
	{ .n_head = 2, .n_head_kv = 1, .d = 160, .n = 70, .m = 1 },
	{ .n_head = 2, .n_head_kv = 1, .d = 20, .n = 70, .m = 3 },
	{ .n_head = 2, .n_head_kv = 2, .d = 16, .n = 5, .m = 1 },
};

/*
 * Quantised segments are read as they stand: as integers, where queries are rounded to 2^-16 of their largest, or as floats,
 * with every instruction set.
 */
static void attention__quants_in_place(void **state)
{
	for (size_t i = 0; i < 2 * ARRAY_LEN(quant_shapes); i++) {
		const enum attention_format format = i % 2 ? ATTENTION_Q4 : ATTENTION_Q8;
		struct world w = quant_shapes[i / 2];
		const size_t n_out = (size_t)w.m * w.n_head * w.d;
		double *want = malloc(n_out * sizeof(*want));
		float *got = malloc(n_out * sizeof(*got));

		w.seed = i + 40;
		world_make(&w);
		see_as(&w, 0, w.n, format);
		reference(&w, want);
		for (uint32_t set = 0; set < 4; set++) {
			const double bound = set ? 6e-6 : 1e-4;

			kvint_limit(set > 0);
			kvtile_limit(set > 1, set > 2);
			run_split(&w, format, 1 + set, 1 + set % 2, got);
			kvtile_limit(false, false);
			kvint_limit(false);
			for (size_t x = 0; x < n_out; x++)
				if (!(fabs(got[x] - want[x]) < bound))
					fail_msg("shape %zu, format %d, set %u, value %zu: %.9g, "
						 "expected %.9g",
						 i / 2, format, set, x, (double)got[x], want[x]);
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

	for (size_t i = 0; i < 3 * ARRAY_LEN(which); i++) {
		struct world w = shapes[which[i / 3]];
		const size_t n_out = (size_t)w.m * w.n_head * w.d;
		float *one = malloc(n_out * sizeof(*one)), *four = malloc(n_out * sizeof(*four));

		w.seed = 3;
		world_make(&w);
		run_split(&w, (enum attention_format)(i % 3), 3, 1, one);
		run_split(&w, (enum attention_format)(i % 3), 3, 4, four);
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
	enum attention_format shared, own; /* formats */
	uint32_t n_shared, n_members;
	struct {
		uint32_t own, m;
	} members[9];
};

struct member_memory {
	struct attention_segment segments[3];
	const uint8_t *blocks[8];
};

/* The same tokens, block by block in memory of their own and in another order. */
static void scatter(struct member_memory *m)
{
	struct attention_segment *s = &m->segments[2];
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

/* What a member gets alone, with one thread, must be the same bits as what it got, and right. */
static void check_member(const struct crowd *c, const struct attention_member *m, uint32_t own_at,
			 uint32_t query_at, const float *got)
{
	const size_t n = (size_t)m->m * c->w.n_head * c->w.d;
	const uint32_t own = m->segments[m->n_segments - 1].n_tokens;
	float *q = c->w.q + (size_t)query_at * c->w.n_head * c->w.d;
	double *want = member_reference(&c->w, c->n_shared, own_at, own, m->m, q);
	float *alone = malloc(n * sizeof(*alone));

	run_members(&c->w, m, 1, q, 1, alone);
	assert_memory_equal(alone, got, n * sizeof(*alone));
	for (size_t i = 0; i < n; i++)
		assert_true(fabs(alone[i] - want[i]) < (c->shared == ATTENTION_F16 ? 4e-6 : 1e-4));
	free(want);
	free(alone);
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
	{ .w = { .n_head = 9, .n_head_kv = 3, .d = 64 },
	  .shared = ATTENTION_Q8,
	  .n_shared = 400,
	  .n_members = 5,
	  .members = { { 1, 1 }, { 1, 1 }, { 90, 2 }, { 65, 1 }, { 2, 1 } } },
	{ .w = { .n_head = 4, .n_head_kv = 1, .d = 80 },
	  .shared = ATTENTION_Q4,
	  .own = ATTENTION_Q8,
	  .n_shared = 128,
	  .n_members = 4,
	  .members = { { 10, 1 }, { 1, 1 }, { 90, 1 }, { 65, 1 } } },
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
	see_as(&c->w, 0, c->n_shared, c->shared);
	see_as(&c->w, c->n_shared, c->w.n - c->n_shared, c->own);
}

/* Shared tokens in two segments; the member's own behind them. */
static void member_make(struct member_memory *m, const struct attention_segment *shared,
			const struct crowd *c, uint32_t own_at, uint32_t own)
{
	m->segments[0] = shared[0];
	m->segments[1] = shared[1];
	m->segments[2] = pack(&c->w, own_at, own, c->own);
	m->segments[2].first = c->n_shared;
	scatter(m);
}

static void crowd_check(struct crowd *c)
{
	const size_t row = (size_t)c->w.n_head * c->w.d;
	const struct attention_segment shared[] = {
		pack(&c->w, 0, c->n_shared - 40, c->shared),
		pack(&c->w, c->n_shared - 40, 40, c->shared),
	};
	float *together = malloc(c->w.m * row * sizeof(*together));
	uint32_t own_at = c->n_shared, query_at = 0;
	struct attention_member members[9];
	struct member_memory memory[9];

	for (uint32_t i = 0; i < c->n_members; i++) {
		const uint32_t own = c->members[i].own, m = c->members[i].m;

		member_make(&memory[i], shared, c, own_at, own);
		members[i] = (struct attention_member){ .segments = memory[i].segments,
							.n_segments = 3,
							.m = m,
							.pos = c->n_shared + own - m };
		own_at += own;
	}
	run_members(&c->w, members, c->n_members, c->w.q, 2, together);
	own_at = c->n_shared;
	for (uint32_t i = 0; i < c->n_members; i++) {
		check_member(c, &members[i], own_at, query_at, together + query_at * row);
		own_at += c->members[i].own;
		query_at += members[i].m;
		for (uint32_t b = 0; b <= c->members[i].own / ATTENTION_BLOCK; b++)
			free((void *)memory[i].blocks[b]);
	}
	free((void *)shared[0].base);
	free((void *)shared[1].base);
	free(together);
}

/* Whatever the others in a batch are, of one query or many, and whatever the formats. */
static void attention__batch_equals_each_alone(void **state)
{
	for (size_t x = 0; x < 2 * ARRAY_LEN(crowds); x++) {
		struct crowd c = crowds[x / 2];

		kvtile_limit(x % 2, false);
		kvint_limit(x % 2);
		crowd_make(&c, x + 20);
		crowd_check(&c);
		world_free(&c.w);
	}
	kvtile_limit(false, false);
	kvint_limit(false);
}

/* More members than one round of the pool takes. */
static void attention__more_members_than_a_round(void **state)
{
	struct crowd c = { .w = { .n_head = 2, .n_head_kv = 1, .d = 32 },
			   .n_shared = 700,
			   .n_members = 1,
			   .members = { { 100, 100 } } };
	struct attention_member members[100];
	struct attention_segment segments[2];
	float *got, *again;

	crowd_make(&c, 77);
	segments[0] = pack(&c.w, 0, c.n_shared, ATTENTION_F16);
	segments[1] = pack(&c.w, c.n_shared, 100, ATTENTION_F16);
	for (uint32_t i = 0; i < 100; i++)
		members[i] = (struct attention_member){
			.segments = segments, .n_segments = 2, .m = 1, .pos = c.n_shared + i
		};
	got = malloc(100 * 64 * sizeof(*got));
	again = malloc(64 * sizeof(*again));
	run_members(&c.w, members, 100, c.w.q, 2, got);
	for (size_t i = 0; i < 100; i++) {
		run_members(&c.w, &members[i], 1, c.w.q + i * 64, 1, again);
		assert_memory_equal(again, got + i * 64, 64 * sizeof(*again));
	}
	free((void *)segments[0].base);
	free((void *)segments[1].base);
	free(got);
	free(again);
	world_free(&c.w);
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
	run_split(&w, ATTENTION_F16, 4, 1, got);
	for (size_t i = 0; i < 32; i++)
		assert_true(fabs(got[i] - want[i]) < 1e-3);
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attention__segmented_equals_concatenated),
		cmocka_unit_test(attention__independent_of_threads),
		cmocka_unit_test(attention__quants_in_place),
		cmocka_unit_test(attention__more_members_than_a_round),
		cmocka_unit_test(attention__batch_equals_each_alone),
		cmocka_unit_test(attention__large_scores_do_not_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
