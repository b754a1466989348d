// SPDX-License-Identifier: MIT
#include "net/choice.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Of the time left, what is counted on: the rest is for a link that gets slower. */
#define MARGIN 0.8
/* Of the time left, what is asked for at once, with a speed that was measured or only guessed. */
#define PORTION	      0.25
#define FIRST_PORTION (1.0 / 16)
/* But not less than this, or requests would become more and more, and smaller. */
#define SECONDS_AT_ONCE 0.25
/* A shorter time says little about the speed, but that so much came in it lets hope. */
#define SAMPLE_S    0.02
#define BURST_BYTES 16384
#define BURST_S	    1e-3
/* As often as what has come is asked for next, as long as there is nothing but hope. */
#define GROWTH 4

/* No stripe's number: there are at most KV_MAX_TOKENS of them. */
#define NO_STRIPE UINT32_MAX

struct choice {
	const struct manifest *manifest;
	uint32_t n;
	const struct manifest_level *levels[KV_LEVELS];
	double mean[KV_LEVELS]; /* bytes of a stripe */
	size_t pitch, encoded;
	/* [n_stripes] 1 + index into levels; 0: not chosen. Written by one thread; others look, see choice_level(). */
	_Atomic uint8_t *chosen;
	uint32_t n_chosen;
	uint32_t last; /* index of the level that was chosen last */
	double bytes; /* of all that were chosen since choice_begin() */

	double begun, until;
	double rate; /* bytes per second; 0: not known */
	bool measured; /* else guessed, and no more than it is */
	double hope; /* another one, by a burst; 0: none */
	uint64_t base, received, seen; /* bytes at choice_begin(), now, at the last sample */
	double seen_at;
};

static int none_on_offer(const struct manifest *m, uint32_t levels, struct lslm_error *err)
{
	char wanted[32] = "", there[32] = "";

	for (int i = 0; i < KV_LEVELS; i++) {
		if (levels >> i & 1)
			strcat(strcat(wanted, *wanted ? "," : ""), kv_level_name(i));
		if (manifest_level(m, i))
			strcat(strcat(there, *there ? "," : ""), kv_level_name(i));
	}
	return error_set(err, -EINVAL,
			 "the context is not on offer at level %s, only at %s; publish it again "
			 "with that level, or choose another one",
			 wanted, there);
}

static double mean_bytes(const struct manifest *m, const struct manifest_level *lv)
{
	double sum = 0;

	for (uint32_t s = 0; s < m->n_stripes; s++)
		sum += (double)lv->length[s];
	return m->n_stripes ? sum / m->n_stripes : 0;
}

int choice_open(struct choice **out, const struct manifest *m, uint32_t levels,
		struct lslm_error *err)
{
	struct choice *p = calloc(1, sizeof(*p));

	if (!p)
		return error_sys(err, -ENOMEM, "levels");
	p->manifest = m;
	for (uint32_t i = 0; i < m->n_levels; i++) {
		const struct manifest_level *lv = &m->levels[i];
		const size_t bytes = kv_stripe_bytes(&m->geo, kv_level_in_memory(lv->level));

		if (!(levels >> lv->level & 1))
			continue;
		p->mean[p->n] = mean_bytes(m, lv);
		for (uint32_t s = 0; kv_level_in_memory(lv->level) != lv->level && s < m->n_stripes;
		     s++)
			if (lv->length[s] > p->encoded)
				p->encoded = lv->length[s];
		p->levels[p->n++] = lv;
		p->pitch = bytes > p->pitch ? bytes : p->pitch;
	}
	if (!p->n) {
		choice_close(p);
		return none_on_offer(m, levels, err);
	}
	p->chosen = calloc((size_t)m->n_stripes + 1, sizeof(*p->chosen));
	if (!p->chosen) {
		choice_close(p);
		return error_sys(err, -ENOMEM, "levels");
	}
	*out = p;
	return 0;
}

void choice_close(struct choice *p)
{
	if (!p)
		return;
	free(p->chosen);
	free(p);
}

size_t choice_pitch(const struct choice *p)
{
	return p->pitch;
}

size_t choice_encoded(const struct choice *p)
{
	return p->encoded;
}

const struct manifest_level *choice_candidate(const struct choice *p, uint32_t i)
{
	return i < p->n ? p->levels[i] : NULL;
}

const struct manifest_level *choice_level(const struct choice *p, uint32_t stripe)
{
	const uint8_t chosen = atomic_load_explicit(&p->chosen[stripe], memory_order_relaxed);

	return chosen ? p->levels[chosen - 1] : NULL;
}

/* ---- runs of one format ---- */

static enum kv_level format_of(const struct choice *p, uint8_t chosen)
{
	return kv_level_in_memory(p->levels[chosen - 1]->level);
}

/*
 * Runs there will be with this stripe at this level; NO_STRIPE: that there are. Stripes that are not chosen yet are left out:
 * each can be made like a neighbour, which adds none.
 */
static uint32_t runs_with(const struct choice *p, uint32_t stripe, uint32_t level)
{
	uint32_t runs = 0;
	int last = -1;

	for (uint32_t s = 0; s < p->manifest->n_stripes; s++) {
		const uint8_t chosen = s == stripe ? (uint8_t)(level + 1) : p->chosen[s];

		if (!chosen || (int)format_of(p, chosen) == last)
			continue;
		last = format_of(p, chosen);
		runs++;
	}
	return runs;
}

/* Without a look at all of them where a neighbour is the same, which is nearly always. */
static bool is_like_neighbour(const struct choice *p, uint32_t stripe, uint32_t level)
{
	const enum kv_level format = format_of(p, (uint8_t)(level + 1));

	if (stripe && p->chosen[stripe - 1] && format_of(p, p->chosen[stripe - 1]) == format)
		return true;
	return stripe + 1 < p->manifest->n_stripes && p->chosen[stripe + 1] &&
	       format_of(p, p->chosen[stripe + 1]) == format;
}

static bool fits(const struct choice *p, uint32_t stripe, uint32_t level, uint32_t most)
{
	uint32_t runs;

	if (is_like_neighbour(p, stripe, level))
		return true;
	runs = runs_with(p, stripe, level);
	/* The neighbour may be some stripes away: whatever adds no run is possible, so there always is something. */
	return runs <= most || runs == runs_with(p, NO_STRIPE, level);
}

static void set(struct choice *p, uint32_t stripe, uint32_t level)
{
	p->chosen[stripe] = (uint8_t)(level + 1);
	p->n_chosen++;
}

bool choice_take(struct choice *p, uint32_t stripe, const struct manifest_level *lv)
{
	for (uint32_t i = 0; i < p->n; i++)
		if (p->levels[i] == lv && !p->chosen[stripe] && fits(p, stripe, i, CHOICE_RUNS)) {
			set(p, stripe, i);
			return true;
		}
	return false;
}

void choice_forget(struct choice *p, uint32_t stripe)
{
	if (!p->chosen[stripe])
		return;
	p->bytes = fmax(p->bytes - (double)choice_level(p, stripe)->length[stripe], 0);
	p->chosen[stripe] = 0;
	p->n_chosen--;
}

/* ---- the speed ---- */

void choice_begin(struct choice *p, double now, double deadline_s, uint64_t received, double rate)
{
	p->begun = p->seen_at = now;
	p->until = deadline_s > 0 ? now + deadline_s : INFINITY;
	p->base = p->received = p->seen = received;
	p->bytes = 0;
	p->measured = false;
	p->hope = 0;
	p->rate = rate;
}

void choice_see(struct choice *p, uint64_t received, double now)
{
	const double seconds = now - p->seen_at, bytes = (double)(received - p->seen);
	double rate;

	p->received = received;
	if (seconds < SAMPLE_S) {
		/* A burst, perhaps only of what a queue on the way takes at once. */
		if (!p->measured && bytes >= BURST_BYTES)
			p->hope = bytes / fmax(seconds, BURST_S);
		return;
	}
	if (bytes <= 0)
		return;
	rate = bytes / seconds;
	p->rate = p->measured ? (p->rate + rate) / 2 : rate;
	p->measured = true;
	p->hope = 0;
	p->seen = received;
	p->seen_at = now;
}

/* ---- the choice ---- */

/* Stripes that nobody has asked for and the engine will not have computed until the end. */
static double missing(const struct choice *p, uint32_t head, double now)
{
	const double past = now - p->begun, left = p->until - now;
	double computed = head;

	if (past > 0 && left > 0)
		computed += head / past * left;
	return fmax(p->manifest->n_stripes - computed - p->n_chosen, 1);
}

static double under_way(const struct choice *p)
{
	return fmax(p->bytes - (double)(p->received - p->base), 0);
}

/* The finest at which all that is missing takes no more than so many bytes; n: not even the coarsest. */
static uint32_t finest_within(const struct choice *p, double stripes, double bytes)
{
	uint32_t i = 0;

	while (i < p->n && stripes * p->mean[i] > bytes)
		i++;
	return i;
}

static uint32_t wish(const struct choice *p, uint32_t head, double now)
{
	const double left = p->until - now;
	const double room = fmax(p->rate, p->hope) * left * MARGIN - under_way(p);
	uint32_t i;

	if (p->n == 1 || isinf(left))
		return 0;
	i = finest_within(p, missing(p, head, now), room);
	if (i && !p->measured && p->hope <= p->rate)
		i = finest_within(p, 1, p->rate * left * FIRST_PORTION);
	return i < p->n ? i : p->n - 1;
}

/* Where the wish would make too many runs: a coarser one, or else a finer one, that a neighbour has. */
static uint32_t possible(const struct choice *p, uint32_t stripe, uint32_t level)
{
	for (uint32_t i = level; i < p->n; i++)
		if (fits(p, stripe, i, i < p->last ? CHOICE_RUNS / 2 : CHOICE_RUNS))
			return i;
	while (level-- > 0)
		if (fits(p, stripe, level, CHOICE_RUNS))
			return level;
	return p->last;
}

void choice_make(struct choice *p, uint32_t stripe, uint32_t head, double now)
{
	if (p->chosen[stripe])
		return;
	p->last = possible(p, stripe, wish(p, head, now));
	set(p, stripe, p->last);
	p->bytes += (double)p->levels[p->last]->length[stripe];
}

bool choice_accepts(const struct choice *p, uint32_t stripe, const struct manifest_level *lv,
		    uint32_t head, double now, bool alone)
{
	for (uint32_t i = 0; i < p->n; i++)
		if (p->levels[i] == lv)
			return fits(p, stripe, i, CHOICE_RUNS) &&
			       (alone || i <= possible(p, stripe, wish(p, head, now)));
	return false;
}

bool choice_ask(struct choice *p, uint32_t stripe, const struct manifest_level *lv)
{
	if (!choice_take(p, stripe, lv))
		return false;
	p->bytes += (double)lv->length[stripe];
	return true;
}

uint64_t choice_budget(const struct choice *p, uint32_t head, double now)
{
	const double left = p->until - now;
	double bytes;

	/* Whatever comes of it, the choice will be the same. */
	if (p->n == 1 || isinf(left) || left <= 0 ||
	    missing(p, head, now) * p->mean[0] + under_way(p) <= p->rate * left * MARGIN / 2)
		return UINT64_MAX;
	if (p->measured)
		bytes = fmax(left * PORTION, SECONDS_AT_ONCE) * p->rate;
	else if (p->hope > p->rate)
		bytes = GROWTH * (double)(p->received - p->base);
	else
		bytes = left * FIRST_PORTION * p->rate;
	return (uint64_t)fmax(bytes - under_way(p), 0);
}
