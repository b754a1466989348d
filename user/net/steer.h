/* SPDX-License-Identifier: MIT */
/*
 * Steering: the BPF programs of bpf/steer.bpf.c on a network interface.
 *
 * They look at DATA datagrams of the placement protocol that come in for the UDP ports told by
 * steer_port(), drop those of senders that are not on the allow list or are over their limit, and
 * give the rest to the module before the network stack sees it. Where the module cannot be called
 * from BPF the rest goes on to the socket, which works as well, only later in the stack;
 * steer_describe() says which of the two it is, and why. Nothing else on the interface is touched.
 *
 * Hooks, best first:
 *   XDP in the driver   before an skb exists. Frames in pieces (large MTU) go to the socket
 *   TC                  by a link (Linux 6.6) or, before that, a filter of the clsact qdisc
 *   XDP, generic        on any interface, but behind the skb's allocation, and blind to batches
 *                       that a sender on the same machine makes (UDP_SEGMENT): tell steer_port()
 *                       the largest datagram
 *
 * When the process ends in whatever way, XDP programs and TC links vanish with it. A clsact
 * filter (handle 1, priority 199, program lslm_steer_tc) stays after a kill: without sessions it only
 * passes on what is within the limits; the next steer_open() replaces it, and by hand it is
 * `tc filter del dev IFACE ingress prio 199`. The clsact qdisc itself is left, as others may use it.
 *
 * One steering per interface and network namespace: a second is refused, and nobody else's program is
 * ever replaced. The allow list knows addresses, which can be forged; what a forged sender can reach
 * is the other's share of the limit, never memory.
 *
 * Opening, closing, limits and senders are for one thread at a time (net/allow.h); ports, what is urgent and
 * statistics are for any number of threads.
 */
#ifndef LSLM_NET_STEER_H
#define LSLM_NET_STEER_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "bpf/steer.h"

struct steer;

enum steer_mode {
	STEER_AUTO, /* XDP in the driver, else TC, else generic XDP */
	STEER_XDP, /* in the driver, else generic */
	STEER_GENERIC, /* generic XDP */
	STEER_TC, /* a link, else a filter */
	STEER_CLSACT, /* a filter */
};

/*
 * "IFACE[,auto|xdp|xdpgeneric|tc|clsact]", the argument of --steer.
 *   -EINVAL  another mode, or no interface could have this name
 */
int steer_parse(const char *text, char ifname[IF_NAMESIZE], enum steer_mode *mode,
		struct lslm_error *err);

/*
 * Load the programs and attach them. With no ports told yet they pass everything.
 *   -ENODEV      no such interface
 *   -EPERM       a capability is missing: CAP_BPF, CAP_NET_ADMIN
 *   -EBUSY       another lslm steers it, or somebody else's program is where ours would go
 *   -EOPNOTSUPP  not Ethernet, or neither driver nor kernel can do it
 */
int steer_open(struct steer **out, const char *ifname, enum steer_mode mode,
	       struct lslm_error *err);

/* The programs without an interface, for tests of the programs: `place` asks for those that
 * call the module. */
int steer_load(struct steer **out, bool place, struct lslm_error *err);

/* Detaches. NULL: nothing happens. */
void steer_close(struct steer *s);

/* "eth0: XDP in the driver, placed by the module", with the reasons for a slower way if so.
 * Lives as long as s. */
const char *steer_describe(const struct steer *s);
bool steer_is_placing(const struct steer *s);

/* Descriptor of the program for XDP or TC, owned by s. */
int steer_program(const struct steer *s, bool xdp);

/*
 * DATA to this port (host order) is `session`'s, at most `largest` bytes of UDP payload each (0: not
 * known), and sent to `address` (NULL: any). Replaces what was said about the port before.
 *   -EINVAL  no address
 *   -E2BIG   STEER_PORTS are there
 */
int steer_port(struct steer *s, uint16_t port, uint32_t session, uint32_t largest,
	       const char *address, struct lslm_error *err);
/* -ENOENT: nothing is said about it */
int steer_port_remove(struct steer *s, uint16_t port, struct lslm_error *err);

/*
 * Everybody's limit who is not named by steer_peer(): bytes of UDP payload per second, and bytes
 * at once; burst 0 is no limit. Senders share STEER_STRANGERS buckets by a hash of their address.
 *   -ERANGE  above STEER_RATE_MAX, STEER_BURST_MAX
 */
int steer_limit(struct steer *s, uint64_t rate, uint64_t burst, struct lslm_error *err);

/*
 * Put a sender on the allow list, with a limit of its own, its bucket full. From the first call on only
 * senders on the list may send data.
 *   -EINVAL  no address   -ERANGE  as steer_limit()   -E2BIG  STEER_PEERS are there
 */
int steer_peer(struct steer *s, const char *address, uint64_t rate, uint64_t burst,
	       struct lslm_error *err);
/* The list stays in force, also when it is empty. -ENOENT: it is not on it */
int steer_peer_remove(struct steer *s, const char *address, struct lslm_error *err);

/*
 * The engine waits for this slot in this generation: its data counts, but is never over the limit.
 * A later generation replaces an earlier one.
 *   -E2BIG  STEER_RANGES are there
 */
int steer_urgent(struct steer *s, uint32_t session, uint32_t slot, uint32_t generation,
		 struct lslm_error *err);
/* It came, or is not wanted any more; not an error when it was not urgent. */
int steer_calm(struct steer *s, uint32_t session, uint32_t slot, struct lslm_error *err);

/* By enum steer_verdict, since steer_open(). */
int steer_stats(const struct steer *s, struct steer_counter out[STEER_COUNTERS],
		struct lslm_error *err);
/* "other", "limit", ...; for labels */
const char *steer_verdict_name(enum steer_verdict v);

#endif
