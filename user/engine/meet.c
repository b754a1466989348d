// SPDX-License-Identifier: MIT
#include "engine/meet.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/clock.h"

uint32_t meet_head(const struct meet *m)
{
	return atomic_load_explicit(&m->n_head, memory_order_relaxed);
}

uint32_t meet_piece(uint32_t gap, double compute_rate, double stream_rate)
{
	double meeting = gap, stripes;

	if (compute_rate <= 0)
		return KV_BLOCK_TOKENS;
	meeting *= compute_rate / (compute_rate + stream_rate);
	if (meeting > ENGINE_BATCH)
		return ENGINE_BATCH;
	/* A hair more than whole stripes is rounding, not another stripe. */
	stripes = (uint32_t)(meeting / KV_BLOCK_TOKENS + 1 - 1e-3);
	return stripes < 1 ? KV_BLOCK_TOKENS : (uint32_t)stripes * KV_BLOCK_TOKENS;
}

static double blend(double rate, double latest)
{
	return rate > 0 ? (rate + latest) / 2 : latest;
}

void meet_see(struct meet_stream *s, uint32_t tail, double now)
{
	const double seconds = now - s->at;
	double rate;

	if (seconds <= 0)
		return;
	if (tail == s->tail) {
		/* It may be about to come, so twice as long as usual says nothing yet. */
		rate = 2 * KV_BLOCK_TOKENS / seconds;
		if (s->rate > rate)
			s->rate = rate;
		return;
	}
	rate = (s->tail - tail) * KV_BLOCK_TOKENS / seconds;
	s->rate = s->changes++ > 1 ? blend(s->rate, rate) : rate;
	s->tail = tail;
	s->at = now;
}

static uint32_t tail_of(const struct meet *m)
{
	return m->control ? control_tail(m->control) : m->n_stripes;
}

static uint32_t look(struct meet *m)
{
	const uint32_t tail = tail_of(m);

	meet_see(&m->stream, tail, clock_seconds());
	return tail;
}

static bool yields(const struct meet *m)
{
	return m->stream.rate > MEET_YIELD * m->layer_rate;
}

/* Leave the processors to the receiver as long as it makes better use of them: the tail after that. */
static uint32_t yield(struct meet *m, uint32_t tail)
{
	const double start = clock_seconds(), layer = start - m->layer_start;
	const double silence = 2 * KV_BLOCK_TOKENS / (MEET_YIELD * m->layer_rate);
	const uint32_t from = meet_head(m);
	double most;
	int rc = -ETIMEDOUT;

	m->nap = 2 * m->nap < MEET_NAP ? 2 * m->nap : MEET_NAP;
	most = m->nap * layer;
	while (rc == -ETIMEDOUT && tail > from && yields(m) && clock_seconds() - start < most) {
		const double wait = silence < most ? silence : most;

		rc = control_wait_tail(m->control, from, 1 + (int)(wait * 1e3));
		tail = look(m);
	}
	/* Failed: nothing more will come. */
	if (rc == -EIO)
		m->stream.rate = 0;
	m->slept += clock_seconds() - start;
	return tail;
}

/* Before a layer of the piece at work. */
static uint32_t end_of_head(void *arg, uint32_t layer)
{
	struct meet *m = arg;
	const uint32_t from = meet_head(m);
	uint32_t tail = look(m);
	double seconds;

	if (!m->control)
		return tail * KV_BLOCK_TOKENS;
	seconds = clock_seconds() - m->layer_start;
	if (layer && seconds > 0) {
		m->layer_rate = blend(m->layer_rate, m->rows / (seconds * m->e->geo.n_layer));
		if (!m->most && yields(m))
			tail = yield(m, tail);
		else
			m->nap = 1;
	}
	if (tail <= from)
		m->rows = 0;
	else if ((tail - from) * KV_BLOCK_TOKENS < m->rows)
		m->rows = (tail - from) * KV_BLOCK_TOKENS;
	m->layer_start = clock_seconds();
	return tail * KV_BLOCK_TOKENS;
}

/* One piece; how fast it was becomes our rate. */
static int step(struct meet *m, uint32_t from, uint32_t to, struct lslm_error *err)
{
	const double start = clock_seconds();
	uint32_t n = meet_piece((to - from) * KV_BLOCK_TOKENS, m->compute_rate, m->stream.rate);
	uint32_t asked;
	int rc;

	if (m->most && n > m->most)
		n = m->most;
	asked = n;
	m->rows = n;
	m->slept = 0;
	rc = engine_walk(m->e, m->head, m->tokens + from * KV_BLOCK_TOKENS, &n, end_of_head, m,
			 err);
	if (rc)
		return rc;
	atomic_store_explicit(&m->n_head, m->head->own.n_tokens / KV_BLOCK_TOKENS,
			      memory_order_relaxed);
	/* A piece that lost rows on its way says too little about how fast whole ones are. */
	if (n == asked)
		m->compute_rate = blend(m->compute_rate, n / (clock_seconds() - start - m->slept));
	return 0;
}

int meet_step(struct meet *m, uint32_t most, struct lslm_error *err)
{
	uint32_t from, to;
	int rc = 0;

	/* The first one, or the first after the stream was given up. */
	if (m->stream.at <= 0 || tail_of(m) > m->stream.tail) {
		m->nap = 1;
		m->stream = (struct meet_stream){ .tail = tail_of(m), .at = clock_seconds() };
	}
	from = meet_head(m);
	to = look(m);
	/* Also where they have met: what the courier still waits for is not wanted any more. */
	if (m->delivery)
		m->delivery->ops->set_head(m->delivery, from);
	if (from >= to)
		return 1;
	m->most = most;
	if (most && m->control && m->layer_rate > 0 && yields(m))
		return 0;
	if (!m->head)
		rc = sequence_create(&m->head, &m->e->geo, m->n_stripes * KV_BLOCK_TOKENS, err);
	return rc ? rc : step(m, from, to, err);
}

int meet_walk(struct meet *m, struct lslm_error *err)
{
	int rc;

	m->stream.at = 0;
	do
		rc = meet_step(m, 0, err);
	while (!rc);
	return rc < 0 ? rc : 0;
}

void meet_free(struct meet *m)
{
	sequence_destroy(m->head);
	m->head = NULL;
	atomic_store_explicit(&m->n_head, 0, memory_order_relaxed);
}
