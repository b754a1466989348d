// SPDX-License-Identifier: MIT
#include "net/pathmtu.h"

#include "lslm/wire.h"

#define MS 1000000ULL
/* Between HELLOs: at first, and at most. */
#define WAIT_FIRST (100 * MS)
#define WAIT_MOST  (400 * MS)
/* After a PROBE larger ones of its burst come, or are lost: on a thin link one by one. */
#define SETTLE (20 * MS)
/* A smaller size than the one in use needs so many witnesses. */
#define WITNESSES 2

static const uint32_t sizes[] = { 1200, 1232, 1352, 1400, 1452, 1472, 4096, 8952 };

uint32_t pathmtu_chunk(uint32_t size)
{
	return (size - LSLM_WIRE_OVERHEAD) / LSLM_CHUNK_ALIGN * LSLM_CHUNK_ALIGN;
}

void pathmtu_init(struct pathmtu *p, uint32_t largest)
{
	*p = (struct pathmtu){ .largest = largest, .top = sizes[0] };
	if (p->largest > PATHMTU_MOST)
		p->largest = PATHMTU_MOST;
	if (p->largest < PATHMTU_LEAST)
		p->largest = PATHMTU_LEAST;
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (sizes[i] <= p->largest)
			p->top = sizes[i];
}

void pathmtu_ask(struct pathmtu *p, uint64_t now)
{
	if (p->open)
		return;
	p->open = true;
	p->first = p->number + 1;
	p->best = 0;
	p->answered = 0;
	p->next_ns = now;
	p->wait_ns = WAIT_FIRST;
}

void pathmtu_calm(struct pathmtu *p)
{
	p->open = false;
}

static uint64_t settled_at(const struct pathmtu *p)
{
	return p->answered_ns + (p->rtt_ns / 2 > SETTLE ? p->rtt_ns / 2 : SETTLE);
}

static bool has_witnesses(const struct pathmtu *p)
{
	return !p->chunk || __builtin_popcount(p->answered) >= WITNESSES;
}

uint64_t pathmtu_due(const struct pathmtu *p)
{
	uint64_t due = p->next_ns;

	if (!p->open)
		return PATHMTU_NEVER;
	if (p->best && has_witnesses(p) && settled_at(p) < due)
		due = settled_at(p);
	return due;
}

uint32_t pathmtu_hello(struct pathmtu *p, uint64_t now)
{
	if (!p->open || now < p->next_ns)
		return 0;
	p->number++;
	p->sent_ns[p->number % PATHMTU_HELLOS] = now;
	p->next_ns = now + p->wait_ns;
	p->wait_ns = 2 * p->wait_ns < WAIT_MOST ? 2 * p->wait_ns : WAIT_MOST;
	return p->number;
}

static bool is_listed(uint32_t size)
{
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (sizes[i] == size)
			return true;
	return false;
}

bool pathmtu_probe(struct pathmtu *p, uint32_t number, uint32_t size, uint64_t now)
{
	uint32_t bit;

	if (!p->open || number < p->first || number > p->number || size > p->largest ||
	    !is_listed(size))
		return false;
	/* The 32nd and all later ones of a round count as one. */
	bit = number - p->first < 31 ? 1U << (number - p->first) : 1U << 31;
	if (!(p->answered & bit)) {
		p->answered |= bit;
		p->answered_ns = now;
		if (p->number - number < PATHMTU_HELLOS)
			p->rtt_ns = now - p->sent_ns[number % PATHMTU_HELLOS];
	}
	if (size > p->best) {
		p->best = size;
		p->answered_ns = now;
	}
	return true;
}

bool pathmtu_decide(struct pathmtu *p, uint64_t now)
{
	if (!p->open || !p->best)
		return false;
	if (p->chunk && pathmtu_chunk(p->best) >= p->chunk) {
		/* The path takes what is in use, so it was something else; larger ones are not looked for. */
		p->open = false;
		return true;
	}
	if (p->best < p->top && (!has_witnesses(p) || now < settled_at(p)))
		return false;
	p->chunk = pathmtu_chunk(p->best);
	p->open = false;
	return true;
}
