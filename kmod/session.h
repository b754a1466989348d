/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sessions: a socket, keys, regions and a ring. Descriptors are session_fd.c, packets place.c.
 *
 * Who keeps whom alive:
 *
 *   session descriptor --> struct file --> lslm_session --> struct sock (not the struct socket)
 *                                              |----------> lslm_binding --> backing file, mm
 *                                              '----------> lslm_completions.file <-- user mapping
 *
 * Packets find a session by the socket's sk_user_data or, for BPF, by number and network
 * namespace; both are RCU: lslm_session_destroy() takes the session out of both, then waits for
 * synchronize_net(). From then on nobody but itself knows it, and it takes everything apart
 * without a lock.
 *
 * Locks, outermost first:
 *   config  a mutex: changes of the region table. A region that is bound stays bound while it is
 *           held. Never held while user memory is read or written, so that no process can make
 *           another wait.
 *   lock    a spinlock, taken in softirq: the receiver (keys, replay windows, bitmaps, counters),
 *           the slots, the ring, the scratch. bindings[] is changed under both.
 *   table_lock (session.c), buffer->lock (buffer.h) are taken under neither.
 *
 * The whole of lslm_place() runs under `lock`, decryption included. That makes it plain that a
 * binding taken out of its slot under `lock` is written no more, that a replayed datagram cannot
 * slip in between check and commit, and that no chunk is decrypted twice at once. It costs
 * nothing where it matters: one session is one flow, which a NIC gives to one queue, so its
 * packets come one after another anyway. Different sessions share nothing.
 */
#ifndef LSLM_SESSION_H
#define LSLM_SESSION_H

#include <linux/atomic.h>
#include <linux/list.h>
#include <linux/lslm.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/types.h>

#include "lslm/place.h"
#include "place.h"

struct lslm_binding;
struct lslm_completions;
struct net;
struct sock;
struct socket;

enum { LSLM_SLOTS_MAX = 65536 };

struct lslm_session {
	/* Set before anybody else can see the session. */
	u32 number;
	u32 netns; /* inode number of net, for traces */
	struct net *net; /* of sk, which keeps it */
	struct sock *sk;
	struct lslm_completions *ring;
	u8 *scratch; /* a whole datagram; contents under lock */
	struct lslm_binding **bindings; /* [rx.n_slots] NULL: unbound */

	struct mutex config; /* the region table */
	u32 n_regions; /* bound; changed under both locks */

	spinlock_t lock; /* protects what follows, down to via */
	struct lslm_receiver rx;
	u8 secrets[LSLM_WIRE_KEYS][LSLM_WIRE_KEY_BYTES];
	u64 via[LSLM_VIA_COUNT]; /* datagrams by how they came */

	atomic64_t passed;
	struct hlist_node node; /* in the table of numbers */
};

/* What is true at one instant. */
struct lslm_session_state {
	u32 n_regions;
	u64 received;
	u64 placed_packets;
	u64 placed_bytes;
	u64 units_done;
	u64 overflows;
	u64 passed;
	u64 via[LSLM_VIA_COUNT];
	u64 drops[LSLM_DROP_COUNT];
};

/* Errors as lslm_session_create. Ended by lslm_session_destroy(), in process context. */
int lslm_session_create(const struct lslm_session_create *arg, struct lslm_session **out);
void lslm_session_destroy(struct lslm_session *session);

/*
 * By number, of a network namespace; in any kind of RCU section. NULL: none, or its socket is
 * closed.
 */
struct lslm_session *lslm_session_find(const struct net *net, u32 number);

/* Errors as in the UAPI header; -EINTR: a fatal signal while another call was at work. */
int lslm_session_set_key(struct lslm_session *session, const struct lslm_session_key *arg);
int lslm_session_bind(struct lslm_session *session, struct lslm_region_bind *arg);
int lslm_session_unbind(struct lslm_session *session, u32 slot);

/* ranges: room for arg->max_ranges; the caller copies arg->out_ranges of them to user space. */
int lslm_session_missing(struct lslm_session *session, struct lslm_region_missing *arg,
			 struct lslm_range *ranges);

void lslm_session_state(struct lslm_session *session, struct lslm_session_state *state);

/* "forged", "replay", ...; NULL beyond LSLM_DROP_COUNT */
const char *lslm_drop_name(enum lslm_drop drop);

/* The parameter `plain`. */
bool lslm_session_plain_on(void);

#endif /* LSLM_SESSION_H */
