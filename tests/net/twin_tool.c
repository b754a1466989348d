/* SPDX-License-Identifier: MIT */
/*
 * What receiving costs, by the twin and by a bare loop: twin_tool ROUNDS [runs]
 *
 * In each round a thread sends the same DATA datagrams to a loopback socket as fast as it can, once to each
 * receiver:
 *   bare        recvmmsg() into the same few buffers, nothing else
 *   twin        a session without authentication: checks, copy to the place, bookkeeping
 *   bare-aead   recvmmsg(), and for each datagram libsodium's decryption to the same place
 *   twin-aead   a session
 * What is measured is the processor time of the receiving thread, waiting and waking included, for
 * each datagram that it got; the sender is faster, so the receiver is busy. Datagrams arrive one by one;
 * with "runs" the kernel may deliver them in runs (UDP_GRO), to all receivers.
 *
 * Prints a line for each: ROUND RECEIVER NANOSECONDS DATAGRAMS PAYLOAD-BYTES-OF-EACH.
 */
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net/seal.h"
#include "net/session.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO	    104
#endif

enum {
	CHUNK = 1344, /* what fits a datagram of 1400 bytes */
	DATAGRAM = CHUNK + LSLM_WIRE_OVERHEAD,
	BATCH = 64,
	SEGMENTS = 40, /* of one send */
	CHUNKS = 1280 * SEGMENTS, /* of one round */
	ENDS = 20,
};

struct bench {
	int in, out;
	bool runs;
	struct session *session;
	struct buffer *buffer;
	uint32_t generation;
	uint64_t counter;
	bool aead;
	uint8_t secret[LSLM_WIRE_KEY_BYTES];
	bool over; /* the sender said so */
	uint64_t got;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t thread_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void open_sockets(struct bench *b)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t size = sizeof(at);
	int room = 16 << 20, segment = DATAGRAM;

	b->in = socket(AF_INET, SOCK_DGRAM, 0);
	b->out = socket(AF_INET, SOCK_DGRAM, 0);
	if (b->in < 0 || b->out < 0 || bind(b->in, (void *)&at, size) ||
	    getsockname(b->in, (void *)&at, &size) || connect(b->out, (void *)&at, size))
		die("sockets");
	if (setsockopt(b->in, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)))
		setsockopt(b->in, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	/* One send for many datagrams, which the receiving end of the kernel takes apart. */
	if (setsockopt(b->out, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)))
		die("UDP_SEGMENT");
}

static void *send_all(void *arg)
{
	static uint8_t packets[SEGMENTS][DATAGRAM], payload[CHUNK];
	struct timespec pause = { .tv_nsec = 5000000 };
	const uint8_t end = LSLM_OP_PROBE;
	struct bench *b = arg;

	for (uint32_t i = 0; i < CHUNKS; i++) {
		uint8_t *packet = packets[i % SEGMENTS];
		struct lslm_header h = {
			.opcode = LSLM_OP_DATA,
			.version = LSLM_WIRE_VERSION,
			.session = session_number(b->session),
			.counter = b->counter++,
			.generation = b->generation,
			.offset = (uint64_t)i * CHUNK,
		};

		if (b->aead)
			seal_packet(packet, &h, payload, CHUNK, b->secret);
		else
			lslm_header_put(packet, &h);
		if (i % SEGMENTS == SEGMENTS - 1 &&
		    send(b->out, packets, sizeof(packets), 0) != sizeof(packets))
			die("send");
	}
	for (int i = 0; i < ENDS; i++) {
		nanosleep(&pause, NULL);
		if (send(b->out, &end, 1, 0) != 1)
			die("send");
	}
	return NULL;
}

/* ---- the bare loops ---- */

struct loop {
	struct mmsghdr messages[BATCH];
	struct iovec pieces[BATCH];
	uint8_t controls[BATCH][CMSG_SPACE(sizeof(int))];
	uint8_t (*room)[1 << 16];
};

static void open_one(struct bench *b, const uint8_t *packet, size_t size)
{
	uint8_t nonce[12] = { 0 }, *place = buffer_data(b->buffer);

	memcpy(nonce + 4, packet + 8, 8);
	if (size != DATAGRAM ||
	    crypto_aead_chacha20poly1305_ietf_decrypt(
		    place + lslm_get64(packet + 24), NULL, NULL, packet + LSLM_WIRE_HEADER,
		    size - LSLM_WIRE_HEADER, packet, LSLM_WIRE_HEADER, nonce, b->secret))
		die("decrypt");
}

/* Buffers as small as can be, so that they stay in the processor's cache. */
static void prepare(struct loop *l, bool runs)
{
	size_t stride = runs ? 1 << 16 : 2048;

	for (int i = 0; i < BATCH; i++) {
		l->pieces[i] = (struct iovec){ (uint8_t *)l->room + (size_t)i * stride, stride };
		l->messages[i].msg_hdr = (struct msghdr){
			.msg_iov = &l->pieces[i],
			.msg_iovlen = 1,
			.msg_control = runs ? l->controls[i] : NULL,
		};
	}
}

static void receive_bare(struct bench *b, struct loop *l)
{
	int n;

	prepare(l, b->runs);
	while (!b->over) {
		for (int i = 0; b->runs && i < BATCH; i++)
			l->messages[i].msg_hdr.msg_controllen = sizeof(l->controls[i]);
		n = recvmmsg(b->in, l->messages, BATCH, MSG_WAITFORONE, NULL);
		if (n < 0)
			die("recvmmsg");
		for (int i = 0; i < n; i++) {
			const uint8_t *p = l->pieces[i].iov_base;

			if (l->messages[i].msg_len == 1)
				b->over = true;
			b->got += l->messages[i].msg_len / DATAGRAM;
			for (uint32_t at = 0; b->aead && at + DATAGRAM <= l->messages[i].msg_len;
			     at += DATAGRAM)
				open_one(b, p + at, DATAGRAM);
		}
	}
}

/* ---- the twin ---- */

static void note_control(void *arg, uint8_t *packet, size_t size)
{
	((struct bench *)arg)->over = true;
}

static void receive_twin(struct bench *b)
{
	static const struct session_ops ops = { .control = note_control };
	struct session_stats stats;

	while (!b->over)
		if (session_poll(b->session, 1000000000, &ops, b, NULL))
			die("session_poll");
	session_stats(b->session, &stats);
	b->got = stats.placed;
}

/* ---- */

static void open_session(struct bench *b)
{
	struct session_region region = {
		.buffer = b->buffer,
		.chunk = CHUNK,
		.n_units = CHUNKS / 64,
		.unit_bytes = 64 * CHUNK,
	};
	int off = 0;

	if (session_open(&b->session, SESSION_TWIN, BUFFER_MEMFD, b->in, 1, NULL))
		die("session_open");
	session_allow_plain(b->session);
	if (session_key(b->session, 0, b->aead ? LSLM_CIPHER_CHACHA20POLY1305 : LSLM_CIPHER_PLAIN,
			b->secret, 1ULL << 48, 3600, NULL) ||
	    session_bind(b->session, 0, &region, &b->generation, NULL))
		die("session");
	if (!b->runs)
		setsockopt(b->in, IPPROTO_UDP, UDP_GRO, &off, sizeof(off));
}

/* What the rounds before have left in the socket. */
static void empty_socket(struct bench *b)
{
	uint8_t byte;

	while (recv(b->in, &byte, 1, MSG_DONTWAIT) >= 0)
		;
}

static void run(struct bench *b, struct loop *l, unsigned int round, bool twin, bool aead)
{
	static const char *const names[] = { "bare", "bare-aead", "twin", "twin-aead" };
	pthread_t sender;
	uint64_t spent;

	b->aead = aead;
	b->over = false;
	b->got = 0;
	empty_socket(b);
	open_session(b);
	if (pthread_create(&sender, NULL, send_all, b))
		die("thread");
	spent = thread_ns();
	if (twin)
		receive_twin(b);
	else
		receive_bare(b, l);
	spent = thread_ns() - spent;
	pthread_join(sender, NULL);
	session_close(b->session);
	printf("%u %s %llu %llu %d\n", round, names[2 * twin + aead], (unsigned long long)spent,
	       (unsigned long long)b->got, CHUNK);
}

int main(int argc, char **argv)
{
	struct bench b = { 0 };
	struct loop *l = calloc(1, sizeof(*l));
	unsigned int rounds = argc < 2 ? 0 : (unsigned int)strtoul(argv[1], NULL, 10);

	if (!rounds || sodium_init() < 0)
		return 2;
	b.runs = argc > 2 && !strcmp(argv[2], "runs");
	l->room = calloc(BATCH, 1 << 16);
	if (!l->room || buffer_create(&b.buffer, BUFFER_MEMFD, (size_t)CHUNKS * CHUNK, 0, NULL))
		die("memory");
	memset(buffer_data(b.buffer), 1, (size_t)CHUNKS * CHUNK);
	randombytes_buf(b.secret, sizeof(b.secret));
	open_sockets(&b);
	for (unsigned int round = 0; round < rounds; round++)
		for (int i = 0; i < 4; i++)
			run(&b, l, round, i % 2, i / 2);
	return 0;
}
