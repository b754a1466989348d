/* SPDX-License-Identifier: MIT */
/*
 * Sessions on an interface whose other end is in another network namespace:
 *
 *   lslm0 10.77.0.1 fd77::1 (here) ---- lslm1 10.77.0.2 fd77::2 (namespace "peer")
 */
#ifndef TESTS_VM_REMOTE_H
#define TESTS_VM_REMOTE_H

#include <arpa/inet.h>
#include <sched.h>

#include "session.h"

#define HERE  "/proc/1/ns/net"
#define THERE "/run/netns/peer"

static inline void enter(const char *ns)
{
	const int fd = open(ns, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		bail(ns);
	close(fd);
}

/* A socket of a type, bound to lslm0's address, and its address. */
static inline int bind_here(int family, int type, struct sockaddr_storage *address,
			    socklen_t *length)
{
	struct sockaddr_in four = { .sin_family = AF_INET };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6 };
	const int fd = socket(family, type | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, "10.77.0.1", &four.sin_addr);
	inet_pton(AF_INET6, "fd77::1", &six.sin6_addr);
	*length = family == AF_INET ? sizeof(four) : sizeof(six);
	memcpy(address, family == AF_INET ? (void *)&four : (void *)&six, *length);
	if (bind(fd, (void *)address, *length) || getsockname(fd, (void *)address, length))
		bail("bind to lslm0");
	return fd;
}

/* A socket of the other namespace, connected to that address. */
static inline int connect_there(int family, int type, const struct sockaddr_storage *address,
				socklen_t length)
{
	int fd;

	enter(THERE);
	fd = socket(family, type | SOCK_CLOEXEC, 0);
	if (connect(fd, (const void *)address, length))
		bail("connect");
	enter(HERE);
	return fd;
}

static inline uint16_t port_of(const struct sockaddr_storage *address)
{
	return ntohs(((const struct sockaddr_in *)address)->sin_port);
}

#endif
