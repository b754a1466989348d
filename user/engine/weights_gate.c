// SPDX-License-Identifier: MIT
#include "engine/weights_gate.h"

#include <string.h>

#include "base/clock.h"

void weights_gate_init(struct weights_gate *g, uint32_t n, uint32_t pinned, uint32_t slots)
{
	memset(g, 0, sizeof(*g));
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->moved, NULL);
	g->n = n;
	g->pinned = pinned;
	g->slots = slots;
}

void weights_gate_destroy(struct weights_gate *g)
{
	pthread_cond_destroy(&g->moved);
	pthread_mutex_destroy(&g->lock);
}

static bool stays(const struct weights_gate *g, uint32_t section)
{
	return section < g->pinned || section == g->n - 1;
}

static uint32_t streamed(const struct weights_gate *g)
{
	return g->n - 1 - g->pinned;
}

/* --- the engine --- */

static int outcome(struct weights_gate *g, struct lslm_error *err)
{
	return g->failed.code ? error_set(err, g->failed.code, "%s", g->failed.text) : 0;
}

/* The section used so far makes room. */
static void release(struct weights_gate *g)
{
	if (!g->in_use)
		return;
	g->in_use = false;
	g->first++;
	pthread_cond_broadcast(&g->moved);
}

static void await_kept(struct weights_gate *g, uint32_t section)
{
	release(g);
	while (!g->here[section] && !g->failed.code)
		pthread_cond_wait(&g->moved, &g->lock);
}

/* Turns before the next one of this section are not wanted any more. */
static uint64_t await_streamed(struct weights_gate *g, uint32_t section)
{
	const uint32_t n = streamed(g), wanted = section - g->pinned;
	const uint32_t at = (uint32_t)(g->first % n);

	/* Asked again for what it has, the engine keeps it. */
	if (!(g->in_use && at == wanted)) {
		release(g);
		g->first += (wanted + n - (uint32_t)(g->first % n)) % n;
		g->in_use = true;
		pthread_cond_broadcast(&g->moved);
	}
	while (g->loaded <= g->first && !g->failed.code)
		pthread_cond_wait(&g->moved, &g->lock);
	return g->first;
}

int weights_gate_need(struct weights_gate *g, uint32_t section, struct weights_turn *turn,
		      struct lslm_error *err)
{
	const bool kept = stays(g, section);
	double start;
	int rc;

	*turn = (struct weights_turn){ .section = section, .slot = -1 };
	if (kept && !g->in_use && g->here[section])
		return 0;
	start = clock_seconds();
	pthread_mutex_lock(&g->lock);
	if (kept) {
		await_kept(g, section);
	} else {
		turn->number = await_streamed(g, section);
		turn->slot = (int32_t)(turn->number % g->slots);
	}
	g->waited += clock_seconds() - start;
	rc = kept && g->here[section] ? 0 : outcome(g, err);
	pthread_mutex_unlock(&g->lock);
	return rc;
}

/* --- the loader --- */

/* What stays goes first: the layers, then the output. */
static bool next_kept(struct weights_gate *g, struct weights_turn *turn)
{
	if (g->next > g->pinned)
		return false;
	turn->section = g->next < g->pinned ? g->next : g->n - 1;
	turn->slot = -1;
	g->next++;
	return true;
}

/* The slot must be free: of what the engine may still read, and of what is still being read into it. */
static bool next_streamed(struct weights_gate *g, struct weights_turn *turn)
{
	const uint64_t oldest = g->first < g->loaded ? g->first : g->loaded;

	if (g->first > g->started && g->loaded == g->started)
		g->started = g->loaded = g->first;
	else if (g->first > g->started || g->started >= oldest + g->slots)
		return false;
	turn->number = g->started++;
	turn->slot = (int32_t)(turn->number % g->slots);
	turn->section = g->pinned + (uint32_t)(turn->number % streamed(g));
	g->slot_done[turn->slot] = false;
	return true;
}

int weights_gate_next(struct weights_gate *g, bool wait, struct weights_turn *turn)
{
	int rc;

	pthread_mutex_lock(&g->lock);
	for (;;) {
		rc = 0;
		if (g->stop || g->failed.code)
			break;
		rc = next_kept(g, turn) ? 1 : streamed(g) ? 0 : -1;
		if (!rc && next_streamed(g, turn))
			rc = 1;
		if (rc || !wait)
			break;
		pthread_cond_wait(&g->moved, &g->lock);
	}
	pthread_mutex_unlock(&g->lock);
	return rc;
}

void weights_gate_loaded(struct weights_gate *g, const struct weights_turn *turn)
{
	pthread_mutex_lock(&g->lock);
	if (turn->slot < 0) {
		g->here[turn->section] = 1;
	} else {
		g->slot_done[turn->slot] = true;
		while (g->loaded < g->started && g->slot_done[g->loaded % g->slots])
			g->loaded++;
	}
	pthread_cond_broadcast(&g->moved);
	pthread_mutex_unlock(&g->lock);
}

void weights_gate_fail(struct weights_gate *g, const struct lslm_error *why)
{
	pthread_mutex_lock(&g->lock);
	if (!g->failed.code) {
		g->failed = *why;
		g->failed.code = -ENOTRECOVERABLE;
	}
	pthread_cond_broadcast(&g->moved);
	pthread_mutex_unlock(&g->lock);
}

void weights_gate_stop(struct weights_gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->stop = true;
	pthread_cond_broadcast(&g->moved);
	pthread_mutex_unlock(&g->lock);
}

bool weights_gate_stopped(struct weights_gate *g)
{
	bool stop;

	pthread_mutex_lock(&g->lock);
	stop = g->stop;
	pthread_mutex_unlock(&g->lock);
	return stop;
}
