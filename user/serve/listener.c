// SPDX-License-Identifier: MIT
#include "serve/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct host_port {
	char host[256];
	char port[8];
	bool v6;
};

static int split(struct host_port *hp, const char *address, struct lslm_error *err)
{
	const char *colon = strrchr(address, ':'), *host = address;
	size_t len, digits;

	len = colon ? (size_t)(colon - address) : 0;
	digits = colon ? strspn(colon + 1, "0123456789") : 0;
	hp->v6 = address[0] == '[';
	if (hp->v6 && len >= 2 && address[len - 1] == ']') {
		host++;
		len -= 2;
	} else if (hp->v6 || (colon && memchr(address, ':', len))) {
		colon = NULL;
	}
	if (!colon || !digits || colon[1 + digits] || atol(colon + 1) > 65535 || digits > 5 ||
	    len >= sizeof(hp->host))
		return error_set(
			err, -EINVAL,
			"%s: not an address to listen on; wanted is HOST:PORT or [V6]:PORT",
			address);
	memcpy(hp->host, host, len);
	hp->host[len] = 0;
	snprintf(hp->port, sizeof(hp->port), "%s", colon + 1);
	return 0;
}

static int try_address(const struct addrinfo *a)
{
	int one = 1, fd, ret;

	fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

int listener_open(const char *address, struct lslm_error *err)
{
	struct addrinfo hints = { 0 }, *list, *a;
	struct host_port hp;
	int ret;

	ret = split(&hp, address, err);
	if (ret < 0)
		return ret;
	hints.ai_family = hp.v6 ? AF_INET6 : *hp.host ? AF_UNSPEC : AF_INET;
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
	ret = getaddrinfo(*hp.host ? hp.host : NULL, hp.port, &hints, &list);
	if (ret)
		return error_set(err, -EADDRNOTAVAIL, "%s: no such host (%s)", address,
				 gai_strerror(ret));
	ret = -EADDRNOTAVAIL;
	for (a = list; a && ret < 0; a = a->ai_next)
		ret = try_address(a);
	freeaddrinfo(list);
	return ret < 0 ? error_sys(err, ret, "%s: cannot listen", address) : ret;
}

int listener_port(int fd)
{
	struct sockaddr_storage at = { 0 };
	socklen_t len = sizeof(at);

	if (getsockname(fd, (struct sockaddr *)&at, &len) < 0)
		return -errno;
	if (at.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&at)->sin6_port);
	return ntohs(((struct sockaddr_in *)&at)->sin_port);
}
