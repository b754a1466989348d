// SPDX-License-Identifier: MIT
/*
 * What it costs to get a datagram of 1392 bytes into its place in a buffer, on the receiving side.
 *
 * Run as root, with plain=1, in a machine whose clock counts instructions (scripts/vm/run -c), on
 * the interface of remote.h: place_bench verdict.bpf.o COUNT [MODE]. Prints "MODE CIPHER FIGURE" lines:
 * instructions per datagram, sending included, the same in every mode but `tcp`.
 *
 *   drop       an XDP program drops it: the cost of sending, and of the interface
 *   recvmmsg   an XDP program passes it on; recvmmsg() of 64, the offset is read from the header,
 *              the payload copied (or decrypted by libsodium) to its place. No other check
 *   encap      an XDP program passes it on; the session's socket places it
 *   tc         an XDP program passes it on; the steering program on TC hands it to the module
 *   xdp        the steering program on XDP does
 *   *-bare     the same without an XDP program on the interface
 *   tcp        recv() of a stream of as many bytes straight to the place, in the largest pieces
 *
 * One process sends 64 datagrams and then receives them: with one processor and no other process
 * there is nobody to switch to, which is the best that recvmmsg() can meet with.
 */
#include <net/if.h>
#include <netinet/tcp.h>
#include <time.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <linux/if_link.h>

#include <sodium.h>

#include "net/steer.h"
#include "remote.h"

enum { CHUNK = 1344, SIZE = CHUNK + LSLM_WIRE_OVERHEAD, BATCH = 64, UNIT = 48 * CHUNK, WARM = 4 };
enum { LOST = 1000000 }; /* so many times nothing happened */

enum receiver { NOBODY, READER, MODULE };

struct mode {
	const char *name;
	const char *verdict; /* XDP program of verdict.bpf.c; NULL: none */
	enum receiver receiver;
	int steer; /* enum steer_mode; -1: none */
};

static const struct mode modes[] = {
	{ "drop", "drop", NOBODY, -1 },	    { "recvmmsg", "pass", READER, -1 },
	{ "encap", "pass", MODULE, -1 },    { "tc", "pass", MODULE, STEER_TC },
	{ "xdp", NULL, MODULE, STEER_XDP }, { "recvmmsg-bare", NULL, READER, -1 },
	{ "encap-bare", NULL, MODULE, -1 }, { "tc-bare", NULL, MODULE, STEER_TC },
};

static int dev, ifindex;
static struct bpf_object *verdicts;
static uint8_t *packets; /* of a run, sealed before it */
static struct mmsghdr out[BATCH], in[BATCH];
static struct iovec out_vec[BATCH], in_vec[BATCH];
static uint8_t staging[BATCH][2048];
static const uint8_t secret[32] = { 1, 2, 3 };

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void attach(const char *name)
{
	struct bpf_program *p = name ? bpf_object__find_program_by_name(verdicts, name) : NULL;

	if (bpf_xdp_attach(ifindex, p ? bpf_program__fd(p) : -1, XDP_FLAGS_DRV_MODE, NULL))
		bail("bpf_xdp_attach");
}

/* Frames that either verdict was given to. */
static uint64_t frames(void)
{
	const uint32_t zero = 0;
	uint64_t n = 0;

	bpf_map_lookup_elem(bpf_object__find_map_fd_by_name(verdicts, "frames"), &zero, &n);
	return n;
}

static void make_packets(uint32_t session, uint32_t generation, long n, bool plain)
{
	static uint8_t data[CHUNK];
	struct lslm_header h = { .opcode = LSLM_OP_DATA,
				 .version = LSLM_WIRE_VERSION,
				 .session = session,
				 .generation = generation };

	fill_pattern(data, CHUNK, 1);
	for (long i = 0; i < n; i++) {
		h.counter = i;
		h.offset = (uint64_t)i * CHUNK;
		if (plain) {
			lslm_header_put(packets + i * SIZE, &h);
			memcpy(packets + i * SIZE + LSLM_WIRE_HEADER, data, CHUNK);
		} else {
			seal_packet(packets + i * SIZE, &h, data, CHUNK, secret);
		}
	}
}

static void send_batch(int sock, long first)
{
	for (int i = 0; i < BATCH; i++) {
		out_vec[i] = (struct iovec){ packets + (first + i) * SIZE, SIZE };
		out[i].msg_hdr = (struct msghdr){ .msg_iov = &out_vec[i], .msg_iovlen = 1 };
	}
	if (sendmmsg(sock, out, BATCH, 0) != BATCH)
		bail("sendmmsg");
}

/* Receive until BATCH datagrams are in their places. */
static void read_batch(int sock, uint8_t *place, bool plain)
{
	struct lslm_header h;
	int n, got = 0;

	while (got < BATCH) {
		n = recvmmsg(sock, in, BATCH - got, 0, NULL);
		if (n < 0)
			bail("recvmmsg");
		got += n;
		for (int i = 0; i < n; i++) {
			lslm_header_get(&h, staging[i]);
			if (plain)
				memcpy(place + h.offset, staging[i] + LSLM_WIRE_HEADER,
				       in[i].msg_len - LSLM_WIRE_OVERHEAD);
			else if (seal_open(place + h.offset, staging[i], in[i].msg_len, secret) < 0)
				bail("seal_open");
		}
	}
}

/* What the module placed may have been put off to a softirq of its own. */
static void await_placed(const struct session *s, uint64_t bytes)
{
	for (long i = 0; s->ring->placed_bytes < bytes; i++) {
		if (i == LOST)
			bail("a datagram was not placed");
		sched_yield();
	}
}

struct run {
	struct session s;
	struct steer *steer;
	int buffer;
	uint8_t *place;
	size_t bytes;
};

static void begin(struct run *r, const struct mode *m, long n, bool plain)
{
	const struct timeval limit = { .tv_sec = 5 }; /* a lost datagram is a failure */
	const int room = 4 << 20;
	struct sockaddr_storage address;
	struct lslm_error err;
	socklen_t length;
	int64_t g;

	memset(r, 0, sizeof(*r));
	r->bytes = n * CHUNK;
	r->buffer = buf_create(dev, r->bytes, 0);
	r->place = buf_map(r->buffer, r->bytes, PROT_READ | PROT_WRITE);
	if (!r->place)
		bail("a buffer");
	memset(r->place, 0, r->bytes); /* no page faults later */
	r->s = (struct session){ .ring_entries = 4096, .fd = -1 };
	r->s.socket = bind_here(AF_INET, SOCK_DGRAM, &address, &length);
	/* A batch of frames of a page each is more than the default. */
	if (setsockopt(r->s.socket, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) ||
	    setsockopt(r->s.socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)))
		bail("SO_RCVBUFFORCE");
	r->s.sender = connect_there(AF_INET, SOCK_DGRAM, &address, length);
	if (m->receiver == MODULE) {
		r->s.fd = session_create(dev, r->s.socket, 1, 4096, &r->s.number);
		g = region_bind(r->s.fd, 0, r->buffer, 0, CHUNK, r->bytes / UNIT, UNIT);
		if (r->s.fd < 0 || g < 0 ||
		    session_key(r->s.fd, 0,
				plain ? LSLM_CIPHER_PLAIN : LSLM_CIPHER_CHACHA20POLY1305, secret,
				1ULL << 48, 3600))
			bail("a session; is plain=1 set?");
		session_map(&r->s);
	}
	make_packets(r->s.number, 1, n, plain);
	attach(NULL);
	if (m->verdict)
		attach(m->verdict);
	if (m->steer >= 0 &&
	    (steer_open(&r->steer, "lslm0", m->steer, &err) || !steer_is_placing(r->steer) ||
	     steer_port(r->steer, port_of(&address), r->s.number, SIZE, NULL, &err)))
		bail(err.text);
}

static void end(struct run *r)
{
	steer_close(r->steer);
	attach(NULL);
	if (r->s.fd >= 0) {
		session_unmap(&r->s);
		close(r->s.fd);
	}
	close(r->s.socket);
	close(r->s.sender);
	munmap(r->place, r->bytes);
	close(r->buffer);
}

/* Each way must have done what it is measured for. */
static void check(const struct run *r, const struct mode *m, long n)
{
	struct lslm_session_stats stats;
	uint8_t want[CHUNK];
	uint64_t came;

	fill_pattern(want, CHUNK, 1);
	for (long i = 0; i < n && m->receiver != NOBODY; i++) {
		if (memcmp(r->place + i * CHUNK, want, CHUNK))
			bail("a chunk is not in its place");
	}
	if (m->receiver != MODULE)
		return;
	stats = session_stats(r->s.fd);
	came = stats.out_by_encap;
	if (m->steer >= 0)
		came = m->steer == STEER_XDP ? stats.out_by_xdp : stats.out_by_tc;
	if (came != (uint64_t)n)
		bail("datagrams came another way");
}

/* n datagrams, of which the first batches are for warming up. */
static double measure(const struct mode *m, long n, bool plain)
{
	const uint64_t before = frames();
	uint64_t start = 0, took;
	struct run r;

	begin(&r, m, n, plain);
	for (long i = 0; i < n; i += BATCH) {
		if (i == WARM * BATCH)
			start = now();
		send_batch(r.s.sender, i);
		if (m->receiver == READER)
			read_batch(r.s.socket, r.place, plain);
		else if (m->receiver == MODULE)
			await_placed(&r.s, (i + BATCH) * CHUNK);
	}
	for (long i = 0; m->verdict && frames() < before + n; i++) {
		if (i == LOST)
			bail("a frame is lost");
		sched_yield();
	}
	took = now() - start;
	check(&r, m, n);
	end(&r);
	return (double)took / (n - WARM * BATCH);
}

/* Per CHUNK bytes of a stream, sending included. */
static double measure_tcp(long n)
{
	struct sockaddr_storage address;
	const size_t bytes = n * CHUNK, piece = 65536;
	const int buffer = buf_create(dev, bytes, 0), on = 1;
	uint8_t *place = buf_map(buffer, bytes, PROT_READ | PROT_WRITE);
	size_t sent = 0, got = 0;
	int listener, from, to;
	socklen_t length;
	uint64_t start;
	ssize_t k;

	memset(place, 0, bytes);
	listener = bind_here(AF_INET, SOCK_STREAM, &address, &length);
	if (listen(listener, 1))
		bail("listen");
	from = connect_there(AF_INET, SOCK_STREAM, &address, length);
	to = accept(listener, NULL, NULL);
	setsockopt(from, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	start = now();
	while (got < bytes) {
		if (sent < bytes) {
			k = send(from, packets, bytes - sent < piece ? bytes - sent : piece,
				 MSG_DONTWAIT);
			sent += k > 0 ? k : 0;
		}
		k = recv(to, place + got, bytes - got, MSG_DONTWAIT);
		if (k < 0 && errno != EAGAIN)
			bail("recv");
		got += k > 0 ? k : 0;
	}
	start = now() - start;
	close(from);
	close(to);
	close(listener);
	munmap(place, bytes);
	close(buffer);
	return (double)start / n;
}

int main(int argc, char **argv)
{
	long n;

	if (argc < 3)
		return 2;
	/* Whole batches, whole units. */
	n = atol(argv[2]) / 192 * 192;
	dev = dev_open();
	ifindex = if_nametoindex("lslm0");
	verdicts = bpf_object__open_file(argv[1], NULL);
	packets = malloc((size_t)n * SIZE);
	/* Without it libsodium takes its portable code, whatever the processor can do. */
	if (sodium_init() < 0)
		bail("sodium_init");
	if (!verdicts || bpf_object__load(verdicts) || !packets)
		bail("BPF programs");
	for (int i = 0; i < BATCH; i++) {
		in_vec[i] = (struct iovec){ staging[i], sizeof(staging[i]) };
		in[i].msg_hdr = (struct msghdr){ .msg_iov = &in_vec[i], .msg_iovlen = 1 };
	}
	for (int plain = 1; plain >= 0; plain--) {
		for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
			if (argc > 3 && strcmp(argv[3], modes[i].name))
				continue;
			printf("%s %s %.1f\n", modes[i].name, plain ? "plain" : "chacha20poly1305",
			       measure(&modes[i], n, plain));
			fflush(stdout);
		}
	}
	printf("tcp plain %.1f\n", measure_tcp(n));
	return 0;
}
