/* SPDX-License-Identifier: MIT */
/*
 * What the tests of sessions share: the session calls as functions, a session with its socket and
 * ring, and a sender of sealed datagrams.
 *
 * Nothing is timed. A datagram over loopback may be delivered after sendto() has returned, so
 * whoever sends waits until the session has counted it.
 */
#ifndef TESTS_VM_SESSION_H
#define TESTS_VM_SESSION_H

#include <netinet/in.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "device.h"
#include "lslm/region.h"
#include "lslm/wire.h"
#include "net/seal.h"

struct session {
	int fd; /* of the session; -1: closed */
	int socket; /* that it is attached to */
	int sender; /* connected to the socket */
	uint32_t number;
	uint32_t ring_entries;
	volatile struct lslm_ring_consumer *consumer;
	const volatile struct lslm_ring *ring;
	const volatile struct lslm_done *entries;
	uint64_t counter; /* of the next datagram */
	uint64_t sent; /* datagrams that the session has to count */
	uint8_t secret[32]; /* of key 0 */
};

static inline int session_create(int dev, int socket, uint32_t slots, uint32_t ring_entries,
				 uint32_t *number)
{
	struct lslm_session_create arg = {
		.size = sizeof(arg), .socket = socket, .slots = slots, .ring_entries = ring_entries
	};
	int ret = call(dev, LSLM_SESSION_CREATE, &arg);

	if (number)
		*number = arg.out_session;
	return ret ? ret : arg.out_fd;
}

static inline int session_key(int fd, uint32_t key, uint32_t cipher, const uint8_t *secret,
			      uint64_t max_packets, uint32_t lifetime_s)
{
	struct lslm_session_key arg = { .size = sizeof(arg),
					.key = key,
					.cipher = cipher,
					.max_packets = max_packets,
					.lifetime_s = lifetime_s };

	if (secret)
		memcpy(arg.secret, secret, sizeof(arg.secret));
	return call(fd, LSLM_SESSION_KEY, &arg);
}

/* Units of equal length; the generation, or an error. */
static inline int64_t region_bind(int fd, uint32_t slot, int buffer, uint64_t base, uint32_t chunk,
				  uint32_t n_units, uint32_t unit_bytes)
{
	uint32_t units[LSLM_REGION_UNITS_MAX];
	struct lslm_region_bind arg = { .size = sizeof(arg),
					.slot = slot,
					.buffer = buffer,
					.base = base,
					.chunk = chunk,
					.n_units = n_units,
					.units = (uintptr_t)units };
	int ret;

	for (uint32_t i = 0; i < n_units && i < LSLM_REGION_UNITS_MAX; i++)
		units[i] = unit_bytes;
	ret = call(fd, LSLM_REGION_BIND, &arg);
	return ret ? ret : (int64_t)arg.out_generation;
}

static inline int region_unbind(int fd, uint32_t slot)
{
	struct lslm_region_unbind arg = { .size = sizeof(arg), .slot = slot };

	return call(fd, LSLM_REGION_UNBIND, &arg);
}

/* How many ranges, or an error. */
static inline int region_missing(int fd, uint32_t slot, uint32_t generation, uint32_t from,
				 struct lslm_range *ranges, uint32_t max, uint32_t *missing)
{
	struct lslm_region_missing arg = { .size = sizeof(arg),
					   .slot = slot,
					   .generation = generation,
					   .from = from,
					   .max_ranges = max,
					   .ranges = (uintptr_t)ranges };
	int ret = call(fd, LSLM_REGION_MISSING, &arg);

	if (missing)
		*missing = arg.out_missing;
	return ret ? ret : (int)arg.out_ranges;
}

static inline struct lslm_session_stats session_stats(int fd)
{
	struct lslm_session_stats arg = { .size = sizeof(arg) };

	if (call(fd, LSLM_SESSION_STATS, &arg))
		bail("LSLM_SESSION_STATS");
	return arg;
}

/* A UDP socket on the loopback address of a family. */
static inline int udp_socket(int family)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in four = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, family == AF_INET ? (void *)&four : (void *)&six,
			   family == AF_INET ? sizeof(four) : sizeof(six)))
		bail("a UDP socket");
	return fd;
}

/* A socket connected to where another one is bound. */
static inline int udp_sender(int family, int to)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof(address);
	int fd = udp_socket(family);

	if (getsockname(to, (void *)&address, &length) || connect(fd, (void *)&address, length))
		bail("connect");
	return fd;
}

/* What a socket gets next, or an error. */
static inline int receive(int fd, void *to, size_t size)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, 60000) != 1)
		return -ETIMEDOUT;
	return recv(fd, to, size, MSG_DONTWAIT);
}

static inline void session_map(struct session *s)
{
	const size_t page = sysconf(_SC_PAGESIZE);
	const size_t bytes = page + s->ring_entries * sizeof(struct lslm_done);
	void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);

	if (p == MAP_FAILED)
		bail("mmap of the consumer's page");
	s->consumer = p;
	p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, s->fd, page);
	if (p == MAP_FAILED)
		bail("mmap of the ring");
	s->ring = p;
	s->entries = (void *)((char *)p + page);
}

static inline void session_unmap(struct session *s)
{
	const size_t page = sysconf(_SC_PAGESIZE);

	munmap((void *)s->consumer, page);
	munmap((void *)s->ring, page + s->ring_entries * sizeof(struct lslm_done));
}

/* A session on a fresh socket of the family, with key 0. */
static inline struct session session_open(int dev, int family, uint32_t slots,
					  uint32_t ring_entries)
{
	struct session s = { .socket = udp_socket(family), .ring_entries = ring_entries };

	s.sender = udp_sender(family, s.socket);
	s.fd = session_create(dev, s.socket, slots, ring_entries, &s.number);
	if (s.fd < 0) {
		errno = -s.fd;
		bail("LSLM_SESSION_CREATE");
	}
	session_map(&s);
	if (getrandom(s.secret, sizeof(s.secret), 0) != sizeof(s.secret) ||
	    session_key(s.fd, 0, LSLM_CIPHER_CHACHA20POLY1305, s.secret, 1ULL << 48, 86400))
		bail("LSLM_SESSION_KEY");
	return s;
}

static inline void session_close(struct session *s)
{
	session_unmap(s);
	if (s->fd >= 0)
		close(s->fd);
	if (s->socket >= 0)
		close(s->socket);
	close(s->sender);
}

/* Datagrams that the session has seen, by whatever way. */
static inline uint64_t session_seen(int fd)
{
	struct lslm_session_stats stats = session_stats(fd);

	return stats.out_by_encap + stats.out_by_tc + stats.out_by_xdp;
}

static inline bool session_await(const struct session *s)
{
	for (int i = 0; i < 60000; i++) {
		if (session_seen(s->fd) >= s->sent)
			return true;
		usleep(1000);
	}
	return false;
}

/* Send bytes as they are; they are to be counted as DATA. */
static inline void send_raw(struct session *s, const void *packet, size_t size)
{
	if (send(s->sender, packet, size, 0) != (ssize_t)size)
		bail("send");
	s->sent++;
}

/* A header of the session's next datagram. */
static inline struct lslm_header next_header(struct session *s, uint32_t slot, uint32_t generation,
					     uint64_t offset)
{
	return (struct lslm_header){ .opcode = LSLM_OP_DATA,
				     .version = LSLM_WIRE_VERSION,
				     .session = s->number,
				     .counter = s->counter++,
				     .slot = slot,
				     .generation = generation,
				     .offset = offset };
}

/* Seal payload and send it; the session has counted it when this returns. */
static inline bool send_sealed(struct session *s, const struct lslm_header *h, const void *payload,
			       size_t size)
{
	static uint8_t packet[LSLM_CHUNK_MAX + LSLM_WIRE_OVERHEAD];

	send_raw(s, packet, seal_packet(packet, h, payload, size, s->secret));
	return session_await(s);
}

/* What a slot gets: size bytes of `payload` at offset, as its owner would send them. */
static inline bool send_chunk(struct session *s, uint32_t slot, uint32_t generation,
			      uint64_t offset, const void *payload, size_t size)
{
	struct lslm_header h = next_header(s, slot, generation, offset);

	return send_sealed(s, &h, payload, size);
}

/* Bytes that tell where they belong. */
static inline void fill_pattern(uint8_t *p, size_t bytes, uint32_t seed)
{
	uint32_t x = seed * 2654435761u + 1;

	for (size_t i = 0; i < bytes; i++) {
		x = x * 1664525 + 1013904223;
		p[i] = x >> 24;
	}
}

#endif
