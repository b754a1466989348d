/* SPDX-License-Identifier: MIT */
/*
 * The grant of a placement session: what an edge asks for over HTTPS before it may receive
 * over UDP (docs/protocol.md, section 9).
 *
 * The reply is a server's word: every number in it is checked against its range here, the session's
 * name is one that may stand in a URL, and a reply that is anything else than asked for is -EPROTO.
 * Keys are wiped from all memory of this side as soon as they were copied out; what curl and TLS
 * keep of a reply is beyond it.
 */
#ifndef LSLM_NET_GRANT_H
#define LSLM_NET_GRANT_H

#include <stdatomic.h>

#include "kv/key.h"
#include "lslm/wire.h"
#include "net/http_client.h"

enum {
	GRANT_ID_MAX = 64,
	GRANT_LIFETIME_MAX = 86400, /* of a key, in seconds; a longer one is used for so long */
};

/* A key for each direction. */
struct grant_keys {
	uint32_t key; /* their number, below LSLM_WIRE_KEYS */
	uint8_t to_edge[LSLM_WIRE_KEY_BYTES];
	uint8_t to_cloud[LSLM_WIRE_KEY_BYTES];
	uint64_t max_packets; /* counters of either way from here on are refused: 1 to LSLM_COUNTER_MAX */
	uint32_t lifetime_s; /* 1 to GRANT_LIFETIME_MAX */
};

struct grant {
	uint32_t session; /* the cloud's number, not 0 */
	uint16_t port; /* UDP, not 0 */
	char id[GRANT_ID_MAX + 1]; /* what its URL calls it */
	struct grant_keys keys;
};

/*
 * In all of these: site is "https://HOST[:PORT]", stop as in struct http_request; errors are
 * http_perform()'s, and -EPROTO with a line for a reply that makes no sense.
 */

/* Ask for a session on this context; number is the edge's own, not 0. */
int grant_ask(struct http_client *http, const char *site, const struct kv_hash *context,
	      uint32_t number, const atomic_bool *stop, struct grant *out, struct lslm_error *err);
/* The next pair of keys. */
int grant_renew(struct http_client *http, const char *site, const struct grant *g,
		const atomic_bool *stop, struct grant_keys *out, struct lslm_error *err);
/* The session is over, and the connection with it. Does not wait long for a server that does not answer. */
int grant_end(struct http_client *http, const char *site, const struct grant *g,
	      struct lslm_error *err);

#endif
