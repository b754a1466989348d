/* SPDX-License-Identifier: MIT */
/*
 * The edge's end of a placement session (docs/protocol.md, section 9): finds what the path takes, binds
 * what is wanted, says what is missing until nothing is.
 *
 * It stands on a session (net/session.h), which puts DATA into its place; here are HELLOs and PROBEs
 * (net/pathmtu.h), keys (net/keyring.h), the window of stripes (net/wants.h), and one clock for all
 * of them. Every complete block is checked where it lies by sink_block(), and only then seen by readers.
 *
 * What a cloud that is silent, slow or lying can do: until the first authentic PROBE it has
 * answer_timeout_ms, and afterwards it must place a new byte every stall_timeout_ms. A block with a wrong
 * digest is the end. Nothing else that it sends has an effect.
 *
 * Credit. What may be under way at most is what the socket's memory takes while nobody reads it,
 * and what a path of RECEIVER_RATE bytes per second holds in a round trip. With the module in between
 * nothing waits in the socket, and RECEIVER_KERNEL takes its place.
 */
#ifndef LSLM_NET_RECEIVER_H
#define LSLM_NET_RECEIVER_H

#include "net/grant.h"
#include "net/session.h"
#include "net/source.h"

enum {
	RECEIVER_RATE = 125000000, /* 1 Gbit/s */
	RECEIVER_KERNEL = 4 << 20,
	RECEIVER_CREDIT_MAX = 64 << 20,
};

struct receiver;
struct site;
struct steer;

struct receiver_opts {
	int socket; /* UDP, connected to the cloud; not closed here */
	struct session *session; /* on this socket, with wants_slots() slots */
	struct sink *sink; /* with a buffer */
	const struct grant *grant; /* copied */
	const char *peer; /* the cloud, for error lines */
	uint32_t largest; /* UDP payload that can arrive at all */
	int answer_timeout_ms; /* 0: 2000 */
	int stall_timeout_ms; /* 0: 10000 */
	/*
	 * The next pair of keys is due: whoever is asked calls receiver_keys(), now or later, from any
	 * thread, exactly once. NULL: the session ends with its first keys.
	 */
	void (*renew)(void *arg);
	void *arg;
	struct steer *steer; /* told the port and what is urgent; NULL: none */
	/* Once that is away for others (net/sites.h), a second in which nothing is placed ends the session. NULL: there is none. */
	struct site *site;
};

struct receiver_stats {
	uint64_t hellos, reports; /* sent */
	uint64_t probes; /* that answered a HELLO */
	uint64_t ignored; /* control datagrams that were none of those */
	uint64_t key_changes;
	uint64_t chunk_changes;
	uint32_t chunk; /* 0: not known yet */
	uint64_t rtt_ns; /* of the newest HELLO that was answered */
	uint64_t heard_ns; /* when the newest authentic datagram was seen; 0: none yet */
	struct session_stats session;
};

int receiver_open(struct receiver **out, const struct receiver_opts *opts, struct lslm_error *err);
void receiver_close(struct receiver *r);

/*
 * Until nothing is wanted any more: 0. Or
 *   -EHOSTUNREACH  no authentic answer within answer_timeout_ms
 *   -ETIMEDOUT     nothing was placed for stall_timeout_ms
 *   -EBADMSG       a block's digest is wrong
 *   -ENETDOWN      opts->site is away
 *   -ECANCELED     sink->stop was set
 *   or why this side cannot go on. The cloud is told in any case that the session is over.
 */
int receiver_run(struct receiver *r, struct lslm_error *err);

/* The next pair, copied; NULL: there is none now, ask again later. From any thread. */
void receiver_keys(struct receiver *r, const struct grant_keys *keys);

/* As they were within the last tenth of a second, or when receiver_run() ended; from any thread. */
void receiver_stats(struct receiver *r, struct receiver_stats *out);

#endif
