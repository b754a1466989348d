// SPDX-License-Identifier: MIT
#include "net/shares.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

/* Of its speed, what a source may have asked for. */
#define AT_ONCE_S 0.5
/* Before its speed is known, and of the slowest. */
#define LEAST_BYTES (64 << 10)
/* A claim that is older, whose source nobody waits for who has nothing to do. */
#define OLD_S 1.0
/* As many times longer ago, where the source does bring something. */
#define SLOW 4
/* A source that has brought nothing for so long is not counted on. */
#define LIVE_S 0.5
/* Shorter times say little about a speed. */
#define SAMPLE_S 0.02

enum { NOBODY = UINT8_MAX, WAIT_MS = 100 };

struct claim {
	uint8_t owner, heir;
	double since;
};

struct member {
	bool here;
	uint64_t asked, came;
	double came_at; /* the last byte, or when it asked after there was nothing to bring */
	double rate; /* bytes per second; 0: not known */
	double seen_at; /* when `seen` bytes had come */
	uint64_t seen;
};

struct shares {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct member members[SHARES_SOURCES];
	uint32_t n_peers;
	uint32_t n_stripes;
	uint32_t n_free; /* that nobody has claimed */
	struct claim claims[];
};

int shares_open(struct shares **out, uint32_t n_stripes, struct lslm_error *err)
{
	struct shares *s = calloc(1, sizeof(*s) + n_stripes * sizeof(s->claims[0]));

	if (!s)
		return error_sys(err, -ENOMEM, "shares");
	s->n_stripes = s->n_free = n_stripes;
	for (uint32_t i = 0; i < n_stripes; i++)
		s->claims[i].owner = s->claims[i].heir = NOBODY;
	pthread_mutex_init(&s->lock, NULL);
	clock_cond_init(&s->changed);
	*out = s;
	return 0;
}

void shares_close(struct shares *s)
{
	if (!s)
		return;
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void shares_lock(struct shares *s)
{
	pthread_mutex_lock(&s->lock);
}

void shares_unlock(struct shares *s)
{
	pthread_mutex_unlock(&s->lock);
}

void shares_join(struct shares *s, uint32_t source)
{
	const double now = clock_seconds();

	shares_lock(s);
	s->n_peers += source != SHARES_DIRECT && !s->members[source].here;
	s->members[source] = (struct member){ .here = true, .came_at = now, .seen_at = now };
	shares_unlock(s);
}

void shares_leave(struct shares *s, uint32_t source)
{
	shares_lock(s);
	s->n_peers -= source != SHARES_DIRECT && s->members[source].here;
	s->members[source].here = false;
	for (uint32_t i = 0; i < s->n_stripes; i++) {
		struct claim *c = &s->claims[i];

		if (c->heir == source)
			c->heir = NOBODY;
		if (c->owner != source)
			continue;
		s->n_free += c->heir == NOBODY;
		c->owner = c->heir;
		c->heir = NOBODY;
		c->since = clock_seconds();
	}
	pthread_cond_broadcast(&s->changed);
	shares_unlock(s);
}

/* What is under way counts, and half a second of it is what a source may have. */
static bool has_room(const struct member *m)
{
	const uint64_t under_way = m->asked > m->came ? m->asked - m->came : 0;

	return !under_way || (double)under_way < fmax(m->rate * AT_ONCE_S, LEAST_BYTES);
}

/*
 * Will the others, as fast as they are now, have brought all that is free before this source brings one more? Then it would be
 * asked for nothing, and the cloud's link is everybody's.
 */
static bool is_late(const struct shares *s, uint32_t source)
{
	const struct member *m = &s->members[source];
	const double now = clock_seconds();
	double others = 0;

	for (uint32_t i = 0; i < SHARES_SOURCES; i++)
		if (i != source && s->members[i].here && now - s->members[i].came_at < LIVE_S)
			others += s->members[i].rate;
	return m->rate > 0 && others > m->rate * s->n_free;
}

static void take(struct shares *s, uint32_t source, uint32_t stripe)
{
	s->n_free -= s->claims[stripe].owner == NOBODY;
	s->claims[stripe] = (struct claim){ (uint8_t)source, NOBODY, clock_seconds() };
}

enum shares_answer shares_claim(struct shares *s, uint32_t source, uint32_t stripe)
{
	struct claim *c = &s->claims[stripe];

	if (c->owner == source)
		return SHARES_MINE;
	if (c->owner != NOBODY ||
	    (s->n_peers && (!has_room(&s->members[source]) || is_late(s, source))))
		return SHARES_NO;
	take(s, source, stripe);
	return SHARES_NEW;
}

enum shares_answer shares_take_over(struct shares *s, uint32_t source, uint32_t stripe,
				    bool *recall)
{
	struct claim *c = &s->claims[stripe];
	const double now = clock_seconds();

	if (c->owner == SHARES_DIRECT && source != SHARES_DIRECT) {
		const double silent = now - fmax(c->since, s->members[SHARES_DIRECT].came_at);

		if (silent > OLD_S || now - c->since > SLOW * OLD_S) {
			c->heir = (uint8_t)source;
			*recall = true;
		}
		return SHARES_NO;
	}
	if (c->owner == source || c->owner == NOBODY || now - c->since < OLD_S)
		return shares_claim(s, source, stripe);
	if (!has_room(&s->members[source]))
		return SHARES_NO;
	take(s, source, stripe);
	return SHARES_NEW;
}

void shares_ask(struct shares *s, uint32_t source, uint64_t bytes)
{
	struct member *m = &s->members[source];

	const double now = clock_seconds();

	/* A speed is that of bringing, not of waiting for something to bring. */
	if (m->came >= m->asked) {
		m->seen_at += now - m->came_at;
		m->came_at = now;
		m->asked = m->came;
	}
	m->asked += bytes;
}

void shares_settle(struct shares *s, uint32_t source)
{
	shares_lock(s);
	s->members[source].asked = s->members[source].came;
	shares_unlock(s);
}

void shares_came(struct shares *s, uint32_t source, uint64_t bytes)
{
	struct member *m = &s->members[source];
	const double now = clock_seconds();

	shares_lock(s);
	m->came += bytes;
	m->came_at = now;
	if (now - m->seen_at >= SAMPLE_S) {
		const double rate = (double)(m->came - m->seen) / (now - m->seen_at);

		m->rate = m->rate > 0 ? (m->rate + rate) / 2 : rate;
		m->seen = m->came;
		m->seen_at = now;
	}
	shares_unlock(s);
}

bool shares_is_open(const struct shares *s, uint32_t stripe)
{
	return s->claims[stripe].owner != SHARES_DIRECT;
}

void shares_tell(struct shares *s)
{
	shares_lock(s);
	pthread_cond_broadcast(&s->changed);
	shares_unlock(s);
}

void shares_wait(struct shares *s)
{
	const struct timespec until = clock_after_ms(WAIT_MS);

	shares_lock(s);
	pthread_cond_timedwait(&s->changed, &s->lock, &until);
	shares_unlock(s);
}
