/* SPDX-License-Identifier: MIT */
/*
 * An intake: datagrams from a UDP socket, many for each system call.
 *
 * With io_uring one multishot recvmsg() stays armed and picks its memory from a ring of provided
 * buffers; where io_uring is forbidden or too old, recvmmsg() does the same work, and
 * intake_path() says so. Either way UDP_GRO lets the kernel deliver a run of datagrams as one,
 * which is cut apart here, so that the caller sees each datagram as it was sent.
 *
 * The socket stays the caller's, and must not be read by anybody else meanwhile. intake_wait()
 * may be called by different threads, one at a time, but each change makes a new ring. Best closed by the
 * thread that waited last: the kernel keeps the socket open a little longer otherwise.
 */
#ifndef LSLM_NET_INTAKE_H
#define LSLM_NET_INTAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct intake;

enum {
	INTAKE_LARGEST = 65535, /* no datagram is larger */
};

/*
 * One datagram: size bytes, which may be changed, and are gone when the call returns. now_ns
 * (CLOCK_MONOTONIC) is when it was found.
 */
typedef void (*intake_fn)(void *arg, uint8_t *packet, uint32_t size, uint64_t now_ns);

/* -ENOMEM or -errno of the socket; a missing io_uring is none. */
int intake_open(struct intake **out, int socket, struct lslm_error *err);
void intake_close(struct intake *in);

/* "io_uring", or "recvmmsg (io_uring: Operation not permitted)". Lives as long as in. */
const char *intake_path(const struct intake *in);

/*
 * Hand out the datagrams that are there, waiting for the first at most timeout_ns. 0, also after
 * intake_wake() or a signal; -errno when the socket can receive no more.
 */
int intake_wait(struct intake *in, uint64_t timeout_ns, intake_fn take, void *arg,
		struct lslm_error *err);
/* The present or the next intake_wait() returns soon. From any thread or a signal handler. */
void intake_wake(struct intake *in);

/*
 * Is this -errno of receiving something that a socket reports once and then goes on? Echoes of what was
 * sent (ICMP), or a network that comes back.
 */
bool intake_is_passing(int code);

#endif
