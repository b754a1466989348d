/* SPDX-License-Identifier: MIT */
/*
 * A circuit breaker: whether a server that has failed is asked again, and when.
 *
 *   CLOSED     it is asked. BREAKER_FAILURES failures in a row, whoever asked, open it
 *   OPEN       nobody asks. After a pause one probe is due
 *   HALF_OPEN  that probe is on its way, and still nobody else asks: an answer closes the breaker, a failure opens it again
 *
 * The pause is BREAKER_FIRST_S, twice as long after each probe that fails, and BREAKER_LAST_S at most; of each a part between a
 * half and all is waited, drawn by lot, so that many who lost the same server do not come back as one. A server that answers
 * probes and nothing else does not get short pauses by that: they start over with the first real answer.
 *
 * It does not look at a clock and takes no lock: times are the caller's, in seconds, and so is its turn.
 */
#ifndef LSLM_NET_BREAKER_H
#define LSLM_NET_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum { BREAKER_FAILURES = 3 };

#define BREAKER_FIRST_S 1.0
#define BREAKER_LAST_S	60.0

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_STATES };

struct breaker {
	enum breaker_state state;
	uint32_t failures; /* in a row, while CLOSED */
	double pause_s; /* the last one, before the lot; 0: none since a real answer */
	double opened_at; /* when it last left CLOSED */
	double probe_at; /* while OPEN */
	uint64_t opened, probes; /* ever: from CLOSED; sent */
	uint64_t lots; /* of the generator */
};

/* "closed", "open", "half-open" */
const char *breaker_state_name(enum breaker_state state);

void breaker_init(struct breaker *b, uint64_t seed);
/* It is known to have been open: it is again, not counted as opened, and a probe is due at once. */
void breaker_reopen(struct breaker *b, double now);

/* What became of a request. True: the breaker has opened, or closed, by that. */
bool breaker_answered(struct breaker *b);
bool breaker_failed(struct breaker *b, double now);

/* Is a probe due? Then it is the caller's, who says what became of it. */
bool breaker_begin_probe(struct breaker *b, double now);
/* True: the breaker has closed by that. */
bool breaker_probe_answered(struct breaker *b);
void breaker_probe_failed(struct breaker *b, double now);

#endif
