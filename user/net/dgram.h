/* SPDX-License-Identifier: MIT */
/*
 * The cloud's UDP socket: datagrams in, with the address they were sent to; batches out.
 *
 * Every datagram leaves with DF set, whatever the kernel believes of the path. An answer leaves
 * from the address that was asked, or a NAT would not know it; so the socket may be bound to
 * the wildcard. Where the kernel can cut a run of equal datagrams itself (UDP_SEGMENT), one call's
 * worth of work sends up to 64 of them; where it cannot, or the device does not take it,
 * dgram_path() says so and they go out one by one.
 *
 * UDP promises nothing, so a datagram that the kernel refuses is one that was lost: it is counted, and
 * nobody is told. Used by one thread at a time.
 */
#ifndef LSLM_NET_DGRAM_H
#define LSLM_NET_DGRAM_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
	DGRAM_IN = 32, /* received at once */
	DGRAM_IN_BYTES = 2048, /* larger ones are no business of a cloud */
	DGRAM_OUT = 64,
	DGRAM_OUT_BYTES = 256 << 10, /* of a batch; the largest datagram fits four times */
};

/* Another side, and which of our addresses it talks to. */
struct dgram_endpoint {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} peer;
	union {
		struct in_pktinfo v4;
		struct in6_pktinfo v6;
	} local;
};

struct dgram_in {
	struct dgram_endpoint from;
	size_t size; /* as sent; above DGRAM_IN_BYTES: the rest is missing */
	uint8_t data[DGRAM_IN_BYTES];
};

/* A batch for one endpoint. */
struct dgram_out {
	uint8_t data[DGRAM_OUT_BYTES];
	size_t used;
	size_t sizes[DGRAM_OUT];
	uint32_t n;
};

struct dgram {
	int fd;
	bool segments; /* UDP_SEGMENT works */
	const char *path;
	uint64_t refused; /* datagrams, by the kernel */
};

/* Bound to the address, which has a port (0: any free one). Errors as of bind(). */
int dgram_open(struct dgram *d, const struct sockaddr *address, socklen_t len,
	       struct lslm_error *err);
void dgram_close(struct dgram *d);
int dgram_port(const struct dgram *d);
/* "UDP, segmented by the kernel", or how else and why; for people. */
const char *dgram_path(const struct dgram *d);

/* What is there, at most DGRAM_IN. Returns the number; 0: nothing now. */
unsigned int dgram_receive(struct dgram *d, struct dgram_in *in);

/* Place for one more datagram of size bytes; NULL: the batch is full. */
uint8_t *dgram_room(struct dgram_out *out, size_t size);
/* The datagram that was written there is complete. */
void dgram_add(struct dgram_out *out, size_t size);
/* Empties the batch. */
void dgram_send(struct dgram *d, struct dgram_out *out, const struct dgram_endpoint *to);

/* The same address; ports are not looked at. */
bool dgram_same_host(const struct sockaddr *a, const struct sockaddr *b);

#endif
