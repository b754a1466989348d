// SPDX-License-Identifier: MIT
#include "net/dgram.h"

#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* What the kernel cuts at once, in datagrams and in bytes. */
	TRAIN_MAX = 64,
	TRAIN_BYTES = 65000,
	/* A window's worth of bursts: what does not fit is lost. */
	SOCKET_BYTES = 4 << 20,
};

static const char path_segments[] = "UDP, segmented by the kernel (UDP_SEGMENT)";
static const char path_old[] = "UDP, one by one: this kernel has no UDP_SEGMENT";
static const char path_device[] = "UDP, one by one: the network device takes no UDP_SEGMENT";

/* ---- the socket ---- */

static int set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int prepare(struct dgram *d, const struct sockaddr *address, socklen_t len)
{
	bool v6 = address->sa_family == AF_INET6;
	int ret;

	if (v6)
		ret = set(d->fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)				       ?:
			      set(d->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE) ?:
			      set(d->fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1)		       ?:
			      set(d->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
	else
		ret = set(d->fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE) ?:
			      set(d->fd, IPPROTO_IP, IP_PKTINFO, 1);
	if (ret)
		return ret;
	/* Beyond the system's limit where we may, up to it where not. */
	if (set(d->fd, SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BYTES))
		set(d->fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BYTES);
	d->segments = !set(d->fd, SOL_UDP, UDP_SEGMENT, 0);
	d->path = d->segments ? path_segments : path_old;
	return bind(d->fd, address, len) < 0 ? -errno : 0;
}

int dgram_open(struct dgram *d, const struct sockaddr *address, socklen_t len,
	       struct lslm_error *err)
{
	int ret;

	*d = (struct dgram){ .fd = -1 };
	d->fd = socket(address->sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ret = d->fd < 0 ? -errno : prepare(d, address, len);
	if (ret < 0) {
		dgram_close(d);
		return error_sys(err, ret, "cannot use the UDP port");
	}
	return 0;
}

void dgram_close(struct dgram *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

int dgram_port(const struct dgram *d)
{
	struct dgram_endpoint at = { 0 };
	socklen_t len = sizeof(at.peer);

	if (getsockname(d->fd, &at.peer.any, &len) < 0)
		return -errno;
	return ntohs(at.peer.any.sa_family == AF_INET6 ? at.peer.v6.sin6_port :
							 at.peer.v4.sin_port);
}

const char *dgram_path(const struct dgram *d)
{
	return d->path;
}

bool dgram_same_host(const struct sockaddr *a, const struct sockaddr *b)
{
	const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;

	if (a->sa_family != b->sa_family)
		return false;
	if (a->sa_family == AF_INET)
		return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
		       ((const struct sockaddr_in *)b)->sin_addr.s_addr;
	return a->sa_family == AF_INET6 &&
	       !memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) &&
	       a6->sin6_scope_id == b6->sin6_scope_id;
}

/* ---- in ---- */

union control {
	struct cmsghdr align;
	uint8_t room[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t))];
};

static void take_local(struct dgram_endpoint *e, struct msghdr *m)
{
	struct cmsghdr *c;

	memset(&e->local, 0, sizeof(e->local));
	for (c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			memcpy(&e->local.v4, CMSG_DATA(c), sizeof(e->local.v4));
			/* Which interface an answer takes is a matter of routes. */
			e->local.v4.ipi_ifindex = 0;
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			memcpy(&e->local.v6, CMSG_DATA(c), sizeof(e->local.v6));
			if (!IN6_IS_ADDR_LINKLOCAL(&e->local.v6.ipi6_addr))
				e->local.v6.ipi6_ifindex = 0;
		}
	}
}

unsigned int dgram_receive(struct dgram *d, struct dgram_in *in)
{
	struct mmsghdr m[DGRAM_IN] = { 0 };
	union control control[DGRAM_IN];
	struct iovec v[DGRAM_IN];
	int i, n;

	for (i = 0; i < DGRAM_IN; i++) {
		v[i] = (struct iovec){ in[i].data, DGRAM_IN_BYTES };
		m[i].msg_hdr = (struct msghdr){
			.msg_name = &in[i].from.peer,
			.msg_namelen = sizeof(in[i].from.peer),
			.msg_iov = &v[i],
			.msg_iovlen = 1,
			.msg_control = &control[i],
			.msg_controllen = sizeof(control[i]),
		};
	}
	/* MSG_TRUNC: the size is that of the datagram, not of what fitted. */
	n = recvmmsg(d->fd, m, DGRAM_IN, MSG_DONTWAIT | MSG_TRUNC, NULL);
	for (i = 0; i < n; i++) {
		in[i].size = m[i].msg_len;
		take_local(&in[i].from, &m[i].msg_hdr);
	}
	return n < 0 ? 0 : (unsigned int)n;
}

/* ---- out ---- */

uint8_t *dgram_room(struct dgram_out *out, size_t size)
{
	if (out->n == DGRAM_OUT || sizeof(out->data) - out->used < size)
		return NULL;
	return out->data + out->used;
}

void dgram_add(struct dgram_out *out, size_t size)
{
	out->sizes[out->n++] = size;
	out->used += size;
}

/* How many datagrams from the i-th on the kernel may take as one: equal ones, and a shorter last. */
static uint32_t train(const struct dgram *d, const struct dgram_out *out, uint32_t i, size_t *bytes)
{
	uint32_t n = 1;

	*bytes = out->sizes[i];
	if (!d->segments)
		return 1;
	while (i + n < out->n && n < TRAIN_MAX && out->sizes[i + n - 1] == out->sizes[i] &&
	       out->sizes[i + n] <= out->sizes[i] && *bytes + out->sizes[i + n] <= TRAIN_BYTES)
		*bytes += out->sizes[i + n++];
	return n;
}

static void put_control(struct msghdr *m, union control *control, const struct dgram_endpoint *to,
			uint16_t segment)
{
	bool v6 = to->peer.any.sa_family == AF_INET6;
	size_t size = v6 ? sizeof(to->local.v6) : sizeof(to->local.v4);
	struct cmsghdr *c;

	memset(control, 0, sizeof(*control));
	m->msg_control = control;
	m->msg_controllen = CMSG_SPACE(size) + (segment ? CMSG_SPACE(sizeof(segment)) : 0);
	c = CMSG_FIRSTHDR(m);
	c->cmsg_level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
	c->cmsg_type = v6 ? IPV6_PKTINFO : IP_PKTINFO;
	c->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(c), &to->local, size);
	if (!segment)
		return;
	c = CMSG_NXTHDR(m, c);
	c->cmsg_level = SOL_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof(segment));
	memcpy(CMSG_DATA(c), &segment, sizeof(segment));
}

struct outgoing {
	struct mmsghdr m[DGRAM_OUT];
	struct iovec v[DGRAM_OUT];
	union control control[DGRAM_OUT];
	uint32_t count[DGRAM_OUT]; /* datagrams of each message */
	uint32_t first[DGRAM_OUT];
};

/* Messages for the datagrams from the i-th on. */
static uint32_t prepare_messages(const struct dgram *d, struct dgram_out *out, uint32_t i,
				 size_t at, const struct dgram_endpoint *to, struct outgoing *o)
{
	uint32_t n = 0;
	size_t bytes;

	for (; i < out->n; i += o->count[n++], at += bytes) {
		o->first[n] = i;
		o->count[n] = train(d, out, i, &bytes);
		o->v[n] = (struct iovec){ out->data + at, bytes };
		o->m[n].msg_hdr = (struct msghdr){
			.msg_name = (void *)&to->peer,
			.msg_namelen = to->peer.any.sa_family == AF_INET6 ? sizeof(to->peer.v6) :
									    sizeof(to->peer.v4),
			.msg_iov = &o->v[n],
			.msg_iovlen = 1,
		};
		put_control(&o->m[n].msg_hdr, &o->control[n], to,
			    o->count[n] > 1 ? (uint16_t)out->sizes[i] : 0);
	}
	return n;
}

/* A message was refused: true when its datagrams deserve another try, one by one. */
static bool without_segments(struct dgram *d, int error, uint32_t count)
{
	if (count == 1)
		return false;
	/* The device cannot compute the checksums; EINVAL is for this size or this route only. */
	if (error == EIO)
		d->path = path_device;
	return error == EIO || error == EINVAL || error == EMSGSIZE;
}

void dgram_send(struct dgram *d, struct dgram_out *out, const struct dgram_endpoint *to)
{
	bool segments = d->segments;
	struct outgoing o;
	uint32_t i = 0;
	size_t at = 0;
	int n, k, sent;

	while (i < out->n) {
		n = (int)prepare_messages(d, out, i, at, to, &o);
		sent = sendmmsg(d->fd, o.m, (unsigned int)n, MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		for (k = 0; k < sent; k++) {
			i += o.count[k];
			at += o.v[k].iov_len;
		}
		if (sent > 0)
			continue;
		if (without_segments(d, errno, o.count[0])) {
			d->segments = false;
			segments = segments && d->path != path_device;
			continue;
		}
		d->refused += o.count[0];
		i += o.count[0];
		at += o.v[0].iov_len;
	}
	d->segments = segments;
	out->n = 0;
	out->used = 0;
}
