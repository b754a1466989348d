// SPDX-License-Identifier: MIT
#include "net/udp.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"

enum {
	RECEIVE_BYTES = 8 << 20,
	HEADERS4 = 20 + 8,
	HEADERS6 = 40 + 8,
	ETHERNET = 1500, /* where the system does not say */
};

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* The size of what *a holds then, 0 for no address. */
static socklen_t parse(union address *a, const char *text, uint16_t port)
{
	*a = (union address){ 0 };
	if (inet_pton(AF_INET, text, &a->v4.sin_addr) == 1) {
		a->v4.sin_family = AF_INET;
		a->v4.sin_port = htons(port);
		return sizeof(a->v4);
	}
	if (inet_pton(AF_INET6, text, &a->v6.sin6_addr) == 1) {
		a->v6.sin6_family = AF_INET6;
		a->v6.sin6_port = htons(port);
		return sizeof(a->v6);
	}
	return 0;
}

static int set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

/*
 * PROBE, not DO: what routers say about the path is neither asked for nor believed, the protocol
 * finds out by itself, and a forged "too big" cannot narrow anything.
 */
static int set_df(int fd, int family)
{
	if (family == AF_INET)
		return set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
	return set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE) ||
	       set(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1);
}

int udp_open(const char *address, struct lslm_error *err)
{
	union address a;
	int fd, ret;

	if (!parse(&a, address, 0))
		return error_set(err, -EINVAL, "%s: no IPv4 or IPv6 address", address);
	fd = socket(a.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_sys(err, -errno, "cannot make a UDP socket");
	if (set_df(fd, a.any.sa_family)) {
		ret = error_sys(err, -errno, "cannot forbid fragments on a UDP socket");
		close(fd);
		return ret;
	}
	/* Beyond the system's limit where this process may; as much as it allows otherwise. */
	if (set(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES))
		set(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BYTES);
	return fd;
}

int udp_connect(int fd, const char *address, uint16_t port, struct lslm_error *err)
{
	union address a;
	socklen_t len = parse(&a, address, port);

	if (!len || connect(fd, &a.any, len) < 0)
		return error_sys(err, len ? -errno : -EINVAL, "no way to UDP port %u of %s", port,
				 address);
	return 0;
}

uint32_t udp_largest(int fd)
{
	union address a = { 0 };
	socklen_t len = sizeof(a);
	int mtu = 0, got;
	uint32_t headers;

	getsockname(fd, &a.any, &len);
	headers = a.any.sa_family == AF_INET6 ? HEADERS6 : HEADERS4;
	len = sizeof(mtu);
	got = a.any.sa_family == AF_INET6 ? getsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, &len) :
					    getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &len);
	if (got < 0 || mtu <= (int)headers)
		mtu = ETHERNET;
	return (uint32_t)mtu - headers;
}
