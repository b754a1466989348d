// SPDX-License-Identifier: MIT
#include "net/congestion.h"

#include <errno.h>
#include <math.h>

#define MS     1000000ULL
#define SECOND (1000 * MS)

#define WINDOW_FIRST 10.0
#define WINDOW_LEAST 1.0
/* One under way, two until the next REPORT and one waiting: with less a queue tells of nothing. */
#define WINDOW_DRAINED 4.0
/*
 * Queueing delay: an empty queue, the end of slow start, too much. In ms, and in datagrams: on a thin link
 * one of them alone takes longer than that.
 */
static const struct queue {
	double ms, datagrams;
} queue_empty = { 5, 2 }, queue_enough = { 10, 3 }, queue_long = { 25, 4 };
#define HEAVY_LOSS 0.3
/* So many datagrams make a judgement on heavy loss: a path that loses 20 % passes. */
#define MANY 256
/* Growth beside a neighbour, as of CUBIC (RFC 9438): what is left after a loss, and the curve back. */
#define KEEP  0.7
#define CURVE 0.4
/* Growing by one datagram per round trip, as Reno does, that would be too much. */
#define KEEP_ALONE 0.6
/* So many datagrams tell what a path loses by itself; less than UNSEEN they do not see. */
#define STRETCH 256
#define UNSEEN	0.001
/* So many drains in a row that did not help: it is somebody else's queue. */
#define IN_VAIN 2
/* Without REPORT for so long nothing is sent, and what was known of the path is forgotten. */
#define SILENCE SECOND
/* Reordering that is not yet loss, in datagrams. */
#define REORDER 16
/* What is late is lost: so long after a datagram behind it could have come. */
#define PATIENCE (20 * MS)
/* Two datagrams of an unknown link. */
#define PATIENCE_FIRST (100 * MS)
/* A round trip that was not measured yet. */
#define UNKNOWN SECOND
/* The edge says more often than that what came, if it can. */
#define TURN_MOST (200 * MS)
/* So many datagrams tell how fast the link is; slower than that it is not thin, but was idle. */
#define BURST	  8
#define EACH_MOST (150.0 * MS)
/* What sending may catch up at once, when the window has opened and when the process was not run. */
#define CATCH_UP      (2 * MS)
#define CATCH_UP_LATE (10 * MS)
/* With a neighbour: see whether it is still there. */
#define TEST_AGAIN (5 * SECOND)
/* Among neighbours no empty queue is seen: for so long an older measurement serves. */
#define REMEMBER (60 * SECOND)
/* After a full queue was met, growth is careful for so long. */
#define CAREFUL (10 * SECOND)
/* But up to this share of the window that met it the path is known to hold. */
#define HELD 0.8

static void begin_round(struct congestion *c)
{
	c->round = (struct congestion_round){
		.start = c->floor, .end = c->next, .lost = c->lost, .low_ms = INFINITY
	};
}

static void forget_path(struct congestion *c)
{
	int i;

	for (i = 0; i < CONGESTION_BASE_S; i++)
		c->base_ms[i] = INFINITY;
	c->window = WINDOW_FIRST;
	c->slow_start = true;
	c->competing = false;
	c->draining = false;
	c->in_vain = 0;
	c->otherwise = 0;
	c->cut_ns = 0;
	c->speed = 0;
	c->burst_known = false;
	c->recent_ms[0] = c->recent_ms[1] = c->recent_ms[2] = 0;
}

void congestion_init(struct congestion *c)
{
	*c = (struct congestion){ .highest = REPORT_NONE };
	forget_path(c);
}

/* ---- sending ---- */

static double limit(const struct congestion *c)
{
	return c->window < c->credit ? c->window : c->credit;
}

/* Until a datagram is known to have come: the window is on its way that long. */
static double lap(const struct congestion *c)
{
	return c->srtt_ns + c->turn_ns;
}

/*
 * Between two datagrams. A little faster than the window, so that this is what limits: also when a queue
 * has gone that the smoothed round trip still has in it.
 */
static double interval(const struct congestion *c)
{
	if (c->slow_start)
		return c->srtt_ns / (c->window * 2);
	return (fmin(c->srtt_ns, c->rtt_ns) + c->turn_ns) / (c->window * 1.2);
}

/* ns that a datagram takes on the link, as far as is known; 0: not at all. */
static double each(const struct congestion *c)
{
	return c->speed > 0 ? fmin(1 / c->speed, EACH_MOST) : 0;
}

/* The delay of such a queue, in ms. */
static double waits(const struct congestion *c, struct queue q)
{
	return fmax(q.ms, q.datagrams * each(c) / MS);
}

static uint64_t room(const struct congestion *c)
{
	uint64_t under_way = c->next - c->floor;
	double most = floor(limit(c));

	return (double)under_way < most ? (uint64_t)most - under_way : 0;
}

static bool silent(const struct congestion *c, uint64_t now)
{
	return !c->report_ns || now - c->report_ns > SILENCE;
}

uint32_t congestion_allowed(const struct congestion *c, uint64_t now)
{
	uint64_t n = room(c), from = c->pace_ns;
	double paced;

	if (!n || silent(c, now) || from > now)
		return 0;
	if (!c->srtt_ns)
		return (uint32_t)n;
	if (now - from > CATCH_UP_LATE)
		from = now - CATCH_UP_LATE;
	paced = 1 + (double)(now - from) / interval(c);
	return paced < (double)n ? (uint32_t)paced : (uint32_t)n;
}

uint64_t congestion_due(const struct congestion *c, uint64_t now)
{
	if (!room(c) || silent(c, now))
		return CONGESTION_NEVER;
	return c->pace_ns > now ? c->pace_ns : now;
}

void congestion_sent(struct congestion *c, uint64_t now)
{
	c->sent_ns[c->next++ % CONGESTION_RING] = now;
	if (now - c->pace_ns > CATCH_UP_LATE && now > c->pace_ns)
		c->pace_ns = now - CATCH_UP_LATE;
	c->pace_ns += (uint64_t)interval(c);
	if (!room(c))
		c->round.full = true;
}

void congestion_idle(struct congestion *c, uint64_t now)
{
	if (c->pace_ns < now)
		c->pace_ns = now;
}

/* ---- what a REPORT tells ---- */

static bool time_known(const struct congestion *c, uint64_t counter)
{
	return counter < c->next && c->next - counter <= CONGESTION_RING;
}

static double smallest(const struct congestion *c)
{
	double least = INFINITY;
	int i;

	for (i = 0; i < CONGESTION_BASE_S; i++)
		least = fmin(least, c->base_ms[i]);
	return least;
}

/* The delay against the clocks' difference, and with it the queueing delay. */
static double queueing_ms(struct congestion *c, double delay_ms, uint64_t now)
{
	uint64_t s = now / SECOND;
	double least = smallest(c);
	bool keep = c->competing && now - c->since_ns < REMEMBER;
	int i;

	/* Seconds without a REPORT know nothing. */
	for (i = 0; i < CONGESTION_BASE_S && c->base_s < s; i++)
		c->base_ms[++c->base_s % CONGESTION_BASE_S] = keep ? least : INFINITY;
	c->base_s = s;
	if (delay_ms < c->base_ms[s % CONGESTION_BASE_S])
		c->base_ms[s % CONGESTION_BASE_S] = delay_ms;
	least = smallest(c);
	return delay_ms - least;
}

/* Between REPORTs with news. */
static void see_turn(struct congestion *c, uint64_t now)
{
	double ns = fmin((double)(now - c->news_ns), TURN_MOST);

	if (c->news_ns)
		/* From nothing: the first ones are as long as round trips. */
		c->turn_ns += (ns - c->turn_ns) / (ns > c->turn_ns ? 8 : 2);
	c->news_ns = now;
}

/* How fast datagrams have come, at best: a burst's few do not tell, nor what a neighbour leaves us. */
static void see_speed(struct congestion *c, const struct report *r)
{
	double n = (double)(r->received - c->burst_received), ns;

	if (n < BURST)
		return;
	ns = (double)(r->highest_ns - c->burst_ns);
	c->burst_received = r->received;
	c->burst_ns = r->highest_ns;
	/* The first one has nothing before it; clocks of the edge may say anything. */
	if (c->burst_known && ns > 0 && ns < (double)REMEMBER) {
		if (!c->competing)
			c->speed *= 1 - fmin(1, ns / (double)CAREFUL);
		c->speed = fmax(c->speed, n / ns);
	}
	c->burst_known = true;
}

static void see_delay(struct congestion *c, const struct report *r, uint64_t now)
{
	uint64_t sent = c->sent_ns[r->highest % CONGESTION_RING];
	uint64_t rtt = now - sent, held = r->now_ns - r->highest_ns;
	double queue = queueing_ms(c, (double)(int64_t)(r->highest_ns - sent) / MS, now);

	/* An edge that says it held the datagram longer than that is not asked about round trips. */
	if (held < rtt) {
		rtt -= held;
		c->rtt_ns = (double)rtt;
		c->srtt_ns = c->srtt_ns ? c->srtt_ns * 7 / 8 + c->rtt_ns / 8 : c->rtt_ns;
	}
	c->recent_ms[2] = c->recent_ms[1];
	c->recent_ms[1] = c->recent_ms[0];
	c->recent_ms[0] = queue;
	c->round.low_ms = fmin(c->round.low_ms, queue);
	c->round.high_ms = fmax(c->round.high_ms, queue);
}

/* Was it sent so long ago that it should have come? */
static bool late(const struct congestion *c, uint64_t counter)
{
	return !time_known(c, counter) || (c->sent_ns[counter % CONGESTION_RING] < c->late_ns &&
					   (c->stopped || counter <= c->highest));
}

/*
 * Everything up to the highest has arrived or is lost; what follows may be too late to arrive. But not while
 * others arrive: it stands in the same queue behind them.
 */
static void move_floor(struct congestion *c, const struct report *r, uint64_t now)
{
	double rtt = c->srtt_ns ? c->srtt_ns : UNKNOWN;
	double two = c->speed > 0 ? 2 * each(c) : PATIENCE_FIRST;
	double patience = fmax(fmax(rtt / 2, PATIENCE), two);
	uint64_t margin = (uint64_t)(rtt + patience);

	c->late_ns = now > margin ? now - margin : 0;
	c->stopped = (double)(r->now_ns - r->highest_ns) > patience;
	if (c->highest != REPORT_NONE && c->floor <= c->highest)
		c->floor = c->highest + 1;
	while (c->floor < c->next && late(c, c->floor))
		c->floor++;
	/* Late ones that came after all are no loss any more. */
	c->lost = c->floor - c->received;
}

/* ---- what follows from it ---- */

static void cut(struct congestion *c, double to)
{
	c->window = fmax(to, WINDOW_LEAST);
	c->slow_start = false;
	/* What is under way was sent with the old window: it tells nothing about the new one. */
	c->round.old = true;
	c->round.end = c->next;
}

static bool judge_heavy_loss(struct congestion *c)
{
	uint64_t sent = c->floor - c->many_start;
	double lost = (double)c->lost - (double)c->many_lost;
	bool old = c->round.old && c->floor < c->round.end;

	if (sent < MANY && !old)
		return false;
	c->many_start = c->floor;
	c->many_lost = c->lost;
	/* A flight that was too large would be cut for again and again, until nothing is left. */
	if (old || lost <= HEAVY_LOSS * (double)sent)
		return false;
	cut(c, c->window * 0.5);
	return true;
}

/*
 * A little less than what fills the path without the queue. If the queue is ours it will be seen empty;
 * if not, somebody else's packets stand there, and the window is given back.
 */
static void drain(struct congestion *c, double otherwise, uint64_t now)
{
	c->otherwise = fmax(c->otherwise, otherwise);
	cut(c, fmax(c->window * fmax(0.25, 0.9 - c->round.low_ms * MS / lap(c)),
		    fmin(c->window, WINDOW_DRAINED)));
	c->draining = true;
	c->drained_ns = now;
}

/* The first round after drain(). */
static void judge_drain(struct congestion *c)
{
	c->draining = false;
	if (c->round.low_ms <= waits(c, queue_enough)) {
		c->competing = false;
		c->in_vain = 0;
		c->otherwise = 0;
	} else if (c->competing || ++c->in_vain == IN_VAIN) {
		c->window = fmax(c->window, c->otherwise);
		c->otherwise = 0;
		if (!c->competing) {
			c->since_ns = c->drained_ns;
			c->peak = 0;
		}
		c->competing = true;
	}
}

static void learn_path_loss(struct congestion *c, double sent, double lost)
{
	double share;

	c->stretch_sent += sent;
	c->stretch_lost += lost;
	if (c->stretch_sent < STRETCH)
		return;
	share = c->stretch_lost / c->stretch_sent;
	c->path_loss = fmin(share, c->stretch_before);
	c->stretch_before = share;
	c->stretch_sent = 0;
	c->stretch_lost = 0;
}

/* More than the path loses by itself, while there was a queue. */
static bool judge_loss(struct congestion *c, double sent, double lost, uint64_t now)
{
	double usual = sent * fmax(c->path_loss, UNSEEN);

	if (c->round.high_ms < waits(c, queue_empty)) {
		learn_path_loss(c, sent, lost);
		return false;
	}
	if (lost <= usual + 3 * sqrt(usual))
		return false;
	c->cut_ns = now;
	c->peak = c->window;
	c->peak_ns = now;
	cut(c, c->window * (c->competing ? KEEP : KEEP_ALONE));
	return true;
}

static bool judge_delay(struct congestion *c, uint64_t now)
{
	/* The neighbour may have left without a loss that would show it. */
	bool test = c->competing && now - c->drained_ns > TEST_AGAIN;

	if (!test && (c->competing || c->round.low_ms <= waits(c, queue_long)))
		return false;
	drain(c, c->window, now);
	return true;
}

/* So that neighbours of the usual kind, which grow like that, leave us our share of a long path. */
static double curve(const struct congestion *c, uint64_t now)
{
	double t;

	/* How much there is to have is not known before something was lost. */
	if (!c->peak)
		return c->window;
	t = ((double)(now - c->peak_ns) + c->srtt_ns) / SECOND;
	return c->peak + CURVE * pow(t - cbrt(c->peak * (1 - KEEP) / CURVE), 3) - c->window;
}

static void grow(struct congestion *c, uint64_t now)
{
	bool careful = c->cut_ns && now - c->cut_ns < CAREFUL;
	bool empty = c->round.high_ms < waits(c, queue_empty);

	/* What the edge does not take needs no window, and would not be paced any more. */
	if (!c->round.full || c->window >= c->credit)
		return;
	/* An empty queue means that there is more to have: a fading radio came back. */
	if (empty && !careful)
		c->window += fmax(1, c->window / 8);
	else if (empty && !c->competing)
		c->window += fmax(1, fmin(c->window / 8, (c->peak * HELD - c->window) / 4));
	else if (c->competing)
		c->window += fmax(1, fmin(curve(c, now), c->window / 8));
	else
		c->window += 1;
}

static void end_round(struct congestion *c, uint64_t now)
{
	double sent = (double)(c->floor - c->round.start);
	double lost = (double)c->lost - (double)c->round.lost;

	if (c->round.old) {
		begin_round(c);
		return;
	}
	/* Without a time nothing is known about the queue. */
	if (sent < 1 || c->round.low_ms == INFINITY) {
		c->round.end = c->next;
		return;
	}
	if (c->draining)
		judge_drain(c);
	/* A cut has begun a round of its own. */
	if (judge_loss(c, sent, fmax(lost, 0), now) || judge_delay(c, now))
		return;
	if (!c->slow_start)
		grow(c, now);
	begin_round(c);
}

static void speed_up(struct congestion *c, uint64_t arrived)
{
	double least = fmin(c->recent_ms[0], fmin(c->recent_ms[1], c->recent_ms[2]));

	if (least > waits(c, queue_enough))
		/* What has just arrived was sent with half of today's window. */
		cut(c, c->window / 2);
	else if (c->round.full && c->window < c->credit)
		c->window += (double)arrived;
}

int congestion_report(struct congestion *c, const struct report *r, uint64_t now)
{
	uint64_t arrived = r->received - c->received;
	bool news = r->highest != c->highest;
	bool back = c->report_ns && now - c->report_ns > SILENCE;

	if (r->highest != REPORT_NONE && (r->highest >= c->next || r->received > r->highest + 1))
		return -EINVAL;
	if (r->received < c->received || (c->highest != REPORT_NONE && r->highest < c->highest))
		return -EINVAL;
	/* While there was no room, nothing was missed. */
	if (!room(c) && now > c->pace_ns + CATCH_UP)
		c->pace_ns = now - CATCH_UP;
	c->report_ns = now;
	c->credit = r->chunk ? r->credit / r->chunk : 0;
	c->received = r->received;
	c->highest = r->highest;
	if (news && r->highest >= c->here && time_known(c, r->highest)) {
		see_turn(c, now);
		see_speed(c, r);
		see_delay(c, r, now);
	}
	move_floor(c, r, now);
	if (back)
		forget_path(c);
	if (c->slow_start)
		speed_up(c, arrived);
	if (!judge_heavy_loss(c) && c->floor >= c->round.end)
		end_round(c, now);
	c->window = fmin(c->window, CONGESTION_MAX);
	return 0;
}

void congestion_moved(struct congestion *c)
{
	forget_path(c);
	c->here = c->next;
	/*
	 * With no round trip to judge by, what went to the old place would be under way for ever, and fill
	 * the window. What of it arrives all the same is not asked for again.
	 */
	c->floor = c->next;
	c->lost = c->floor - c->received;
	c->many_start = c->floor;
	c->many_lost = c->lost;
	c->srtt_ns = c->rtt_ns = 0;
	c->turn_ns = 0;
	c->news_ns = 0;
	c->path_loss = c->stretch_before = c->stretch_sent = c->stretch_lost = 0;
	begin_round(c);
	c->round.old = true;
}

bool congestion_lost(const struct congestion *c, uint64_t counter)
{
	if (counter < c->here || (c->highest != REPORT_NONE && counter + REORDER <= c->highest))
		return true;
	return late(c, counter);
}
