/* SPDX-License-Identifier: MIT */
/*
 * A peer: another gateway that brings parts of a context while the cloud brings others.
 *
 * It has a thread and a connection of its own. It asks the peer which stripes it has, takes shares of them
 * (net/shares.h), receives each unit in memory of its own, and hands it to the sink, which checks it. Nothing
 * that a peer says is believed but that: one that lies costs what it sent.
 */
#ifndef LSLM_NET_PEER_H
#define LSLM_NET_PEER_H

#include "net/http_client.h"
#include "net/source.h"

struct peer;

struct peer_opts {
	const char *url; /* https://HOST[:PORT]; copied, like the key */
	const struct kv_hash *key;
	struct http_opts http; /* stop: ends it */
	struct sink *sink;
	uint32_t source; /* its number in the sink's shares, which it joins and leaves */
	/* The cloud's source is there no more: what this one has is taken at any level. */
	const atomic_bool *alone;
	/* The cloud's source is to let go of what it has claimed; or all is done, and nobody need wait for it. */
	void (*recall)(void *arg);
	/* It has ended, and will not bring more: why. */
	void (*gone)(void *arg, const char *url, const struct lslm_error *why);
	void *arg;
};

int peer_start(struct peer **out, const struct peer_opts *opts, struct lslm_error *err);
/* Once peer_is_over(): why it has ended, 0 where there was nothing more to do; and it is freed. */
int peer_join(struct peer *p);
/* From any thread, after http.stop was set, or there is something new: do not sleep. */
void peer_wake(struct peer *p);

/* Has it something that is missing, as far as it knows? From any thread. */
bool peer_is_hopeful(const struct peer *p);
/* The same, or it has not looked yet since nobody else brings anything. */
bool peer_may_bring(const struct peer *p);
/* Its thread has ended, or will at once: after http.stop was set, or by itself. Told by shares_tell(). */
bool peer_is_over(const struct peer *p);
const char *peer_url(const struct peer *p);

#endif
