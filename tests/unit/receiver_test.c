// SPDX-License-Identifier: MIT
/*
 * The edge's protocol over real sockets and a real session, against a cloud that is good, bad,
 * silent or lying (peer.h), and against the real one's sender.
 */
#include "unit.h"

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <sys/socket.h>

#include "net/receiver.h"
#include "net/sender.h"
#include "net/sites.h"
#include "net/steer.h"
#include "net/udp.h"
#include "net/wants.h"
#include "peer.h"
#include "sink.h"
#include "synthetic.h"

/* 4.7 MiB; blocks of 24 KiB are no multiple of any chunk. */
static const struct synthetic shape = {
	.n_layer = 5, .n_head_kv = 3, .head_dim = 32, .n_tokens = 64 * 40 + 3
};
/* More stripes than slots. */
static const struct synthetic long_shape = {
	.n_layer = 2, .n_head_kv = 1, .head_dim = 8, .n_tokens = 64 * (WANTS_SLOTS + 300)
};

static char path[] = "/tmp/lslm-receiver-XXXXXX";

static int setup(void **state)
{
	return mkstemp(path) < 0;
}

static int teardown(void **state)
{
	return unlink(path);
}

static atomic_bool over;

/* ---- both ends ---- */

struct rig {
	struct lskv *file;
	struct sink sink;
	uint8_t *data; /* the context */
	struct peer peer;
	/* In place of the peer, when it is not NULL. */
	struct sender *sender;
	struct sender_client who;
	struct sender_grant granted;
	/* How the edge is to be; before rig_run(). */
	uint64_t max_packets; /* of each pair of keys */
	int answer_ms, stall_ms;
	bool renews; /* it may ask for keys */
	bool refuses; /* and gets none */
	struct steer *steer;
	struct site *site;
	uint16_t port; /* of the edge, while it runs */
	/* What came of it. */
	struct lslm_error err;
	struct receiver *receiver;
	struct receiver_stats stats;
	struct session_stats session;
};

static void rig_make(struct rig *rig, const struct synthetic *x, enum order_kind order)
{
	struct lslm_error err = { 0 };
	struct kv_hash key;

	memset(rig, 0, sizeof(*rig));
	assert_ok(synthetic_write(x, path, &key, &err), &err);
	assert_ok(lskv_open(&rig->file, path, &err), &err);
	sink_make_buffer(&rig->sink, lskv_manifest(rig->file), order);
	rig->data = sink_wanted(&rig->sink, x);
	rig->max_packets = 1 << 30;
	rig->peer.sink = &rig->sink;
	rig->peer.data = rig->data;
	rig->peer.family = AF_INET;
	rig->peer.arg = rig;
}

static void rig_free(struct rig *rig)
{
	sink_free(&rig->sink);
	lskv_close(rig->file);
	free(rig->data);
}

static struct grant_keys pair_of(const struct sender_grant *g)
{
	struct grant_keys keys = { .key = g->pair.key,
				   .max_packets = g->pair.max_packets,
				   .lifetime_s = g->pair.lifetime_s };

	memcpy(keys.to_edge, g->pair.to_edge, sizeof(keys.to_edge));
	memcpy(keys.to_cloud, g->pair.to_cloud, sizeof(keys.to_cloud));
	return keys;
}

static void renew(void *arg)
{
	struct rig *rig = arg;
	struct grant_keys keys;
	unsigned int wait_s;

	if (rig->refuses || (rig->sender && sender_renew(rig->sender, rig->granted.id, &rig->who,
							 &rig->granted, &wait_s, NULL))) {
		receiver_keys(rig->receiver, NULL);
		return;
	}
	keys = rig->sender ? pair_of(&rig->granted) : peer_grant(&rig->peer, rig->max_packets, 60);
	receiver_keys(rig->receiver, &keys);
}

static const struct sockaddr_in loopback = { .sin_family = AF_INET };

static void real_start(struct rig *rig)
{
	struct sender_opts opts = {
		.address_len = sizeof(loopback),
		.key_packets = rig->max_packets,
		.key_overlap_ms = 1,
	};
	struct sockaddr_in address = loopback;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	opts.address = (const struct sockaddr *)&address;
	assert_ok(sender_start(&rig->sender, &opts, &rig->err), &rig->err);
}

static struct grant real_grant(struct rig *rig, uint32_t number)
{
	static struct sockaddr_in address;
	struct grant grant = { 0 };
	unsigned int wait_s;
	struct lskv *file;

	address = loopback;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	rig->who.address = (const struct sockaddr *)&address;
	assert_ok(lskv_open(&file, path, &rig->err), &rig->err);
	assert_ok(sender_open(rig->sender, file, number, &rig->who, &rig->granted, &wait_s,
			      &rig->err),
		  &rig->err);
	grant.session = rig->granted.session;
	grant.port = (uint16_t)sender_port(rig->sender);
	grant.keys = pair_of(&rig->granted);
	return grant;
}

static struct grant peer_session(struct rig *rig, uint32_t number)
{
	struct grant grant = { .session = PEER_NUMBER };

	grant.keys = peer_grant(&rig->peer, rig->max_packets, 60);
	peer_start(&rig->peer, number);
	grant.port = rig->peer.port;
	return grant;
}

static int rig_run(struct rig *rig)
{
	const char *address = rig->peer.family == AF_INET6 ? "::1" : "127.0.0.1";
	struct grant grant;
	struct receiver_opts opts = {
		.sink = &rig->sink,
		.grant = &grant,
		.peer = "the peer",
		.largest = 1472,
		.answer_timeout_ms = rig->answer_ms ? rig->answer_ms : 20000,
		.stall_timeout_ms = rig->stall_ms ? rig->stall_ms : 60000,
		.renew = rig->renews ? renew : NULL,
		.arg = rig,
		.steer = rig->steer,
		.site = rig->site,
	};
	struct sockaddr_in self = { 0 };
	socklen_t len = sizeof(self);
	struct session *session;
	int fd, ret;

	fd = udp_open(address, &rig->err);
	assert_ok(fd, &rig->err);
	assert_ok(session_open(&session, SESSION_TWIN, BUFFER_MEMFD, fd, wants_slots(&rig->sink),
			       &rig->err),
		  &rig->err);
	grant = rig->sender ? real_grant(rig, session_number(session)) :
			      peer_session(rig, session_number(session));
	assert_ok(udp_connect(fd, address, grant.port, &rig->err), &rig->err);
	getsockname(fd, (struct sockaddr *)&self, &len);
	rig->port = ntohs(self.sin_port);
	opts.socket = fd;
	opts.session = session;
	assert_ok(receiver_open(&rig->receiver, &opts, &rig->err), &rig->err);
	ret = receiver_run(rig->receiver, &rig->err);
	receiver_stats(rig->receiver, &rig->stats);
	session_stats(session, &rig->session);
	receiver_close(rig->receiver);
	if (!rig->sender)
		peer_stop(&rig->peer);
	session_close(session);
	close(fd);
	return ret;
}

/*
 * READY blocks are right, those of others untouched, and what is neither holds bytes of its place or
 * none.
 */
static void check_contents(struct rig *rig)
{
	const struct sink *sink = &rig->sink;
	const struct order *o = &sink->order;

	for (uint32_t i = 0; i < order_count(o); i++) {
		const uint8_t *is, *want;
		enum control_source from;
		uint32_t s, l;

		order_block(o, i, &s, &l);
		is = sink->base + s * sink->pitch + l * sink_block_bytes(sink);
		want = rig->data + (is - sink->base);
		from = control_get_source(sink->control, s, l);
		if (from == sink->from)
			assert_memory_equal(is, want, sink_block_bytes(sink));
		for (size_t at = 0; at < sink_block_bytes(sink) && from != sink->from; at++)
			if (is[at] != 0xee && (is[at] != want[at] || from != CONTROL_FROM_NONE))
				fail_msg("stripe %u, layer %u, byte %zu was written", s, l, at);
	}
}

/* And the cloud had nothing to complain of. */
static void rig_check(struct rig *rig)
{
	if (*rig->peer.complaint)
		fail_msg("the peer: %s", rig->peer.complaint);
	assert_true(rig->peer.over);
	assert_false(rig->peer.wrong_path);
	check_contents(rig);
}

static void rig_check_done(struct rig *rig, int ret)
{
	assert_ok(ret, &rig->err);
	assert_true(sink_is_done(&rig->sink));
	rig_check(rig);
}

/* ---- a good peer ---- */

/* Of a PROBE that a path of Ethernet's width takes. */
static bool is_chunk(uint32_t chunk)
{
	static const uint32_t some[] = { 1152, 1280, 1344, 1408 };

	for (size_t i = 0; i < ARRAY_LEN(some); i++)
		if (chunk == some[i])
			return true;
	return false;
}

/* Some PROBEs came after it had been decided: the cloud was so slow that it was asked again, or stood still between two. */
static bool is_late(const struct rig *rig)
{
	return rig->stats.hellos > 1 || rig->stats.chunk < 1408;
}

static void receiver_run__both_orders_and_families(void **state)
{
	unsigned int n_largest = 0;
	struct rig rig;

	for (int i = 0; i < 4; i++) {
		rig_make(&rig, &shape, i & 1 ? ORDER_TAIL : ORDER_LAYER);
		rig.peer.family = i & 2 ? AF_INET6 : AF_INET;
		rig_check_done(&rig, rig_run(&rig));
		assert_int_equal(rig.sink.ready, 200);
		assert_int_equal(rig.sink.received, rig.sink.size);
		/* A peer that stands still between two PROBEs makes it a smaller one. */
		assert_true(is_chunk(rig.stats.chunk));
		n_largest += rig.stats.chunk == 1408;
		assert_int_equal(rig.stats.chunk_changes, 0);
		rig_free(&rig);
	}
	assert_true(n_largest > 0);
}

/* In the order of need, however long: the window moves, and no block is asked for twice. */
static void receiver_run__more_stripes_than_slots(void **state)
{
	struct rig rig;

	for (int kind = ORDER_LAYER; kind <= ORDER_TAIL; kind++) {
		rig_make(&rig, &long_shape, kind);
		rig_check_done(&rig, rig_run(&rig));
		assert_int_equal(rig.sink.received, rig.sink.size);
		rig_free(&rig);
	}
}

static void receiver_run__only_what_is_wanted(void **state)
{
	struct rig rig;
	uint32_t wanted, n;

	for (int kind = ORDER_LAYER; kind <= ORDER_TAIL; kind++) {
		rig_make(&rig, &shape, kind);
		n = order_count(&rig.sink.order);
		rig.sink.head = 3;
		for (uint32_t i = wanted = 0; i < n; i++) {
			if (i % 3 == 1 || (i > 20 && i < 90) || i == n - 1)
				sink_preload(&rig.sink, i);
			wanted += sink_wants(&rig.sink, i);
		}
		assert_true(wanted > 50 && wanted < 150);
		rig_check_done(&rig, rig_run(&rig));
		assert_int_equal(rig.sink.ready, wanted);
		assert_int_equal(rig.sink.received, wanted * sink_block_bytes(&rig.sink));
		assert_int_equal(rig.peer.wanted_ready, 0);
		for (size_t at = 0; at < 3 * rig.sink.pitch; at++)
			assert_int_equal(rig.sink.base[at], 0xee);
		rig_free(&rig);
	}
}

/* The engine computes from the head meanwhile: the session is over where the two meet. */
static void move_head(struct peer *p, uint64_t n)
{
	struct rig *rig = p->arg;

	atomic_store(&rig->sink.head, (unsigned int)(n / 30));
}

static void receiver_run__until_the_head_is_met(void **state)
{
	struct rig rig;

	rig_make(&rig, &shape, ORDER_TAIL);
	rig.peer.on_data = move_head;
	rig_check_done(&rig, rig_run(&rig));
	assert_true(rig.sink.head > 5 && rig.sink.head < 38);
	assert_int_equal(control_get(rig.sink.control, 0, 0), CONTROL_WANTED);
	assert_int_equal(control_tail(rig.sink.control) <= rig.sink.head, 1);
	assert_true(rig.sink.ready < 190);
	rig_free(&rig);
}

/* ---- a bad path ---- */

static void receiver_run__loss_reordering_duplication(void **state)
{
	static const struct {
		unsigned int loss, reorder, duplicate;
	} cases[] = { { 1, 0, 0 }, { 5, 0, 0 }, { 20, 0, 0 }, { 0, 10, 10 }, { 20, 30, 30 } };
	struct rig rig;

	for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
		rig_make(&rig, &shape, i & 1 ? ORDER_TAIL : ORDER_LAYER);
		rig.peer.loss = cases[i / 2].loss;
		rig.peer.reorder = cases[i / 2].reorder;
		rig.peer.duplicate = cases[i / 2].duplicate;
		rig_check_done(&rig, rig_run(&rig));
		assert_int_equal(rig.sink.received, rig.sink.size);
		if (rig.peer.duplicate)
			assert_true(rig.session.drops[LSLM_DROP_REPLAY] > 50);
		rig_free(&rig);
	}
}

/* Longer than it takes to ask again: the path is the same afterwards, and so is the chunk. */
static void receiver_run__outage(void **state)
{
	struct rig rig;

	rig_make(&rig, &shape, ORDER_TAIL);
	rig.peer.mute = 1000;
	/* In silence one is sent every 150 ms, when what was saved is used up. */
	rig.peer.mute_until = 24;
	rig_check_done(&rig, rig_run(&rig));
	assert_true(rig.stats.hellos > 2);
	assert_int_equal(rig.stats.chunk_changes, 0);
	assert_int_equal(rig.sink.received, rig.sink.size);
	rig_free(&rig);
}

/* What was complete is not fetched again, what was not comes in smaller pieces. */
static void receiver_run__path_becomes_narrow(void **state)
{
	struct rig rig;
	uint64_t ready;

	for (int kind = ORDER_LAYER; kind <= ORDER_TAIL; kind++) {
		rig_make(&rig, &shape, kind);
		rig.peer.narrow = 1500;
		rig.peer.narrow_mtu = 1250;
		rig.peer.loss = 3;
		rig_check_done(&rig, rig_run(&rig));
		assert_int_equal(rig.stats.chunk, 1152);
		assert_int_equal(rig.stats.chunk_changes, 1);
		assert_int_equal(rig.peer.wanted_ready, 0);
		/* Twice came at most what was begun, a REPORT's blocks. */
		ready = rig.sink.received - rig.sink.size;
		assert_true(ready < 64 * sink_block_bytes(&rig.sink));
		rig_free(&rig);
	}
}

/* The last chunk of a block is short and still comes: that is no sign that the path is as wide as it was. */
static void receiver_run__narrow_path_with_a_trickle(void **state)
{
	struct rig rig;

	rig_make(&rig, &shape, ORDER_LAYER);
	rig.peer.narrow = 300;
	rig.peer.narrow_mtu = 1250;
	rig.peer.trickle = true;
	rig_check_done(&rig, rig_run(&rig));
	assert_int_equal(rig.stats.chunk_changes, 1);
	assert_true(rig.peer.trickled > 0 && rig.peer.trickled < 30);
	rig_free(&rig);
}

/* ---- a bad peer ---- */

static void receiver_run__silent_from_the_start(void **state)
{
	struct rig rig;

	rig_make(&rig, &shape, ORDER_TAIL);
	rig.peer.no_probes = true;
	rig.answer_ms = 3000;
	assert_int_equal(rig_run(&rig), -EHOSTUNREACH);
	assert_string_equal(rig.err.text, "no answer from the peer within 3 s");
	/* At 0, 100, 300 and 700 ms, and then every 400 ms: fewer where it was not run. */
	assert_true(rig.stats.hellos >= 2 && rig.stats.hellos <= 10);
	assert_int_equal(rig.sink.received, 0);
	rig_check(&rig);
	rig_free(&rig);
}

static void receiver_run__dies_in_the_middle(void **state)
{
	struct rig rig;

	rig_make(&rig, &shape, ORDER_LAYER);
	rig.peer.mute = 700;
	rig.stall_ms = 3000;
	assert_int_equal(rig_run(&rig), -ETIMEDOUT);
	assert_string_equal(rig.err.text, "nothing came from the peer for 3 s");
	assert_true(rig.sink.ready > 5 && rig.sink.ready < 60);
	assert_true(rig.stats.hellos > 1);
	check_contents(&rig);
	rig_free(&rig);
}

static void *find_it_away(void *arg)
{
	struct rig *rig = arg;
	struct lslm_error why = { 0 };

	error_set(&why, -ETIMEDOUT, "others say so");
	/* Again and again, so that once it is after the last byte. */
	while (!atomic_load(&over)) {
		site_answered(rig->site);
		for (int i = 0; i < BREAKER_FAILURES; i++)
			site_failed(rig->site, &why);
		usleep(300000);
	}
	return NULL;
}

/* The cloud dies in the middle, and others find out first: nobody waits for this session's own time to end. */
static void receiver_run__ends_with_a_site_that_is_away(void **state)
{
	const struct sites_opts opts = { 0 };
	struct lslm_error err = { 0 };
	struct sites *sites;
	pthread_t thread;
	struct rig rig;

	assert_ok(sites_open(&sites, &opts, &err), &err);
	rig_make(&rig, &shape, ORDER_LAYER);
	rig.site = sites_find(sites, "https://127.0.0.1:1");
	rig.peer.mute = 700;
	rig.stall_ms = 3600000;
	atomic_store(&over, false);
	assert_int_equal(pthread_create(&thread, NULL, find_it_away, &rig), 0);
	assert_int_equal(rig_run(&rig), -ENETDOWN);
	assert_string_equal(rig.err.text, "the cloud is away: others say so");
	atomic_store(&over, true);
	pthread_join(thread, NULL);
	assert_true(rig.sink.ready > 5 && rig.sink.ready < 60);
	check_contents(&rig);
	rig_free(&rig);
	sites_close(sites);
}

/* PROBEs alone, or the same bytes again and again, are no life. */
static void receiver_run__answers_without_data(void **state)
{
	uint32_t size, sum = 0;
	struct rig rig;

	rig_make(&rig, &shape, ORDER_LAYER);
	rig.peer.most = 40;
	rig.stall_ms = 4000;
	assert_int_equal(rig_run(&rig), -ETIMEDOUT);
	assert_true(rig.stats.probes > rig.peer.hellos);
	assert_true(rig.session.received > 500 && rig.stats.reports < 1000);
	/* The last chunk of a block is what is left of it. */
	for (uint32_t i = 0, at = 0; i < 40; i++, at = (at + size) % 24576) {
		size = rig.stats.chunk < 24576 - at ? rig.stats.chunk : 24576 - at;
		sum += size;
	}
	assert_int_equal(rig.sink.received, sum);
	rig_free(&rig);
}

static void receiver_run__lying_probes(void **state)
{
	struct rig rig;

	rig_make(&rig, &shape, ORDER_TAIL);
	rig.peer.lie = true;
	rig_check_done(&rig, rig_run(&rig));
	assert_true(is_chunk(rig.stats.chunk));
	/* And what came too late to be a witness, but for one. */
	assert_true(rig.stats.ignored >= rig.peer.lies);
	assert_true(rig.stats.ignored < rig.peer.lies + 6 * rig.peer.hellos);
	assert_true(is_late(&rig) || rig.stats.ignored == rig.peer.lies);
	rig_free(&rig);
	/* And nothing but lies is silence. */
	rig_make(&rig, &shape, ORDER_TAIL);
	rig.peer.lie = true;
	rig.peer.no_probes = true;
	rig.answer_ms = 300;
	assert_int_equal(rig_run(&rig), -EHOSTUNREACH);
	assert_int_equal(rig.stats.probes, 0);
	assert_true(rig.peer.lies >= 6);
	rig_free(&rig);
}

static void receiver_run__wrong_digest(void **state)
{
	struct rig rig;

	for (int kind = ORDER_LAYER; kind <= ORDER_TAIL; kind++) {
		rig_make(&rig, &shape, kind);
		rig.data[17 * rig.sink.pitch + 2 * sink_block_bytes(&rig.sink) + 999] ^= 4;
		assert_int_equal(rig_run(&rig), -EBADMSG);
		assert_non_null(strstr(rig.err.text, "stripe 17, layer 2"));
		assert_int_equal(control_get(rig.sink.control, 17, 2), CONTROL_WANTED);
		assert_true(rig.sink.ready > 50 && rig.peer.over);
		rig_free(&rig);
	}
}

/* ---- keys ---- */

static void receiver_run__changes_keys_by_count(void **state)
{
	struct rig rig;

	rig_make(&rig, &shape, ORDER_TAIL);
	rig.peer.loss = 5;
	rig.max_packets = 500;
	rig.renews = true;
	rig_check_done(&rig, rig_run(&rig));
	/* 3600 datagrams at least, a change every 375 to 500; all four numbers are used, and used again. */
	assert_true(rig.stats.key_changes >= 6 &&
		    rig.stats.key_changes <= rig.peer.data_sent / 375 + 1);
	assert_int_equal(rig.peer.keys_seen, 15);
	rig_free(&rig);
}

/* Without further keys it ends like a connection that breaks, and no datagram is sent without one. */
static void receiver_run__runs_out_of_keys(void **state)
{
	struct rig rig;

	for (int refused = 0; refused <= 1; refused++) {
		rig_make(&rig, &shape, ORDER_TAIL);
		rig.max_packets = 500;
		rig.stall_ms = 3000;
		rig.renews = rig.refuses = refused;
		assert_int_equal(rig_run(&rig), -ETIMEDOUT);
		assert_true(rig.session.placed <= 500 && rig.session.placed > 300);
		assert_true(rig.session.drops[LSLM_DROP_KEY] > 0);
		assert_int_equal(rig.stats.key_changes, 0);
		check_contents(&rig);
		rig_free(&rig);
	}
}

/* ---- steering ---- */

enum { FRAME = 14 + 20 + 8 + LSLM_WIRE_OVERHEAD + 52 };

/* What the steering program does to DATA for this want that comes to the edge's port. */
static enum xdp_action steered(const struct rig *rig, const struct report_want *want)
{
	const struct lslm_header h = { .opcode = LSLM_OP_DATA,
				       .version = LSLM_WIRE_VERSION,
				       .session = rig->peer.edge,
				       .slot = want->slot,
				       .generation = want->generation };
	static const uint8_t ip[] = { 0x45, 0, 0,   FRAME - 14, 0, 0, 0,   0, 64, 17,
				      0,    0, 127, 0,		0, 1, 127, 0, 0,  1 };
	uint8_t frame[FRAME] = { [6] = 2, [12] = 8 };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = frame, .data_size_in = FRAME, .repeat = 1);

	memcpy(frame + 14, ip, sizeof(ip));
	frame[34] = 1;
	frame[36] = (uint8_t)(rig->port >> 8);
	frame[37] = (uint8_t)rig->port;
	frame[39] = FRAME - 34;
	lslm_header_put(frame + 42, &h);
	assert_int_equal(bpf_prog_test_run_opts(steer_program(rig->steer, true), &o), 0);
	return o.retval;
}

static bool is_whole(const struct sink *s, uint32_t stripe)
{
	for (uint32_t l = 0; l < s->order.n_layer; l++)
		if (control_get(s->control, stripe, l) != CONTROL_READY)
			return false;
	return true;
}

/* Among stripes of which none is there yet, the first ones of the REPORT are what the engine waits for. */
static void see_steering(struct peer *p, uint64_t n)
{
	struct rig *rig = p->arg;
	enum xdp_action first, last;

	if (n % 20)
		return;
	if (p->last_seen < 2 * WANTS_URGENT)
		return;
	/* The first one takes what there is of the limit. */
	steered(rig, &p->newest[1]);
	first = steered(rig, &p->newest[0]);
	last = steered(rig, &p->newest[1]);
	/* The edge may be ahead of this peer, which has its next REPORT before it: then others are urgent. */
	if (is_whole(p->sink, p->newest[0].stripe))
		return;
	if (first != XDP_PASS)
		peer_complain(p, "the first want is over the limit");
	if (last != XDP_DROP)
		peer_complain(p, "the last want is not");
	p->lies++;
}

static void receiver_run__tells_steering(void **state)
{
	struct rig rig;
	int ret;

	rig_make(&rig, &shape, ORDER_TAIL);
	ret = steer_load(&rig.steer, false, &rig.err);
	if (ret == -EPERM) {
		rig_free(&rig);
		skip();
	}
	assert_ok(ret, &rig.err);
	assert_ok(steer_limit(rig.steer, 1, 1, &rig.err), &rig.err);
	rig.peer.on_data = see_steering;
	rig_check_done(&rig, rig_run(&rig));
	assert_true(rig.peer.lies > 10);
	/* Afterwards it knows nothing of the port, and nothing is urgent. */
	assert_int_equal(steered(&rig, &rig.peer.newest[0]), XDP_PASS);
	assert_ok(steer_port(rig.steer, rig.port, rig.peer.edge, 0, NULL, &rig.err), &rig.err);
	assert_int_equal(steered(&rig, &rig.peer.newest[0]), XDP_DROP);
	steer_close(rig.steer);
	rig_free(&rig);
}

/* ---- the real cloud ---- */

static void receiver_run__with_the_real_sender(void **state)
{
	struct sender_stats stats;
	struct rig rig;

	for (int i = 0; i < 4; i++) {
		rig_make(&rig, &shape, i & 1 ? ORDER_TAIL : ORDER_LAYER);
		rig.renews = i & 2;
		rig.max_packets = i & 2 ? 600 : 1 << 30;
		real_start(&rig);
		assert_ok(rig_run(&rig), &rig.err);
		assert_true(sink_is_done(&rig.sink));
		check_contents(&rig);
		/* It has understood every word, also in a new key. */
		sender_stats(rig.sender, &stats);
		for (int d = 1; d < SENDER_DROP_COUNT; d++)
			assert_int_equal(stats.drops[d], 0);
		assert_true(is_late(&rig) || !rig.stats.ignored);
		if (i & 2)
			assert_true(rig.stats.key_changes >= 5);
		sender_stop(rig.sender);
		rig_free(&rig);
	}
}

/* ---- its end ---- */

static void stop_it(struct peer *p, uint64_t n)
{
	struct rig *rig = p->arg;

	if (n != 500)
		return;
	atomic_store(&rig->sink.stop, true);
}

static void receiver_run__stopped(void **state)
{
	struct rig rig;

	rig_make(&rig, &shape, ORDER_TAIL);
	rig.peer.on_data = stop_it;
	assert_int_equal(rig_run(&rig), -ECANCELED);
	assert_true(rig.sink.ready > 5 && rig.sink.ready < 100);
	rig_check(&rig);
	rig_free(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(receiver_run__both_orders_and_families),
		cmocka_unit_test(receiver_run__more_stripes_than_slots),
		cmocka_unit_test(receiver_run__only_what_is_wanted),
		cmocka_unit_test(receiver_run__until_the_head_is_met),
		cmocka_unit_test(receiver_run__loss_reordering_duplication),
		cmocka_unit_test(receiver_run__outage),
		cmocka_unit_test(receiver_run__path_becomes_narrow),
		cmocka_unit_test(receiver_run__narrow_path_with_a_trickle),
		cmocka_unit_test(receiver_run__silent_from_the_start),
		cmocka_unit_test(receiver_run__dies_in_the_middle),
		cmocka_unit_test(receiver_run__ends_with_a_site_that_is_away),
		cmocka_unit_test(receiver_run__answers_without_data),
		cmocka_unit_test(receiver_run__lying_probes),
		cmocka_unit_test(receiver_run__wrong_digest),
		cmocka_unit_test(receiver_run__changes_keys_by_count),
		cmocka_unit_test(receiver_run__runs_out_of_keys),
		cmocka_unit_test(receiver_run__tells_steering),
		cmocka_unit_test(receiver_run__with_the_real_sender),
		cmocka_unit_test(receiver_run__stopped),
	};

	return cmocka_run_group_tests_name("receiver", tests, setup, teardown);
}
