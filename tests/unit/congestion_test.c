// SPDX-License-Identifier: MIT
/*
 * Congestion control on a simulated link: a queue, a rate, a delay, losses by a seed, and a TCP Reno as
 * neighbour. Time is simulated, so every figure is exact and the same on each run.
 */
#include "unit.h"

#include <math.h>

#include "net/cadence.h"
#include "net/congestion.h"

#define MS   1000000ULL
#define STEP (MS / 10)

enum {
	CHUNK = 1344,
	PIPE = 1 << 15, /* packets anywhere */
	MEETINGS = 5, /* with a neighbour */
};

struct packet {
	uint64_t due;
	uint64_t number;
	bool ours;
};

/* What travels for a fixed time, in order. */
struct pipe {
	struct packet at[PIPE];
	uint32_t head, tail;
};

/* The neighbour: RFC 5681 with good acknowledgements, or RFC 9438 */
struct tcp {
	bool on, cubic;
	double window, threshold;
	double most,
		friendly; /* CUBIC's: the window before the last loss, and what Reno would have */
	uint64_t cut_ns;
	uint64_t next, acked, recover;
	uint64_t expected; /* by the receiver */
	uint64_t delivered;
};

struct sim {
	/* The path: datagrams per second, bytes do not matter here. */
	double rate, loss;
	uint64_t delay; /* each way */
	uint32_t queue;
	uint64_t clock_ahead; /* the edge's clock */
	bool down;
	uint32_t credit;
	uint32_t bucket; /* datagrams that a token bucket lets through at once after a pause */
	double up; /* bytes per second for REPORTs; 0: any */
	uint32_t want_chunks; /* in each want */
	uint64_t sleep_ns; /* the sender runs so often only */
	uint64_t stall_ns; /* every four seconds nothing arrives for so long, in either direction */
	/* Its state. */
	uint64_t now, free_at, random;
	struct pipe wire, acks;
	struct congestion c;
	struct tcp tcp;
	/* The edge. */
	struct cadence cadence;
	uint64_t received, highest, highest_ns, up_free;
	struct report reports[4096];
	uint64_t report_due[4096], report_listed[4096];
	uint64_t listed; /* by the newest REPORT that came: counters below this */
	uint32_t report_head, report_tail;
	/* Results, since measure(). */
	uint64_t ours, theirs, waits;
	double wait_sum, wait_max;
};

static struct sim s;

static void put(struct pipe *p, uint64_t due, uint64_t number, bool ours)
{
	assert_true(p->tail - p->head < PIPE);
	p->at[p->tail++ % PIPE] = (struct packet){ due, number, ours };
}

static struct packet *due(struct pipe *p)
{
	if (p->head == p->tail || p->at[p->head % PIPE].due > s.now)
		return NULL;
	return &p->at[p->head++ % PIPE];
}

static double draw(void)
{
	s.random = s.random * 6364136223846793005ULL + 1442695040888963407ULL;
	return (double)(s.random >> 11) * 0x1p-53;
}

static void offer(uint64_t number, bool ours)
{
	uint64_t each = (uint64_t)(1e9 / s.rate), saved = s.bucket * each, wait;

	if (s.free_at + saved < s.now)
		s.free_at = s.now - saved;
	wait = s.free_at > s.now ? s.free_at - s.now : 0;
	if (s.down || wait / each >= s.queue)
		return;
	s.free_at += each;
	if (ours) {
		s.waits++;
		s.wait_sum += (double)wait / MS;
		if ((double)wait / MS > s.wait_max)
			s.wait_max = (double)wait / MS;
	}
	if (draw() >= s.loss)
		put(&s.wire, (s.free_at > s.now ? s.free_at : s.now) + s.delay, number, ours);
}

static void tcp_send(void)
{
	struct tcp *r = &s.tcp;

	while (r->on && (double)(r->next - r->acked) < r->window)
		offer(r->next++, false);
}

static void tcp_cut(struct tcp *r)
{
	r->most = r->window;
	r->cut_ns = s.now;
	r->window *= r->cubic ? 0.7 : 0.5;
	r->window = r->window < 2 ? 2 : r->window;
	r->threshold = r->friendly = r->window;
	r->recover = r->next;
}

static void tcp_grow(struct tcp *r)
{
	double t = (double)(s.now - r->cut_ns + 2 * s.delay) * 1e-9, target;

	if (r->window < r->threshold) {
		r->window += 1;
		return;
	}
	if (!r->cubic) {
		r->window += 1 / r->window;
		return;
	}
	target = r->most + 0.4 * pow(t - cbrt(r->most * 0.3 / 0.4), 3);
	target = target > 1.5 * r->window ? 1.5 * r->window : target;
	r->friendly += (r->friendly < r->most ? 0.53 : 1) / r->window;
	if (target > r->window)
		r->window += (target - r->window) / r->window;
	if (r->friendly > r->window)
		r->window = r->friendly;
}

/* Each delivery is acknowledged by its own number: as good as SACK. */
static void tcp_ack(uint64_t number)
{
	struct tcp *r = &s.tcp;

	if (number > r->acked && r->acked >= r->recover)
		tcp_cut(r);
	if (number >= r->acked)
		r->acked = number + 1;
	tcp_grow(r);
}

/* When a REPORT of this size has gone up; 0: never. */
static uint64_t go_up(size_t size)
{
	uint64_t each = s.up ? (uint64_t)((double)(size + CADENCE_AROUND) * 1e9 / s.up) : 0;

	if (s.up_free < s.now)
		s.up_free = s.now;
	if (s.up && (double)(s.up_free - s.now) * s.up > 64e3 * 1e9)
		return 0;
	s.up_free += each;
	return s.up_free + s.delay;
}

static void edge_report(void)
{
	const uint64_t rtt = 2 * s.delay;
	struct cadence_list list;
	size_t size = REPORT_HEAD;
	uint64_t due, chunks = 0;

	if (!cadence_due(&s.cadence, rtt, s.now))
		return;
	list = cadence_list(&s.cadence, rtt, s.now);
	while (size + REPORT_WANT + REPORT_RANGE <= REPORT_ROOM &&
	       (size < list.size || chunks * CHUNK < list.bytes)) {
		size += REPORT_WANT + REPORT_RANGE;
		chunks += s.want_chunks;
	}
	cadence_sent(&s.cadence, size, chunks * CHUNK, rtt, s.now);
	due = s.down ? 0 : go_up(size);
	if (!due)
		return;
	s.report_due[s.report_tail % 4096] = due;
	s.report_listed[s.report_tail % 4096] = chunks;
	s.reports[s.report_tail++ % 4096] =
		(struct report){ .highest = s.received ? s.highest : REPORT_NONE,
				 .highest_ns = s.highest_ns,
				 .now_ns = s.now + s.clock_ahead,
				 .received = s.received,
				 .credit = s.credit,
				 .chunk = CHUNK };
}

static void deliver(void)
{
	struct packet *p;

	while ((p = due(&s.wire))) {
		if (!p->ours) {
			s.theirs++;
			put(&s.acks, s.now + s.delay, p->number, false);
			continue;
		}
		s.ours++;
		s.received++;
		cadence_came(&s.cadence, CHUNK + CADENCE_AROUND);
		if (s.received == 1 || p->number > s.highest) {
			s.highest = p->number;
			s.highest_ns = s.now + s.clock_ahead;
		}
	}
	while ((p = due(&s.acks)))
		tcp_ack(p->number);
	for (; s.report_head != s.report_tail && s.report_due[s.report_head % 4096] <= s.now;
	     s.report_head++) {
		assert_int_equal(congestion_report(&s.c, &s.reports[s.report_head % 4096], s.now),
				 0);
		/* What is lost is sent again, which is as good here as something else. */
		s.listed = s.c.floor + s.report_listed[s.report_head % 4096];
	}
}

static void run(double seconds)
{
	uint64_t end = s.now + (uint64_t)(seconds * 1e9);

	for (; s.now < end; s.now += STEP) {
		uint32_t n;

		if (s.now % (4000 * MS) >= s.stall_ns)
			deliver();
		edge_report();
		n = s.sleep_ns && s.now % s.sleep_ns ? 0 : congestion_allowed(&s.c, s.now);
		for (; n && s.c.next < s.listed; n--) {
			offer(s.c.next, true);
			congestion_sent(&s.c, s.now);
		}
		if (n)
			congestion_idle(&s.c, s.now);
		tcp_send();
	}
}

static void measure(void)
{
	s.ours = s.theirs = s.waits = 0;
	s.wait_sum = s.wait_max = 0;
}

/* A link of so many Mbit/s, round trip and queue in ms. */
static void path(double mbit, double rtt_ms, double queue_ms, double loss, uint64_t seed)
{
	memset(&s, 0, sizeof(s));
	s.rate = mbit * 1e6 / 8 / (CHUNK + LSLM_WIRE_OVERHEAD + 28);
	s.delay = (uint64_t)(rtt_ms / 2 * MS);
	s.queue = (uint32_t)(queue_ms * s.rate / 1000);
	s.loss = loss;
	s.random = seed;
	s.credit = 64 << 20;
	s.now = 5000 * MS;
	s.clock_ahead = 1234567 * MS;
	s.want_chunks = 100;
	cadence_init(&s.cadence);
	congestion_init(&s.c);
}

/* Share of the link's capacity that arrived in so many seconds. */
static double share(double seconds)
{
	return (double)s.ours / (s.rate * seconds);
}

/* ---- cases ---- */

static void alone__fills_the_link(void **state)
{
	static const double rtts[] = { 5, 20, 40, 100, 300 }, mbits[] = { 2, 20, 100 };

	for (size_t i = 0; i < ARRAY_LEN(rtts); i++) {
		for (size_t j = 0; j < ARRAY_LEN(mbits); j++) {
			path(mbits[j], rtts[i], 200, 0, 1);
			run(10);
			measure();
			run(20);
			print_message(
				"# %g Mbit/s, %g ms: %.2f of the rate, waits %.1f ms, at most %.1f\n",
				mbits[j], rtts[i], share(20), s.wait_sum / (double)s.waits,
				s.wait_max);
			assert_true(share(20) > 0.85);
			/*
			 * Growing by an eighth is seen a round trip later, so it may be a quarter; and where
			 * few datagrams fit into the path, one more or less is coarse.
			 */
			assert_true(s.wait_max <= 50 + rtts[i] / 4 + 5e3 / s.rate);
		}
	}
}

/* Where a datagram takes as long as what elsewhere is a long queue, and REPORTs have no more room. */
static void alone__fills_a_thin_link(void **state)
{
	static const double rtts[] = { 0, 10, 40, 300 }, mbits[] = { 0.25, 0.5, 1, 2 };

	for (size_t i = 0; i < ARRAY_LEN(rtts) * ARRAY_LEN(mbits) * 8; i++) {
		double mbit = mbits[i / 8 % ARRAY_LEN(mbits)], rtt = rtts[i / 8 / ARRAY_LEN(mbits)];
		double first;

		path(mbit, rtt, 1000, 0, 1);
		s.bucket = i & 1 ? 2 : 0;
		s.up = mbit * 125e3 / (i & 2 ? 10 : 1);
		s.want_chunks = i & 4 ? 2 : 18;
		run(5);
		first = share(5);
		measure();
		run(20);
		print_message(
			"# %g Mbit/s, %g ms, bucket %u, up %g, %u in a want: %.2f of the rate, %.2f of the first 5 s; "
			"waits %.1f ms, at most %.1f\n",
			mbit, rtt, s.bucket, s.up, s.want_chunks, share(20), first,
			s.wait_sum / (double)s.waits, s.wait_max);
		assert_true(share(20) > 0.75 && first > (rtt > 100 ? 0.5 : 0.75));
		/* So many datagrams. */
		assert_true(s.wait_max < 20e3 / s.rate);
		assert_true(s.c.lost == 0);
	}
}

static void alone__starts_fast(void **state)
{
	path(50, 40, 100, 0, 1);
	run(2);
	print_message("# %.2f of the first two seconds, waits at most %.1f ms\n", share(2),
		      s.wait_max);
	assert_true(share(2) > 0.75);
	assert_true(s.wait_max <= 50);
}

/* Slow start fills a short queue many times over: that is one mistake, to be paid for once. */
static void alone__overshoots_once(void **state)
{
	static const double losses[] = { 0, 0.01, 0.05 };

	for (size_t i = 0; i < ARRAY_LEN(losses); i++) {
		path(500, 20, 20, losses[i], 1);
		run(1);
		print_message("# %g lost: %.2f of the first second\n", losses[i], share(1));
		assert_true(share(1) > 0.6);
	}
}

/* What a full queue cut is taken back quickly, up to what the path held before. */
static void alone__takes_back(void **state)
{
	path(100, 20, 20, 0.01, 1);
	run(1);
	measure();
	run(2);
	print_message("# %.2f of the rate\n", share(2));
	assert_true(share(2) > 0.94);
}

/* A queue that is shorter than what the delay rule wants: loss has to do. */
static void alone__short_queue(void **state)
{
	path(20, 40, 15, 0, 1);
	run(5);
	measure();
	run(20);
	print_message("# %.2f of the rate, %.3f lost\n", share(20),
		      1 - (double)s.ours / (double)s.waits);
	assert_true(share(20) > 0.85);
}

static void radio__keeps_its_rate(void **state)
{
	static const double losses[] = { 0.001, 0.01, 0.05, 0.2 };

	for (size_t i = 0; i < ARRAY_LEN(losses); i++) {
		for (uint64_t seed = 1; seed < 6; seed++) {
			path(20, 40, 100, losses[i], seed);
			run(5);
			measure();
			run(30);
			print_message("# %g lost: %.2f of the rate, waits at most %.1f ms\n",
				      losses[i], share(30), s.wait_max);
			assert_true(share(30) > 0.8 * (1 - losses[i]));
			assert_true(s.wait_max <= 60);
		}
	}
}

/* A burst that is lost is no property of the path, or every later loss would be put down to it. */
static void radio__is_told_from_a_burst(void **state)
{
	path(20, 40, 100, 0, 1);
	/* So that the queue is always empty. */
	s.credit = 40 * CHUNK;
	run(5);
	for (int i = 0; i < 5; i++) {
		s.loss = 0.5;
		run(0.05);
		s.loss = 0;
		for (int j = 0; j < 100; j++) {
			run(0.05);
			/* It may lie in two stretches, a little of it in one. */
			assert_true(s.c.path_loss < 0.02);
		}
	}
	s.loss = 0.05;
	run(10);
	print_message("# %.3f is found to be lost\n", s.c.path_loss);
	assert_true(s.c.path_loss > 0.02 && s.c.path_loss < 0.08);
}

static void start_tcp(bool cubic)
{
	s.tcp = (struct tcp){ .on = true, .cubic = cubic, .window = 10, .threshold = 1e9 };
}

static void tcp__shares(void **state)
{
	static const double queues[] = { 20, 40, 80, 160 };

	for (size_t i = 0; i < ARRAY_LEN(queues); i++) {
		for (int late = 0; late < 4; late++) {
			double ours = 0, theirs = 0;

			/* Who meets whose losses is chance: several round trips. */
			for (int n = 0; n < MEETINGS; n++) {
				path(20, 38 + n, queues[i], 0, 1);
				if (late & 1)
					run(5);
				start_tcp(late & 2);
				run(5);
				measure();
				run(60);
				ours += share(60) / MEETINGS;
				theirs += (double)s.theirs / (s.rate * 60) / MEETINGS;
			}
			print_message("# queue %g ms, %s %s: we have %.2f, it has %.2f\n",
				      queues[i], late & 2 ? "cubic" : "reno",
				      late & 1 ? "second" : "first", ours, theirs);
			assert_true(ours >= 0.3 && ours <= 0.7);
			assert_true(theirs >= 0.3);
		}
	}
}

/* The neighbour leaves: the queue gets short again. */
static void tcp__leaves(void **state)
{
	path(20, 40, 160, 0, 1);
	start_tcp(false);
	run(20);
	s.tcp.on = false;
	run(15);
	measure();
	run(20);
	print_message("# %.2f of the rate, waits at most %.1f ms\n", share(20), s.wait_max);
	assert_true(share(20) > 0.9);
	assert_true(s.wait_max <= 50);
}

static void outage__ends(void **state)
{
	uint64_t sent;

	path(20, 40, 100, 0, 1);
	run(5);
	s.down = true;
	run(1.2);
	sent = s.c.next;
	run(8.8);
	assert_int_equal(s.c.next, sent);
	assert_true(congestion_due(&s.c, s.now) == CONGESTION_NEVER);
	s.down = false;
	run(1);
	measure();
	run(5);
	print_message("# %.2f of the rate after the outage\n", share(5));
	assert_true(share(5) > 0.85);
}

/* Nothing is known of the path then, not even a round trip. */
static void outage__takes_the_first_flight(void **state)
{
	path(20, 40, 100, 0, 1);
	s.loss = 1;
	run(0.3);
	assert_int_equal(s.c.next, 10);
	s.loss = 0;
	run(2);
	measure();
	run(2);
	print_message("# %.2f of the rate after 2 s\n", share(2));
	assert_true(share(2) > 0.8);
}

/* A machine with too much to do. */
static void alone__runs_seldom(void **state)
{
	static const uint64_t sleeps[] = { 1, 3, 6, 10 };
	static const double rtts[] = { 10, 40, 100 };

	for (size_t i = 0; i < ARRAY_LEN(sleeps); i++) {
		for (size_t j = 0; j < ARRAY_LEN(rtts); j++) {
			path(20, rtts[j], 100, 0, 1);
			s.sleep_ns = sleeps[i] * MS;
			run(10);
			measure();
			run(20);
			print_message(
				"# every %lu ms, %g ms: %.2f of the rate, waits at most %.1f ms\n",
				sleeps[i], rtts[j], share(20), s.wait_max);
			assert_true(share(20) > 0.8);
			assert_true(s.wait_max <= 50);
		}
	}
}

/* A handover, a sleeping radio, a busy machine: all comes in the end, and was not lost. */
static void stall__is_forgiven(void **state)
{
	static const uint64_t stalls[] = { 60, 150, 300, 600 };

	for (size_t i = 0; i < ARRAY_LEN(stalls); i++) {
		path(20, 40, 100, 0, 1);
		run(5);
		s.stall_ns = stalls[i] * MS;
		run(8);
		measure();
		run(40);
		print_message("# %lu ms in 4 s: %.2f of the rate\n", stalls[i], share(40));
		assert_true(share(40) > 0.8 * (1 - (double)stalls[i] / 4000));
	}
}

/* From a near network to a far one: the longer way is no queue. */
static void moved__is_no_queue(void **state)
{
	path(20, 10, 100, 0.1, 1);
	run(10);
	assert_true(s.c.path_loss > 0.02);
	s.loss = 0;
	s.delay = 60 * MS;
	congestion_moved(&s.c);
	assert_true(s.c.path_loss == 0);
	run(3);
	measure();
	run(5);
	print_message("# %.2f of the rate, waits at most %.1f ms\n", share(5), s.wait_max);
	assert_true(share(5) > 0.85);
	assert_true(s.wait_max <= 50);
}

/* What was on its way to the old place never comes. */
static void moved__with_all_lost(void **state)
{
	path(20, 40, 100, 0, 1);
	run(5);
	s.wire.head = s.wire.tail;
	congestion_moved(&s.c);
	assert_true(congestion_lost(&s.c, s.c.next - 1));
	run(3);
	measure();
	run(5);
	print_message("# %.2f of the rate\n", share(5));
	assert_true(share(5) > 0.8);
}

/* The link gets ten times as fast: growing by one datagram each time would take half a minute. */
static void faster__is_noticed(void **state)
{
	path(5, 40, 100, 0, 1);
	run(10);
	s.rate *= 10;
	s.queue *= 10;
	run(4);
	measure();
	run(2);
	print_message("# %.2f of the new rate after 4 s\n", share(2));
	assert_true(share(2) > 0.8);
}

/* Everything too large is lost, reports come: sending slows down to almost nothing. */
static void nothing_arrives__slows_down(void **state)
{
	uint64_t sent;

	path(20, 40, 100, 0, 1);
	run(5);
	s.loss = 1;
	run(5);
	sent = s.c.next;
	run(5);
	print_message("# %lu datagrams in 5 s\n", s.c.next - sent);
	assert_true(s.c.next - sent < 500);
}

/* A window that nobody uses would send all that the credit gives at once. */
static void credit__is_paced(void **state)
{
	for (int late = 0; late < 2; late++) {
		path(20, 40, 100, 0, 1);
		run(late ? 5 : 0.1);
		s.credit = 40 * CHUNK;
		run(1);
		measure();
		run(10);
		print_message("# window %.0f, waits at most %.1f ms\n", s.c.window, s.wait_max);
		assert_true(s.c.window < 130);
		assert_true(s.wait_max < 10);
	}
}

static void credit__limits(void **state)
{
	struct report r = { .highest = REPORT_NONE, .credit = 3 * CHUNK + 5, .chunk = CHUNK };

	congestion_init(&s.c);
	assert_int_equal(congestion_allowed(&s.c, MS), 0);
	assert_int_equal(congestion_report(&s.c, &r, MS), 0);
	assert_int_equal(congestion_allowed(&s.c, MS), 3);
	for (int i = 0; i < 3; i++)
		congestion_sent(&s.c, MS);
	assert_int_equal(congestion_allowed(&s.c, MS), 0);
	assert_true(congestion_due(&s.c, MS) == CONGESTION_NEVER);
}

static void congestion_report__lies(void **state)
{
	static const struct {
		uint64_t highest, received;
	} cases[] = {
		{ 5, 3 }, /* never sent */
		{ 2, 4 }, /* more than there were */
		{ 1, 2 }, /* backwards */
		{ 3, 1 },
	};
	struct report r = { .highest = 2, .received = 2, .credit = 1 << 20, .chunk = CHUNK };
	struct congestion before;

	congestion_init(&s.c);
	for (int i = 0; i < 5; i++)
		congestion_sent(&s.c, MS);
	assert_int_equal(congestion_report(&s.c, &r, 2 * MS), 0);
	before = s.c;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		r.highest = cases[i].highest;
		r.received = cases[i].received;
		assert_int_equal(congestion_report(&s.c, &r, 3 * MS), -EINVAL);
		assert_memory_equal(&s.c, &before, sizeof(before));
	}
	/* The edge's clock may say anything. */
	for (uint64_t ns = 1; ns; ns <<= 1) {
		r = (struct report){ .highest = 3,
				     .received = 2,
				     .credit = 1 << 20,
				     .chunk = CHUNK,
				     .highest_ns = ns - 1,
				     .now_ns = UINT64_MAX };
		s.c = before;
		assert_int_equal(congestion_report(&s.c, &r, 3 * MS), 0);
		r = (struct report){ .highest = 4,
				     .received = 3,
				     .credit = UINT32_MAX,
				     .chunk = LSLM_CHUNK_MIN,
				     .highest_ns = ~ns,
				     .now_ns = ~ns };
		assert_int_equal(congestion_report(&s.c, &r, 4 * MS), 0);
		assert_true(s.c.window >= 2 && s.c.window <= CONGESTION_MAX);
		assert_true(congestion_allowed(&s.c, 5 * MS) <= CONGESTION_MAX);
	}
}

/* 16 behind the highest, or too late. */
static void congestion_lost__rules(void **state)
{
	struct report r = { .highest = 40, .received = 30, .credit = 1 << 20, .chunk = CHUNK };

	congestion_init(&s.c);
	for (uint64_t i = 0; i < 60; i++)
		congestion_sent(&s.c, 1000 * MS + i * MS);
	assert_int_equal(congestion_report(&s.c, &r, 1060 * MS), 0);
	assert_true(congestion_lost(&s.c, 24));
	assert_false(congestion_lost(&s.c, 25));
	assert_false(congestion_lost(&s.c, 59));
	/*
	 * The round trip is 20 ms, and of an unknown link two datagrams may take 100: late is after 120. But not
	 * while others have just come.
	 */
	r.highest_ns = 1050 * MS;
	r.now_ns = 1150 * MS;
	assert_int_equal(congestion_report(&s.c, &r, 1165 * MS), 0);
	assert_true(congestion_lost(&s.c, 40));
	assert_false(congestion_lost(&s.c, 44));
	assert_int_equal(s.c.floor, 41);
	r.now_ns++;
	assert_int_equal(congestion_report(&s.c, &r, 1165 * MS), 0);
	assert_true(congestion_lost(&s.c, 44));
	assert_false(congestion_lost(&s.c, 45));
	assert_int_equal(s.c.floor, 45);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(alone__fills_the_link),
		cmocka_unit_test(alone__fills_a_thin_link),
		cmocka_unit_test(alone__starts_fast),
		cmocka_unit_test(alone__overshoots_once),
		cmocka_unit_test(alone__takes_back),
		cmocka_unit_test(alone__short_queue),
		cmocka_unit_test(radio__keeps_its_rate),
		cmocka_unit_test(radio__is_told_from_a_burst),
		cmocka_unit_test(tcp__shares),
		cmocka_unit_test(tcp__leaves),
		cmocka_unit_test(outage__ends),
		cmocka_unit_test(outage__takes_the_first_flight),
		cmocka_unit_test(alone__runs_seldom),
		cmocka_unit_test(stall__is_forgiven),
		cmocka_unit_test(moved__is_no_queue),
		cmocka_unit_test(moved__with_all_lost),
		cmocka_unit_test(faster__is_noticed),
		cmocka_unit_test(nothing_arrives__slows_down),
		cmocka_unit_test(credit__is_paced),
		cmocka_unit_test(credit__limits),
		cmocka_unit_test(congestion_report__lies),
		cmocka_unit_test(congestion_lost__rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
