/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the steering programs (steer.bpf.c) and their loader (user/net/steer.c) share.
 *
 * Steering is policy at the door: which sender's data may come in, how fast, and who goes first.
 * What may be written where is decided by the module alone, after it has authenticated the
 * datagram; a header looked at here may be anybody's forgery.
 *
 * A frame is one of ours when it is Ethernet, with at most one VLAN tag, IPv4 without options or
 * IPv6 without extension headers, no fragment, UDP to a port in the map `ports`, and carries a
 * DATA datagram (include/lslm/wire.h). Every other frame is passed on untouched. So is everything
 * about which there is doubt: nothing but what the allow list and the limit refuse is dropped.
 *
 * Maps, by name:
 *   config     [1]                        struct steer_config
 *   ports      port, network order        struct steer_port
 *   peers      struct steer_address       struct steer_bucket   the allow list
 *   strangers  [STEER_STRANGERS]          struct steer_bucket   of senders, by a hash
 *   urgent     struct steer_range         generation
 *   counters   [STEER_COUNTERS], per CPU  struct steer_counter
 */
#ifndef LSLM_BPF_STEER_H
#define LSLM_BPF_STEER_H

#include <linux/bpf.h>
#include <linux/types.h>

enum steer_limits {
	STEER_PORTS = 256,
	STEER_PEERS = 1024,
	STEER_STRANGERS = 1024, /* a power of two */
	STEER_RANGES = 8192,
};

/* Upper limits of a rate (bytes/s) and of a burst (bytes): the sums below then fit in 64 bits. */
#define STEER_RATE_MAX	(1ULL << 33)
#define STEER_BURST_MAX (1ULL << 40)

/**
 * enum steer_verdict - what became of a frame; each is counted under exactly one
 * @STEER_OTHER: passed: not UDP to one of the ports, or not certainly so
 * @STEER_FRAGMENT: passed: a fragment of a UDP datagram, of whatever port
 * @STEER_NOT_DATA: passed: to one of the ports, but no DATA datagram of this version
 * @STEER_SESSION: passed: DATA of another session than the port's
 * @STEER_PEER: dropped: its sender is not on the allow list
 * @STEER_LIMIT: dropped: its sender is over the limit
 * @STEER_SOCKET: passed: allowed; these programs do not place, the socket takes it
 * @STEER_PLACED: used up by the module, which counts what it did
 * @STEER_PIECES: passed: allowed, but not one whole datagram in one piece: the socket's turn
 * @STEER_NO_SESSION: passed: the module has no such session in this network namespace
 * @STEER_REFUSED: passed: the module answered something else; a bug
 * @STEER_EXEMPT: no verdict: of those above, how many the limit would have dropped, had their
 *	range not been urgent
 */
enum steer_verdict {
	STEER_OTHER = 0,
	STEER_FRAGMENT = 1,
	STEER_NOT_DATA = 2,
	STEER_SESSION = 3,
	STEER_PEER = 4,
	STEER_LIMIT = 5,
	STEER_SOCKET = 6,
	STEER_PLACED = 7,
	STEER_PIECES = 8,
	STEER_NO_SESSION = 9,
	STEER_REFUSED = 10,
	STEER_EXEMPT = 11,
	STEER_COUNTERS
};

/* bytes: whole frames, as the hook sees them. */
struct steer_counter {
	__u64 frames;
	__u64 bytes;
};

/* IPv6, or IPv4 as ::ffff:a.b.c.d. */
struct steer_address {
	__u32 word[4];
};

/**
 * struct steer_config
 * @rate: of every sender that is not in `peers`, bytes of UDP payload per second
 * @burst: bytes that may come at once; 0: no limit
 * @seed: of the hash, so that nobody can choose whom to share a bucket with
 * @listed: 1: only senders in `peers` may send
 */
struct steer_config {
	__u64 rate;
	__u64 burst;
	__u32 seed;
	__u32 listed;
};

/**
 * struct steer_port - what a UDP port is for
 * @session: that DATA datagrams must carry
 * @largest: UDP payload of the largest datagram (chunk + LSLM_WIRE_OVERHEAD); what is longer is
 *	several in one, made by somebody's offloading, and is left to the socket. 0: not known
 * @address: that it must be sent to; all zero: any
 */
struct steer_port {
	__u32 session;
	__u32 largest;
	struct steer_address address;
};

/**
 * struct steer_bucket - a token bucket
 * @lock: of the members from @tokens on, which only the programs write once the bucket is in use
 * @rate: @burst: as in struct steer_config; not used in `strangers`
 * @tokens: bytes that may still come
 * @last_ns: when tokens were last added; 0: the bucket is new, and full
 * @rest: of the last addition, in 1e-9 bytes
 */
struct steer_bucket {
	struct bpf_spin_lock lock;
	__u32 __reserved;
	__u64 rate;
	__u64 burst;
	__u64 tokens;
	__u64 last_ns;
	__u64 rest;
};

/* Key of `urgent`: a slot of a session's region table. */
struct steer_range {
	__u32 session;
	__u32 slot;
};

#endif
