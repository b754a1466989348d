// SPDX-License-Identifier: MIT
#include "net/breaker.h"

#include "base/random.h"

const char *breaker_state_name(enum breaker_state state)
{
	static const char *const names[] = {
		[BREAKER_CLOSED] = "closed",
		[BREAKER_OPEN] = "open",
		[BREAKER_HALF_OPEN] = "half-open",
	};

	return names[state];
}

void breaker_init(struct breaker *b, uint64_t seed)
{
	*b = (struct breaker){ .lots = seed };
}

void breaker_reopen(struct breaker *b, double now)
{
	b->state = BREAKER_OPEN;
	b->opened_at = b->probe_at = now;
}

static void rest(struct breaker *b, double now)
{
	const double next = b->pause_s > 0 ? 2 * b->pause_s : BREAKER_FIRST_S;

	b->pause_s = next < BREAKER_LAST_S ? next : BREAKER_LAST_S;
	b->probe_at = now + b->pause_s * (1 + random_unit(&b->lots)) / 2;
	b->state = BREAKER_OPEN;
}

static bool close_again(struct breaker *b)
{
	const bool was_closed = b->state == BREAKER_CLOSED;

	b->state = BREAKER_CLOSED;
	b->failures = 0;
	return !was_closed;
}

bool breaker_answered(struct breaker *b)
{
	b->pause_s = 0;
	return close_again(b);
}

/* Of those that were under way when it opened nothing is to be learned. */
bool breaker_failed(struct breaker *b, double now)
{
	if (b->state != BREAKER_CLOSED || ++b->failures < BREAKER_FAILURES)
		return false;
	b->opened++;
	b->opened_at = now;
	rest(b, now);
	return true;
}

bool breaker_begin_probe(struct breaker *b, double now)
{
	if (b->state != BREAKER_OPEN || now < b->probe_at)
		return false;
	b->state = BREAKER_HALF_OPEN;
	b->probes++;
	return true;
}

/* A late answer may have closed it meanwhile, and others have opened it again. */
bool breaker_probe_answered(struct breaker *b)
{
	return close_again(b);
}

void breaker_probe_failed(struct breaker *b, double now)
{
	if (b->state == BREAKER_HALF_OPEN)
		rest(b, now);
}
