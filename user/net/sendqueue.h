/* SPDX-License-Identifier: MIT */
/*
 * What a session sends next: what its newest REPORT wants, in that order, less what is under way.
 *
 * Pure. A chunk that the REPORT misses is sent when it was never sent or counts as lost
 * (congestion_lost()). Of each chunk only the last transmission matters, and only the last
 * SENDQUEUE_RING ones are remembered: congestion control has never more under way, and what
 * is older counts as lost anyhow. So memory does not depend on what an edge asks for.
 *
 * What is lost changes with REPORTs only. So one pass through each REPORT is enough, and
 * sendqueue_next() goes on where it stopped. An edge that lists the same chunks many times is cut
 * short: a pass skips at most as many chunks as can be under way.
 */
#ifndef LSLM_NET_SENDQUEUE_H
#define LSLM_NET_SENDQUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "net/congestion.h"
#include "net/report.h"

enum {
	SENDQUEUE_RING = CONGESTION_RING,
	SENDQUEUE_BUCKETS = 2 * SENDQUEUE_RING,
	/* Of a REPORT's payload; all that fits into the datagrams that an edge may send. */
	SENDQUEUE_REPORT = 1472 - LSLM_WIRE_OVERHEAD,
};

struct sendqueue_chunk {
	uint32_t slot;
	uint32_t generation;
	uint32_t number; /* in its region */
	uint32_t stripe;
	uint8_t level;
	bool again; /* it was sent before, and got lost */
};

/* A transmission; its counter says where in the ring it is. */
struct sendqueue_entry {
	uint64_t counter;
	uint32_t slot, generation, number;
	uint16_t next; /* in its bucket: index into the ring plus one, 0: the last */
	uint16_t used;
};

struct sendqueue {
	uint64_t key[4]; /* of the hash: an edge cannot choose chunks that collide */
	uint16_t buckets[SENDQUEUE_BUCKETS];
	struct sendqueue_entry ring[SENDQUEUE_RING];
	/* The pass through the newest REPORT. */
	struct report report;
	uint8_t payload[SENDQUEUE_REPORT];
	size_t at; /* of the want after this one */
	struct report_want want;
	struct lslm_range range; /* what is left of it */
	uint32_t next_range;
	uint32_t skipped;
};

/* key: random. */
void sendqueue_init(struct sendqueue *q, const uint64_t key[4]);

/*
 * Begin with another REPORT; the payload is copied. -EINVAL when it is none, or larger than
 * SENDQUEUE_REPORT: then nothing has changed.
 */
int sendqueue_report(struct sendqueue *q, const uint8_t *payload, size_t size);
/* The one in force; its wants as report_next() gives them. */
const struct report *sendqueue_newest(const struct sendqueue *q);

/* False: nothing more until the next REPORT. */
bool sendqueue_next(struct sendqueue *q, const struct congestion *c, struct sendqueue_chunk *out);
/* It is on its way, with this counter. Counters grow. */
void sendqueue_sent(struct sendqueue *q, const struct sendqueue_chunk *chunk, uint64_t counter);

#endif
