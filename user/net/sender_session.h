/* SPDX-License-Identifier: MIT */
/*
 * One placement session as the cloud sees it (docs/protocol.md, section 9).
 *
 * Datagrams and time in, datagrams out; no socket, no lock. Everything an edge says is judged here:
 * header, key, replay, tag, in this order; then what an authentic HELLO or REPORT asks for,
 * against the context's own shape. Values are read from the context's file with pread() when they are
 * sent, so a file that gets shorter is an error, and no more.
 *
 * All times are nanoseconds of one monotonic clock, never 0.
 */
#ifndef LSLM_NET_SENDER_SESSION_H
#define LSLM_NET_SENDER_SESSION_H

#include "kv/lskv.h"
#include "lslm/replay.h"
#include "net/dgram.h"
#include "net/sendqueue.h"

/* Why a datagram was not used. */
enum sender_drop {
	SENDER_DROP_NONE,
	SENDER_DROP_HEADER, /* no datagram that a cloud receives */
	SENDER_DROP_SESSION, /* of no session here */
	SENDER_DROP_KEY, /* of no key in use */
	SENDER_DROP_REPLAY, /* seen before, or too old */
	SENDER_DROP_FORGED, /* not made with this key */
	SENDER_DROP_STALE, /* authentic, but a newer one is here */
	SENDER_DROP_CONTENT, /* authentic, and says what cannot be */
	SENDER_DROP_COUNT,
};

struct sender_stats {
	uint64_t sessions; /* now */
	uint64_t granted; /* in all */
	uint64_t sent, sent_bytes; /* DATA, and their payload */
	uint64_t again; /* of them, because they got lost */
	uint64_t probes;
	uint64_t received; /* datagrams of any kind */
	uint64_t refused; /* to be sent, by the kernel */
	uint64_t expired,
		unreadable; /* sessions that ended for want of a datagram, or of their file */
	uint64_t drops[SENDER_DROP_COUNT];
};

struct sender_limits {
	uint64_t key_packets; /* counters of a key */
	uint32_t key_lifetime_s;
	uint64_t overlap_ns; /* a key lives for so long beside its successor */
	uint64_t idle_ns; /* a session without an authentic datagram */
};

/* A pair of keys on its way to the edge. Wipe it. */
struct sender_pair {
	uint8_t key; /* 0 to 3 */
	uint8_t to_edge[LSLM_WIRE_KEY_BYTES];
	uint8_t to_cloud[LSLM_WIRE_KEY_BYTES];
	uint64_t max_packets; /* counters from here on are refused */
	uint32_t lifetime_s;
};

struct sender_key {
	bool in_use;
	uint8_t to_edge[LSLM_WIRE_KEY_BYTES];
	uint8_t to_cloud[LSLM_WIRE_KEY_BYTES];
	uint64_t max_packets;
	uint64_t expires_ns;
	uint64_t used_ns; /* first authentic datagram; 0: none yet */
	struct lslm_replay replay;
};

struct sender_session {
	struct lskv *file; /* the owner's */
	uint32_t edge; /* the number that the edge chose */
	const struct sender_limits *limits;
	struct sender_stats *stats;
	bool over; /* by the edge's word, or the file cannot be read */
	uint64_t heard_ns; /* the last authentic datagram, or the grant */

	struct sender_key keys[LSLM_WIRE_KEYS];
	uint8_t newest; /* granted last */
	uint8_t sending; /* the newest that was used */

	uint64_t next_in; /* above the highest counter that came */
	uint64_t next_report, next_hello; /* the same, of their kind */
	uint64_t next_control; /* of ours */

	/* Where the edge is. */
	struct dgram_endpoint at;
	bool known;
	bool proved; /* it receives at this address */
	uint64_t allowance; /* bytes, while it is not proved */
	uint64_t moved; /* counter of the first DATA that was sent there */
	struct sockaddr_in6 granted_to; /* of either family */
	uint64_t reports;

	/* A HELLO that was not answered yet. */
	uint32_t hello, largest;
	uint64_t probed_ns;

	struct congestion congestion;
	struct sendqueue queue;
	bool dry; /* nothing more to send until the next REPORT */
};

/*
 * edge: its number. granted_to: the address that asked for the session over TCP, which proves it; NULL: unknown.
 * file, limits and stats outlive the session. The session is calloc'd memory.
 */
void sender_session_init(struct sender_session *s, struct lskv *file, uint32_t edge,
			 const struct sockaddr *granted_to, const struct sender_limits *limits,
			 struct sender_stats *stats, uint64_t now);
/* Wipes the keys. */
void sender_session_fini(struct sender_session *s);

/*
 * The first pair, or the next one. A pair that was never used is replaced under its own number. -EAGAIN while
 * two are in use: *wait_ns until it is worth another try.
 */
int sender_session_pair(struct sender_session *s, struct sender_pair *pair, uint64_t now,
			uint64_t *wait_ns);

/* h: of the packet's first bytes, a control datagram for this session. The packet is overwritten. */
enum sender_drop sender_session_receive(struct sender_session *s, const struct lslm_header *h,
					uint8_t *packet, size_t size,
					const struct dgram_endpoint *from, uint64_t now);

/* Nobody would miss it. */
bool sender_session_ended(struct sender_session *s, uint64_t now);

/*
 * What may be sent now to s->at, into an empty batch; more may be left when it is full. Sealed datagrams
 * count as sent.
 */
void sender_session_send(struct sender_session *s, struct dgram_out *out, uint64_t now);
/* When to ask again; CONGESTION_NEVER: after the next datagram. */
uint64_t sender_session_due(const struct sender_session *s, uint64_t now);

#endif
