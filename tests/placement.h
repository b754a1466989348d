/* SPDX-License-Identifier: MIT */
/*
 * The smallest edge that speaks docs/protocol.md, section 9: for tests of the cloud's side. Slot s of
 * its table is stripe s of the context. Bytes in and out; the socket is the caller's.
 */
#ifndef LSLM_TESTS_PLACEMENT_H
#define LSLM_TESTS_PLACEMENT_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kv/geometry.h"
#include "lslm/place.h"
#include "net/report.h"
#include "net/seal.h"

enum { PLACEMENT_DATAGRAM = LSLM_CHUNK_MAX + LSLM_WIRE_OVERHEAD };

struct placement {
	struct lslm_receiver rx;
	uint8_t **memory; /* of each slot */
	uint32_t unit_bytes, n_units, chunk;
	uint8_t to_edge[LSLM_WIRE_KEYS][LSLM_WIRE_KEY_BYTES];
	uint8_t to_cloud[LSLM_WIRE_KEYS][LSLM_WIRE_KEY_BYTES];
	uint8_t key; /* to send with */
	uint32_t cloud; /* the session's number there */
	uint64_t counter; /* of the next control datagram */
	uint32_t hello, report; /* numbers of the last ones */
	uint32_t credit;
	/* Of the newest PROBE's HELLO: the largest that came, and how many. */
	uint32_t probe, probe_size, probes;
	uint64_t last_data; /* counter of the last DATA that came */
	uint32_t last_slot, last_chunk;
	uint8_t scratch[PLACEMENT_DATAGRAM];
};

static inline void placement_free(struct placement *p)
{
	for (uint32_t i = 0; i < p->rx.n_slots; i++) {
		free(p->memory[i]);
		free(p->rx.slots[i].region.bits);
	}
	free(p->memory);
	free(p->rx.slots);
}

/* Bind a stripe anew, with this chunk. What was received of it before is asked for again. */
static inline int placement_bind_one(struct placement *p, uint32_t i, uint32_t chunk)
{
	uint32_t length, n_chunks, *units = malloc(p->n_units * sizeof(*units)), u;
	struct lslm_slot *slot = &p->rx.slots[i];

	for (u = 0; u < p->n_units; u++)
		units[u] = p->unit_bytes;
	if (!lslm_region_fits(units, p->n_units, chunk, &length, &n_chunks)) {
		free(units);
		return -1;
	}
	free(slot->region.bits);
	lslm_region_init(&slot->region, calloc(1, lslm_region_bytes(p->n_units, n_chunks)), units,
			 p->n_units, chunk, n_chunks);
	slot->generation++;
	slot->bound = 1;
	free(units);
	return 0;
}

/* All of them. */
static inline int placement_bind(struct placement *p, uint32_t chunk)
{
	int ret = 0;

	p->chunk = chunk;
	for (uint32_t i = 0; i < p->rx.n_slots && !ret; i++)
		ret = placement_bind_one(p, i, chunk);
	return ret;
}

static inline void placement_init(struct placement *p, const struct kv_geometry *geo,
				  uint32_t n_stripes, uint32_t number)
{
	memset(p, 0, sizeof(*p));
	p->rx.session = number;
	p->rx.n_slots = n_stripes;
	p->rx.slots = calloc(n_stripes, sizeof(*p->rx.slots));
	p->memory = calloc(n_stripes, sizeof(*p->memory));
	for (uint32_t i = 0; i < n_stripes; i++)
		p->memory[i] = calloc(1, kv_stripe_bytes(geo, KV_LEVEL_F16));
	p->unit_bytes = (uint32_t)kv_block_bytes(geo, KV_LEVEL_F16);
	p->n_units = geo->n_layer;
	p->credit = 64 << 20;
}

/* A pair of keys: accepted from now on, and used. */
static inline void placement_key(struct placement *p, uint8_t key, const uint8_t *to_edge,
				 const uint8_t *to_cloud, uint64_t max_packets)
{
	memcpy(p->to_edge[key], to_edge, LSLM_WIRE_KEY_BYTES);
	memcpy(p->to_cloud[key], to_cloud, LSLM_WIRE_KEY_BYTES);
	p->rx.keys[key] = (struct lslm_rx_key){ .in_use = 1,
						.max_packets = max_packets,
						.expires_ns = UINT64_MAX };
	p->key = key;
}

static inline struct lslm_header placement_header(struct placement *p, uint8_t opcode,
						  uint32_t number)
{
	return (struct lslm_header){
		.opcode = opcode,
		.version = LSLM_WIRE_VERSION,
		.key = p->key,
		.session = p->cloud,
		.counter = p->counter++ | LSLM_COUNTER_CONTROL,
		.generation = number,
	};
}

static inline size_t placement_hello(struct placement *p, uint8_t *packet, uint32_t largest)
{
	struct lslm_header h = placement_header(p, LSLM_OP_HELLO, ++p->hello);
	uint8_t payload[HELLO_BYTES];

	return seal_packet(packet, &h, payload, hello_put(payload, largest), p->to_cloud[p->key]);
}

/* What has come and what is missing, stripe after stripe; w = 0 when ask is not set. */
static inline size_t placement_report(struct placement *p, uint8_t *packet, uint64_t now, bool ask,
				      uint16_t flags)
{
	struct lslm_header h = placement_header(p, LSLM_OP_REPORT, ++p->report);
	struct report r = {
		.highest = p->rx.received ? p->rx.last_counter : REPORT_NONE,
		.highest_ns = p->rx.last_ns,
		.now_ns = now,
		.received = p->rx.received,
		.credit = p->credit,
		.chunk = (uint16_t)p->chunk,
		.flags = flags,
	};
	struct lslm_range ranges[REPORT_ROOM / REPORT_RANGE];
	uint8_t payload[REPORT_ROOM];
	struct report_writer w;
	uint32_t i, n;

	report_begin(&w, payload, sizeof(payload), &r);
	for (i = 0; ask && i < p->rx.n_slots; i++) {
		struct report_want want = { .slot = i,
					    .generation = p->rx.slots[i].generation,
					    .stripe = i };

		n = lslm_region_missing(&p->rx.slots[i].region, 0, ranges,
					REPORT_ROOM / REPORT_RANGE);
		if (n && report_add(&w, &want, ranges, n) < n)
			break;
	}
	return seal_packet(packet, &h, payload, report_end(&w), p->to_cloud[p->key]);
}

/* Chunks that have not come. */
static inline uint64_t placement_missing(const struct placement *p)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < p->rx.n_slots; i++)
		n += p->rx.slots[i].region.chunks_missing;
	return n;
}

/* A datagram from the cloud: 0, or why it was dropped; PROBEs are dropped as "header" and noted. */
static inline enum lslm_drop placement_take(struct placement *p, const uint8_t *packet, size_t size,
					    uint64_t now)
{
	struct lslm_placement at = { 0 };
	enum lslm_drop why = lslm_place_check(&p->rx, packet, (uint32_t)size, now, &at);
	uint8_t *to;

	if (why == LSLM_DROP_HEADER && size > LSLM_WIRE_OVERHEAD && packet[0] == LSLM_OP_PROBE &&
	    at.header.session == p->rx.session &&
	    seal_open(p->scratch, packet, size, p->to_edge[at.header.key % LSLM_WIRE_KEYS]) >= 0) {
		p->probes = at.header.generation == p->probe ? p->probes + 1 : 1;
		p->probe_size = (uint32_t)size;
		p->probe = at.header.generation;
	}
	if (why)
		return why;
	to = at.verdict ? p->scratch : p->memory[at.header.slot] + at.header.offset;
	if (seal_open(p->scratch, packet, size, p->to_edge[at.header.key]) < 0) {
		lslm_place_forged(&p->rx);
		return LSLM_DROP_FORGED;
	}
	if (to != p->scratch)
		memcpy(to, p->scratch, at.length);
	p->last_data = at.header.counter;
	p->last_slot = at.header.slot;
	p->last_chunk = at.chunk;
	return lslm_place_commit(&p->rx, &at, now);
}

#endif
