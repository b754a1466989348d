/* SPDX-License-Identifier: MIT */
/*
 * When an edge sends its next REPORT, and how much is to be in it (docs/protocol.md, section 9).
 *
 * REPORTs go against the stream, on a link that may be as thin that way, or thinner. One that stands in
 * a queue of others tells the cloud of a long way that is none. So they are given a *share* of the bytes
 * that come: a thin link has fewer and smaller ones, a fast link as many as the round trip asks for.
 *
 * How small: a REPORT need not list more than can be on its way before a later one takes its place.
 * It may where the share allows it.
 *
 * Pure: times (ns, of one monotonic clock) and bytes in, decisions out.
 */
#ifndef LSLM_NET_CADENCE_H
#define LSLM_NET_CADENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	CADENCE_SHARE = 16, /* one byte of REPORTs for so many that come */
	/* Around each datagram: IPv4 or IPv6, UDP, link, and what seals it. */
	CADENCE_AROUND = 96,
};

struct cadence {
	uint64_t sent_ns; /* the last REPORT; 0: none yet */
	uint64_t next_ns; /* look again */
	double left; /* bytes of the share; less than none where a REPORT had to be larger */
	double rate; /* bytes that came, per second */
	uint64_t came; /* since the last REPORT */
	uint64_t listed; /* bytes of DATA, by that one */
};

/* What a REPORT lists at least, and may list where the path takes it. */
struct cadence_list {
	uint64_t bytes; /* of DATA */
	size_t size; /* of the REPORT's payload */
};

void cadence_init(struct cadence *c);

/* Bytes that came, with all that is around them. */
void cadence_came(struct cadence *c, uint64_t bytes);
/* At once, whatever the share: the path has changed. */
void cadence_hurry(struct cadence *c);
/* When to ask cadence_due(). */
uint64_t cadence_next(const struct cadence *c);
/* Is it time? rtt_ns: of a round trip without a queue, 0 where it is not known. */
bool cadence_due(struct cadence *c, uint64_t rtt_ns, uint64_t now);
/* What the REPORT that is sent now is to list: until it has both. */
struct cadence_list cadence_list(const struct cadence *c, uint64_t rtt_ns, uint64_t now);
/* It has been, with a payload of this size, and lists so many bytes of DATA. */
void cadence_sent(struct cadence *c, size_t size, uint64_t listed, uint64_t rtt_ns, uint64_t now);

#endif
