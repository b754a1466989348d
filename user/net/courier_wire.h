/* SPDX-License-Identifier: MIT */
/*
 * What a courier and its engines say to each other: docs/edge.md, "The courier's socket".
 *
 * A SOCK_SEQPACKET unix socket; each message is one of the structures below, whole, in the machine's own
 * byte order. An engine sends a struct courier_request and waits for the answer before it sends the
 * next; only HEAD has none. An answer begins with a struct courier_answer: with code 0 it is
 * the structure of the request's op, with a negative errno it is a struct courier_refusal.
 *
 * Requests are numbers about contexts and models that the courier has. Nothing in them is, or depends on, what
 * a user has typed, but for HEAD's progress. Either side checks sizes, versions and enums, and ends the connection
 * over one that is wrong: neither trusts the other's bytes, nor the text in them to end or to be clean.
 *
 * Contexts are numbered from 0 as the courier came to know them; a number is one context's for as long as the courier. One that
 * was dropped leaves a gap.
 */
#ifndef LSLM_NET_COURIER_WIRE_H
#define LSLM_NET_COURIER_WIRE_H

#include <stdint.h>

#include "kv/control.h"
#include "kv/key.h"
#include "kv/manifest.h"

enum {
	COURIER_WIRE_VERSION = 7,
	COURIER_WIRE_FDS = 3, /* of ATTACH: manifest, buffer, control page */
	COURIER_WIRE_WEIGHTS_FDS = 2, /* of WEIGHTS: buffer, control page */
	COURIER_WIRE_SOURCES = 8, /* room for enum control_source */
	COURIER_WIRE_LEVELS = 8, /* room for enum kv_level */
	COURIER_WIRE_VERDICTS = 16, /* room for enum steer_verdict */
	COURIER_WIRE_REASONS = 16, /* room for enum guard_reason */
	COURIER_WIRE_ENDS = 8, /* room for ends of choices (serve/tally.h) */
	COURIER_WIRE_BUCKETS = 16, /* room for a histogram's */
	COURIER_WIRE_DROPS = 32, /* room for enum lslm_drop */
};

enum courier_op {
	COURIER_HELLO = 1, /* the first on a connection */
	/* index: of the context, or of the next one that there is; behind the last one -ENOENT, or -EAGAIN while the courier has just started and others will come */
	COURIER_LIST,
	COURIER_ATTACH, /* index; value: enum order_kind that suits the engine, a hint */
	COURIER_HEAD, /* index; value: stripes from the first on that the engine has computed; no answer */
	COURIER_STATUS, /* index */
	COURIER_STAT,
	COURIER_WEIGHTS, /* index: of the courier's models */
	COURIER_CLOUD, /* index: of the clouds that it asks; -ENOENT behind the last one */
	COURIER_SERVING, /* -ENOENT: there is no supervisor, and so no engine whose requests it knows of */
	COURIER_OPS
};

enum courier_state {
	COURIER_WAITING, /* its manifest is not here */
	COURIER_RECEIVING,
	COURIER_FAILING, /* what is missing will not come for now */
	COURIER_COMPLETE,
	COURIER_STATES
};

struct courier_request {
	uint32_t size; /* of this structure */
	uint16_t version;
	uint16_t op;
	uint32_t index; /* 0 where it means nothing, as value */
	uint32_t value;
};

struct courier_answer {
	uint32_t size; /* of the whole message */
	uint16_t version;
	uint16_t op; /* of the request */
	int32_t code;
	uint32_t zero;
};

struct courier_refusal {
	struct courier_answer head;
	char why[256];
};

struct courier_hello {
	struct courier_answer head;
	uint32_t pid;
	uint32_t n_contexts; /* so far */
};

struct courier_entry {
	struct courier_answer head;
	uint32_t state;
	uint32_t has_key; /* 0: not even that is known yet */
	uint8_t key[KV_HASH_BYTES];
	uint32_t n_tokens; /* 0 while WAITING */
	uint32_t index; /* its number */
	char title[MANIFEST_MAX_TITLE + 1]; /* "" while WAITING */
	char why[256]; /* what ended the last attempt, as long as nothing has come since; or "" */
};

/*
 * With COURIER_WIRE_FDS descriptors, all of them read-only; with the manifest's alone where n_stripes
 * is 0. -EAGAIN while WAITING.
 */
struct courier_attached {
	struct courier_answer head;
	uint64_t manifest_bytes;
	uint64_t buffer_bytes; /* of all stripes' places */
	uint64_t pitch; /* from one place to the next */
	uint32_t n_stripes;
	uint32_t zero;
};

/* Placement over UDP, as in struct courier_udp; sessions 0: there was none. */
struct courier_placement {
	uint32_t sessions;
	uint32_t chunk;
	uint64_t rtt_ns;
	uint64_t hellos, reports, probes, ignored, key_changes, chunk_changes;
	uint64_t received, placed, placed_bytes, units, overflows;
	uint64_t by_encap, by_tc, by_xdp, by_ring; /* datagrams, by how they came */
	uint64_t drops[COURIER_WIRE_DROPS]; /* by enum lslm_drop */
	char backend[32];
	char reason[192];
};

struct courier_status {
	struct courier_answer head;
	uint32_t state;
	uint32_t engines; /* connections that have attached it */
	uint32_t blocks_total;
	uint32_t blocks_ready;
	uint32_t blocks_from[COURIER_WIRE_SOURCES]; /* of those that are ready, by enum control_source */
	uint32_t blocks_at[COURIER_WIRE_LEVELS]; /* of the same, by enum kv_level */
	uint32_t computed; /* stripes that one of its engines has computed: the most */
	uint32_t zero;
	uint64_t bytes_received;
	double seconds;
	char path[192]; /* by which blocks come, and why so */
	char backend[32]; /* of its buffer */
	char why[512];
	struct courier_placement udp;
};

struct courier_stat {
	struct courier_answer head;
	uint32_t pid;
	uint32_t n_contexts;
	uint32_t clients;
	uint32_t has_store;
	uint32_t has_steer;
	uint32_t zero;
	double uptime_s;
	uint64_t store_loaded, store_saved, store_wrong, store_evicted; /* stripes */
	uint64_t steer_frames[COURIER_WIRE_VERDICTS]; /* by enum steer_verdict */
	char store[192]; /* where, or why there is none */
	char steer[320]; /* how, or why not */
	char buffers[192]; /* the buffers' backend, and why it */
	/* Of the supervisor, where there is one: its engines, all together, since its start. */
	uint32_t has_engines;
	uint32_t engines_ready;
	uint64_t guard[COURIER_WIRE_REASONS]; /* by enum guard_reason */
	uint64_t guarded; /* 0: there is no guard */
	uint64_t refused_calls, engine_starts, courier_starts;
};

/*
 * Of a model that the courier reads: with COURIER_WIRE_WEIGHTS_FDS descriptors, read-only, of a buffer with
 * its sections one behind the other, and of a control page with a layer for each of them and one stripe.
 */
struct courier_weights {
	struct courier_answer head;
	uint8_t key[KV_HASH_BYTES]; /* see struct matrices_share */
};

/* Whether it is asked: net/sites.h. */
struct courier_cloud {
	struct courier_answer head;
	uint32_t state; /* enum breaker_state */
	uint32_t zero;
	uint64_t opened, probes; /* since the supervisor's start, where there is one */
	double next_s; /* until the next probe, while open */
	char name[256];
	char why[256]; /* why it is not closed, or "" */
};

struct courier_histogram {
	uint64_t buckets[COURIER_WIRE_BUCKETS];
	double bounds[COURIER_WIRE_BUCKETS]; /* that a bucket's values are not above; 0 of the last one, which has none */
	double sum;
};

/* What all engines of the supervisor have been asked since it started. */
struct courier_serving {
	struct courier_answer head;
	/* Requests for an answer, by what became of them: 200; 429 and 503; 500 and above; 400 and above; cut before a status. */
	uint64_t answered, refused, failed, wrong, cut;
	uint64_t running, queued, places; /* choices, now */
	uint64_t ends[COURIER_WIRE_ENDS]; /* choices, by how they ended */
	uint64_t prompt, cached, generated; /* tokens of those */
	struct courier_histogram ttft,
		rate; /* seconds; tokens a second from the first one to the last one */
};

_Static_assert(sizeof(struct courier_request) == 16, "no padding");
_Static_assert(sizeof(struct courier_answer) == 16, "no padding");
_Static_assert(sizeof(struct courier_refusal) == 16 + 256, "no padding");
_Static_assert(sizeof(struct courier_hello) == 24, "no padding");
_Static_assert(sizeof(struct courier_entry) == 16 + 8 + 32 + 8 + 128 + 256, "no padding");
_Static_assert(sizeof(struct courier_attached) == 16 + 32, "no padding");
_Static_assert(sizeof(struct courier_placement) == 8 + 8 + 48 + 40 + 32 + 256 + 32 + 192,
	       "no padding");
_Static_assert(sizeof(struct courier_status) == 16 + 16 + 32 + 32 + 8 + 16 + 192 + 32 + 512 + 616,
	       "no padding");
_Static_assert(sizeof(struct courier_stat) ==
		       16 + 24 + 8 + 32 + 128 + 192 + 320 + 192 + 8 + 128 + 32,
	       "no padding");
_Static_assert(sizeof(struct courier_weights) == 16 + 32, "no padding");
_Static_assert(sizeof(struct courier_cloud) == 16 + 8 + 24 + 256 + 256, "no padding");
_Static_assert(sizeof(struct courier_serving) == 16 + 8 * (5 + 3 + 8 + 3) + 2 * 8 * (16 + 16 + 1),
	       "no padding");
_Static_assert((int)CONTROL_SOURCES <= (int)COURIER_WIRE_SOURCES, "room for every source");
_Static_assert((int)KV_LEVELS <= (int)COURIER_WIRE_LEVELS, "room for every level");

/* The largest of them, to receive into. */
union courier_message {
	struct courier_answer head;
	struct courier_refusal refusal;
	struct courier_hello hello;
	struct courier_entry entry;
	struct courier_attached attached;
	struct courier_status status;
	struct courier_stat stat;
	struct courier_weights weights;
	struct courier_cloud cloud;
	struct courier_serving serving;
};

#endif
