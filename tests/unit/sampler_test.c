// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <math.h>

#include "engine/sampler.h"

static const struct sampler_opts plain = {
	.temperature = 1,
	.top_p = 1,
	.repeat_penalty = 1,
	.seed = 7,
};

static struct sampler *make(struct sampler_opts opts, uint32_t n)
{
	struct lslm_error err;
	struct sampler *s;

	assert_ok(sampler_create(&s, &opts, n, &err), &err);
	return s;
}

static void sampler__greedy_takes_lowest_of_equals(void **state)
{
	struct sampler_opts o = plain;
	const float logits[] = { 1, 3, 3, 2 };
	struct sampler *s;

	o.temperature = 0;
	s = make(o, 4);
	assert_int_equal(sampler_sample(s, logits), 1);
	sampler_destroy(s);
}

/* Wherever the largest stands, with and without a penalty, which takes another way. */
static void sampler__greedy_finds_it_anywhere(void **state)
{
	for (uint32_t n = 1; n <= 200; n++)
		for (uint32_t at = 0; at < n; at += 1 + at / 70) {
			struct sampler_opts o = plain;
			struct sampler *s;
			float logits[200];

			for (uint32_t i = 0; i < n; i++)
				logits[i] = i == at ? -1 : -2 - (float)(i * 37 % 101);
			o.temperature = 0;
			o.repeat_penalty = at % 2 ? 1 : 1.5f;
			s = make(o, n);
			assert_int_equal(sampler_sample(s, logits), at);
			sampler_destroy(s);
		}
}

/* Relative frequencies of 20000 draws must be the softmax, within five standard errors. */
static void sampler__draws_the_distribution(void **state)
{
	const float logits[] = { 0, 1, 2, -1 };
	const int n = 20000;
	struct sampler *s = make(plain, 4);
	double sum = 0;
	int count[4] = { 0 };

	for (int i = 0; i < n; i++)
		count[sampler_sample(s, logits)]++;
	for (int i = 0; i < 4; i++)
		sum += exp(logits[i]);
	for (int i = 0; i < 4; i++) {
		const double p = exp(logits[i]) / sum;

		assert_true(fabs((double)count[i] / n - p) < 5 * sqrt(p * (1 - p) / n));
	}
	sampler_destroy(s);
}

/* p = 0.64 0.24 0.09 0.03 in order of id. Each case lists which ids may occur. */
static void sampler__cuts(void **state)
{
	static const struct {
		uint32_t top_k;
		float top_p, min_p;
		unsigned int allowed; /* mask of ids */
	} cases[] = {
		{ 0, 1.0f, 0, 0xf },	 { 1, 1.0f, 0, 0x1 },	 { 2, 1.0f, 0, 0x3 },
		{ 0, 0.60f, 0, 0x1 },	 { 0, 0.70f, 0, 0x3 },	 { 0, 0.90f, 0, 0x7 },
		{ 0, 1.0f, 0.5f, 0x1 },	 { 0, 1.0f, 0.3f, 0x3 }, { 0, 1.0f, 0.1f, 0x7 },
		{ 3, 0.95f, 0.3f, 0x3 },
	};
	const float logits[] = { 3, 2, 1, 0 };

	for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
		struct sampler_opts o = plain;
		unsigned int seen = 0;
		struct sampler *s;

		o.top_k = cases[c].top_k;
		o.top_p = cases[c].top_p;
		o.min_p = cases[c].min_p;
		s = make(o, 4);
		for (int i = 0; i < 2000; i++)
			seen |= 1u << sampler_sample(s, logits);
		if (seen != cases[c].allowed)
			fail_msg("case %zu: drew %#x, expected %#x", c, seen, cases[c].allowed);
		sampler_destroy(s);
	}
}

static void sampler__repeat_penalty_looks_back(void **state)
{
	struct sampler_opts o = plain;
	const float logits[] = { 2.0f, 1.5f, -1.0f };
	struct sampler *s;

	o.temperature = 0;
	o.repeat_penalty = 2;
	o.repeat_last_n = 2;
	s = make(o, 3);
	assert_int_equal(sampler_sample(s, logits), 0);
	sampler_accept(s, 0);
	sampler_accept(s, 0); /* twice, penalised once: 1.0 */
	assert_int_equal(sampler_sample(s, logits), 1);
	sampler_accept(s, 1); /* recent = 0, 1: logits 1.0, 0.75 */
	assert_int_equal(sampler_sample(s, logits), 0);
	sampler_accept(s, 1); /* 0 has left the window */
	assert_int_equal(sampler_sample(s, logits), 0);
	sampler_destroy(s);
}

/* Whatever the vocabulary, the k best may be drawn and no other, also where some are equal. */
static void sampler__keeps_the_best_of_many(void **state)
{
	enum { N = 1000, K = 7 };
	static float logits[N];
	struct sampler_opts o = plain;
	unsigned int seen = 0;
	struct sampler *s;

	/* Best are the multiples of 100, the lower the better; of the rest all are equal. */
	for (int i = 0; i < N; i++)
		logits[i] = i % 100 ? 0 : 1 - (float)i / 10000;
	o.top_k = K;
	o.temperature = 5;
	s = make(o, N);
	for (int i = 0; i < 1000; i++) {
		const int32_t id = sampler_sample(s, logits);

		assert_int_equal(id % 100, 0);
		assert_true(id < 100 * K);
		seen |= 1u << id / 100;
	}
	assert_int_equal(seen, (1 << K) - 1);
	sampler_destroy(s);
	/* Of equals the lowest: ids 1 and 2 are the next ones after the ten. */
	o.top_k = 12;
	o.temperature = 1e6f;
	s = make(o, N);
	for (int i = 0; i < 1000; i++) {
		const int32_t id = sampler_sample(s, logits);

		assert_true(id % 100 == 0 || id == 1 || id == 2);
	}
	sampler_destroy(s);
}

static void sampler__same_seed_same_tokens(void **state)
{
	const float logits[] = { 0, 0, 0, 0, 0, 0, 0, 0 };
	struct sampler_opts o = plain;
	struct sampler *a = make(o, 8), *b = make(o, 8), *c;
	int differs = 0;

	o.seed = 8;
	c = make(o, 8);
	for (int i = 0; i < 100; i++) {
		const int32_t x = sampler_sample(a, logits);

		assert_int_equal(x, sampler_sample(b, logits));
		differs |= x != sampler_sample(c, logits);
	}
	assert_true(differs);
	sampler_destroy(a);
	sampler_destroy(b);
	sampler_destroy(c);
}

static void sampler__refuses_bad_options(void **state)
{
	struct sampler_opts bad[5] = { plain, plain, plain, plain, plain };
	struct lslm_error err;
	struct sampler *s;

	bad[0].temperature = NAN;
	bad[1].top_p = 0;
	bad[2].min_p = 1.5f;
	bad[3].repeat_penalty = 0;
	bad[4].repeat_last_n = 1 << 20;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(sampler_create(&s, &bad[i], 4, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sampler__greedy_takes_lowest_of_equals),
		cmocka_unit_test(sampler__greedy_finds_it_anywhere),
		cmocka_unit_test(sampler__draws_the_distribution),
		cmocka_unit_test(sampler__cuts),
		cmocka_unit_test(sampler__repeat_penalty_looks_back),
		cmocka_unit_test(sampler__keeps_the_best_of_many),
		cmocka_unit_test(sampler__same_seed_same_tokens),
		cmocka_unit_test(sampler__refuses_bad_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
