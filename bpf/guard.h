/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * What the egress guard (guard.bpf.c) and its loader (user/serve/guard.c) share.
 *
 * The guard belongs to a cgroup. Sockets made by its processes may answer on TCP connections that
 * were accepted at one of the ports in the map `listen`, and send nothing else. Unix
 * sockets are not concerned. The kernel judges a socket by the cgroup in which it was made, not by
 * who uses it; accepted connections belong where their listening socket was made.
 *
 * Maps, by name:
 *   listen    port, host order                __u8 (1)
 *   counters  [GUARD_COUNTERS], per CPU       __u64
 */
#ifndef LSLM_BPF_GUARD_H
#define LSLM_BPF_GUARD_H

enum guard_limits {
	GUARD_PORTS = 64,
};

/**
 * enum guard_reason - what is counted
 * @GUARD_ANSWER: packets that left: answers to clients
 * @GUARD_CONNECT: calls of connect() refused (EPERM), of whatever protocol
 * @GUARD_SENDTO: datagrams with an address, refused at the call (EPERM)
 * @GUARD_SOCKET: sockets of other protocols than TCP and UDP, refused (EPERM)
 * @GUARD_SYN: packets of connections being opened from here, dropped
 * @GUARD_TCP: packets of connections that no listening port in the map accepted, dropped
 * @GUARD_UDP: UDP packets that came past the calls (sockets connected before), dropped
 * @GUARD_OTHER: packets of any other protocol, dropped
 */
enum guard_reason {
	GUARD_ANSWER = 0,
	GUARD_CONNECT = 1,
	GUARD_SENDTO = 2,
	GUARD_SOCKET = 3,
	GUARD_SYN = 4,
	GUARD_TCP = 5,
	GUARD_UDP = 6,
	GUARD_OTHER = 7,
	GUARD_COUNTERS
};

#endif
