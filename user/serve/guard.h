/* SPDX-License-Identifier: MIT */
/*
 * The egress guard: a cgroup whose processes can answer clients, and send nothing else.
 *
 * guard_open() attaches the programs of bpf/guard.bpf.c to a cgroup (version 2). From
 * then on sockets that are made in it may send on TCP connections accepted at one of the given ports;
 * connect(), UDP (so DNS too) and every other protocol are refused, each counted by its
 * reason. Unix sockets stay usable, and processes outside the cgroup notice nothing.
 *
 * Two things to get right, because the kernel judges a socket by the cgroup it was made in:
 *   - the listening socket is made inside, after guard_open();
 *   - a process enters by guard_enter(), before it makes sockets: it refuses to take any internet
 *     socket along, as the guard would not see what is sent by that.
 * Only internet sockets are in the guard's reach. AF_PACKET takes CAP_NET_RAW, which the process must not
 * have; AF_VSOCK, AF_TIPC and the like take a seccomp filter or RestrictAddressFamilies=.
 *
 * The programs vanish with guard_close() or the end of the process that called guard_open(), so that
 * must be one that outlives the guarded ones: the supervisor.
 */
#ifndef LSLM_SERVE_GUARD_H
#define LSLM_SERVE_GUARD_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "bpf/guard.h"

struct guard;

/*
 * `cgroup`: its directory, which exists. ports: of the listening sockets, host order; more by guard_port().
 *   -ENOENT, -ENOTDIR  no such cgroup
 *   -EINVAL            no cgroup of version 2; port 0
 *   -EPERM             CAP_BPF or CAP_NET_ADMIN is missing, or a cgroup above forbids programs
 *   -E2BIG             more than GUARD_PORTS
 */
int guard_open(struct guard **out, const char *cgroup, const uint16_t *ports, size_t n_ports,
	       struct lslm_error *err);

/* NULL: nothing happens. */
void guard_close(struct guard *g);

/* One more port; for one that the kernel chose. */
int guard_port(struct guard *g, uint16_t port, struct lslm_error *err);

/*
 * Move the calling process into the cgroup. It need not be the one that called guard_open().
 *   -EBUSY  an internet socket is open; the line says which descriptor
 */
int guard_enter(const char *cgroup, struct lslm_error *err);

/* By enum guard_reason, since guard_open(). */
int guard_stats(const struct guard *g, uint64_t out[GUARD_COUNTERS], struct lslm_error *err);
/* "answer", "connect", ...; for labels */
const char *guard_reason_name(enum guard_reason reason);

#endif
