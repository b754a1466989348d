// SPDX-License-Identifier: MIT
/* What a session places, and what it tells of it: units, control packets, overflow, progress. */
#include "session_rig.h"

#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

static void place__completes_units(void **state)
{
	struct rig *r = rig_open(state);

	assert_int_equal(missing(r), CHUNKS);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		send_chunk(r, i, 1);
		settle(r);
		check_buffer(r);
		assert_int_equal(r->done_times, (i + 1) / UNIT_CHUNKS);
	}
	assert_int_equal(r->done_units, 7);
	assert_int_equal(r->last_done.slot, 0);
	assert_int_equal(r->last_done.unit, UNITS - 1);
	assert_int_equal(r->last_done.generation, r->generation);
	assert_int_equal(missing(r), 0);
	assert_int_equal(r->stats.placed, CHUNKS);
	assert_int_equal(r->stats.received, CHUNKS);
	assert_int_equal(r->stats.placed_bytes, REGION);
	assert_int_equal(r->stats.units, UNITS);
	rig_close(r);
}

static void place__takes_any_order(void **state)
{
	struct rig *r = rig_open(state);
	struct lslm_range ranges[2];

	/* 7 and 15 have no common divisor: every chunk once. */
	for (uint32_t i = 0; i < CHUNKS - 1; i++)
		send_chunk(r, (i * 7 + 3) % CHUNKS, 2);
	settle(r);
	check_buffer(r);
	assert_int_equal(session_missing(r->s, 0, r->generation, 0, ranges, 2), 1);
	assert_int_equal(ranges[0].count, 1);
	assert_int_equal(ranges[0].first, ((CHUNKS - 1) * 7 + 3) % CHUNKS);
	assert_int_equal(session_missing(r->s, 0, r->generation, ranges[0].first + 1, ranges, 2),
			 0);
	send_chunk(r, ((CHUNKS - 1) * 7 + 3) % CHUNKS, 2);
	settle(r);
	assert_int_equal(r->done_units, 7);
	assert_int_equal(r->done_times, UNITS);
	rig_close(r);
}

/* A counter that arrives late is no replay. */
static void place__takes_late_counters(void **state)
{
	struct rig *r = rig_open(state);

	for (uint32_t i = 0; i < CHUNKS; i++) {
		r->counter = 1000 + (i % 2 ? i - 1 : i + 1);
		send_chunk(r, i, 3);
	}
	settle(r);
	assert_int_equal(r->stats.placed, CHUNKS);
	rig_close(r);
}

static void place__leaves_done_units_alone(void **state)
{
	struct rig *r = rig_open(state);
	struct lslm_header h;
	const uint64_t done = 1 << 1;
	struct session_region region = region_at(r, BASE);

	region.done = &done;
	assert_ok(session_bind(r->s, 0, &region, &r->generation, &err), &err);
	assert_int_equal(missing(r), 2 * UNIT_CHUNKS);
	h = header_for(r, UNIT_BYTES);
	send_as(r, &h, CHUNK, 4);
	expect_drops(r, LSLM_DROP_DUPLICATE, 1);
	for (uint32_t i = 0; i < CHUNKS; i++)
		if (i / UNIT_CHUNKS != 1)
			send_chunk(r, i, 4);
	settle(r);
	assert_int_equal(r->done_units, 5);
	assert_int_equal(missing(r), 0);
	rig_close(r);
}

static void place__takes_the_largest_chunk(void **state)
{
	struct rig *r = rig_open(state);
	struct session_region region = {
		.buffer = r->buffer,
		.base = SIZE - LSLM_CHUNK_MAX - 1,
		.chunk = LSLM_CHUNK_MAX,
		.n_units = 1,
		.unit_bytes = LSLM_CHUNK_MAX + 1,
	};
	struct lslm_header h;

	assert_ok(session_bind(r->s, 0, &region, &r->generation, &err), &err);
	for (size_t i = 0; i < region.unit_bytes; i++)
		r->want[region.base + i] = byte_at(i, 5);
	h = header_for(r, 0);
	send_as(r, &h, LSLM_CHUNK_MAX, 5);
	h = header_for(r, LSLM_CHUNK_MAX);
	send_as(r, &h, 1, 5);
	settle(r);
	assert_int_equal(r->done_times, 1);
	rig_close(r);
}

/* What the sender's kernel, or the receiver's, has glued together. */
static void place__takes_runs_apart(void **state)
{
	struct rig *r = rig_open(state);
	uint8_t run[CHUNKS * (CHUNK + LSLM_WIRE_OVERHEAD)];
	int segment = CHUNK + LSLM_WIRE_OVERHEAD;
	size_t size = 0;

	for (uint32_t unit = 0; unit < UNITS; unit++)
		for (uint32_t i = 0; i < UNIT_CHUNKS - 1; i++) {
			struct lslm_header h = header_for(r, unit * UNIT_BYTES + i * CHUNK);

			size += make(r, run + size, &h, CHUNK, 6);
			r->counter++;
			r->sent++;
			for (uint64_t at = h.offset; at < h.offset + CHUNK; at++)
				r->want[BASE + at] = byte_at(at, 6);
		}
	assert_int_equal(setsockopt(r->peer, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)),
			 0);
	assert_int_equal(send(r->peer, run, size, 0), size);
	segment = 0;
	setsockopt(r->peer, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment));
	settle(r);
	assert_int_equal(r->stats.placed, UNITS * (UNIT_CHUNKS - 1));
	check_buffer(r);
	for (uint32_t unit = 0; unit < UNITS; unit++)
		send_chunk(r, unit * UNIT_CHUNKS + UNIT_CHUNKS - 1, 6);
	settle(r);
	assert_int_equal(r->done_units, 7);
	rig_close(r);
}

/* Two regions of one buffer, filled by turns. */
static void bind__many_slots(void **state)
{
	struct rig *r = rig_open(state);
	struct session_region region = region_at(r, BASE + REGION);
	uint32_t second, length;
	struct lslm_header h;
	uint64_t offset;

	assert_ok(session_bind(r->s, 5, &region, &second, &err), &err);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		send_chunk(r, i, 22);
		chunk_at(i, &offset, &length);
		h = header_for(r, offset);
		h.slot = 5;
		h.generation = second;
		for (uint32_t j = 0; j < length; j++)
			r->want[region.base + offset + j] = byte_at(offset + j, 23);
		send_as(r, &h, length, 23);
	}
	settle(r);
	assert_int_equal(r->stats.units, 2 * UNITS);
	rig_close(r);
}

/* ---- what is told ---- */

static void control__passes(void **state)
{
	static const uint8_t opcodes[] = { 0, LSLM_OP_PROBE, LSLM_OP_HELLO, LSLM_OP_REPORT, 255 };
	static const size_t sizes[] = { 1, 31, 48, 1400, 8952, LARGEST };
	struct rig *r = rig_open(state);
	uint8_t packet[LARGEST] = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(opcodes); i++)
		for (size_t j = 0; j < ARRAY_LEN(sizes); j++) {
			packet[0] = opcodes[i];
			send_bytes(r, packet, sizes[j]);
			expect_drops(r, LSLM_DROP_NONE, 0);
			assert_int_equal(r->control_first, opcodes[i]);
			assert_int_equal(r->control_size, sizes[j]);
		}
	assert_int_equal(r->controls, ARRAY_LEN(opcodes) * ARRAY_LEN(sizes));
	assert_int_equal(r->stats.received, 0);
	rig_close(r);
}

/* More units than the completion ring of the module has entries, and nobody looks meanwhile. */
static void overflow__is_told(void **state)
{
	enum { MANY = 2100, RING = 4096 };
	struct rig *r = rig_open(state);
	bool kernel = variant_of(state)->backend == SESSION_KERNEL;
	double deadline = clock_seconds() + 600; /* thousands, on machines that are emulated */
	uint8_t packet[1 + LSLM_WIRE_OVERHEAD];
	uint32_t generation[2];
	struct lslm_range range;

	for (uint32_t slot = 0; slot < 2; slot++) {
		struct session_region region = { r->buffer, slot * MANY, CHUNK, MANY, 1 };

		assert_ok(session_bind(r->s, slot, &region, &generation[slot], &err), &err);
	}
	for (uint32_t i = 0; i < 2 * MANY; i++) {
		struct lslm_header h = header_for(r, i % MANY);

		h.slot = i / MANY;
		h.generation = generation[h.slot];
		r->want[i] = byte_at(h.offset, 28);
		make(r, packet, &h, 1, 28);
		r->counter++;
		r->sent++;
		assert_int_equal(send(r->peer, packet, sizeof(packet), 0), sizeof(packet));
		/* The module needs no poll to place. */
		while (kernel && i % WINDOW == 0 && r->stats.by_encap < r->sent) {
			assert_true(clock_seconds() < deadline);
			assert_int_equal(session_stats(r->s, &r->stats), 0);
		}
		if (!kernel && i % WINDOW == 0)
			drain(r);
	}
	settle(r);
	assert_int_equal(r->stats.placed, 2 * MANY);
	assert_int_equal(r->done_times, kernel ? RING : 2 * MANY);
	assert_int_equal(r->stats.overflows, kernel ? 2 * MANY - RING : 0);
	assert_int_equal(r->overflows, kernel);
	for (uint32_t slot = 0; slot < 2; slot++)
		assert_int_equal(session_missing(r->s, slot, generation[slot], 0, &range, 1), 0);
	rig_close(r);
}

static void unbind_at_once(void *arg, const struct session_done *done)
{
	struct rig *r = arg;

	note_done(arg, done);
	assert_int_equal(session_unbind(r->s, 0), r->done_times == 1 ? 0 : -ENOENT);
}

/* While others of its region wait to be looked at. */
static void done__may_unbind(void **state)
{
	static const struct session_ops unbind = { .done = unbind_at_once };
	struct rig *r = rig_open(state);
	double deadline = clock_seconds() + 60;

	for (uint32_t i = 0; i < UNIT_CHUNKS; i++)
		send_chunk(r, i, 29);
	for (uint32_t i = 0; i < 6; i++) {
		struct lslm_header h = header_for(r, REGION);

		send_as(r, &h, CHUNK, 29);
	}
	do {
		assert_true(clock_seconds() < deadline);
		assert_ok(session_poll(r->s, 10000000, &unbind, r, &err), &err);
		assert_int_equal(session_stats(r->s, &r->stats), 0);
	} while (r->stats.received < r->sent || !r->done_times);
	assert_int_equal(r->stats.placed, UNIT_CHUNKS);
	assert_int_equal(r->stats.drops[LSLM_DROP_GENERATION] + r->stats.drops[LSLM_DROP_BOUNDS],
			 6);
	rig_close(r);
}

static void progress__says_what_came(void **state)
{
	struct rig *r = rig_open(state);
	struct session_progress p;
	struct lslm_header h;
	uint64_t before = clock_ns(), first_ns;

	session_progress(r->s, &p);
	assert_int_equal(p.received, 0);
	r->counter = 40;
	send_chunk(r, 0, 24);
	settle(r);
	session_progress(r->s, &p);
	assert_int_equal(p.received, 1);
	assert_int_equal(p.last_counter, 40);
	assert_int_equal(p.placed_bytes, CHUNK);
	assert_true(p.last_ns >= before && p.last_ns <= clock_ns());
	first_ns = p.last_ns;
	/* An earlier one, which has no place either: received, but nothing newer. */
	h = header_for(r, REGION);
	h.counter = 39;
	send_as(r, &h, CHUNK, 24);
	expect_drops(r, LSLM_DROP_BOUNDS, 1);
	session_progress(r->s, &p);
	assert_int_equal(p.received, 2);
	assert_int_equal(p.last_counter, 40);
	assert_int_equal(p.last_ns, first_ns);
	rig_close(r);
}

int main(void)
{
	static const struct rig_case cases[] = {
		RIG_CASE(place__completes_units),
		RIG_CASE(place__takes_any_order),
		RIG_CASE(place__takes_late_counters),
		RIG_CASE(place__leaves_done_units_alone),
		RIG_CASE(place__takes_the_largest_chunk),
		RIG_CASE(place__takes_runs_apart),
		RIG_CASE(bind__many_slots),
		RIG_CASE(control__passes),
		RIG_CASE(overflow__is_told),
		RIG_CASE(done__may_unbind),
		RIG_CASE(progress__says_what_came),
	};

	return rig_run("session, placing", cases, ARRAY_LEN(cases));
}
