/* SPDX-License-Identifier: MIT */
/*
 * How large a datagram the path to this edge takes (docs/protocol.md, section 9, "Path MTU").
 *
 * Pure: times (ns, of one monotonic clock) and PROBEs in, decisions out. In a *round* HELLOs are sent,
 * further and further apart, until one is answered; the answers say which sizes get through. The first
 * round ends soon after no larger PROBE comes, or with the largest that can come at all. A later one asks whether
 * the path still takes what is in use: PROBEs get lost like everything else, so a smaller size is
 * believed only after the answers to two HELLOs.
 */
#ifndef LSLM_NET_PATHMTU_H
#define LSLM_NET_PATHMTU_H

#include <stdbool.h>
#include <stdint.h>

enum {
	PATHMTU_LEAST = 1200,
	PATHMTU_MOST = 8952,
	PATHMTU_HELLOS = 8, /* HELLOs whose time of sending is known */
};

#define PATHMTU_NEVER UINT64_MAX

struct pathmtu {
	uint32_t largest; /* size to ask for, and the largest listed one within it */
	uint32_t top;
	uint32_t chunk; /* of the last round that was decided; 0: none yet */
	uint64_t rtt_ns; /* of the newest HELLO that was answered; 0: not known */

	bool open; /* a round is under way */
	uint32_t number; /* of the last HELLO */
	uint32_t first; /* of this round */
	uint32_t best; /* size of this round's largest PROBE; 0: none yet */
	uint32_t answered; /* its HELLOs that were, as bits: bit i is first + i */
	uint64_t answered_ns; /* when the newest of these was, for the first time, or its largest PROBE came */
	uint64_t next_ns; /* time for a HELLO */
	uint64_t wait_ns; /* then, until the next */
	uint64_t sent_ns[PATHMTU_HELLOS];
};

/* largest: of the datagrams (UDP payload) that can arrive at all, by this side's interface. */
void pathmtu_init(struct pathmtu *p, uint32_t largest);
/* Begin a round, unless one is under way. */
void pathmtu_ask(struct pathmtu *p, uint64_t now);
/* What is in use works after all. */
void pathmtu_calm(struct pathmtu *p);

/* When to call pathmtu_hello() or pathmtu_decide(). PATHMTU_NEVER: not without being asked. */
uint64_t pathmtu_due(const struct pathmtu *p);
/* The number of the HELLO that is to be sent now; 0: none is. */
uint32_t pathmtu_hello(struct pathmtu *p, uint64_t now);
/* An authentic PROBE. False: it answers nothing that was asked. */
bool pathmtu_probe(struct pathmtu *p, uint32_t number, uint32_t size, uint64_t now);
/* True once at the end of a round: p->chunk is what the path takes. */
bool pathmtu_decide(struct pathmtu *p, uint64_t now);

/* The chunk that fills a datagram of this size. */
uint32_t pathmtu_chunk(uint32_t size);

#endif
