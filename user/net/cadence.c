// SPDX-License-Identifier: MIT
#include "net/cadence.h"

#define MS     1000000ULL
#define SECOND (1000 * MS)

/* A REPORT every quarter of a round trip, within these. */
#define LEAST (5 * MS)
#define MOST  (50 * MS)
/* But only as the share allows, unless the last one is so old: it may be lost, and the cloud waits. */
#define LONGEST (150 * MS)
/* What the share must hold for a further one: the head and some wants. */
#define SMALL 280.0
/* What it holds at first, and at most: two that are full. */
#define SAVED 2600.0
/* The rate is that of the last so many ns, and two round trips: what comes may come in bursts. */
#define RECENT	   (100 * MS)
#define LIST_LEAST (8 << 10)
/* What stands in a queue, or waits for the next REPORT, is listed still. */
#define LIST_LATE (50 * MS)

void cadence_init(struct cadence *c)
{
	*c = (struct cadence){ .left = SAVED };
}

void cadence_came(struct cadence *c, uint64_t bytes)
{
	c->came += bytes;
	c->left += (double)bytes / CADENCE_SHARE;
	if (c->left > SAVED)
		c->left = SAVED;
}

void cadence_hurry(struct cadence *c)
{
	c->next_ns = 0;
	c->left = SAVED;
}

uint64_t cadence_next(const struct cadence *c)
{
	return c->next_ns;
}

static uint64_t every(uint64_t rtt_ns)
{
	uint64_t ns = rtt_ns / 4;

	return ns < LEAST ? LEAST : ns > MOST ? MOST : ns;
}

bool cadence_due(struct cadence *c, uint64_t rtt_ns, uint64_t now)
{
	if (now < c->next_ns)
		return false;
	/* With half of a list gone, which may have been all that was wanted then, the cloud will soon have nothing. */
	if (c->left >= SMALL || (c->listed && c->came >= c->listed / 2))
		return true;
	if (!c->sent_ns || now - c->sent_ns >= LONGEST)
		return true;
	c->next_ns = now + every(rtt_ns);
	return false;
}

/* The rate, with what came since the last REPORT. */
static double rate(const struct cadence *c, uint64_t rtt_ns, uint64_t now)
{
	double gone = (double)(now - c->sent_ns), part = gone / (double)(RECENT + 2 * rtt_ns);

	if (!c->sent_ns || gone < 1)
		return c->rate;
	part = part < 1 ? part : 1;
	return c->rate + part * ((double)c->came * (double)SECOND / gone - c->rate);
}

struct cadence_list cadence_list(const struct cadence *c, uint64_t rtt_ns, uint64_t now)
{
	double ns = (double)(rtt_ns + LIST_LATE);
	double ahead = 2 * rate(c, rtt_ns, now) * ns / (double)SECOND;
	double size = c->left / 2 - CADENCE_AROUND;

	return (struct cadence_list){
		.bytes = LIST_LEAST + (uint64_t)ahead,
		.size = size > 0 ? (size_t)size : 0,
	};
}

void cadence_sent(struct cadence *c, size_t size, uint64_t listed, uint64_t rtt_ns, uint64_t now)
{
	c->rate = rate(c, rtt_ns, now);
	c->came = 0;
	c->listed = listed;
	c->left -= (double)(size + CADENCE_AROUND);
	/* A debt that a small window does not pay back would only make the cloud wait. */
	if (c->left < -SMALL / 4)
		c->left = -SMALL / 4;
	c->sent_ns = now;
	c->next_ns = now + every(rtt_ns);
}
