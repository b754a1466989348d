/* SPDX-License-Identifier: MIT */
/*
 * The directory: which gateways hold which contexts, in a key-value bucket of NATS JetStream.
 *
 * An entry's key is CONTEXT.GATEWAY, 64 and 16 hexadecimal digits, the latter of a digest of the gateway's URL; its
 * value is {"url", "stripes", "of"}. It lives for the bucket's TTL and is put again before that ends, so a gateway that was killed
 * is forgotten by itself. A thread keeps a copy of what others have put, so that directory_find() is a look into memory.
 *
 * Nothing waits for the directory, and nothing of it is believed but that somebody there may be asked: an entry
 * that lies costs a connection. While it cannot be reached it is tried again, after a second, then twice as long each
 * time, up to half a minute, and what was known last is forgotten by its TTL. The trouble is one line, and so is its end.
 */
#ifndef LSLM_NET_DIRECTORY_H
#define LSLM_NET_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "net/holders.h"

struct directory;

enum {
	DIRECTORY_TTL_S = 120,
	DIRECTORY_OWN = 64, /* contexts that a gateway announces */
};

struct directory_opts {
	const char *url; /* nats://HOST[:PORT] or tls://... */
	const char *creds; /* file with the user's JWT and seed; NULL: none */
	const char *cacert; /* PEM of the CA of the server's certificate; NULL: the system's */
	const char *bucket; /* NULL: "lslm-contexts"; made where there is none */
	const char *self; /* https://HOST:PORT, where others reach this gateway; NULL: they do not */
	uint32_t ttl_s; /* of the bucket, where it is made; 0: DIRECTORY_TTL_S */
	/* One line per event. NULL: no log. From the directory's thread. */
	void (*log)(void *arg, const char *line);
	void *arg;
};

/* Everything in opts outlives it. That it cannot be reached is no error. */
int directory_open(struct directory **out, const struct directory_opts *opts,
		   struct lslm_error *err);
/* Takes back what was announced, if that is possible within a few seconds. NULL is allowed. */
void directory_close(struct directory *d);

/* So many stripes of a context are here; from any thread, also when it has changed. Does not wait. */
void directory_have(struct directory *d, const struct kv_hash *key, uint32_t stripes, uint32_t of);
/* It is here no more. Likewise. */
void directory_drop(struct directory *d, const struct kv_hash *key);

/* Others that say that they have it, in no order; at most max; how many. From any thread, does not wait. */
uint32_t directory_find(struct directory *d, const struct kv_hash *key,
			char (*urls)[HOLDERS_URL_BYTES], uint32_t max);
/* Is it reached now? */
bool directory_is_up(const struct directory *d);

#endif
