/* SPDX-License-Identifier: MIT */
/*
 * A cloud for tests of an edge: the sending half of docs/protocol.md, section 9, on a loopback
 * socket and in a thread of its own, as good or as bad as a case wants it. It was written from the
 * specification, checks every byte that the edge sends, and has no congestion control: it
 * answers each REPORT with some of what that wants.
 */
#ifndef LSLM_TESTS_PEER_H
#define LSLM_TESTS_PEER_H

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/grant.h"
#include "net/report.h"
#include "net/seal.h"
#include "net/source.h"
#include "unit/sink.h"
#include "unit/unit.h"

enum {
	PEER_NUMBER = 0xc10d,
	PEER_BURST = 64, /* DATA for one REPORT at most */
	PEER_LOST = 16, /* counters behind the highest that arrived */
	PEER_PACKET = 9216,
};

struct peer_stripe {
	uint32_t generation, chunk;
	uint64_t *sent; /* [chunks] counter + 1 with which each was sent last */
	uint64_t *sent_ns;
};

struct peer {
	/* What a case wants of it; set before peer_start(). */
	const struct sink *sink; /* the context's shape; its control page is looked at, too */
	const uint8_t *data; /* the context, as the edge shall have it */
	int family;
	unsigned int loss, reorder, duplicate; /* percent */
	uint32_t narrow; /* from this many DATA on only datagrams of ... */
	uint32_t narrow_mtu; /* ... this size pass; 0: all always */
	bool trickle; /* and of those one comes with each 20th REPORT */
	uint32_t mute; /* from this many DATA on it says nothing */
	uint32_t mute_until; /* but this many REPORTs later it does again; 0: never */
	uint32_t most; /* after so many DATA it sends the first again and again; 0: never */
	bool lie; /* PROBEs that answer nothing, besides the right ones */
	bool no_probes;
	/* With each DATA that is sent. */
	void (*on_data)(struct peer *p, uint64_t n);
	void *arg;

	/* What came of it; read after peer_stop(). */
	uint64_t hellos, reports, data_sent, lies, trickled;
	uint64_t wanted_ready; /* wants for blocks that were there */
	uint32_t keys_seen; /* bits */
	bool over;
	bool wrong_path; /* a HELLO before any REPORT */
	char complaint[200]; /* the first thing that the specification does not allow */

	/* Its own. */
	int fd;
	uint16_t port;
	uint32_t edge; /* the edge's number */
	struct grant_keys keys[LSLM_WIRE_KEYS];
	_Atomic uint32_t n_keys; /* granted so far: numbers 0 .. n_keys - 1, modulo 4 */
	uint32_t key; /* the newest under which something came, counted in the same way */
	_Atomic uint64_t counter; /* of the next DATA */
	uint64_t control; /* of the next PROBE */
	uint64_t next_control; /* least counter of the next datagram from the edge */
	uint32_t hello, report; /* numbers */
	uint32_t chunk;
	struct peer_stripe *stripes;
	struct report_want newest[2]; /* first and last of the newest REPORT */
	uint32_t last_slot; /* of the want before */
	uint32_t last_seen; /* wants of the newest REPORT */
	uint64_t next_trickle;
	struct report_want first_want; /* of the first DATA */
	uint32_t first_chunk;
	uint64_t random;
	uint8_t held[PEER_PACKET]; /* one that is to be overtaken */
	size_t held_size;
	struct sockaddr_storage at;
	socklen_t at_len;
	pthread_t thread;
	atomic_bool quit;
};

static inline bool peer_happens(struct peer *p, unsigned int percent)
{
	p->random = p->random * 6364136223846793005ull + 1442695040888963407ull;
	return (p->random >> 33) % 100 < percent;
}

__attribute__((format(printf, 2, 3))) static inline void peer_complain(struct peer *p,
								       const char *fmt, ...)
{
	va_list ap;

	if (*p->complaint)
		return;
	va_start(ap, fmt);
	vsnprintf(p->complaint, sizeof(p->complaint), fmt, ap);
	va_end(ap);
}

/* The next pair, as the cloud would grant it, for so many more datagrams. */
static inline struct grant_keys peer_grant(struct peer *p, uint64_t packets, uint32_t lifetime_s)
{
	uint32_t n = p->n_keys;
	struct grant_keys *k = &p->keys[n % LSLM_WIRE_KEYS];

	*k = (struct grant_keys){ .key = n % LSLM_WIRE_KEYS,
				  .max_packets = p->counter + packets,
				  .lifetime_s = lifetime_s };
	memset(k->to_edge, 0x11 + (int)n, sizeof(k->to_edge));
	memset(k->to_cloud, 0x77 + (int)n, sizeof(k->to_cloud));
	p->n_keys = n + 1;
	return *k;
}

/* ---- sending ---- */

static inline void peer_put(struct peer *p, const uint8_t *packet, size_t size)
{
	if (p->narrow_mtu && p->data_sent >= p->narrow && size > p->narrow_mtu)
		return;
	sendto(p->fd, packet, size, MSG_DONTWAIT, (struct sockaddr *)&p->at, p->at_len);
}

static inline const uint8_t *peer_key(const struct peer *p)
{
	return p->keys[p->key % LSLM_WIRE_KEYS].to_edge;
}

static inline void peer_probe(struct peer *p, uint32_t number, uint32_t size, uint8_t filling,
			      bool forged)
{
	const struct lslm_header h = { .opcode = LSLM_OP_PROBE,
				       .version = LSLM_WIRE_VERSION,
				       .key = (uint8_t)(p->key % LSLM_WIRE_KEYS),
				       .session = p->edge,
				       .counter = p->control++ | LSLM_COUNTER_CONTROL,
				       .generation = number };
	uint8_t packet[PEER_PACKET];

	memset(packet + LSLM_WIRE_HEADER, filling, size - LSLM_WIRE_OVERHEAD);
	seal_packet(packet, &h, packet + LSLM_WIRE_HEADER, size - LSLM_WIRE_OVERHEAD, peer_key(p));
	packet[size - 1] ^= forged;
	peer_put(p, packet, size);
}

static inline void peer_lie(struct peer *p, uint32_t number, uint32_t largest)
{
	peer_probe(p, number, 1300, 0, false);
	peer_probe(p, number, 8952 > largest ? 8952 : 9000, 0, false);
	peer_probe(p, number + 1, 1200, 0, false);
	peer_probe(p, 0, 1200, 0, false);
	peer_probe(p, number, 1200, 1, false);
	peer_probe(p, number, 1200, 0, true);
	p->control--;
	p->lies += 6;
}

static inline void peer_answer_hello(struct peer *p, uint32_t number, uint32_t largest)
{
	static const uint32_t sizes[] = { 1200, 1232, 1352, 1400, 1452, 1472, 4096, 8952 };

	if (p->lie)
		peer_lie(p, number, largest);
	for (size_t i = 0; i < ARRAY_LEN(sizes) && !p->no_probes; i++)
		if (sizes[i] <= largest && !peer_happens(p, p->loss))
			peer_probe(p, number, sizes[i], 0, false);
}

/* A link that loses, holds back and doubles. */
static inline void peer_deliver(struct peer *p, const uint8_t *packet, size_t size)
{
	if (peer_happens(p, p->loss))
		return;
	if (!p->held_size && peer_happens(p, p->reorder)) {
		memcpy(p->held, packet, size);
		p->held_size = size;
		return;
	}
	peer_put(p, packet, size);
	if (peer_happens(p, p->duplicate))
		peer_put(p, packet, size);
	if (p->held_size && !peer_happens(p, 60)) {
		peer_put(p, p->held, p->held_size);
		p->held_size = 0;
	}
}

static inline void peer_send_chunk(struct peer *p, const struct report_want *want, uint32_t chunk)
{
	const struct sink *s = p->sink;
	uint32_t per_unit = lslm_chunks_of((uint32_t)sink_block_bytes(s), p->chunk);
	uint64_t within = (uint64_t)(chunk % per_unit) * p->chunk;
	uint64_t offset = chunk / per_unit * sink_block_bytes(s) + within;
	size_t left = sink_block_bytes(s) - within, size = left < p->chunk ? left : p->chunk;
	const struct lslm_header h = { .opcode = LSLM_OP_DATA,
				       .version = LSLM_WIRE_VERSION,
				       .key = (uint8_t)(p->key % LSLM_WIRE_KEYS),
				       .session = p->edge,
				       .counter = p->counter++,
				       .slot = want->slot,
				       .generation = want->generation,
				       .offset = offset };
	struct peer_stripe *st = &p->stripes[want->stripe];
	uint8_t packet[PEER_PACKET];

	seal_packet(packet, &h, p->data + want->stripe * s->pitch + offset, size, peer_key(p));
	st->sent[chunk] = h.counter + 1;
	st->sent_ns[chunk] = clock_ns();
	peer_deliver(p, packet, size + LSLM_WIRE_OVERHEAD);
	if (!p->data_sent++) {
		p->first_want = *want;
		p->first_chunk = chunk;
	}
	if (p->on_data)
		p->on_data(p, p->data_sent);
}

/* ---- what the edge says ---- */

static inline void peer_see_stripe(struct peer *p, const struct report_want *want)
{
	struct peer_stripe *st = &p->stripes[want->stripe];
	uint32_t n = p->sink->order.n_layer *
		     lslm_chunks_of((uint32_t)sink_block_bytes(p->sink), p->chunk);

	if (st->generation == want->generation && st->chunk == p->chunk)
		return;
	free(st->sent);
	free(st->sent_ns);
	st->sent = calloc(n, sizeof(*st->sent));
	st->sent_ns = calloc(n, sizeof(*st->sent_ns));
	st->generation = want->generation;
	st->chunk = p->chunk;
}

static inline bool peer_is_lost(const struct peer *p, const struct peer_stripe *st, uint32_t chunk,
				const struct report *r)
{
	uint64_t sent = st->sent[chunk];

	if (!sent)
		return true;
	if (r->highest != REPORT_NONE && sent - 1 + PEER_LOST <= r->highest)
		return true;
	return clock_ns() - st->sent_ns[chunk] > 30000000;
}

/* Wants ascend in the order of need, and what is there already is not among them. */
static inline void peer_check_range(struct peer *p, const struct report_want *want,
				    struct lslm_range range, bool fresh, uint64_t *least)
{
	const struct sink *s = p->sink;
	uint32_t per_unit = lslm_chunks_of((uint32_t)sink_block_bytes(s), p->chunk);
	uint32_t unit = range.first / per_unit, last = (range.first + range.count - 1) / per_unit;
	uint64_t at = (uint64_t)order_index(&s->order, want->stripe, unit) * per_unit +
		      range.first % per_unit + 1;

	if (at <= *least)
		peer_complain(p, "stripe %u, chunk %u is out of order", want->stripe, range.first);
	*least = at;
	for (; fresh && unit <= last; unit++)
		p->wanted_ready += control_get(s->control, want->stripe, unit) == CONTROL_READY;
}

/* Of what still passes a path that is too narrow for whole chunks, a little. */
static inline bool peer_holds_back(struct peer *p, uint32_t chunk)
{
	uint32_t per_unit = lslm_chunks_of((uint32_t)sink_block_bytes(p->sink), p->chunk);

	if (!p->trickle || p->data_sent < p->narrow ||
	    p->chunk + LSLM_WIRE_OVERHEAD <= p->narrow_mtu)
		return false;
	if (chunk % per_unit != per_unit - 1 || p->reports < p->next_trickle)
		return true;
	p->next_trickle = p->reports + 20;
	p->trickled++;
	return false;
}

static inline void peer_serve_want(struct peer *p, const struct report *r,
				   const struct report_want *want, bool fresh, uint64_t *least,
				   uint32_t *left)
{
	const struct sink *s = p->sink;
	uint32_t n = s->order.n_layer * lslm_chunks_of((uint32_t)sink_block_bytes(s), p->chunk);

	if (want->stripe >= s->order.n_stripes || want->level) {
		peer_complain(p, "want of stripe %u, level %u", want->stripe, want->level);
		return;
	}
	if (s->order.kind == ORDER_TAIL && want->slot == p->last_slot)
		peer_complain(p, "two wants where one says the same");
	p->last_slot = want->slot;
	peer_see_stripe(p, want);
	for (uint32_t i = 0; i < want->n_ranges; i++) {
		struct lslm_range range = report_range(want, i);

		if (range.first + range.count > n) {
			peer_complain(p, "chunk %u + %u of %u", range.first, range.count, n);
			return;
		}
		peer_check_range(p, want, range, fresh, least);
		for (uint32_t c = range.first; c < range.first + range.count && *left; c++) {
			if (!peer_is_lost(p, &p->stripes[want->stripe], c, r) ||
			    peer_holds_back(p, c))
				continue;
			if (p->most && p->data_sent >= p->most)
				peer_send_chunk(p, &p->first_want, p->first_chunk);
			else
				peer_send_chunk(p, want, c);
			--*left;
		}
	}
}

static inline void peer_take_report(struct peer *p, uint32_t number, const uint8_t *payload,
				    size_t size)
{
	struct report_want want;
	uint32_t left = PEER_BURST;
	uint64_t least = 0;
	struct report r;
	size_t at = 0;
	bool fresh;

	if (number != p->report + 1)
		peer_complain(p, "REPORT %u after %u", number, p->report);
	p->report = number;
	if (report_parse(&r, payload, size)) {
		peer_complain(p, "REPORT %u makes no sense", number);
		return;
	}
	if (r.received > p->counter * 2 || (r.received && r.highest >= p->counter))
		peer_complain(p, "REPORT %u tells of more than was sent", number);
	if (p->over)
		peer_complain(p, "REPORT after the end");
	p->over = r.flags & REPORT_OVER;
	p->reports++;
	/* Nothing has been sent for these regions yet, so nothing in them can have become ready since. */
	fresh = r.chunk && r.chunk != p->chunk;
	p->chunk = r.chunk;
	p->last_slot = UINT32_MAX;
	p->last_seen = 0;
	while (report_next(&r, &at, &want))
		p->newest[p->last_seen++ != 0] = want;
	at = 0;
	while (report_next(&r, &at, &want))
		peer_serve_want(p, &r, &want, fresh, &least, &left);
}

static inline void peer_take_hello(struct peer *p, uint32_t number, const uint8_t *payload,
				   size_t size)
{
	uint32_t largest;

	if (number != p->hello + 1 || hello_parse(&largest, payload, size)) {
		peer_complain(p, "HELLO %u after %u", number, p->hello);
		return;
	}
	p->hello = number;
	p->hellos++;
	if (!p->report)
		p->wrong_path = true;
	peer_answer_hello(p, number, largest);
}

static inline bool peer_is_mute(const struct peer *p)
{
	return p->mute && p->data_sent >= p->mute && (!p->mute_until || p->reports < p->mute_until);
}

/* The number, counted through, of the granted key that has this one on the wire. */
static inline uint32_t peer_key_number(const struct peer *p, uint8_t key)
{
	for (uint32_t n = p->n_keys, i = 1; i <= LSLM_WIRE_KEYS && i <= n; i++)
		if ((n - i) % LSLM_WIRE_KEYS == key)
			return n - i;
	return UINT32_MAX;
}

static inline void peer_take(struct peer *p, uint8_t *packet, size_t size)
{
	uint8_t payload[PEER_PACKET];
	struct lslm_header h = { 0 };
	uint32_t key;
	long n;

	if (size >= LSLM_WIRE_OVERHEAD)
		lslm_header_get(&h, packet);
	key = peer_key_number(p, h.key);
	n = key == UINT32_MAX ?
		    -1 :
		    seal_open(payload, packet, size, p->keys[key % LSLM_WIRE_KEYS].to_cloud);
	if (n < 0 || h.version != 1 || h.flags || h.session != PEER_NUMBER || h.slot || h.offset ||
	    h.counter != (p->next_control | LSLM_COUNTER_CONTROL)) {
		peer_complain(p, "datagram %llu is none of this session's",
			      (unsigned long long)h.counter);
		return;
	}
	p->next_control++;
	p->keys_seen |= 1u << h.key;
	if (key > p->key)
		p->key = key;
	if (h.opcode == LSLM_OP_REPORT && peer_is_mute(p)) {
		p->report = h.generation;
		p->reports++;
	} else if (h.opcode == LSLM_OP_REPORT) {
		peer_take_report(p, h.generation, payload, (size_t)n);
	} else if (h.opcode == LSLM_OP_HELLO && peer_is_mute(p)) {
		p->hello = h.generation;
		p->hellos++;
	} else if (h.opcode == LSLM_OP_HELLO) {
		peer_take_hello(p, h.generation, payload, (size_t)n);
	} else {
		peer_complain(p, "opcode %u", h.opcode);
	}
}

static inline void *peer_run(void *arg)
{
	struct peer *p = arg;
	struct pollfd fd = { .fd = p->fd, .events = POLLIN };
	uint8_t packet[PEER_PACKET];
	ssize_t n;

	/* What was sent before the order to quit is still read: over, for one. */
	for (;;) {
		bool last = p->quit;

		if (poll(&fd, 1, last ? 0 : 20) <= 0) {
			if (last)
				return NULL;
			continue;
		}
		p->at_len = sizeof(p->at);
		n = recvfrom(p->fd, packet, sizeof(packet), MSG_DONTWAIT, (struct sockaddr *)&p->at,
			     &p->at_len);
		if (n >= 0)
			peer_take(p, packet, (size_t)n);
	}
}

/* ---- life ---- */

static inline void peer_listen(struct peer *p)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	socklen_t len = p->family == AF_INET6 ? sizeof(v6) : sizeof(v4);
	void *a = p->family == AF_INET6 ? (void *)&v6 : (void *)&v4;
	int bytes = 4 << 20;

	v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	p->fd = socket(p->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(p->fd >= 0);
	assert_int_equal(bind(p->fd, a, len), 0);
	assert_int_equal(getsockname(p->fd, a, &len), 0);
	setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	p->port = ntohs(p->family == AF_INET6 ? v6.sin6_port : v4.sin_port);
}

static inline void peer_start(struct peer *p, uint32_t edge)
{
	p->edge = edge;
	p->random = 42;
	p->stripes = calloc(p->sink->order.n_stripes, sizeof(*p->stripes));
	peer_listen(p);
	assert_int_equal(pthread_create(&p->thread, NULL, peer_run, p), 0);
}

static inline void peer_stop(struct peer *p)
{
	p->quit = true;
	pthread_join(p->thread, NULL);
	close(p->fd);
	for (uint32_t i = 0; i < p->sink->order.n_stripes; i++) {
		free(p->stripes[i].sent);
		free(p->stripes[i].sent_ns);
	}
	free(p->stripes);
}

#endif
