/* SPDX-License-Identifier: MIT */
/*
 * How fast a session may send: congestion control and pacing (docs/protocol.md, section 9).
 *
 * Pure: time and REPORTs in, permission out. All times are nanoseconds; `now` is the cloud's
 * monotonic clock and never goes back. What is counted are datagrams, whose counters grow by
 * one: all below the *floor* are either received or lost, the rest is under way.
 *
 * Two signals. The one-way queueing delay says whether a queue stands somewhere, and keeps it short
 * while nobody else fills it. Loss says that a queue was full, but only when there was a queue;
 * otherwise it is the path's own (radio), and slowing down would not cure it. How much a
 * path loses by itself is learned while its queue is empty.
 */
#ifndef LSLM_NET_CONGESTION_H
#define LSLM_NET_CONGESTION_H

#include <stdbool.h>
#include <stdint.h>

#include "net/report.h"

enum {
	/* Datagrams whose time of sending is known; below the receiver's replay window. */
	CONGESTION_RING = 8192,
	CONGESTION_MAX = 8000, /* under way at most */
	CONGESTION_BASE_S =
		10, /* the smallest delay of so many seconds is that of an empty queue */
};

#define CONGESTION_NEVER UINT64_MAX

/* One round trip's worth of datagrams: its counters are start .. end - 1. */
struct congestion_round {
	uint64_t start, end;
	uint64_t lost; /* in all, when it began */
	double low_ms, high_ms; /* queueing delay */
	bool old; /* sent before the window was cut: nothing to learn from */
	bool full; /* the window was what limited sending */
};

struct congestion {
	uint64_t next; /* counter of the next datagram */
	uint64_t floor;
	uint64_t received; /* in all, by the newest REPORT */
	uint64_t lost; /* in all */
	uint64_t highest; /* of the newest REPORT */
	uint64_t report_ns; /* when it came; 0: none yet */
	uint64_t late_ns; /* what was sent before and is missing counts as lost */
	bool stopped; /* nothing has come for some time: also what nothing overtook */
	uint64_t here; /* what was sent before this one took another path */
	uint64_t sent_ns[CONGESTION_RING];
	uint64_t pace_ns; /* the next datagram's time */
	double srtt_ns; /* 0: not known yet */
	double rtt_ns; /* the newest */
	double turn_ns; /* from one REPORT that says that something came to the next; 0: not known yet */
	uint64_t news_ns; /* the last one */
	/* Datagrams per ns that came lately, at most; 0: not known. What has come since is measured next. */
	double speed;
	uint64_t burst_received, burst_ns;
	bool burst_known;
	double window; /* datagrams */
	uint32_t credit; /* datagrams, by the edge */
	bool slow_start;

	double base_ms[CONGESTION_BASE_S]; /* smallest delay of each second, by now / 1 s */
	uint64_t base_s; /* the second that was written last */
	double recent_ms[3]; /* queueing delay of the newest REPORTs */

	struct congestion_round round;
	uint64_t many_start, many_lost; /* for the judgement on heavy loss */
	/*
	 * Share that is lost while the queue is empty: of two stretches of so many datagrams the lower one. A
	 * burst that found no room looks like it, once.
	 */
	double path_loss;
	double stretch_sent, stretch_lost, stretch_before;
	bool competing; /* somebody else fills the queue: only loss counts */
	uint64_t since_ns;
	uint64_t drained_ns; /* the last drain */
	bool draining; /* the next round tells whose queue it is */
	unsigned int in_vain; /* drains in a row that did not help */
	double otherwise; /* the window, should the drain not help */
	double peak; /* window when something was lost last, beside a neighbour */
	uint64_t peak_ns;
	uint64_t cut_ns; /* the last time a full queue was met; 0: never */
};

void congestion_init(struct congestion *c);

/* How many datagrams may be sent now. */
uint32_t congestion_allowed(const struct congestion *c, uint64_t now);
/* When there is something to send: when to ask again. CONGESTION_NEVER: after the next REPORT. */
uint64_t congestion_due(const struct congestion *c, uint64_t now);
/* The datagram numbered c->next is on its way. */
void congestion_sent(struct congestion *c, uint64_t now);
/* There was nothing more to send, though the window had room. */
void congestion_idle(struct congestion *c, uint64_t now);

/*
 * A REPORT, newer than the one before; chunk is at least 1. -EINVAL when it cannot be true: then nothing
 * has changed.
 */
int congestion_report(struct congestion *c, const struct report *r, uint64_t now);

/* The edge is elsewhere: what was learned of the path is worth nothing. */
void congestion_moved(struct congestion *c);

/* Whether a datagram that the newest REPORT misses counts as lost. */
bool congestion_lost(const struct congestion *c, uint64_t counter);

#endif
