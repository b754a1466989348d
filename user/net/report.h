/* SPDX-License-Identifier: MIT */
/*
 * The payloads that an edge sends: HELLO and REPORT (docs/protocol.md, section 9).
 *
 * Pure: bytes in, structures out, and back; no allocation, no I/O. Sealing is net/seal.h's.
 *
 * A REPORT is written into a buffer of the caller's size and cut where that is full: not all that
 * is missing need be listed. It is read in two steps. report_parse() looks at every byte once and
 * refuses what the specification does not allow, so that walking through the wants afterwards
 * cannot fail. A parsed REPORT points into the caller's bytes.
 */
#ifndef LSLM_NET_REPORT_H
#define LSLM_NET_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "lslm/region.h"

enum {
	HELLO_BYTES = 8,
	REPORT_HEAD = 48,
	REPORT_WANT = 16, /* of a want without its ranges */
	REPORT_RANGE = 8,
	/* The payload of the largest datagram that every path of IPv6 takes. */
	REPORT_ROOM = 1232 - LSLM_WIRE_OVERHEAD,
};

#define REPORT_NONE UINT64_MAX /* highest, while no DATA has come */

enum report_flags {
	REPORT_OVER = 1 << 0, /* the session is over */
};

struct report {
	uint64_t highest; /* counter of DATA; REPORT_NONE exactly when received is 0 */
	uint64_t highest_ns; /* when it came, on the edge's clock */
	uint64_t now_ns; /* on the same clock, not earlier */
	uint64_t received; /* DATA that were authentic, placed or not */
	uint32_t credit; /* bytes of DATA under way at most */
	uint16_t chunk;
	uint16_t flags; /* enum report_flags */
	uint32_t n_wants;
	/* Set by report_parse() only. */
	const uint8_t *wants;
	size_t wants_size;
};

struct report_want {
	uint32_t slot;
	uint32_t generation;
	uint32_t stripe;
	uint8_t level;
	uint16_t n_ranges;
	const uint8_t *ranges; /* of a parsed one: for report_range() */
};

/* Returns HELLO_BYTES. largest: of the datagrams (UDP payload) to try. */
size_t hello_put(uint8_t *payload, uint32_t largest);
/* -EINVAL for anything else than a HELLO. */
int hello_parse(uint32_t *largest, const uint8_t *payload, size_t size);

/* A REPORT in the making. */
struct report_writer {
	uint8_t *at;
	size_t size, room;
	size_t enough; /* report_limit() */
	uint64_t enough_chunks, n_chunks;
	uint32_t n_wants;
};

/* The head, from everything in *r but the wants. room is at least REPORT_HEAD. */
void report_begin(struct report_writer *w, uint8_t *payload, size_t room, const struct report *r);
/* No further want, and no further range of one, is needed once it has this size and lists so many chunks. Without, it is as full as can be. */
void report_limit(struct report_writer *w, size_t size, uint64_t n_chunks);
/* How many ranges a further want could have at most; 0: no want fits any more, or none is needed. */
uint32_t report_room(const struct report_writer *w);
/*
 * One want, with as many of its ranges (ascending, apart) as fit and are needed. Returns how many were written; 0
 * when there is no room, and then nothing was. want->n_ranges is not looked at.
 */
uint32_t report_add(struct report_writer *w, const struct report_want *want,
		    const struct lslm_range *ranges, uint32_t n_ranges);
/* Returns the payload's size. */
size_t report_end(struct report_writer *w);

/* -EINVAL for whatever is not exactly one REPORT. */
int report_parse(struct report *r, const uint8_t *payload, size_t size);
/* The wants of a parsed REPORT: start with *at = 0; 0 when there are no more. */
int report_next(const struct report *r, size_t *at, struct report_want *want);
/* i is below want->n_ranges. */
struct lslm_range report_range(const struct report_want *want, uint32_t i);

#endif
