// SPDX-License-Identifier: MIT
#include "net/sendqueue.h"

#include <errno.h>
#include <string.h>

void sendqueue_init(struct sendqueue *q, const uint64_t key[4])
{
	memset(q, 0, sizeof(*q));
	memcpy(q->key, key, sizeof(q->key));
}

/* ---- the last transmissions ---- */

/* Multiply-shift: two chunks collide by chance only, whoever chooses them. */
static uint16_t *bucket_of(struct sendqueue *q, uint32_t slot, uint32_t generation, uint32_t number)
{
	uint64_t h = q->key[0] + q->key[1] * slot + q->key[2] * generation + q->key[3] * number;

	return &q->buckets[(h >> 32) % SENDQUEUE_BUCKETS];
}

static bool is_chunk(const struct sendqueue_entry *e, const struct sendqueue_chunk *chunk)
{
	return e->slot == chunk->slot && e->generation == chunk->generation &&
	       e->number == chunk->number;
}

static const struct sendqueue_entry *find(struct sendqueue *q, const struct sendqueue_chunk *chunk)
{
	uint16_t i = *bucket_of(q, chunk->slot, chunk->generation, chunk->number);

	/* Newest first: an older transmission of the same chunk is never met. */
	for (; i; i = q->ring[i - 1].next)
		if (is_chunk(&q->ring[i - 1], chunk))
			return &q->ring[i - 1];
	return NULL;
}

static void forget(struct sendqueue *q, struct sendqueue_entry *e)
{
	uint16_t *i = bucket_of(q, e->slot, e->generation, e->number);

	while (&q->ring[*i - 1] != e)
		i = &q->ring[*i - 1].next;
	*i = e->next;
}

void sendqueue_sent(struct sendqueue *q, const struct sendqueue_chunk *chunk, uint64_t counter)
{
	struct sendqueue_entry *e = &q->ring[counter % SENDQUEUE_RING];
	uint16_t *bucket = bucket_of(q, chunk->slot, chunk->generation, chunk->number);

	if (e->used)
		forget(q, e);
	*e = (struct sendqueue_entry){
		.counter = counter,
		.slot = chunk->slot,
		.generation = chunk->generation,
		.number = chunk->number,
		.next = *bucket,
		.used = 1,
	};
	*bucket = (uint16_t)(e - q->ring + 1);
}

/* ---- the pass ---- */

int sendqueue_report(struct sendqueue *q, const uint8_t *payload, size_t size)
{
	struct report r;

	if (size > sizeof(q->payload) || report_parse(&r, payload, size) < 0)
		return -EINVAL;
	memcpy(q->payload, payload, size);
	report_parse(&q->report, q->payload, size);
	q->at = 0;
	q->want = (struct report_want){ 0 };
	q->range = (struct lslm_range){ 0 };
	q->next_range = 0;
	q->skipped = 0;
	return 0;
}

const struct report *sendqueue_newest(const struct sendqueue *q)
{
	return &q->report;
}

/* The next chunk that the REPORT names, whatever has become of it. */
static bool step(struct sendqueue *q, struct sendqueue_chunk *out)
{
	while (!q->range.count) {
		while (q->next_range == q->want.n_ranges) {
			if (!report_next(&q->report, &q->at, &q->want))
				return false;
			q->next_range = 0;
		}
		q->range = report_range(&q->want, q->next_range++);
	}
	*out = (struct sendqueue_chunk){
		.slot = q->want.slot,
		.generation = q->want.generation,
		.number = q->range.first++,
		.stripe = q->want.stripe,
		.level = q->want.level,
	};
	q->range.count--;
	return true;
}

bool sendqueue_next(struct sendqueue *q, const struct congestion *c, struct sendqueue_chunk *out)
{
	const struct sendqueue_entry *e;

	while (q->skipped <= SENDQUEUE_RING && step(q, out)) {
		e = find(q, out);
		out->again = e;
		/* One that is about to be sent is not lost. */
		if (!e || (e->counter < c->next && congestion_lost(c, e->counter)))
			return true;
		q->skipped++;
	}
	return false;
}
