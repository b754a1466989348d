/* SPDX-License-Identifier: MIT */
/*
 * HTTPS requests, one at a time, over a connection that is kept.
 *
 * The server's certificate is always verified, against the given CA and no other,
 * or against the system's when none is given; there is no switch to turn that off. Redirects
 * are not followed, HTTP without TLS is refused, and a reply is never larger than the
 * caller allows: its declared size is compared before the first byte is taken, and
 * what arrives is counted against it.
 *
 * Two clocks end a request: connect_timeout_ms covers name, TCP and TLS together;
 * stall_timeout_ms is the longest silence afterwards. A slow transfer that moves is not ended.
 *
 * Errors, each with a line that a user can act on:
 *   -EINVAL        a URL, file or token that cannot be used
 *   -EHOSTUNREACH  name not found, or no route            (may be worth another try)
 *   -ECONNREFUSED  nobody listens                         (may be worth another try)
 *   -EHOSTDOWN     no connection within the limit         (may be worth another try)
 *   -ECONNRESET    the connection broke                   (may be worth another try)
 *   -EAGAIN        the server is busy: status 429, 503    (may be worth another try)
 *   -ETIMEDOUT     connected, then silent for too long
 *   -EKEYREJECTED  the server's certificate is not trusted, or ours not accepted
 *   -EACCES, -ENOENT, -EREMOTEIO, -EPROTO   status 401/403, 404, 5xx, any other
 *   -ENETDOWN      not asked, since the site was away shortly before (net/sites.h)
 *   -EOPNOTSUPP    404 because the server has switched it off
 *   -EMSGSIZE      the reply is not of the expected size
 *   -ECANCELED     *stop was set
 *   or what the data callback returned.
 *
 * A client is used by one thread at a time, except http_wake().
 */
#ifndef LSLM_NET_HTTP_CLIENT_H
#define LSLM_NET_HTTP_CLIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct http_client;
struct site;

struct http_opts {
	const char *cacert; /* PEM file; NULL: the system's CAs */
	const char *token; /* bearer token; NULL: none */
	const char *cert; /* client certificate and its key, PEM files; NULL: none */
	const char *key;
	int connect_timeout_ms; /* 0: 5000 */
	int stall_timeout_ms; /* 0: 10000 */
	const atomic_bool *stop; /* ends every request; NULL: only http_request's does */
	/* All requests are to it, and it is asked before each (net/sites.h); outlives the client. NULL: they are made in any case. */
	struct site *site;
};

/* Any size up to max_size. */
#define HTTP_ANY_SIZE UINT64_MAX

struct http_request {
	const char *method; /* NULL: GET */
	const char *url;

	/* Body: bytes, or body_size bytes of a file from its start; body_fd is looked at if body is NULL. */
	const void *body;
	int body_fd;
	uint64_t body_size; /* 0: no body */
	const char *content_type;

	/* How long the server may think before it answers; 0: stall_timeout_ms. */
	int reply_timeout_ms;

	/* The reply's body, if its status is 2xx. */
	uint64_t exact_size; /* must be declared and be this; HTTP_ANY_SIZE for any */
	uint64_t max_size;
	/* Called with each piece as it arrives; a negative errno ends the request with that. */
	int (*data)(void *arg, const uint8_t *data, size_t size, struct lslm_error *err);
	void *arg;

	bool last; /* close the connection afterwards, a server has only so many */
	const atomic_bool *stop; /* NULL: cannot be stopped */
};

/* Keeps no pointer into opts but stop and site. */
int http_open(struct http_client **out, const struct http_opts *opts, struct lslm_error *err);
void http_close(struct http_client *h);
/* Show this token from the next request on; NULL: none. Like those, of the one who uses it. */
int http_set_token(struct http_client *h, const char *token, struct lslm_error *err);

int http_perform(struct http_client *h, const struct http_request *req, struct lslm_error *err);
/* A reply of at most max_size bytes in memory, with a NUL behind it; malloc'd for the caller. */
int http_get(struct http_client *h, const char *url, uint64_t max_size, uint8_t **data,
	     size_t *size, struct lslm_error *err);

enum { HTTP_ADDRESS_BYTES = 64 };
/*
 * The address (no port) of the server that answered the last request: of the proxy, where there is one. -ENOTCONN: none
 * did yet, or none could be reached for the last one.
 */
int http_address(const struct http_client *h, char out[HTTP_ADDRESS_BYTES]);

/* Sleep, but not beyond http_wake(). */
void http_sleep(struct http_client *h, int ms);
/* From any thread: let http_perform() look at *stop now. */
void http_wake(struct http_client *h);

/* True for the errors marked above as worth another try. */
bool http_is_transient(int code);
/*
 * No connection, or one that broke or went silent, or one with somebody who could not show who he is, or none for the sake of those
 * before: nothing that the server decided.
 */
bool http_is_outage(int code);

/* A URL, or a name, as lines tell it: without a user and password. To be freed; NULL: no memory. */
char *http_printable(const char *source);

#endif
