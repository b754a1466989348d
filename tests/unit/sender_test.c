// SPDX-License-Identifier: MIT
/*
 * The cloud's UDP side over loopback, with an edge written from the specification (tests/placement.h).
 * What a session does with what it is told is sender_session_test's.
 */
#include "unit.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "net/sender.h"
#include "placement.h"
#include "synthetic.h"

#define MS 1000000ULL

enum { EDGE = 4711, PATIENCE_S = 60 };

static char dir[] = "/tmp/lslm-sender-XXXXXX";
static char path[64], other[64];
static const struct synthetic shape = {
	.n_layer = 4, .n_head_kv = 3, .head_dim = 64, .n_tokens = 64 * 30
};
static const struct synthetic second = {
	.n_layer = 1, .n_head_kv = 1, .head_dim = 64, .n_tokens = 64 * 2, .seed = 1
};

static int setup(void **state)
{
	struct lslm_error err;
	struct kv_hash key;

	if (sodium_init() < 0 || !mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/context.lskv", dir);
	snprintf(other, sizeof(other), "%s/other.lskv", dir);
	return synthetic_write(&shape, path, &key, &err) ?:
		       synthetic_write(&second, other, &key, &err);
}

static int teardown(void **state)
{
	unlink(path);
	unlink(other);
	return rmdir(dir);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 * MS + (uint64_t)ts.tv_nsec;
}

/* ---- a sender ---- */

struct address {
	struct sockaddr_in6 at; /* of either family */
	socklen_t len;
};

static struct address address_of(const char *text, uint16_t port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct address a = { .at = { .sin6_family = AF_INET6, .sin6_port = htons(port) } };

	a.len = sizeof(a.at);
	if (inet_pton(AF_INET6, text, &a.at.sin6_addr) == 1)
		return a;
	assert_int_equal(inet_pton(AF_INET, text, &v4.sin_addr), 1);
	a.len = sizeof(v4);
	memcpy(&a.at, &v4, sizeof(v4));
	return a;
}

static struct sender *start(const char *text, struct sender_opts opts)
{
	struct address a = address_of(text, 0);
	struct lslm_error err = { 0 };
	struct sender *s;

	opts.address = (struct sockaddr *)&a.at;
	opts.address_len = a.len;
	assert_ok(sender_start(&s, &opts, &err), &err);
	return s;
}

static struct sender_stats stats_of(struct sender *s)
{
	struct sender_stats st;

	sender_stats(s, &st);
	return st;
}

static int open_as(struct sender *s, const char *file, const char *client, uint8_t owner,
		   struct sender_grant *grant)
{
	struct address a = address_of(client, 9);
	struct sender_client who = { .address = (struct sockaddr *)&a.at };
	struct lslm_error err = { 0 };
	unsigned int wait_s;
	struct lskv *f;
	int ret;

	memset(&who.owner, owner, sizeof(who.owner));
	assert_ok(lskv_open(&f, file, &err), &err);
	ret = sender_open(s, f, EDGE, &who, grant, &wait_s, &err);
	if (ret < 0) {
		assert_true(wait_s > 0);
		assert_int_equal(err.code, ret);
	}
	return ret;
}

static int end_as(struct sender *s, const char *id, uint8_t owner)
{
	struct sender_client who = { 0 };

	memset(&who.owner, owner, sizeof(who.owner));
	return sender_end(s, id, &who, NULL);
}

/* ---- an edge ---- */

struct edge {
	int fd;
	struct placement p;
	const struct synthetic *shape;
	uint64_t report_at;
};

static void edge_open(struct edge *e, const struct synthetic *x, const struct sender_grant *g,
		      const char *to, int port)
{
	const struct kv_geometry geo = { x->n_layer, x->n_head_kv, x->head_dim };
	struct address a = address_of(to, (uint16_t)port);
	int room = 4 << 20;

	e->shape = x;
	e->report_at = 0;
	placement_init(&e->p, &geo, x->n_tokens / KV_BLOCK_TOKENS, EDGE);
	e->p.cloud = g->session;
	placement_key(&e->p, g->pair.key, g->pair.to_edge, g->pair.to_cloud, g->pair.max_packets);
	e->fd = socket(a.at.sin6_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	setsockopt(e->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	/* Connected: an answer from another address would not be seen. */
	assert_int_equal(connect(e->fd, (struct sockaddr *)&a.at, a.len), 0);
}

static void edge_close(struct edge *e)
{
	close(e->fd);
	placement_free(&e->p);
}

static void edge_send(struct edge *e, const uint8_t *packet, size_t size)
{
	assert_int_equal(send(e->fd, packet, size, 0), size);
}

/* Whatever has come, and a REPORT when it is time. */
static void edge_turn(struct edge *e)
{
	static uint8_t packet[65536];
	struct pollfd p = { e->fd, POLLIN, 0 };
	ssize_t size;

	poll(&p, 1, 5);
	for (int i = 0; i < 256; i++) {
		size = recv(e->fd, packet, sizeof(packet), MSG_DONTWAIT);
		if (size < 0)
			break;
		placement_take(&e->p, packet, (size_t)size, now_ns());
	}
	if (now_ns() < e->report_at)
		return;
	e->report_at = now_ns() + 5 * MS;
	edge_send(e, packet, placement_report(&e->p, packet, now_ns(), e->p.chunk, 0));
}

static void edge_probe(struct edge *e, uint32_t largest)
{
	uint64_t until = now_ns() + PATIENCE_S * 1000 * MS;
	uint8_t packet[128];

	while (e->p.probe_size != largest && now_ns() < until) {
		edge_send(e, packet, placement_hello(&e->p, packet, largest));
		for (int i = 0; i < 20 && e->p.probe_size != largest; i++)
			edge_turn(e);
	}
	assert_int_equal(e->p.probe_size, largest);
}

static void edge_fetch(struct edge *e)
{
	uint64_t until = now_ns() + PATIENCE_S * 1000 * MS;

	while (placement_missing(&e->p) && now_ns() < until)
		edge_turn(e);
	assert_int_equal(placement_missing(&e->p), 0);
}

static void edge_check(const struct edge *e)
{
	size_t size = (size_t)e->p.unit_bytes * e->p.n_units;
	uint8_t *want = malloc(size);

	for (uint32_t s = 0; s < e->p.rx.n_slots; s++) {
		synthetic_stripe(e->shape, s, want);
		assert_memory_equal(e->p.memory[s], want, size);
	}
	free(want);
}

/* ---- batches ---- */

/* Equal runs, short ends, growing ones, and one that is larger than UDP can be: all but that arrive, in order. */
static void dgram__batches(void **state)
{
	static const size_t sizes[] = { 1400, 1400, 1400, 700,	1400, 1400, 1300,
					1300, 1,    2,	  3,	8000, 8000, 8000,
					8000, 8000, 8000, 8000, 8000, 8000, 65507 };
	static uint8_t got[65536];
	static struct dgram_out out;
	static struct dgram_in in[DGRAM_IN];
	struct address a = address_of("127.0.0.1", 0);

	for (int segments = 0; segments < 2; segments++) {
		struct dgram d, e;
		struct dgram_endpoint to = { 0 };
		struct lslm_error err = { 0 };
		int room = 4 << 20;

		assert_ok(dgram_open(&d, (struct sockaddr *)&a.at, a.len, &err), &err);
		assert_ok(dgram_open(&e, (struct sockaddr *)&a.at, a.len, &err), &err);
		setsockopt(e.fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
		assert_non_null(strstr(dgram_path(&d), "UDP"));
		d.segments = d.segments && segments;
		to.peer.v4 = *(struct sockaddr_in *)&a.at;
		to.peer.v4.sin_port = htons((uint16_t)dgram_port(&e));
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			memset(dgram_room(&out, sizes[i]), (int)i + 1, sizes[i]);
			dgram_add(&out, sizes[i]);
		}
		/* No datagram is so large. */
		assert_non_null(dgram_room(&out, 65520));
		dgram_add(&out, 65520);
		assert_null(dgram_room(&out, DGRAM_OUT_BYTES));
		dgram_send(&d, &out, &to);
		assert_int_equal(out.n, 0);
		assert_int_equal(d.refused, 1);
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			struct pollfd p = { e.fd, POLLIN, 0 };

			assert_int_equal(poll(&p, 1, 10000), 1);
			assert_int_equal(recv(e.fd, got, sizeof(got), 0), sizes[i]);
			assert_int_equal(got[0], i + 1);
			assert_int_equal(got[sizes[i] - 1], i + 1);
		}
		assert_int_equal(dgram_receive(&d, in), 0);
		dgram_close(&d);
		dgram_close(&e);
	}
}

/* ---- cases ---- */

static void sender__whole_context_over_loopback(void **state)
{
	static const struct {
		const char *listen, *to;
		uint32_t datagram;
	} cases[] = {
		{ "127.0.0.1", "127.0.0.1", 1472 },
		{ "127.0.0.1", "127.0.0.1", 8952 },
		{ "::1", "::1", 1452 },
		/* Answers come from the address that was asked, not from the first one there is. */
		{ "0.0.0.0", "127.0.0.7", 1472 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct sender *s = start(cases[i].listen, (struct sender_opts){ 0 });
		struct sender_grant grant;
		struct sender_stats st;
		uint64_t begun;
		struct edge e;

		assert_int_equal(open_as(s, path, cases[i].to, 0, &grant), 0);
		edge_open(&e, &shape, &grant, cases[i].to, sender_port(s));
		edge_probe(&e, cases[i].datagram);
		placement_bind(&e.p, (cases[i].datagram - LSLM_WIRE_OVERHEAD) / 64 * 64);
		begun = now_ns();
		edge_fetch(&e);
		edge_check(&e);
		st = stats_of(s);
		print_message("# %s, %u: %.0f Mbit/s, %lu sent, %lu again, %s\n", cases[i].listen,
			      cases[i].datagram,
			      (double)e.p.rx.placed_bytes * 8e3 / (double)(now_ns() - begun),
			      st.sent, st.again, sender_path(s));
		assert_int_equal(e.p.rx.drops[LSLM_DROP_FORGED], 0);
		assert_int_equal(st.sessions, 1);
		assert_true(st.sent_bytes >= e.p.rx.placed_bytes);
		edge_close(&e);
		sender_stop(s);
	}
}

/* A session is stopped, removed, ended in the middle of sending; the others go on. */
static void sender__ends_in_the_middle(void **state)
{
	struct sender *s = start("127.0.0.1", (struct sender_opts){ 0 });
	struct sender_grant grant[3];
	struct lslm_error err;
	struct edge e[3];
	struct lskv *f;

	for (int i = 0; i < 3; i++) {
		assert_int_equal(open_as(s, i == 1 ? other : path, "127.0.0.1", 0, &grant[i]), 0);
		edge_open(&e[i], i == 1 ? &second : &shape, &grant[i], "127.0.0.1", sender_port(s));
		placement_bind(&e[i].p, 256);
	}
	for (int i = 0; i < 5; i++)
		edge_turn(&e[0]), edge_turn(&e[2]);
	assert_true(placement_missing(&e[0].p) > 0);
	assert_int_equal(end_as(s, grant[0].id, 0), 0);
	assert_int_equal(end_as(s, grant[0].id, 0), -ENOENT);
	assert_int_equal(stats_of(s).sessions, 2);
	assert_ok(lskv_open(&f, path, &err), &err);
	sender_forget(s, &lskv_manifest(f)->key);
	lskv_close(f);
	assert_int_equal(stats_of(s).sessions, 1);
	edge_fetch(&e[1]);
	edge_check(&e[1]);
	sender_stop(s);
	for (int i = 0; i < 3; i++)
		edge_close(&e[i]);
}

static void sender__limits(void **state)
{
	struct sender *s = start("127.0.0.1", (struct sender_opts){ .max_sessions = 10 });
	struct sender_grant grant[10], more;
	struct sender_client who = { 0 };
	unsigned int wait_s;

	/* Four of one context and address. */
	for (int i = 0; i < 4; i++)
		assert_int_equal(open_as(s, path, "10.0.0.1", (uint8_t)i, &grant[i]), 0);
	assert_int_equal(open_as(s, path, "10.0.0.1", 9, &more), -EUSERS);
	for (int i = 4; i < 8; i++)
		assert_int_equal(open_as(s, other, "10.0.0.1", 0, &grant[i]), 0);
	assert_int_equal(open_as(s, other, "10.0.0.1", 0, &more), -EUSERS);
	assert_int_equal(open_as(s, other, "10.0.0.2", 0, &grant[8]), 0);
	assert_int_equal(open_as(s, other, "fd00::1", 0, &grant[9]), 0);
	assert_int_equal(open_as(s, other, "fd00::2", 0, &more), -EBUSY);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(strlen(grant[i].id), SENDER_ID_TEXT - 1);
		assert_int_not_equal(grant[i].session, 0);
		for (int j = 0; j < i; j++) {
			assert_string_not_equal(grant[i].id, grant[j].id);
			assert_int_not_equal(grant[i].session, grant[j].session);
			assert_memory_not_equal(grant[i].pair.to_edge, grant[j].pair.to_edge, 32);
			assert_memory_not_equal(grant[i].pair.to_edge, grant[j].pair.to_cloud, 32);
		}
	}
	/* Only its owner can end or renew it. */
	assert_int_equal(end_as(s, grant[3].id, 2), -ENOENT);
	memset(&who.owner, 2, sizeof(who.owner));
	assert_int_equal(sender_renew(s, grant[3].id, &who, &more, &wait_s, NULL), -ENOENT);
	assert_int_equal(sender_renew(s, grant[2].id, &who, &more, &wait_s, NULL), 0);
	assert_string_equal(more.id, grant[2].id);
	assert_int_equal(more.session, grant[2].session);
	assert_int_equal(end_as(s, "", 0), -ENOENT);
	assert_int_equal(end_as(s, grant[3].id, 3), 0);
	assert_int_equal(open_as(s, path, "10.0.0.1", 9, &more), 0);
	assert_int_equal(stats_of(s).sessions, 10);
	assert_int_equal(stats_of(s).granted, 11);
	sender_stop(s);

	/* All there may be. */
	s = start("127.0.0.1",
		  (struct sender_opts){ .max_sessions = 1000, .max_per_client = 1000 });
	for (int i = 0; i < SENDER_SESSIONS; i++)
		assert_int_equal(open_as(s, path, "10.0.0.1", 0, &more), 0);
	assert_int_equal(open_as(s, path, "10.0.0.1", 0, &more), -EBUSY);
	sender_stop(s);
}

static void sender__forgets_the_silent(void **state)
{
	struct sender *s = start("127.0.0.1", (struct sender_opts){ .idle_ms = 3000 });
	const uint64_t until = now_ns() + PATIENCE_S * 1000 * MS;
	struct sender_grant grant[2];
	struct edge e;

	assert_int_equal(open_as(s, path, "127.0.0.1", 0, &grant[0]), 0);
	assert_int_equal(open_as(s, path, "127.0.0.1", 0, &grant[1]), 0);
	edge_open(&e, &shape, &grant[1], "127.0.0.1", sender_port(s));
	/* One of them speaks. */
	while (stats_of(s).sessions > 1 && now_ns() < until)
		edge_turn(&e);
	assert_int_equal(stats_of(s).sessions, 1);
	assert_int_equal(end_as(s, grant[0].id, 0), -ENOENT);
	for (int i = 0; i < 600 && stats_of(s).sessions; i++)
		usleep(50000);
	assert_int_equal(stats_of(s).sessions, 0);
	assert_int_equal(stats_of(s).expired, 2);
	edge_close(&e);
	sender_stop(s);
}

/* What anybody may send, each counted under its reason. */
static void sender__garbage(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
		enum sender_drop want;
	} cases[] = {
		{ 0, LSLM_OP_DATA, SENDER_DROP_HEADER },
		{ 0, LSLM_OP_PROBE, SENDER_DROP_HEADER },
		{ 0, 0, SENDER_DROP_HEADER },
		{ 0, 5, SENDER_DROP_HEADER },
		{ 1, 0, SENDER_DROP_HEADER },
		{ 1, 2, SENDER_DROP_HEADER },
		{ 2, 4, SENDER_DROP_HEADER },
		{ 2, 1, SENDER_DROP_KEY },
		{ 3, 1, SENDER_DROP_HEADER },
		{ 4, 0, SENDER_DROP_SESSION },
		{ 7, 0, SENDER_DROP_SESSION },
		{ 15, 0, SENDER_DROP_HEADER }, /* no control datagram */
		{ 32, 0, SENDER_DROP_FORGED },
	};
	static const size_t lengths[] = { 0, 1, 31, 47, 2049, 60000 };
	struct sender *s = start("127.0.0.1", (struct sender_opts){ 0 });
	uint64_t want[SENDER_DROP_COUNT] = { 0 }, sent = 0;
	static uint8_t packet[65536], copy[2048];
	struct sender_grant grant;
	struct sender_stats st;
	struct edge e;
	size_t size;

	assert_int_equal(open_as(s, other, "127.0.0.1", 0, &grant), 0);
	edge_open(&e, &second, &grant, "127.0.0.1", sender_port(s));
	placement_bind(&e.p, 1152);
	size = placement_report(&e.p, packet, now_ns(), true, 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		memcpy(copy, packet, size);
		/* It differs, whatever is there. */
		copy[cases[i].at] = cases[i].at == 4 || cases[i].at == 7 || cases[i].at == 32 ?
					    (uint8_t)~copy[cases[i].at] :
					    cases[i].value;
		edge_send(&e, copy, size);
		want[cases[i].want]++;
		sent++;
	}
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++, sent++) {
		edge_send(&e, packet, lengths[i]);
		want[SENDER_DROP_HEADER]++;
	}
	/* The genuine one, twice. */
	edge_send(&e, packet, size);
	edge_send(&e, packet, size);
	want[SENDER_DROP_NONE]++;
	want[SENDER_DROP_REPLAY]++;
	sent += 2;
	for (int i = 0; i < 600 && stats_of(s).received < sent; i++)
		usleep(50000);
	st = stats_of(s);
	assert_int_equal(st.received, sent);
	for (int i = 0; i < SENDER_DROP_COUNT; i++) {
		assert_string_not_equal(sender_drop_name(i), "?");
		assert_int_equal(st.drops[i], want[i]);
	}
	edge_fetch(&e);
	edge_check(&e);
	edge_close(&e);
	sender_stop(s);
}

static void sender_start__port_in_use(void **state)
{
	struct sender *s = start("127.0.0.1", (struct sender_opts){ 0 }), *more;
	struct address a = address_of("127.0.0.1", (uint16_t)sender_port(s));
	struct sender_opts opts = { .address = (struct sockaddr *)&a.at, .address_len = a.len };
	struct lslm_error err = { 0 };

	assert_int_equal(sender_start(&more, &opts, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "UDP"));
	sender_stop(s);
	sender_stop(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dgram__batches),
		cmocka_unit_test(sender__whole_context_over_loopback),
		cmocka_unit_test(sender__ends_in_the_middle),
		cmocka_unit_test(sender__limits),
		cmocka_unit_test(sender__forgets_the_silent),
		cmocka_unit_test(sender__garbage),
		cmocka_unit_test(sender_start__port_in_use),
	};

	return cmocka_run_group_tests_name("sender", tests, setup, teardown);
}
