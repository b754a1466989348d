// SPDX-License-Identifier: MIT
/* Which level is chosen: pure arithmetic over a made-up clock and link. */
#include "net/choice.h"

#include "unit.h"

#include "context.h"

enum { STRIPES = 100 };

/* Stripes of 40 layers of one head of 64: f16 655360 bytes, q8 348160, q4 184320, e as said. */
static const struct kv_geometry geo = { 40, 1, 64 };

static struct manifest *make(uint32_t levels)
{
	static int32_t tokens[STRIPES * KV_BLOCK_TOKENS];
	struct lslm_error err = { 0 };
	struct manifest *m = NULL;

	for (int level = 0; level < KV_LEVELS; level++) {
		if (!(levels >> level & 1))
			continue;
		if (m)
			assert_ok(manifest_add_level(m, level, &err), &err);
		else
			assert_ok(manifest_new(&m, &geo, tokens, ARRAY_LEN(tokens), level, &err),
				  &err);
	}
	for (uint32_t i = 0; i < m->n_levels; i++) {
		struct manifest_level *lv = &m->levels[i];

		for (uint32_t u = 0; lv->unit_bytes && u < STRIPES * lv->n_units; u++)
			lv->unit_bytes[u] = 2304;
	}
	manifest_place(m, m->n_levels);
	return m;
}

static struct choice *open_all(const struct manifest *m)
{
	struct lslm_error err = { 0 };
	struct choice *c;

	assert_ok(choice_open(&c, m, CHOICE_ALL_LEVELS, &err), &err);
	return c;
}

static enum kv_level level_of(const struct choice *c, uint32_t stripe)
{
	assert_non_null(choice_level(c, stripe));
	return choice_level(c, stripe)->level;
}

enum { F16 = 1 << KV_LEVEL_F16, Q8 = 1 << KV_LEVEL_Q8, Q4 = 1 << KV_LEVEL_Q4, E = 1 << KV_LEVEL_E };

static void open__what_is_not_on_offer(void **state)
{
	struct manifest *m = make(F16 | Q4);
	struct lslm_error err = { 0 };
	struct choice *c;

	assert_int_equal(choice_open(&c, m, Q8 | E, &err), -EINVAL);
	assert_string_equal(err.text,
			    "the context is not on offer at level q8,e, only at f16,q4; publish it "
			    "again with that level, or choose another one");
	assert_ok(choice_open(&c, m, Q8 | Q4, &err), &err);
	assert_int_equal(choice_candidate(c, 0)->level, KV_LEVEL_Q4);
	assert_null(choice_candidate(c, 1));
	choice_close(c);
	choice_close(NULL);
	manifest_free(m);
}

/* A link of so many bytes per second brings what is chosen, a budget at a time; returns when the last is there. */
static double run(struct choice *c, double rate, double deadline, double guess)
{
	uint64_t received = 0, budget, asked;
	double now = 100;
	uint32_t stripe = STRIPES;

	choice_begin(c, now, deadline, 0, guess);
	while (stripe) {
		budget = choice_budget(c, 0, now);
		asked = 0;
		do {
			choice_make(c, --stripe, 0, now);
			asked += choice_level(c, stripe)->length[stripe];
		} while (stripe && asked < budget);
		now += (double)asked / rate;
		received += asked;
		choice_see(c, received, now);
	}
	return now - 100;
}

/* In time, where that can be, and not much sooner: what is left of the time is used for finer stripes. */
static void make__meets_the_deadline(void **state)
{
	static const struct {
		double rate, deadline, guess, least, most;
	} cases[] = {
		/* At f16 all of it has 65.5 MB, at e 9.2. */
		{ 1e9, 5, 1e8, 0.065, 0.066 }, { 1e9, 5, 1e4, 0.064, 0.066 },
		{ 1e6, 0, 1e4, 65.5, 65.6 },   { 10e6, 5, 1e4, 3.5, 5 },
		{ 6e6, 5, 1e4, 3.5, 5 },       { 2.5e6, 5, 1e4, 3.5, 5 },
		{ 1e5, 5, 1e4, 92.1, 92.2 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct manifest *m = make(F16 | Q8 | Q4 | E);
		struct choice *c = open_all(m);
		const double took = run(c, cases[i].rate, cases[i].deadline, cases[i].guess);

		if (took < cases[i].least || took > cases[i].most)
			fail_msg("case %zu took %.3f s, not %g to %g", i, took, cases[i].least,
				 cases[i].most);
		choice_close(c);
		manifest_free(m);
	}
}

/* Nothing is known of the link: one stripe, at the coarsest, to measure with. */
static void make__measures_first(void **state)
{
	struct manifest *m = make(F16 | Q8 | Q4 | E);
	struct choice *c = open_all(m);

	choice_begin(c, 100, 5, 0, 0);
	assert_int_equal(choice_budget(c, 0, 100), 0);
	choice_make(c, 99, 0, 100);
	assert_int_equal(level_of(c, 99), KV_LEVEL_E);
	/* Too little to say anything; then a burst, which may be a queue's; then a speed. */
	choice_see(c, 9216, 100.001);
	assert_int_equal(choice_budget(c, 0, 100.001), 0);
	choice_see(c, 92160, 100.001);
	assert_int_equal(choice_budget(c, 0, 100.001), 4 * 92160);
	choice_see(c, 92161, 100.05);
	assert_true(choice_budget(c, 0, 100.05) > 1000000);
	assert_true(choice_budget(c, 0, 100.05) < 3000000);
	choice_close(c);
	manifest_free(m);
}

/* What the engine computes need not come: at half a context in the time that is left, f16 is fast enough. */
static void make__counts_on_the_head(void **state)
{
	struct manifest *m = make(F16 | Q8);

	for (uint32_t head = 0; head <= 10; head += 10) {
		struct choice *c = open_all(m);

		choice_begin(c, 100, 5, 0, 0);
		choice_make(c, 99, 0, 100);
		choice_see(c, 12000000, 101);
		choice_make(c, 50, head, 101);
		assert_int_equal(level_of(c, 50), head ? KV_LEVEL_F16 : KV_LEVEL_Q8);
		choice_close(c);
	}
	manifest_free(m);
}

static uint32_t runs(const struct choice *c)
{
	uint32_t n = 1;

	for (uint32_t s = 1; s < STRIPES; s++)
		n += kv_level_in_memory(level_of(c, s)) != kv_level_in_memory(level_of(c, s - 1));
	return n;
}

/* A link that is fast and slow in turn, and a store that has every other stripe. */
static void make__few_runs(void **state)
{
	struct manifest *m = make(F16 | Q8 | Q4);
	struct choice *c = open_all(m);
	uint64_t received = 0;
	double now = 100;

	choice_begin(c, now, 1e4, 0, 0);
	for (uint32_t s = 0; s < STRIPES; s += 3)
		choice_take(c, s, choice_candidate(c, s / 3 % 3));
	for (uint32_t s = STRIPES; s-- > 0;) {
		choice_make(c, s, 0, now);
		now += 0.5;
		received += s / 4 % 2 ? 100000000 : 1;
		choice_see(c, received, now);
	}
	assert_true(runs(c) <= CHOICE_RUNS);
	choice_close(c);
	manifest_free(m);
}

/* All runs there may be are there, and the first stripe that is asked for has no neighbour. */
static void make__few_runs_after_a_failure(void **state)
{
	struct manifest *m = make(F16 | Q8 | Q4);
	struct choice *c = open_all(m);

	/* A slow link, which breaks before anything has come; then one that is fast. */
	choice_begin(c, 100, 5, 0, 1);
	choice_make(c, STRIPES - 1, 0, 100);
	assert_int_equal(level_of(c, STRIPES - 1), KV_LEVEL_Q4);
	choice_forget(c, STRIPES - 1);
	for (uint32_t s = 0; s < CHOICE_RUNS; s++)
		assert_true(choice_take(c, s, choice_candidate(c, (s + 1) % 2)));
	choice_begin(c, 200, 0, 0, 1e9);
	for (uint32_t s = STRIPES; s-- > 0;)
		choice_make(c, s, 0, 200);
	assert_int_equal(runs(c), CHOICE_RUNS);
	assert_int_equal(level_of(c, STRIPES - 1), KV_LEVEL_F16);
	choice_close(c);
	manifest_free(m);
}

static void forget__chooses_again(void **state)
{
	struct manifest *m = make(F16 | E);
	struct choice *c = open_all(m);

	choice_begin(c, 100, 5, 0, 1);
	choice_make(c, 7, 0, 100);
	assert_int_equal(level_of(c, 7), KV_LEVEL_E);
	assert_false(choice_take(c, 7, choice_candidate(c, 0)));
	choice_forget(c, 7);
	choice_forget(c, 7);
	assert_null(choice_level(c, 7));
	choice_begin(c, 200, 0, 0, 1);
	choice_make(c, 7, 0, 200);
	assert_int_equal(level_of(c, 7), KV_LEVEL_F16);
	assert_int_equal(choice_budget(c, 0, 200), UINT64_MAX);
	assert_int_equal(choice_pitch(c), kv_stripe_bytes(&geo, KV_LEVEL_F16));
	assert_int_equal(choice_encoded(c), 40 * 2304);
	choice_close(c);
	manifest_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(open__what_is_not_on_offer),
		cmocka_unit_test(make__meets_the_deadline),
		cmocka_unit_test(make__measures_first),
		cmocka_unit_test(make__counts_on_the_head),
		cmocka_unit_test(make__few_runs),
		cmocka_unit_test(make__few_runs_after_a_failure),
		cmocka_unit_test(forget__chooses_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
