/* SPDX-License-Identifier: MIT */
/*
 * The channel: what a supervisor and the processes that it started say to each other.
 *
 * One socket pair (SOCK_SEQPACKET) for each child, at descriptor CHANNEL_FD there. Both ends are the same binary, so
 * there is no version; but an engine that was taken over may send anything, so sizes, ops and the number of
 * descriptors are checked, and nothing in a message is trusted further than its op says.
 *
 *   courier:   HELD ..., GO from the supervisor, before anything else; then KEEP for each place
 *              in use, and READY once its socket is served; CLOUD whenever something has changed there. CHANGE from the supervisor at any time, answered by CHANGED
 *   engine:    TALLY and LISTENER from the supervisor; CONNECT at any time, answered by CONNECTED. NOTIFIER once and READY once,
 *              before it answers its first client. CHANGE at any time, answered by CHANGED; one at a time
 *   both:      the end of the socket is the end of the other
 */
#ifndef LSLM_SERVE_CHANNEL_H
#define LSLM_SERVE_CHANNEL_H

#include <stdint.h>

#include "base/error.h"
#include "kv/key.h"

enum {
	CHANNEL_FD = 3, /* in a child */
	CHANNEL_FDS = 2, /* of one message */
};

enum channel_op {
	CHANNEL_HELD =
		1, /* key, digest of the manifest; fds: buffer and control page, read-write */
	CHANNEL_GO, /* no more of these; fd: the board (serve/board.h) */
	CHANNEL_KEEP, /* as HELD */
	CHANNEL_READY, /* engine: value: bits of enum confine_part that are on; text: of the first that is off, why */
	CHANNEL_TALLY, /* one fd: where this engine counts (serve/tally.h) */
	CHANNEL_LISTENER, /* fds: the listening socket, the board */
	CHANNEL_NOTIFIER, /* one fd: of syscalls_limit() */
	CHANNEL_CONNECT, /* a connection to the courier is wanted */
	CHANNEL_CONNECTED, /* code; 0: one fd */
	CHANNEL_CHANGE, /* value: enum channel_verb; key, or for ATTACH text: an admin's words, digest: rights_salt_name() of its salt, flags */
	CHANNEL_CLOUD, /* text: of a cloud that a courier asks, its name; value: enum breaker_state; opened, probes: its counts */
	CHANNEL_CHANGED, /* code, text: why not; value: the verb; key. Of a courier also digest and flags */
	CHANNEL_OPS
};

/* What an admin wants done about a context. */
enum channel_verb { CHANNEL_ATTACH = 1, CHANNEL_PIN, CHANNEL_UNPIN, CHANNEL_DROP, CHANNEL_VERBS };

/* Of a courier's CHANGED, and of a CHANGE. */
enum {
	CHANNEL_OF_CLOUD = 1, /* what was attached comes from there */
	CHANNEL_MADE_ROOM = 2, /* digest: the key of another one, which was dropped */
	CHANNEL_ANY_SALT = 4, /* there are no tenants, and it may have any */
};

struct channel_message {
	uint32_t size; /* set by channel_send() */
	uint32_t op;
	int32_t code;
	uint32_t value;
	uint32_t serial; /* of a CHANGE that a courier answers; 0: nobody waits */
	uint32_t flags;
	uint64_t opened, probes;
	struct kv_hash key, digest;
	char text[256];
};

/* Close-on-exec, both ends. */
int channel_pair(int pair[2], struct lslm_error *err);
/* Never waits: -EAGAIN where the other side does not read. */
int channel_send(int channel, struct channel_message *m, const int *fds, int n);
/*
 * Waits where the socket does. -EPIPE: the other side is gone; -EPROTO: what it said is no message. The
 * text ends; *n descriptors are the caller's.
 */
int channel_receive(int channel, struct channel_message *m, int fds[CHANNEL_FDS], int *n);
void channel_close_fds(const int *fds, int n);

#endif
