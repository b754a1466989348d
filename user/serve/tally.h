/* SPDX-License-Identifier: MIT */
/*
 * The tally: what fronts count, as numbers alone, so that it can lie in memory that processes share.
 *
 * Each engine of a supervisor has a page of its own, which it writes and the supervisor reads and adds up; the sum is on the board,
 * and is what /metrics, the web page and `lslm stat` tell. A page outlives its engine, however that ends, so nothing is lost and
 * no sum ever falls: what an engine takes back is ignored. Counts are of requests, tokens and times; nothing of what was said is in them.
 *
 * Rows of models are in the order of the engines' models, those of routes by enum route_id (serve/visit.h).
 */
#ifndef LSLM_SERVE_TALLY_H
#define LSLM_SERVE_TALLY_H

#include <stdint.h>

#include "base/error.h"

enum {
	TALLY_MODELS = 16,
	TALLY_ROUTES = 16,
	TALLY_STATUSES = 17,
	TALLY_ENDS = 8, /* by enum batch_end, then: by a stop string */
	TALLY_MEETINGS = 4, /* by enum metrics_meeting */
	TALLY_BOUNDS = 12,
};

#define TALLY_UNIT 1e6

/* Replies that a front gives; anything else is counted as 0. */
extern const unsigned short tally_statuses[TALLY_STATUSES];
/* Of histograms: of times, and of tokens a second. */
extern const double tally_seconds[TALLY_BOUNDS], tally_rates[TALLY_BOUNDS];

struct tally_histogram {
	uint64_t buckets[TALLY_BOUNDS + 1]; /* up to each bound, and beyond the last one */
	uint64_t sum; /* in parts of TALLY_UNIT */
};

struct tally_model {
	uint64_t ends[TALLY_ENDS]; /* of choices */
	uint64_t meetings[TALLY_MEETINGS];
	uint64_t prompt, cached, generated; /* tokens */
	uint64_t refused; /* choices, by a full queue */
	/* Of choices with a token; rate: from the first one to the last one, of those with two at least. */
	struct tally_histogram queued, ttft, total, rate;
};

/* Numbers of one size only: it is added up as an array of them. */
struct tally {
	uint64_t requests[TALLY_ROUTES][TALLY_STATUSES];
	struct tally_model models[TALLY_MODELS];
};

/* How it is now. */
struct tally_now {
	uint64_t running, queued, places;
};

struct tally_page {
	struct tally counts;
	struct tally_now now[TALLY_MODELS];
};

/* By the one who counts; others may read meanwhile. */
void tally_bump(uint64_t *count, uint64_t by);
void tally_set(uint64_t *count, uint64_t to);
uint32_t tally_status(unsigned int status);
void tally_observe(struct tally_histogram *h, const double bounds[TALLY_BOUNDS], double value);

/* Of what nobody changes; what would be more than fits is as much as fits. */
void tally_add(struct tally *to, const struct tally *from);
/* What is larger in a page that somebody else writes. */
void tally_raise(struct tally *to, const struct tally *from);

/* A page of zeroes, mapped, with a descriptor of the caller's that another process can map it for writing by. */
int tally_page_create(struct tally_page **out, struct lslm_error *err);
/* One that another process has made; fd stays the caller's. */
int tally_page_map(struct tally_page **out, int fd, struct lslm_error *err);
void tally_page_unmap(struct tally_page *page); /* NULL is allowed */

/* Another process that counts, one after the other at the same place. Zeroes: there is none. */
struct tally_source {
	struct tally_page *page; /* NULL: there is none */
	struct tally counted; /* there, so far */
};

/* What it has counted and how it is now, on top of the sum. */
void tally_source_add(struct tally_source *s, struct tally_page *sum);
/* It is no more: however it ended, its page is there, and what it had counted goes on top of the past. */
void tally_source_end(struct tally_source *s, struct tally *past);

#endif
