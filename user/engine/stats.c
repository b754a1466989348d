// SPDX-License-Identifier: MIT
#include "engine/stats.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "compute/ops.h"

int stats_add(struct stats_set *s, uint32_t group, double value, struct lslm_error *err)
{
	if (s->n == s->room) {
		const size_t room = s->room ? 2 * s->room : 256;
		double *values = realloc(s->value, room * sizeof(*values));
		uint32_t *groups;

		if (!values)
			return error_set(err, -ENOMEM, "out of memory");
		s->value = values;
		groups = realloc(s->group, room * sizeof(*groups));
		if (!groups)
			return error_set(err, -ENOMEM, "out of memory");
		s->group = groups;
		s->room = room;
	}
	s->value[s->n] = value;
	s->group[s->n++] = group;
	if (group >= s->n_groups)
		s->n_groups = group + 1;
	return 0;
}

void stats_free(struct stats_set *s)
{
	free(s->value);
	free(s->group);
	*s = (struct stats_set){ 0 };
}

/* How often each group is in one draw. */
static void draw(uint32_t *times, uint32_t n_groups, uint64_t *state)
{
	memset(times, 0, n_groups * sizeof(*times));
	for (uint32_t i = 0; i < n_groups; i++)
		times[(random_next(state) >> 32) * n_groups >> 32]++;
}

static int ascending(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The figure of one draw; times NULL: of the observations as they are. NAN: the draw has none. */
typedef double figure_fn(const struct stats_set *s, const uint32_t *times, const void *arg);

static struct stats_figure bootstrap(const struct stats_set *s, figure_fn *figure, const void *arg)
{
	struct stats_figure out = { NAN, NAN, NAN };
	uint32_t *times = malloc((s->n_groups + 1) * sizeof(*times));
	double *drawn = malloc(STATS_DRAWS * sizeof(*drawn));
	uint64_t state = 1;
	uint32_t n = 0;

	if (s->n)
		out.value = figure(s, NULL, arg);
	for (uint32_t i = 0; s->n && times && drawn && i < STATS_DRAWS; i++) {
		draw(times, s->n_groups, &state);
		drawn[n] = figure(s, times, arg);
		n += !isnan(drawn[n]);
	}
	if (n) {
		qsort(drawn, n, sizeof(*drawn), ascending);
		out.low = drawn[n / 40];
		out.high = drawn[n - 1 - n / 40];
	}
	free(times);
	free(drawn);
	return out;
}

struct sums {
	double *sum; /* of each group */
	double *count;
};

static double mean_of(const struct stats_set *s, const uint32_t *times, const void *arg)
{
	const struct sums *g = arg;
	double sum = 0, count = 0;

	for (uint32_t i = 0; i < s->n_groups; i++) {
		sum += g->sum[i] * (times ? times[i] : 1);
		count += g->count[i] * (times ? times[i] : 1);
	}
	return count > 0 ? sum / count : NAN;
}

static struct stats_figure mean_less(const struct stats_set *s, const double *minus)
{
	struct stats_figure out = { NAN, NAN, NAN };
	struct sums g;

	g.sum = calloc(2 * (size_t)s->n_groups + 1, sizeof(*g.sum));
	if (!g.sum)
		return out;
	g.count = g.sum + s->n_groups;
	for (size_t i = 0; i < s->n; i++) {
		g.sum[s->group[i]] += s->value[i] - (minus ? minus[i] : 0);
		g.count[s->group[i]]++;
	}
	out = bootstrap(s, mean_of, &g);
	free(g.sum);
	return out;
}

struct stats_figure stats_mean(const struct stats_set *s)
{
	return mean_less(s, NULL);
}

struct stats_figure stats_gain(const struct stats_set *a, const struct stats_set *b)
{
	return mean_less(a, b->value);
}

/* From the largest observation down: a high quantile is found after a small part of them. */
static double quantile_of(const struct stats_set *s, const uint32_t *times, const void *arg)
{
	double total = 0, above = 0, share = *(const double *)arg;

	for (size_t i = 0; i < s->n; i++)
		total += times ? times[s->group[i]] : 1;
	for (size_t i = s->n; i-- > 0;) {
		above += times ? times[s->group[i]] : 1;
		if (total - above < share * total)
			return total > 0 ? s->value[i] : NAN;
	}
	return total > 0 ? s->value[0] : NAN;
}

struct pair {
	double value;
	uint32_t group;
};

static struct stats_figure sorted_quantile(struct stats_set *s, struct pair *pairs, double q)
{
	for (size_t i = 0; i < s->n; i++)
		pairs[i] = (struct pair){ s->value[i], s->group[i] };
	qsort(pairs, s->n, sizeof(*pairs), ascending);
	for (size_t i = 0; i < s->n; i++) {
		s->value[i] = pairs[i].value;
		s->group[i] = pairs[i].group;
	}
	return bootstrap(s, quantile_of, &q);
}

struct stats_figure stats_quantile(struct stats_set *s, double q)
{
	struct stats_figure out = { NAN, NAN, NAN };
	struct pair *pairs = malloc((s->n + 1) * sizeof(*pairs));

	if (pairs)
		out = sorted_quantile(s, pairs, q);
	free(pairs);
	return out;
}

double stats_divergence(const float *p, const float *q, size_t n)
{
	const double p_all = ops_log_sum_exp(p, n), q_all = ops_log_sum_exp(q, n);
	double sum = 0;

	for (size_t i = 0; i < n; i++) {
		const double log_p = p[i] - p_all;

		sum += exp(log_p) * (log_p - (q[i] - q_all));
	}
	/* Rounding can take the sum of a distribution with itself below zero. */
	return sum > 0 ? sum : 0;
}

double stats_surprise(const float *logits, size_t n, size_t which)
{
	return ops_log_sum_exp(logits, n) - logits[which];
}

size_t stats_best(const float *logits, size_t n)
{
	size_t best = 0;

	for (size_t i = 1; i < n; i++)
		if (logits[i] > logits[best])
			best = i;
	return best;
}

static bool in_word(char c)
{
	return isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

/* The next word from *at on, whose length is returned; 0 at the end. */
static size_t word(const char **at)
{
	size_t n = 0;

	while (**at && !in_word(**at))
		(*at)++;
	while (in_word((*at)[n]))
		n++;
	return n;
}

static uint32_t count_words(const char *text)
{
	uint32_t n = 0;

	for (size_t len; (len = word(&text)); text += len)
		n++;
	return n;
}

/* How often a word is in the text before end; NULL: in all of it. */
static uint32_t occurrences(const char *text, const char *end, const char *what, size_t size)
{
	uint32_t n = 0;

	for (size_t len; (len = word(&text)) && text != end; text += len)
		n += len == size && !strncasecmp(text, what, size);
	return n;
}

double stats_f1(const char *got, const char *want)
{
	const uint32_t all = count_words(got) + count_words(want);
	uint32_t common = 0;
	const char *at = got;

	/* The k-th time that a word occurs counts if the other text has it k times. */
	for (size_t len; (len = word(&at)); at += len)
		common += occurrences(got, at, at, len) < occurrences(want, NULL, at, len);
	return all ? 2.0 * common / all : 1;
}
