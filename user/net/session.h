/* SPDX-License-Identifier: MIT */
/*
 * The receiving end of a placement session: keys, regions, completions.
 *
 * A session owns a UDP socket's incoming data. DATA datagrams (docs/protocol.md, section 9)
 * are authenticated and decrypted straight to their place in a buffer; control datagrams are
 * handed to the caller. Two backends with one interface and the same decisions
 * (include/lslm/place.h): "kernel", where the module places in softirq and this side only sees
 * completions, and "twin", which receives with io_uring (multishot recvmsg, provided buffers)
 * and decrypts with libsodium. SESSION_AUTO takes the kernel where it can, and
 * session_backend_reason() says why; a named backend that is not there is an error.
 *
 * Used by one thread at a time, except session_wake(). The socket stays the caller's: it must be
 * open as long as the session, is only read by it, and may be written by anybody. Not with
 * IP_RECVERR, whose error queue nobody empties.
 */
#ifndef LSLM_NET_SESSION_H
#define LSLM_NET_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/lslm.h>

#include "base/error.h"
#include "kv/buffer.h"
#include "lslm/region.h"

struct session;

enum session_backend {
	SESSION_AUTO,
	SESSION_KERNEL,
	SESSION_TWIN,
};

/* What is bound to a slot. Copied; the buffer must outlive the binding. */
struct session_region {
	struct buffer *buffer; /* read-write; of the kernel backend for a kernel session */
	uint64_t base;
	uint32_t chunk;
	uint32_t n_units;
	uint32_t unit_bytes; /* of each unit */
	const uint64_t *done; /* bitmap of units that are there already; NULL: none */
	const uint32_t *units; /* [n_units] bytes of each, where they differ; else NULL */
};

/* A unit is complete (its digest is not checked yet). */
struct session_done {
	uint32_t slot;
	uint32_t generation;
	uint32_t unit;
};

/* What a REPORT says; one consistent reading. */
struct session_progress {
	uint64_t received;
	uint64_t last_counter; /* meaningless while received is 0 */
	uint64_t last_ns; /* CLOCK_MONOTONIC */
	uint64_t placed_bytes;
};

struct session_stats {
	uint64_t received, placed, placed_bytes, units, overflows;
	uint64_t by_encap, by_tc, by_xdp, by_ring; /* datagrams, by how they came */
	uint64_t drops[LSLM_DROP_COUNT];
};

struct session_ops {
	/* A control datagram as received; size is at least 1. */
	void (*control)(void *arg, uint8_t *packet, size_t size);
	void (*done)(void *arg, const struct session_done *done);
	/* Completions were lost: look at session_missing() of every region. NULL: never with twin. */
	void (*overflow)(void *arg);
};

/*
 * buffer_backend: the backend of the buffers to come; memfd excludes the module. The number that
 * datagrams must carry is the module's choice, or random: see session_number().
 *
 *   -EINVAL  n_slots is not within 1 to 65536
 *   -ENODEV  the backend named is not there, or cannot write to such buffers
 *   others   as LSLM_SESSION_CREATE
 */
int session_open(struct session **out, enum session_backend backend,
		 enum buffer_backend buffer_backend, int socket, uint32_t n_slots,
		 struct lslm_error *err);
void session_close(struct session *s);

uint32_t session_number(const struct session *s);
/* "kernel" or "twin", and why: "twin: /dev/lslm: No such file or directory". Lives as long as s. */
const char *session_backend_name(const struct session *s);
const char *session_backend_reason(const struct session *s);

/*
 * Let a twin take LSLM_CIPHER_PLAIN from now on: for measurements only. No effect on a kernel
 * session, where the module's parameter `plain` decides.
 */
void session_allow_plain(struct session *s);

/* cipher NONE removes; secret is then ignored, as with PLAIN. Errors as LSLM_SESSION_KEY. */
int session_key(struct session *s, uint32_t key, enum lslm_cipher cipher, const uint8_t *secret,
		uint64_t max_packets, uint32_t lifetime_s, struct lslm_error *err);

/*
 * Errors as LSLM_REGION_BIND. The buffer is held (buffer_hold()) while it is bound. After unbind
 * (-EINVAL: no such slot, -ENOENT: nothing is bound) nothing is written there any more.
 */
int session_bind(struct session *s, uint32_t slot, const struct session_region *region,
		 uint32_t *generation, struct lslm_error *err);
int session_unbind(struct session *s, uint32_t slot);
/* Returns the number of ranges written, -ESTALE when another generation is bound. */
int session_missing(struct session *s, uint32_t slot, uint32_t generation, uint32_t from,
		    struct lslm_range *ranges, uint32_t max);

/*
 * Wait for datagrams or completions, at most timeout_ns (0: only what is there), and deliver
 * all of them to ops. 0, or why the session is dead. Also returns after session_wake(), or a
 * signal. What ops is told by may bind, unbind and change keys, but not poll or close.
 */
int session_poll(struct session *s, uint64_t timeout_ns, const struct session_ops *ops, void *arg,
		 struct lslm_error *err);
/* From any thread or a signal handler. */
void session_wake(struct session *s);

void session_progress(const struct session *s, struct session_progress *out);
int session_stats(struct session *s, struct session_stats *out);
/* "forged", "replay", ...: the name of a drop counter. */
const char *session_drop_name(enum lslm_drop drop);

#endif
