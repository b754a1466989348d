/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The datagrams of the placement protocol: header, opcodes, limits.
 *
 * Pure: the module, BPF programs, the runtime and the tests compile this very file.
 * docs/protocol.md, section 9, is the specification.
 *
 *   at 0   u8   opcode
 *      1   u8   version
 *      2   u8   key         which of the receiver's four keys, 0..3
 *      3   u8   flags       0
 *      4   u32  session     chosen by the receiver
 *      8   u64  counter     nonce and replay protection
 *     16   u32  slot        row of the session's own region table
 *     20   u32  generation  of what is bound there
 *     24   u64  offset      of the payload in the region
 *     32   payload, then a tag of 16 bytes
 *
 * All little-endian. The header is the tag's associated data. Nonce: four zero bytes, then the
 * counter. DATA and control datagrams count apart, so that a receiver which sees only one of the
 * two kinds can still tell what is lost: a control datagram's counter has its top bit set.
 */
#ifndef LSLM_WIRE_H
#define LSLM_WIRE_H

#include <linux/types.h>

#define LSLM_WIRE_VERSION 1

enum lslm_opcode {
	LSLM_OP_DATA = 1, /* cloud to edge: bytes of a region */
	LSLM_OP_PROBE = 2, /* cloud to edge: padding, to find the path's MTU */
	LSLM_OP_HELLO = 3, /* edge to cloud: here I am, send probes */
	LSLM_OP_REPORT = 4, /* edge to cloud: what arrived, what is wanted */
};

enum lslm_wire {
	LSLM_WIRE_HEADER = 32,
	LSLM_WIRE_TAG = 16,
	LSLM_WIRE_OVERHEAD = LSLM_WIRE_HEADER + LSLM_WIRE_TAG,
	LSLM_WIRE_KEYS = 4,
	LSLM_WIRE_KEY_BYTES = 32,
	/* Payload of a DATA datagram, except the last of a unit: a multiple of CHUNK_ALIGN. */
	LSLM_CHUNK_ALIGN = 64,
	LSLM_CHUNK_MIN = 256,
	LSLM_CHUNK_MAX = 65408, /* the largest that fits an IPv4 datagram */
};

/* Top bit of a counter. */
#define LSLM_COUNTER_CONTROL (1ULL << 63)
/* A key is used for no more datagrams than this, by whatever it is told. */
#define LSLM_COUNTER_MAX ((1ULL << 48) - 1)

struct lslm_header {
	__u8 opcode;
	__u8 version;
	__u8 key;
	__u8 flags;
	__u32 session;
	__u64 counter;
	__u32 slot;
	__u32 generation;
	__u64 offset;
};

static inline __u32 lslm_get32(const __u8 *p)
{
	return p[0] | (__u32)p[1] << 8 | (__u32)p[2] << 16 | (__u32)p[3] << 24;
}

static inline __u64 lslm_get64(const __u8 *p)
{
	return lslm_get32(p) | (__u64)lslm_get32(p + 4) << 32;
}

static inline void lslm_put32(__u8 *p, __u32 v)
{
	p[0] = (__u8)v;
	p[1] = (__u8)(v >> 8);
	p[2] = (__u8)(v >> 16);
	p[3] = (__u8)(v >> 24);
}

static inline void lslm_put64(__u8 *p, __u64 v)
{
	lslm_put32(p, (__u32)v);
	lslm_put32(p + 4, (__u32)(v >> 32));
}

/* From LSLM_WIRE_HEADER bytes, of any contents. */
static inline void lslm_header_get(struct lslm_header *h, const __u8 *p)
{
	h->opcode = p[0];
	h->version = p[1];
	h->key = p[2];
	h->flags = p[3];
	h->session = lslm_get32(p + 4);
	h->counter = lslm_get64(p + 8);
	h->slot = lslm_get32(p + 16);
	h->generation = lslm_get32(p + 20);
	h->offset = lslm_get64(p + 24);
}

static inline void lslm_header_put(__u8 *p, const struct lslm_header *h)
{
	p[0] = h->opcode;
	p[1] = h->version;
	p[2] = h->key;
	p[3] = h->flags;
	lslm_put32(p + 4, h->session);
	lslm_put64(p + 8, h->counter);
	lslm_put32(p + 16, h->slot);
	lslm_put32(p + 20, h->generation);
	lslm_put64(p + 24, h->offset);
}

#endif
