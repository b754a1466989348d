/* SPDX-License-Identifier: MIT */
/*
 * What evaluations count: divergences of distributions, overlap of answers, and intervals that say how much of it is chance.
 *
 * Observations come in groups (the questions about one handbook, the tokens of one window) that are not independent of
 * each other. So the bootstrap draws whole groups with replacement (percentile method, 95 %). It
 * is deterministic: the same observations give the same interval.
 */
#ifndef LSLM_ENGINE_STATS_H
#define LSLM_ENGINE_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Observations in any order. Groups are numbered from 0; { 0 } is an empty set. */
struct stats_set {
	double *value;
	uint32_t *group;
	size_t n, room;
	uint32_t n_groups; /* one more than the highest number seen */
};

/* A figure and its interval; NAN where there is no observation. */
struct stats_figure {
	double value, low, high;
};

enum { STATS_DRAWS = 2000 };

int stats_add(struct stats_set *s, uint32_t group, double value, struct lslm_error *err);
void stats_free(struct stats_set *s);

/* Mean of all observations. */
struct stats_figure stats_mean(const struct stats_set *s);
/* The smallest observation that at least a share q of them do not exceed. Sorts the set. */
struct stats_figure stats_quantile(struct stats_set *s, double q);
/* Of each observation of a less the same one of b: the sets were filled in the same order. */
struct stats_figure stats_gain(const struct stats_set *a, const struct stats_set *b);

/* sum p log(p / q) in nats of two distributions given as n logits; never below 0. */
double stats_divergence(const float *p, const float *q, size_t n);
/* -log of the probability of `which`. */
double stats_surprise(const float *logits, size_t n, size_t which);
/* Index of the largest of n > 0, the lowest on a tie. */
size_t stats_best(const float *logits, size_t n);

/*
 * F1 of words, as SQuAD counts it: runs of letters and digits in lower case, each word as often as
 * it occurs in both; 2 * common / (words of both). Bytes from 0x80 up count as letters. Both empty: 1.
 */
double stats_f1(const char *got, const char *want);

#endif
