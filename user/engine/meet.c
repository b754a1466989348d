// SPDX-License-Identifier: MIT
#include "engine/meet.h"

#include "base/clock.h"

uint32_t meet_head(const struct meet *m)
{
	return m->head ? m->head->own.n_tokens / KV_BLOCK_TOKENS : 0;
}

static uint32_t tail(const struct meet *m)
{
	return m->control ? control_tail(m->control) : m->n_stripes;
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

/* One piece; what it and the stream did in its time becomes the rates. */
static int step(struct meet *m, uint32_t from, uint32_t to, struct lslm_error *err)
{
	const double start = clock_seconds();
	uint32_t n = meet_piece((to - from) * KV_BLOCK_TOKENS, m->compute_rate, m->stream_rate);
	const uint32_t asked = n;
	double seconds;
	int rc;

	rc = engine_walk(m->e, m->head, m->tokens + from * KV_BLOCK_TOKENS, &n, m->control, err);
	if (rc)
		return rc;
	seconds = clock_seconds() - start;
	/* A piece that lost rows on its way says too little about how fast whole ones are. */
	if (n == asked)
		m->compute_rate = blend(m->compute_rate, n / seconds);
	m->stream_rate = blend(m->stream_rate, (to - tail(m)) * KV_BLOCK_TOKENS / seconds);
	return 0;
}

int meet_walk(struct meet *m, struct lslm_error *err)
{
	uint32_t from, to;
	int rc = 0;

	for (;;) {
		from = meet_head(m);
		to = tail(m);
		/* Also where they have met: what the courier still waits for is not wanted any more. */
		if (m->delivery)
			m->delivery->ops->set_head(m->delivery, from);
		if (from >= to)
			return 0;
		if (!m->head)
			rc = sequence_create(&m->head, &m->e->geo, m->n_stripes * KV_BLOCK_TOKENS,
					     err);
		if (!rc)
			rc = step(m, from, to, err);
		if (rc)
			return rc;
	}
}

void meet_free(struct meet *m)
{
	sequence_destroy(m->head);
	m->head = NULL;
}
