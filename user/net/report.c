// SPDX-License-Identifier: MIT
#include "net/report.h"

#include <errno.h>
#include <stdbool.h>

enum {
	AT_HIGHEST = 0,
	AT_HIGHEST_NS = 8,
	AT_NOW_NS = 16,
	AT_RECEIVED = 24,
	AT_CREDIT = 32,
	AT_CHUNK = 36,
	AT_FLAGS = 38,
	AT_N_WANTS = 40,
	AT_ZERO = 44,
	WANT_SLOT = 0,
	WANT_GENERATION = 4,
	WANT_STRIPE = 8,
	WANT_LEVEL = 12,
	WANT_ZERO = 13,
	WANT_N_RANGES = 14,
	RANGES_MAX = UINT16_MAX,
};

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

/* ---- HELLO ---- */

size_t hello_put(uint8_t *payload, uint32_t largest)
{
	lslm_put32(payload, largest);
	lslm_put32(payload + 4, 0);
	return HELLO_BYTES;
}

int hello_parse(uint32_t *largest, const uint8_t *payload, size_t size)
{
	if (size != HELLO_BYTES || lslm_get32(payload + 4))
		return -EINVAL;
	*largest = lslm_get32(payload);
	return 0;
}

/* ---- writing ---- */

void report_begin(struct report_writer *w, uint8_t *payload, size_t room, const struct report *r)
{
	lslm_put64(payload + AT_HIGHEST, r->received ? r->highest : REPORT_NONE);
	lslm_put64(payload + AT_HIGHEST_NS, r->received ? r->highest_ns : 0);
	lslm_put64(payload + AT_NOW_NS, r->now_ns);
	lslm_put64(payload + AT_RECEIVED, r->received);
	lslm_put32(payload + AT_CREDIT, r->credit);
	put16(payload + AT_CHUNK, r->chunk);
	put16(payload + AT_FLAGS, r->flags);
	lslm_put32(payload + AT_N_WANTS, 0);
	lslm_put32(payload + AT_ZERO, 0);
	*w = (struct report_writer){
		.at = payload, .size = REPORT_HEAD, .room = room, .enough = room
	};
}

void report_limit(struct report_writer *w, size_t size, uint64_t n_chunks)
{
	w->enough = size < w->room ? size : w->room;
	w->enough_chunks = n_chunks;
}

static bool is_enough(const struct report_writer *w)
{
	return w->size >= w->enough && w->n_chunks >= w->enough_chunks;
}

uint32_t report_room(const struct report_writer *w)
{
	size_t left = w->room - w->size, n;

	if (left < REPORT_WANT + REPORT_RANGE || is_enough(w))
		return 0;
	n = (left - REPORT_WANT) / REPORT_RANGE;
	return n < RANGES_MAX ? (uint32_t)n : RANGES_MAX;
}

uint32_t report_add(struct report_writer *w, const struct report_want *want,
		    const struct lslm_range *ranges, uint32_t n_ranges)
{
	uint32_t n = report_room(w), i;
	uint8_t *p = w->at + w->size;

	if (n > n_ranges)
		n = n_ranges;
	if (!n)
		return 0;
	lslm_put32(p + WANT_SLOT, want->slot);
	lslm_put32(p + WANT_GENERATION, want->generation);
	lslm_put32(p + WANT_STRIPE, want->stripe);
	p[WANT_LEVEL] = want->level;
	p[WANT_ZERO] = 0;
	w->size += REPORT_WANT;
	/* A stripe with a hole in every other chunk has more of them than are needed now. */
	for (i = 0; i < n && (!i || !is_enough(w)); i++, w->size += REPORT_RANGE) {
		lslm_put32(w->at + w->size, ranges[i].first);
		lslm_put32(w->at + w->size + 4, ranges[i].count);
		w->n_chunks += ranges[i].count;
	}
	put16(p + WANT_N_RANGES, (uint16_t)i);
	w->n_wants++;
	return i;
}

size_t report_end(struct report_writer *w)
{
	lslm_put32(w->at + AT_N_WANTS, w->n_wants);
	return w->size;
}

/* ---- reading ---- */

struct lslm_range report_range(const struct report_want *want, uint32_t i)
{
	const uint8_t *p = want->ranges + (size_t)i * REPORT_RANGE;

	return (struct lslm_range){ lslm_get32(p), lslm_get32(p + 4) };
}

static void get_want(struct report_want *want, const uint8_t *p)
{
	want->slot = lslm_get32(p + WANT_SLOT);
	want->generation = lslm_get32(p + WANT_GENERATION);
	want->stripe = lslm_get32(p + WANT_STRIPE);
	want->level = p[WANT_LEVEL];
	want->n_ranges = get16(p + WANT_N_RANGES);
	want->ranges = p + REPORT_WANT;
}

/* Ascending and apart, so that a REPORT cannot ask for the same chunk a thousand times. */
static int check_ranges(const struct report_want *want)
{
	uint64_t end = 0;
	uint32_t i;

	for (i = 0; i < want->n_ranges; i++) {
		struct lslm_range r = report_range(want, i);

		if (!r.count || r.first < end)
			return -EINVAL;
		end = (uint64_t)r.first + r.count;
		if (end > LSLM_REGION_CHUNKS_MAX)
			return -EINVAL;
	}
	return 0;
}

static int check_wants(const struct report *r)
{
	size_t at = 0, left;
	uint32_t i;

	for (i = 0; i < r->n_wants; i++) {
		struct report_want want;

		left = r->wants_size - at;
		if (left < REPORT_WANT)
			return -EINVAL;
		get_want(&want, r->wants + at);
		left -= REPORT_WANT;
		if (r->wants[at + WANT_ZERO] || !want.n_ranges ||
		    left < (size_t)want.n_ranges * REPORT_RANGE || check_ranges(&want) < 0)
			return -EINVAL;
		at += REPORT_WANT + (size_t)want.n_ranges * REPORT_RANGE;
	}
	return at == r->wants_size ? 0 : -EINVAL;
}

static int check_head(const struct report *r)
{
	if ((r->highest == REPORT_NONE) != !r->received)
		return -EINVAL;
	if (r->received && (r->highest & LSLM_COUNTER_CONTROL || r->highest_ns > r->now_ns))
		return -EINVAL;
	if (r->flags & ~REPORT_OVER)
		return -EINVAL;
	/* Before the path is known there is none. */
	if (!r->chunk && !r->n_wants)
		return 0;
	return r->chunk < LSLM_CHUNK_MIN || r->chunk > LSLM_CHUNK_MAX ||
			       r->chunk % LSLM_CHUNK_ALIGN ?
		       -EINVAL :
		       0;
}

int report_parse(struct report *r, const uint8_t *payload, size_t size)
{
	if (size < REPORT_HEAD || lslm_get32(payload + AT_ZERO))
		return -EINVAL;
	*r = (struct report){
		.highest = lslm_get64(payload + AT_HIGHEST),
		.highest_ns = lslm_get64(payload + AT_HIGHEST_NS),
		.now_ns = lslm_get64(payload + AT_NOW_NS),
		.received = lslm_get64(payload + AT_RECEIVED),
		.credit = lslm_get32(payload + AT_CREDIT),
		.chunk = get16(payload + AT_CHUNK),
		.flags = get16(payload + AT_FLAGS),
		.n_wants = lslm_get32(payload + AT_N_WANTS),
		.wants = payload + REPORT_HEAD,
		.wants_size = size - REPORT_HEAD,
	};
	return check_head(r) < 0 || check_wants(r) < 0 ? -EINVAL : 0;
}

int report_next(const struct report *r, size_t *at, struct report_want *want)
{
	if (*at >= r->wants_size)
		return 0;
	get_want(want, r->wants + *at);
	*at += REPORT_WANT + (size_t)want->n_ranges * REPORT_RANGE;
	return 1;
}
