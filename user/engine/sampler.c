// SPDX-License-Identifier: MIT
#include "engine/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clones.h"
#include "base/random.h"

struct candidate {
	float logit;
	int32_t id;
};

struct sampler {
	struct sampler_opts opts;
	uint32_t n_vocab;
	/*
	 * [n_vocab]: a heap of those not looked at yet, the best first, and behind it the others,
	 * the best last.
	 */
	struct candidate *all;
	uint32_t n_left; /* of the heap */
	int32_t *recent; /* ring of repeat_last_n */
	uint32_t n_recent, at;
	uint64_t state;
};

enum { MAX_LOOK_BACK = 1 << 16 };
/* Logits that are looked at side by side. */
enum { LANES = 64 };

static int check(const struct sampler_opts *o, struct lslm_error *err)
{
	if (isnan(o->temperature) || isinf(o->temperature))
		return error_set(err, -EINVAL, "temperature is not a number");
	if (isnan(o->top_p) || o->top_p <= 0)
		return error_set(err, -EINVAL, "top-p %g must be above 0", (double)o->top_p);
	if (isnan(o->min_p) || o->min_p > 1)
		return error_set(err, -EINVAL, "min-p %g must be at most 1", (double)o->min_p);
	if (isnan(o->repeat_penalty) || o->repeat_penalty <= 0 || isinf(o->repeat_penalty))
		return error_set(err, -EINVAL, "repeat penalty %g must be above 0",
				 (double)o->repeat_penalty);
	if (o->repeat_last_n > MAX_LOOK_BACK)
		return error_set(err, -EINVAL, "repeat look-back %u is over %d", o->repeat_last_n,
				 MAX_LOOK_BACK);
	return 0;
}

int sampler_create(struct sampler **out, const struct sampler_opts *opts, uint32_t n_vocab,
		   struct lslm_error *err)
{
	struct sampler *s;
	int rc = check(opts, err);

	if (rc)
		return rc;
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->opts = *opts;
	s->n_vocab = n_vocab;
	s->state = opts->seed;
	s->all = calloc(n_vocab, sizeof(*s->all));
	s->recent = calloc(opts->repeat_last_n + 1, sizeof(*s->recent));
	if (!s->all || !s->recent) {
		sampler_destroy(s);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*out = s;
	return 0;
}

void sampler_destroy(struct sampler *s)
{
	if (!s)
		return;
	free(s->all);
	free(s->recent);
	free(s);
}

void sampler_accept(struct sampler *s, int32_t token)
{
	if (s->opts.repeat_last_n == 0)
		return;
	s->recent[s->at] = token;
	s->at = (s->at + 1) % s->opts.repeat_last_n;
	if (s->n_recent < s->opts.repeat_last_n)
		s->n_recent++;
}

static void penalize(struct sampler *s)
{
	const float penalty = s->opts.repeat_penalty;

	if (penalty == 1.0f)
		return;
	for (uint32_t i = 0; i < s->n_recent; i++) {
		const int32_t id = s->recent[i];
		uint32_t k = 0;

		/* Once per token, however often it occurred. */
		while (k < i && s->recent[k] != id)
			k++;
		if (k < i || id < 0 || (uint32_t)id >= s->n_vocab)
			continue;
		if (s->all[id].logit > 0)
			s->all[id].logit /= penalty;
		else
			s->all[id].logit *= penalty;
	}
}

static bool better(const struct candidate *a, const struct candidate *b)
{
	return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void sift(struct candidate *c, uint32_t at, uint32_t n)
{
	const struct candidate moved = c[at];

	for (uint32_t child; (child = 2 * at + 1) < n; at = child) {
		if (child + 1 < n && better(&c[child + 1], &c[child]))
			child++;
		if (!better(&c[child], &moved))
			break;
		c[at] = c[child];
	}
	c[at] = moved;
}

/*
 * The i-th best, from 0. Few are looked at as a rule, and sorting a vocabulary takes longer than a
 * small model's pass.
 */
static const struct candidate *nth(struct sampler *s, uint32_t i)
{
	struct candidate *c = s->all;

	while (s->n_vocab - s->n_left <= i) {
		const struct candidate best = c[0];

		c[0] = c[--s->n_left];
		sift(c, 0, s->n_left);
		c[s->n_left] = best;
	}
	return &c[s->n_vocab - 1 - i];
}

static int32_t greedy(const struct sampler *s)
{
	int32_t best = 0;

	for (uint32_t i = 1; i < s->n_vocab; i++)
		if (s->all[i].logit > s->all[best].logit)
			best = (int32_t)i;
	return best;
}

/* Lane by lane, which vectorises: with the index of each on its way it takes ten times as long. */
CLONES static float largest(const float *x, uint32_t n)
{
	float lane[LANES], top;
	uint32_t i = 0;

	for (int j = 0; j < LANES; j++)
		lane[j] = -INFINITY;
	for (; i + LANES <= n; i += LANES)
		for (int j = 0; j < LANES; j++)
			lane[j] = x[i + (uint32_t)j] > lane[j] ? x[i + (uint32_t)j] : lane[j];
	for (int j = 0; i < n; i++, j++)
		lane[j] = x[i] > lane[j] ? x[i] : lane[j];
	top = lane[0];
	for (int j = 1; j < LANES; j++)
		top = lane[j] > top ? lane[j] : top;
	return top;
}

/* The first of the largest. */
static int32_t greedy_of(const float *logits, uint32_t n)
{
	const float most = largest(logits, n);
	uint32_t i = 0;

	while (i < n && !(logits[i] >= most))
		i++;
	return i < n ? (int32_t)i : 0;
}

static float weight(const struct candidate *c, float best, float temperature)
{
	return expf((c->logit - best) / temperature);
}

/* Of the n best; unless they are all, they have been looked at. */
static float sum_of_weights(struct sampler *s, uint32_t n, float temperature)
{
	const float best = nth(s, 0)->logit;
	float sum = 0;

	for (uint32_t i = s->n_vocab - n; i < s->n_vocab; i++)
		sum += weight(&s->all[i], best, temperature);
	return sum;
}

/* How many of the best may be drawn. */
static uint32_t cut(struct sampler *s)
{
	const struct sampler_opts *o = &s->opts;
	const float best = nth(s, 0)->logit;
	uint32_t n = s->n_vocab, keep;

	if (o->top_k && o->top_k < n) {
		n = o->top_k;
		nth(s, n - 1);
	}
	if (o->top_p < 1.0f) {
		const float all = sum_of_weights(s, n, 1.0f);
		float sum = 0;

		for (keep = 0; keep < n && sum < o->top_p; keep++)
			sum += weight(nth(s, keep), best, 1.0f) / all;
		n = keep;
	}
	if (o->min_p <= 0)
		return n;
	for (keep = 1; keep < n && weight(nth(s, keep), best, 1.0f) >= o->min_p; keep++)
		;
	return keep;
}

int32_t sampler_sample(struct sampler *s, const float *logits)
{
	float best, sum;
	double left;
	uint32_t n;

	/* Nothing is changed about any, as a rule, so nothing has to be copied. */
	if (s->opts.temperature <= 0 && s->opts.repeat_penalty == 1.0f)
		return greedy_of(logits, s->n_vocab);
	for (uint32_t i = 0; i < s->n_vocab; i++)
		s->all[i] = (struct candidate){ .logit = logits[i], .id = (int32_t)i };
	penalize(s);
	if (s->opts.temperature <= 0)
		return greedy(s);
	s->n_left = s->n_vocab;
	for (uint32_t i = s->n_vocab / 2; i-- > 0;)
		sift(s->all, i, s->n_vocab);
	n = cut(s);
	best = nth(s, 0)->logit;
	if (n < s->n_vocab)
		nth(s, n - 1);
	sum = sum_of_weights(s, n, s->opts.temperature);
	left = random_unit(&s->state);
	for (uint32_t i = 0; i < n; i++) {
		left -= weight(nth(s, i), best, s->opts.temperature) / sum;
		if (left < 0)
			return nth(s, i)->id;
	}
	return nth(s, n - 1)->id;
}
