/* SPDX-License-Identifier: MIT */
/*
 * Peers: the other gateways that a context's blocks may come from.
 *
 * Some are named once for every context; a directory (net/directory.h), where there is one, knows who has this one now. How to
 * reach them is the same for all: they are one fleet, with one token and one CA.
 */
#ifndef LSLM_NET_PEERS_H
#define LSLM_NET_PEERS_H

#include <stdint.h>

#include "net/directory.h"

enum {
	PEERS_MAX = 16, /* of one context, at a time */
	PEERS_FOUND = 6, /* of them by the directory: more than that need not be asked at once */
	PEERS_URL_BYTES = HOLDERS_URL_BYTES,
};

struct peers;

struct peers_opts {
	const char *const *urls; /* https://HOST[:PORT] of those that are always asked */
	uint32_t n_urls;
	/* PEM of the CA of their certificates; their bearer token; a client certificate and its key; NULL for none. */
	const char *cacert, *token, *cert, *key;
	const struct directory_opts *directory; /* NULL: there is none; log and arg are these */
	/* One line per event. NULL: no log. From many threads. */
	void (*log)(void *arg, const char *line);
	void *arg;
};

/* Everything in opts outlives it. -EINVAL: a URL that is none. */
int peers_open(struct peers **out, const struct peers_opts *opts, struct lslm_error *err);
/* NULL is allowed. */
void peers_close(struct peers *p);

const struct peers_opts *peers_opts(const struct peers *p);
/* Who may have this context: their URLs, at most PEERS_MAX; how many. From any thread. */
uint32_t peers_find(struct peers *p, const struct kv_hash *key,
		    char urls[PEERS_MAX][PEERS_URL_BYTES]);
/*
 * So many stripes of a context are here, for others to find; or none any more. From any thread, does not wait. With p NULL, or
 * without a directory, nothing happens.
 */
void peers_have(struct peers *p, const struct kv_hash *key, uint32_t stripes, uint32_t of);
void peers_drop(struct peers *p, const struct kv_hash *key);
__attribute__((format(printf, 2, 3))) void peers_say(const struct peers *p, const char *fmt, ...);

#endif
