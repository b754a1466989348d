/* SPDX-License-Identifier: MIT */
/*
 * Counts of a front, told in Prometheus' text format.
 *
 * What a batch, the tenants and the contexts count themselves is asked of them when somebody looks; here is what only the front
 * knows. Labels are names of models, tenants and routes from the configuration, never anything that a client made up.
 * docs/http.md lists the series.
 */
#ifndef LSLM_SERVE_METRICS_H
#define LSLM_SERVE_METRICS_H

#include <stdio.h>

#include "engine/batch.h"
#include "serve/tally.h"

struct metrics;

enum metrics_meeting {
	METRICS_MATCHED, /* a context, by its tokens */
	METRICS_NAMED, /* one that the request named */
	METRICS_ALONE, /* none */
	METRICS_N_MEETINGS,
};

/* How choices end: enum batch_end, and by a stop string. */
enum { METRICS_N_ENDS = BATCH_FAILED + 2 };

const char *metrics_end_name(uint32_t end);

/*
 * routes: names of what is asked for; both lists outlive it. into: where it counts, which outlives it and which others may read; NULL:
 * memory of its own.
 */
int metrics_open(struct metrics **out, const char *const *models, uint32_t n_models,
		 const char *const *routes, uint32_t n_routes, struct tally *into,
		 struct lslm_error *err);
void metrics_close(struct metrics *m);

/* From any thread. */
void metrics_request(struct metrics *m, uint32_t route, unsigned int status);
void metrics_meeting(struct metrics *m, uint32_t model, enum metrics_meeting how);
void metrics_choice(struct metrics *m, uint32_t model, const struct batch_result *r,
		    bool by_stop_string);

/* Its own series; all: with these counts, of several fronts together, in place of its own. NULL: its own. */
void metrics_print(struct metrics *m, const struct tally *all, FILE *to);

/* One sample of a series, and what comes before the first: for what others count. label may be NULL. */
void metrics_head(FILE *to, const char *name, const char *type, const char *help);
void metrics_sample(FILE *to, const char *name, const char *label, const char *value, double n);

#endif
