/* SPDX-License-Identifier: MIT */
/*
 * Replies in JSON. An error is always
 *
 *   {"error": {"message": "one line", "type": "not_found"}}
 *
 * whatever its status, so that a client needs one way to read them. All of these
 * return what libmicrohttpd's handler has to return.
 */
#ifndef LSLM_SERVE_REPLY_H
#define LSLM_SERVE_REPLY_H

#include <jansson.h>
#include <microhttpd.h>

#include "base/error.h"

/* Takes over the reference to body. */
enum MHD_Result reply_json(struct MHD_Connection *conn, unsigned int status, json_t *body);
/* 404 for a service that the cloud has, but does not offer; its type tells it from what is not there. */
enum MHD_Result reply_off(struct MHD_Connection *conn, const char *line);
enum MHD_Result reply_error(struct MHD_Connection *conn, unsigned int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Status by errno: -ENOENT 404, -EACCES and -EKEYREJECTED 403, what a client sent wrong 400, else 500. */
enum MHD_Result reply_failure(struct MHD_Connection *conn, const struct lslm_error *err);
/* Not now: 429 or 503, with Retry-After. */
enum MHD_Result reply_later(struct MHD_Connection *conn, unsigned int status, unsigned int wait_s,
			    const char *line);
/*
 * The same in the shape that OpenAI's clients read: {"error": {"message", "type", "param", "code"}}. param and code may
 * be NULL. wait_s: of Retry-After, 0 for none.
 */
struct reply_openai {
	unsigned int status;
	const char *type, *param, *code;
	unsigned int wait_s;
};
enum MHD_Result reply_openai(struct MHD_Connection *conn, const struct reply_openai *e,
			     const char *line);
/* Its "error" object with what is around it. */
json_t *reply_openai_body(const struct reply_openai *e, const char *line);
/* A JSON text with a secret in it: malloc'd, taken over, and wiped when it was sent. */
enum MHD_Result reply_secret(struct MHD_Connection *conn, unsigned int status, char *text);
/* A copy of these bytes. */
enum MHD_Result reply_bytes(struct MHD_Connection *conn, const void *data, size_t size);

/* For logs: the client's address, "?" where it has none; the status that was queued, 0 for none. */
void reply_peer(struct MHD_Connection *conn, char *peer, size_t size);
unsigned int reply_status(struct MHD_Connection *conn);

#endif
