// SPDX-License-Identifier: MIT
#include "attention_rig.h"

#include "compute/dense.h"
#include "compute/half.h"
#include "compute/kvbf16.h"
#include "random.h"

/* --- the products by themselves --- */

enum { MOST_ROWS = 48, MOST_D = 160 };

/* A block of one head, and rows that meet it; what is behind n tokens are NaNs. */
struct block {
	uint32_t rows, n, d;
	uint16_t keys[KVTILE_TOKENS * MOST_D];
	uint16_t queries[MOST_ROWS * MOST_D];
	float p[MOST_ROWS * KVTILE_TOKENS], acc[MOST_ROWS * MOST_D];
	float max[MOST_ROWS], sum[MOST_ROWS * KVTILE_LANES];
	uint16_t ready[KVTILE_TOKENS * MOST_D];
};

static double wide(uint16_t bf16)
{
	return float_of((uint32_t)bf16 << 16);
}

/* f16 as a product sees it. */
static double rounded(uint16_t f16)
{
	const float f = f16_to_f32(f16);
	uint16_t r;

	dense_round(&r, &f, 1);
	return wide(r);
}

static void block_make(struct block *b)
{
	float x[MOST_D];

	for (uint32_t j = 0; j < KVTILE_TOKENS; j++) {
		for (uint32_t i = 0; i < b->d; i++)
			x[i] = j < b->n ? uniform(3000) * (i % 7 ? 1 : 1e-5f) : NAN;
		f32_row_to_f16(x, b->keys + (size_t)j * b->d, b->d);
	}
	for (uint32_t r = 0; r < b->rows; r++) {
		for (uint32_t i = 0; i < b->d; i++)
			x[i] = uniform(1000);
		dense_round(b->queries + (size_t)r * b->d, x, b->d);
		b->max[r] = -INFINITY;
	}
	memset(b->sum, 0, sizeof(b->sum));
	memset(b->acc, 0, sizeof(b->acc));
}

static void make_scores(struct block *b)
{
	struct kvbf16_block k = { .x = b->keys, .n = b->n, .d = b->d };

	if (b->rows > KVBF16_FEW) {
		kvbf16_round_keys(b->ready, &k);
		k.x = b->ready;
		k.rounded = true;
	}
	kvbf16_scores(b->p, b->queries, b->rows, &k);
}

static void check_scores(struct block *b)
{
	make_scores(b);
	for (uint32_t r = 0; r < b->rows; r++)
		for (uint32_t j = 0; j < b->n; j++) {
			double want = 0;

			for (uint32_t i = 0; i < b->d; i++)
				want += wide(b->queries[r * b->d + i]) *
					rounded(b->keys[j * b->d + i]);
			if (!(fabs(b->p[r * KVTILE_TOKENS + j] - want) < 1e-5))
				fail_msg("%u rows, head of %u, row %u, key %u: %.9g, expected %.9g",
					 b->rows, b->d, r, j, (double)b->p[r * KVTILE_TOKENS + j],
					 want);
		}
}

/* Every weight is the nearest bf16 to the exponential, but for ties that its own error decides. */
static void check_weights(struct block *b)
{
	const struct kvtile_weights w = {
		.p = b->p, .acc = b->acc, .max = b->max, .sum = b->sum, .width = b->d
	};
	float scores[MOST_ROWS * KVTILE_TOKENS];

	memcpy(scores, b->p, sizeof(scores));
	kvbf16_weigh(&w, 0, b->rows, b->n);
	for (uint32_t r = 0; r < b->rows; r++) {
		const float *p = b->p + r * KVTILE_TOKENS, *s = scores + r * KVTILE_TOKENS;
		double sum = 0, top = -INFINITY;

		for (uint32_t j = 0; j < b->n; j++)
			top = s[j] > top ? s[j] : top;
		for (uint32_t j = 0; j < KVTILE_TOKENS; j++) {
			const double want = j < b->n ? exp(s[j] - top) : 0;
			const double got = wide(((const uint16_t *)(const void *)p)[j]);

			assert_true(fabs(got - want) <= want * (0x1p-8 + 1e-5));
			sum += got;
		}
		assert_true(fabs(kvtile_total(b->sum + r * KVTILE_LANES) - sum) < 1e-5 * sum);
		assert_true(b->max[r] == (float)top);
	}
}

static void add_values(struct block *b)
{
	struct kvbf16_block v = { .x = b->keys, .n = b->n, .d = b->d };

	if (b->rows > KVBF16_FEW) {
		kvbf16_round_values(b->ready, &v);
		v.x = b->ready;
		v.rounded = true;
	}
	kvbf16_values(b->acc, b->p, b->rows, &v);
}

/* Twice, so that what was there before counts. */
static void check_values(struct block *b)
{
	add_values(b);
	add_values(b);
	for (uint32_t r = 0; r < b->rows; r++) {
		const uint16_t *p = (const uint16_t *)(const void *)(b->p + r * KVTILE_TOKENS);
		const float total = kvtile_total(b->sum + r * KVTILE_LANES);

		for (uint32_t i = 0; i < b->d; i++) {
			double want = 0;

			for (uint32_t j = 0; j < b->n; j++)
				want += 2 * wide(p[j]) * rounded(b->keys[j * b->d + i]);
			if (!(fabs(b->acc[r * b->d + i] - want) < 1e-5 * 2 * total))
				fail_msg(
					"%u rows, head of %u, %u values, row %u, element %u: %.9g, "
					"expected %.9g",
					b->rows, b->d, b->n, r, i, (double)b->acc[r * b->d + i],
					want);
		}
	}
}

/* A row by itself must get the same bits as among others. */
static void check_alone(const struct block *all, uint32_t r)
{
	static struct block one;
	const struct kvtile_weights w = {
		.p = one.p, .acc = one.acc, .max = one.max, .sum = one.sum, .width = all->d
	};

	one = *all;
	one.rows = 1;
	one.max[0] = -INFINITY;
	memset(one.sum, 0, sizeof(one.sum));
	memcpy(one.queries, all->queries + r * all->d, all->d * sizeof(*one.queries));
	memset(one.acc, 0, sizeof(one.acc));
	make_scores(&one);
	kvbf16_weigh(&w, 0, 1, all->n);
	add_values(&one);
	add_values(&one);
	assert_memory_equal(one.p, all->p + r * KVTILE_TOKENS, KVTILE_TOKENS * 2);
	assert_memory_equal(one.acc, all->acc + r * all->d, all->d * sizeof(float));
	assert_memory_equal(one.sum, all->sum + r * KVTILE_LANES, KVTILE_LANES * sizeof(float));
	assert_true(one.max[0] == all->max[r]);
}

static void kvbf16__products_of_what_is_rounded(void **state)
{
	static const uint32_t tokens[] = { 64, 1, 2, 15, 33, 48, 63 };
	static struct block b;

	if (!kvbf16_fast(16))
		skip();
	for (uint32_t rows = 1; rows <= MOST_ROWS; rows++) {
		b.rows = rows;
		b.d = 16 + rows * 5 % 10 * 16;
		b.n = tokens[rows % ARRAY_LEN(tokens)];
		block_make(&b);
		check_scores(&b);
		check_weights(&b);
		check_values(&b);
		for (uint32_t r = 0; r < rows; r++)
			check_alone(&b, r);
	}
}

/* --- attention over them --- */

enum { MOST_MEMBERS = 33 };

/* Members behind one context, which is in two segments, each with tokens of its own in f16. */
struct gathering {
	struct world w; /* n: the context and all own tokens */
	uint32_t context, n_members;
	uint32_t own[MOST_MEMBERS], m[MOST_MEMBERS];
	struct attention_segment segments[MOST_MEMBERS][3];
	struct attention_member members[MOST_MEMBERS];
};

static uint32_t between(uint32_t least, uint32_t most)
{
	return least + rnd() % (most - least + 1);
}

/* To bf16. A query is divided by 8 as well, which changes nothing about that. */
static void round_all(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t r;

		dense_round(&r, &x[i], 1);
		x[i] = (float)wide(r);
	}
}

static void world_round(struct world *w)
{
	const size_t kv = (size_t)w->n * w->n_head_kv * w->d;

	round_all(w->k, kv);
	round_all(w->v, kv);
	round_all(w->seen_k, kv);
	round_all(w->seen_v, kv);
	round_all(w->q, (size_t)w->m * w->n_head * w->d);
}

static void gather(struct gathering *g, uint32_t n_members, bool exact)
{
	const uint32_t first = between(1, 300), second = between(1, 300);
	uint32_t at = first + second;

	g->w.n_head_kv = between(1, 3);
	g->w.n_head = g->w.n_head_kv * between(1, 8);
	g->w.d = exact ? 64 : 16 * between(1, 8);
	g->w.seed = rnd();
	g->w.apart = false;
	g->context = at;
	g->n_members = n_members;
	g->w.m = 0;
	for (uint32_t i = 0; i < n_members; i++) {
		g->own[i] = between(1, 80);
		g->m[i] = between(0, 3) ? 1 : between(1, g->own[i]);
		at += g->own[i];
		g->w.m += g->m[i];
	}
	g->w.n = at;
	world_make(&g->w);
	if (exact)
		world_round(&g->w);
	g->segments[0][0] = pack(&g->w, 0, first, ATTENTION_ROUNDED);
	g->segments[0][1] = pack(&g->w, first, second, ATTENTION_ROUNDED);
	at = g->context;
	for (uint32_t i = 0; i < n_members; at += g->own[i++]) {
		struct attention_segment *s = g->segments[i];

		s[0] = g->segments[0][0];
		s[1] = g->segments[0][1];
		s[2] = pack(&g->w, at, g->own[i], ATTENTION_F16);
		s[2].first = g->context;
		g->members[i] =
			(struct attention_member){ .segments = s,
						   .n_segments = 3,
						   .m = g->m[i],
						   .pos = g->context + g->own[i] - g->m[i] };
	}
}

static void part(struct gathering *g)
{
	free((void *)g->segments[0][0].base);
	free((void *)g->segments[0][1].base);
	for (uint32_t i = 0; i < g->n_members; i++)
		free((void *)g->segments[i][2].base);
	world_free(&g->w);
}

/* The largest difference from the definition. */
static double off(const struct gathering *g, uint32_t i, uint32_t own_at, float *q,
		  const float *got)
{
	const size_t n = (size_t)g->m[i] * g->w.n_head * g->w.d;
	double *want = member_reference(&g->w, g->context, own_at, g->own[i], g->m[i], q), most = 0;

	for (size_t x = 0; x < n; x++)
		most = fabs(got[x] - want[x]) > most ? fabs(got[x] - want[x]) : most;
	free(want);
	return most;
}

static void check_gathering(struct gathering *g, unsigned int threads, double bound)
{
	const size_t row = (size_t)g->w.n_head * g->w.d;
	float *together = malloc(g->w.m * row * sizeof(*together));
	float *alone = malloc(g->w.m * row * sizeof(*alone));
	uint32_t own_at = g->context;
	size_t at = 0;

	run_members(&g->w, g->members, g->n_members, g->w.q, threads, together);
	g->w.apart = true;
	run_members(&g->w, g->members, g->n_members, g->w.q, threads, alone);
	assert_memory_equal(alone, together, g->w.m * row * sizeof(*alone));
	g->w.apart = false;
	for (uint32_t i = 0; i < g->n_members; i++) {
		double most;

		run_members(&g->w, &g->members[i], 1, g->w.q + at, 1 + i % 4, alone);
		assert_memory_equal(alone, together + at, g->m[i] * row * sizeof(*alone));
		most = off(g, i, own_at, g->w.q + at, alone);
		if (!(most < bound))
			fail_msg("%u members, head of %u, member %u: off by %g", g->n_members,
				 g->w.d, i, most);
		own_at += g->own[i];
		at += g->m[i] * row;
	}
	free(together);
	free(alone);
}

/*
 * Values are within 1, and scores have a deviation of 1.3. Where keys, queries and values are bf16 already, weights alone
 * are rounded, by 2^-8 at most and 2^-9.3 mostly, of which at least a dozen count. Otherwise scores move too, by a
 * deviation of 2^-9, and values. Without bf16 nothing is rounded.
 */
static void attention__rounded_alike_alone_and_together(void **state)
{
	for (uint32_t n = 1; n <= MOST_MEMBERS; n++) {
		const bool without = n % 8 == 7, exact = n % 4 == 1;
		struct gathering g;

		kvbf16_limit(without);
		gather(&g, n, exact);
		check_gathering(&g, 1 + n % 4,
				!kvbf16_fast(g.w.d) ? 4e-6 :
				exact		    ? 0x1p-10 :
						      0x1p-8);
		part(&g);
	}
	kvbf16_limit(false);
}

/* Queries in the middle of what is rounded, each of which sees other tokens: more of them than meet a block at once. */
static void attention__rounded_up_to_a_query(void **state)
{
	for (uint32_t m = 2; m <= 62; m += 12) {
		struct world w = {
			.n_head = 6, .n_head_kv = 2, .d = 64, .n = 130 + m, .m = m, .seed = m
		};
		const size_t n_out = (size_t)m * w.n_head * w.d;
		double *want = malloc(n_out * sizeof(*want));
		float *got = malloc(n_out * sizeof(*got));
		struct attention_member member = { .n_segments = 1, .m = m, .pos = w.n - m };
		struct attention_segment segment;

		world_make(&w);
		segment = pack(&w, 0, w.n, ATTENTION_ROUNDED);
		member.segments = &segment;
		reference(&w, want);
		run_members(&w, &member, 1, w.q, 1 + m % 3, got);
		for (size_t i = 0; i < n_out; i++)
			if (!(fabs(got[i] - want[i]) < 0x1p-8))
				fail_msg("%u queries, value %zu: %.9g, expected %.9g", m, i,
					 (double)got[i], want[i]);
		free((void *)segment.base);
		free(want);
		free(got);
		world_free(&w);
	}
}

/* A long question behind a context, at once or in two pieces, as a batch takes it in: how it is cut must not show. */
static void attention__rounded_alike_in_pieces(void **state)
{
	enum { CONTEXT = 64, M = 40 };

	/* Its own tokens are cut into larger parts from 2048 on: by what a query sees, not by what the piece has. */
	for (uint32_t own = 268; own <= 2060; own += 256) {
		struct world w = { .n_head = 3, .n_head_kv = 1, .d = 32, .m = M, .seed = own };
		const size_t row = (size_t)w.n_head * w.d;
		float *whole = malloc(M * row * sizeof(*whole));
		float *pieces = malloc(M * row * sizeof(*pieces));
		struct attention_segment s[2];
		struct attention_member member = { .segments = s, .n_segments = 2, .m = M };

		w.n = CONTEXT + own;
		world_make(&w);
		s[0] = pack(&w, 0, CONTEXT, ATTENTION_ROUNDED);
		s[1] = pack(&w, CONTEXT, own, ATTENTION_F16);
		member.pos = w.n - M;
		run_members(&w, &member, 1, w.q, 2, whole);
		member.m = M / 2;
		s[1].n_tokens = own - M / 2;
		run_members(&w, &member, 1, w.q, 2, pieces);
		member.pos += M / 2;
		s[1].n_tokens = own;
		run_members(&w, &member, 1, w.q + M / 2 * row, 2, pieces + M / 2 * row);
		assert_memory_equal(whole, pieces, M * row * sizeof(*whole));
		free((void *)s[0].base);
		free((void *)s[1].base);
		free(whole);
		free(pieces);
		world_free(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kvbf16__products_of_what_is_rounded),
		cmocka_unit_test(attention__rounded_alike_alone_and_together),
		cmocka_unit_test(attention__rounded_up_to_a_query),
		cmocka_unit_test(attention__rounded_alike_in_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
