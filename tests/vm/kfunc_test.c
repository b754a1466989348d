// SPDX-License-Identifier: MIT
/*
 * The module called from BPF: what it answers to calls of every kind, and the real steering
 * programs on an interface (remote.h says which). Run as root with the module loaded:
 * kfunc_test call.bpf.o
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "call.h"
#include "net/steer.h"
#include "remote.h"

enum { CHUNK = 1344, CHUNKS = 16, BYTES = CHUNK * CHUNKS, HEADERS = 42 };

static int dev;

struct caller {
	struct bpf_object *object;
	int xdp, tc, map;
};

static bool load(struct caller *c, const char *path)
{
	c->object = bpf_object__open_file(path, NULL);
	if (!c->object || bpf_object__load(c->object))
		return false;
	c->xdp = bpf_program__fd(bpf_object__find_program_by_name(c->object, "call_xdp"));
	c->tc = bpf_program__fd(bpf_object__find_program_by_name(c->object, "call_tc"));
	c->map = bpf_object__find_map_fd_by_name(c->object, "calls");
	return true;
}

/* Run a program on a frame; what the module answered. */
static int answer(const struct caller *c, bool xdp, struct call what, const void *frame,
		  size_t size, uint32_t gso_size)
{
	struct __sk_buff ctx = { .gso_size = gso_size, .gso_segs = gso_size ? 2 : 0 };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = size, .repeat = 1);
	const uint32_t zero = 0;

	if (!xdp) {
		opts.ctx_in = &ctx;
		opts.ctx_size_in = sizeof(ctx);
	}
	what.answer = 77;
	if (bpf_map_update_elem(c->map, &zero, &what, 0) ||
	    bpf_prog_test_run_opts(xdp ? c->xdp : c->tc, &opts) ||
	    bpf_map_lookup_elem(c->map, &zero, &what))
		bail("running a BPF program");
	return what.answer;
}

/* A frame with a DATA datagram of chunk i where a UDP payload would be. */
static size_t make_frame(uint8_t *frame, struct session *s, uint32_t generation, int i,
			 const uint8_t *data)
{
	const struct lslm_header h = next_header(s, 0, generation, i * CHUNK);

	memset(frame, 0, HEADERS);
	return seal_packet(frame + HEADERS, &h, data + i * CHUNK, CHUNK, s->secret);
}

static void test_refusals(const struct caller *c, bool xdp, struct session *s, const uint8_t *frame,
			  size_t length, const char *kind)
{
	const size_t size = HEADERS + length;
	const struct call good = { .session = s->number,
				   .offset = HEADERS,
				   .place.length = length };
	uint8_t other[2048];
	struct call w;

	memcpy(other, frame, size);
	other[HEADERS] = LSLM_OP_PROBE;
	w = good, w.small = 1;
	is(answer(c, xdp, w, frame, size, 0), -EINVAL, "%s: a structure too small", kind);
	w = good, w.place.flags = 1;
	is(answer(c, xdp, w, frame, size, 0), -EINVAL, "%s: flags", kind);
	w = good, w.place.length++;
	is(answer(c, xdp, w, frame, size, 0), -EINVAL, "%s: longer than the packet", kind);
	w = good, w.offset++;
	is(answer(c, xdp, w, frame, size, 0), -EINVAL, "%s: across its end", kind);
	w = good, w.offset = UINT32_MAX, w.place.length = 2;
	is(answer(c, xdp, w, frame, size, 0), -EINVAL, "%s: an offset that wraps", kind);
	w = good, w.place.length = UINT32_MAX - HEADERS + 1;
	is(answer(c, xdp, w, frame, size, 0), -EINVAL, "%s: a length that wraps", kind);
	w = good, w.place.length = 0;
	is(answer(c, xdp, w, frame, size, 0), -EAGAIN, "%s: an empty datagram", kind);
	w = good, w.offset = size, w.place.length = 0;
	is(answer(c, xdp, w, frame, size, 0), -EAGAIN, "%s: an empty one at the end", kind);
	is(answer(c, xdp, good, other, size, 0), -EAGAIN, "%s: no DATA", kind);
	w = good, w.session ^= 1;
	is(answer(c, xdp, w, frame, size, 0), -ENOENT, "%s: no such session", kind);
	is(session_seen(s->fd), s->sent, "%s: none of them is counted", kind);
}

static void test_answers(const struct caller *c, bool xdp)
{
	const char *kind = xdp ? "XDP" : "TC";
	struct session s = session_open(dev, AF_INET, 1, 64);
	const int buffer = buf_create(dev, BYTES, 0);
	uint8_t *p = buf_map(buffer, BYTES, PROT_READ);
	static uint8_t data[BYTES], frame[8192];
	const int64_t g = region_bind(s.fd, 0, buffer, 0, CHUNK, 1, BYTES);
	struct call good = { .session = s.number, .offset = HEADERS };
	struct lslm_session_stats stats;
	size_t length;

	fill_pattern(data, BYTES, 6 + xdp);
	length = make_frame(frame, &s, g, 0, data);
	good.place.length = length;
	test_refusals(c, xdp, &s, frame, length, kind);
	is(answer(c, xdp, good, frame, HEADERS + length, 0), 0, "%s: a good one is taken", kind);
	ok(!memcmp(p, data, CHUNK), "%s: and placed", kind);
	is(answer(c, xdp, good, frame, HEADERS + length, 0), 0, "%s: a replay is taken", kind);
	make_frame(frame, &s, g, 1, data);
	if (xdp) {
		/* What lies beyond a page is in pieces, which XDP programs cannot hand over. */
		make_frame(frame + 6000, &s, g, 1, data);
		good.offset = 6000 + HEADERS;
		is(answer(c, xdp, good, frame, sizeof(frame), 0), -EAGAIN, "XDP: in pieces");
	} else {
		is(answer(c, xdp, good, frame, HEADERS + length, 600), -EAGAIN, "TC: a batch");
	}
	stats = session_stats(s.fd);
	is(xdp ? stats.out_by_xdp : stats.out_by_tc, 2, "%s: two are counted", kind);
	is(stats.out_placed, 1, "%s: of which one was placed", kind);
	is(stats.out_drops[LSLM_DROP_REPLAY], 1, "%s: and the other dropped", kind);
	/* A closed socket ends it for BPF too. */
	close(s.socket);
	s.socket = -1;
	good.offset = HEADERS;
	make_frame(frame, &s, g, 1, data);
	is(answer(c, xdp, good, frame, HEADERS + length, 0), -ENOENT, "%s: socket closed", kind);
	munmap(p, BYTES);
	session_close(&s);
	close(buffer);
}

/* Sessions of another namespace cannot be reached, whatever the program says. */
static void test_namespaces(const struct caller *c, bool xdp)
{
	const char *kind = xdp ? "XDP" : "TC";
	struct session s;
	uint8_t frame[64] = { 0 };
	struct call call = { .offset = HEADERS, .place.length = 22 };

	frame[HEADERS] = LSLM_OP_DATA;
	enter(THERE);
	s = session_open(dev, AF_INET, 1, 64);
	call.session = s.number;
	is(answer(c, xdp, call, frame, sizeof(frame), 0), 0, "%s: found where it lives", kind);
	enter(HERE);
	is(answer(c, xdp, call, frame, sizeof(frame), 0), -ENOENT, "%s: nowhere else", kind);
	is(session_seen(s.fd), 1, "%s: one was counted", kind);
	session_close(&s);
}

/* A session on lslm0, whose sender is in the other namespace. */
static struct session open_remote(int family, uint16_t *port)
{
	struct session s = { .ring_entries = 64 };
	struct sockaddr_storage address;
	socklen_t length;

	s.socket = bind_here(family, SOCK_DGRAM, &address, &length);
	s.sender = connect_there(family, SOCK_DGRAM, &address, length);
	*port = port_of(&address);
	s.fd = session_create(dev, s.socket, 1, 64, &s.number);
	if (s.fd < 0)
		bail("LSLM_SESSION_CREATE");
	session_map(&s);
	memset(s.secret, 5, sizeof(s.secret));
	if (session_key(s.fd, 0, LSLM_CIPHER_CHACHA20POLY1305, s.secret, 1ULL << 48, 600))
		bail("LSLM_SESSION_KEY");
	return s;
}

static void send_through(struct session *s, struct steer *steer, int buffer, bool xdp,
			 const char *name)
{
	const int64_t g = region_bind(s->fd, 0, buffer, 0, CHUNK, 4, BYTES / 4);
	uint8_t *p = buf_map(buffer, BYTES, PROT_READ), control[64] = { LSLM_OP_PROBE, 1 };
	static uint8_t data[BYTES];
	struct pollfd ready = { .fd = s->socket, .events = POLLIN };
	struct steer_counter counters[STEER_COUNTERS];
	struct lslm_session_stats stats;
	struct lslm_header forged;
	struct lslm_error err;
	bool seen = true;

	fill_pattern(data, BYTES, s->number);
	for (int i = CHUNKS - 1; i >= 0; i--)
		seen &= send_chunk(s, 0, g, i * CHUNK, data + i * CHUNK, CHUNK);
	forged = next_header(s, 0, g, 0);
	forged.counter = 0;
	send_sealed(s, &forged, data, CHUNK);
	send(s->sender, control, sizeof(control), 0);
	ok(seen, "%s: every datagram is seen", name);
	ok(!memcmp(p, data, BYTES), "%s: and in its place", name);
	stats = session_stats(s->fd);
	is(xdp ? stats.out_by_xdp : stats.out_by_tc, CHUNKS + 1, "%s: by that way", name);
	is(stats.out_by_encap, 0, "%s: none by the socket", name);
	is(stats.out_drops[LSLM_DROP_REPLAY], 1, "%s: a replay is refused", name);
	is(s->ring->producer, 4, "%s: units are told", name);
	is(poll(&ready, 1, 60000), 1, "%s: what is no data reaches the socket", name);
	is(steer_stats(steer, counters, &err), 0, "%s: statistics", name);
	is(counters[STEER_PLACED].frames, CHUNKS + 1, "%s: which count the same", name);
	munmap(p, BYTES);
}

static void test_steering(enum steer_mode mode, bool xdp, int family, const char *name)
{
	uint16_t port;
	struct session s = open_remote(family, &port);
	const int buffer = buf_create(dev, BYTES, 0);
	struct lslm_error err;
	struct steer *steer;

	if (!ok(!steer_open(&steer, "lslm0", mode, &err), "%s: steering", name)) {
		printf("# %s\n", err.text);
		return;
	}
	printf("# %s\n", steer_describe(steer));
	ok(steer_is_placing(steer), "%s: the module places", name);
	is(steer_port(steer, port, s.number, CHUNK + LSLM_WIRE_OVERHEAD, NULL, &err), 0,
	   "%s: a port", name);
	send_through(&s, steer, buffer, xdp, name);
	steer_close(steer);
	session_close(&s);
	close(buffer);
}

int main(int argc, char **argv)
{
	struct caller caller;

	if (argc != 2)
		return 2;
	dev = dev_open();
	ok(dev_has(dev, LSLM_FEATURE_BTF) && dev_has(dev, LSLM_FEATURE_PLACE_XDP) &&
		   dev_has(dev, LSLM_FEATURE_PLACE_TC),
	   "GET_INFO says that BPF programs can call the module");
	if (!ok(load(&caller, argv[1]), "programs that call it load"))
		return tap_done();
	for (int xdp = 0; xdp < 2; xdp++) {
		test_answers(&caller, xdp);
		test_namespaces(&caller, xdp);
	}
	bpf_object__close(caller.object);
	test_steering(STEER_XDP, true, AF_INET, "XDP, IPv4");
	test_steering(STEER_XDP, true, AF_INET6, "XDP, IPv6");
	test_steering(STEER_GENERIC, true, AF_INET, "generic XDP");
	test_steering(STEER_TC, false, AF_INET, "TC, IPv4");
	test_steering(STEER_TC, false, AF_INET6, "TC, IPv6");
	test_steering(STEER_CLSACT, false, AF_INET, "clsact");
	close(dev);
	return tap_done();
}
