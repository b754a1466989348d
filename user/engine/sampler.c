// SPDX-License-Identifier: MIT
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
	float logit;
	float p;
	int32_t id;
};

struct sampler {
	struct sampler_opts opts;
	uint32_t n_vocab;
	struct candidate *all; /* [n_vocab] */
	int32_t *recent; /* ring of repeat_last_n */
	uint32_t n_recent, at;
	uint64_t state;
};

enum { MAX_LOOK_BACK = 1 << 16 };

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

/* SplitMix64 (Steele et al. 2014); 53 bits give a double in [0, 1). */
static double draw(struct sampler *s)
{
	uint64_t z = s->state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	z ^= z >> 31;
	return (double)(z >> 11) * 0x1p-53;
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

static int by_logit(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->logit != y->logit)
		return x->logit < y->logit ? 1 : -1;
	return x->id < y->id ? -1 : 1;
}

static int32_t greedy(const struct sampler *s)
{
	int32_t best = 0;

	for (uint32_t i = 1; i < s->n_vocab; i++)
		if (s->all[i].logit > s->all[best].logit)
			best = (int32_t)i;
	return best;
}

/* p of the first n candidates, sorted, at a temperature. */
static void softmax(struct candidate *c, uint32_t n, float temperature)
{
	float sum = 0;

	for (uint32_t i = 0; i < n; i++) {
		c[i].p = expf((c[i].logit - c[0].logit) / temperature);
		sum += c[i].p;
	}
	for (uint32_t i = 0; i < n; i++)
		c[i].p /= sum;
}

static uint32_t cut(const struct sampler *s, struct candidate *c)
{
	uint32_t n = s->n_vocab, keep;
	float sum = 0;

	if (s->opts.top_k && s->opts.top_k < n)
		n = s->opts.top_k;
	softmax(c, n, 1.0f);
	if (s->opts.top_p < 1.0f) {
		for (keep = 0; keep < n && sum < s->opts.top_p; keep++)
			sum += c[keep].p;
		n = keep;
	}
	for (keep = 1; keep < n && c[keep].p >= s->opts.min_p * c[0].p; keep++)
		;
	return keep;
}

int32_t sampler_sample(struct sampler *s, const float *logits)
{
	struct candidate *c = s->all;
	double left;
	uint32_t n;

	for (uint32_t i = 0; i < s->n_vocab; i++)
		c[i] = (struct candidate){ .logit = logits[i], .id = (int32_t)i };
	penalize(s);
	if (s->opts.temperature <= 0)
		return greedy(s);
	qsort(c, s->n_vocab, sizeof(*c), by_logit);
	n = cut(s, c);
	softmax(c, n, s->opts.temperature);
	left = draw(s);
	for (uint32_t i = 0; i < n; i++) {
		left -= c[i].p;
		if (left < 0)
			return c[i].id;
	}
	return c[n - 1].id;
}
