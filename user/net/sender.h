/* SPDX-License-Identifier: MIT */
/*
 * The cloud's side of placement over UDP: one socket, one thread, up to 256 sessions.
 *
 * Sessions are granted, renewed and ended from any thread (the HTTPS server's); what edges send is
 * answered by the sender's own. A session ends by sender_end(), by the edge's last REPORT, by silence,
 * when its context is removed (sender_forget()) or cannot be read. An edge hears nothing then, as
 * with a broken path, and asks for another session.
 *
 * Keys exist here and in the grant, which the caller wipes; nothing logs or stores them.
 */
#ifndef LSLM_NET_SENDER_H
#define LSLM_NET_SENDER_H

#include "net/sender_session.h"

enum {
	SENDER_SESSIONS = 256,
	SENDER_ID_TEXT = 33, /* 32 hexadecimal digits and NUL */
};

struct sender;

struct sender_opts {
	const struct sockaddr *address; /* with the port; 0: any free one */
	socklen_t address_len;
	unsigned int max_sessions; /* 0: SENDER_SESSIONS, the most there may be */
	unsigned int max_per_client; /* of one context and client address; 0: 4 */
	uint64_t key_packets; /* 0: 2^32 */
	uint32_t key_lifetime_s; /* 0: 3600 */
	uint32_t key_overlap_ms; /* 0: 10000 */
	uint32_t idle_ms; /* 0: 60000 */
};

/* Who asks. A session is there for its owner only. */
struct sender_client {
	struct kv_hash owner; /* whatever tells tenants apart */
	const struct sockaddr *address; /* of the HTTPS connection */
};

struct sender_grant {
	char id[SENDER_ID_TEXT];
	uint32_t session; /* number, for the edge to put into its datagrams */
	struct sender_pair pair;
};

/* Errors as of bind(). */
int sender_start(struct sender **out, const struct sender_opts *opts, struct lslm_error *err);
/* NULL: nothing happens. No thread may be within another call. */
void sender_stop(struct sender *s);
int sender_port(const struct sender *s);
/* How datagrams go out, for people: dgram_path(). */
const char *sender_path(struct sender *s);

/*
 * A session for this context; edge: the number that the edge answers to, not 0. The file is taken over, also
 * on failure. *wait_s: when another try may be worth it.
 *   -EUSERS  this client has too many of this context
 *   -EBUSY   all sessions are taken
 */
int sender_open(struct sender *s, struct lskv *file, uint32_t edge, const struct sender_client *who,
		struct sender_grant *grant, unsigned int *wait_s, struct lslm_error *err);
/* -ENOENT: no such session of this owner. -EAGAIN: two pairs are in use; see *wait_s. */
int sender_renew(struct sender *s, const char *id, const struct sender_client *who,
		 struct sender_grant *grant, unsigned int *wait_s, struct lslm_error *err);
int sender_end(struct sender *s, const char *id, const struct sender_client *who,
	       struct lslm_error *err);
/* This context was removed: its sessions end. */
void sender_forget(struct sender *s, const struct kv_hash *key);

void sender_stats(struct sender *s, struct sender_stats *out);
/* "forged", "replay", ...: the name of a drop counter. */
const char *sender_drop_name(enum sender_drop drop);

#endif
