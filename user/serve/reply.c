// SPDX-License-Identifier: MIT
#include "serve/reply.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *type_of(unsigned int status)
{
	switch (status) {
	case 400:
		return "bad_request";
	case 401:
		return "unauthorized";
	case 403:
		return "forbidden";
	case 404:
		return "not_found";
	case 405:
		return "method_not_allowed";
	case 411:
		return "length_required";
	case 413:
		return "too_large";
	case 416:
		return "out_of_range";
	case 429:
		return "too_many";
	case 503:
		return "busy";
	case 507:
		return "disk_full";
	default:
		return "server_error";
	}
}

/* Drops the reference to r, which may be NULL. */
static enum MHD_Result queue(struct MHD_Connection *conn, unsigned int status,
			     struct MHD_Response *r)
{
	enum MHD_Result ret;

	if (!r)
		return MHD_NO;
	MHD_add_response_header(r, "Content-Type", "application/json");
	if (status == MHD_HTTP_UNAUTHORIZED)
		MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
	if (status == MHD_HTTP_SERVICE_UNAVAILABLE && !MHD_get_response_header(r, "Retry-After")) {
		MHD_add_response_header(r, "Retry-After", "1");
		MHD_add_response_header(r, "Connection", "close");
	}
	ret = MHD_queue_response(conn, status, r);
	MHD_destroy_response(r);
	return ret;
}

/* Drops the reference to body. */
static struct MHD_Response *make(json_t *body)
{
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	struct MHD_Response *r;

	json_decref(body);
	if (!text)
		return NULL;
	r = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_COPY);
	free(text);
	return r;
}

enum MHD_Result reply_json(struct MHD_Connection *conn, unsigned int status, json_t *body)
{
	return queue(conn, status, make(body));
}

static json_t *error_body(const char *type, const char *line)
{
	json_t *body = json_pack("{s:{s:s, s:s}}", "error", "message", line, "type", type);

	/* A line with bytes that are no UTF-8 cannot be packed; the type still tells something. */
	if (!body)
		body = json_pack("{s:{s:s, s:s}}", "error", "message", "unprintable error", "type",
				 type);
	return body;
}

static enum MHD_Result error_line(struct MHD_Connection *conn, unsigned int status,
				  const char *line)
{
	return reply_json(conn, status, error_body(type_of(status), line));
}

enum MHD_Result reply_off(struct MHD_Connection *conn, const char *line)
{
	return reply_json(conn, MHD_HTTP_NOT_FOUND, error_body("switched_off", line));
}

enum MHD_Result reply_later(struct MHD_Connection *conn, unsigned int status, unsigned int wait_s,
			    const char *line)
{
	struct MHD_Response *r = make(error_body(type_of(status), line));
	char text[16];

	snprintf(text, sizeof(text), "%u", wait_s);
	if (r)
		MHD_add_response_header(r, "Retry-After", text);
	return queue(conn, status, r);
}

json_t *reply_openai_body(const struct reply_openai *e, const char *line)
{
	json_t *body = json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", line, "type",
				 e->type, "param", e->param, "code", e->code);

	if (!body)
		body = json_pack("{s:{s:s, s:s, s:n, s:s?}}", "error", "message",
				 "unprintable error", "type", e->type, "param", "code", e->code);
	return body;
}

enum MHD_Result reply_openai(struct MHD_Connection *conn, const struct reply_openai *e,
			     const char *line)
{
	struct MHD_Response *r = make(reply_openai_body(e, line));
	char text[16];

	snprintf(text, sizeof(text), "%u", e->wait_s);
	if (r && e->wait_s)
		MHD_add_response_header(r, "Retry-After", text);
	return queue(conn, e->status, r);
}

static void wipe(void *text)
{
	sodium_memzero(text, strlen(text));
	free(text);
}

enum MHD_Result reply_secret(struct MHD_Connection *conn, unsigned int status, char *text)
{
	struct MHD_Response *r;

	r = MHD_create_response_from_buffer_with_free_callback(strlen(text), text, wipe);
	if (!r)
		wipe(text);
	return queue(conn, status, r);
}

enum MHD_Result reply_error(struct MHD_Connection *conn, unsigned int status, const char *fmt, ...)
{
	char line[508];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return error_line(conn, status, line);
}

enum MHD_Result reply_failure(struct MHD_Connection *conn, const struct lslm_error *err)
{
	unsigned int status;

	switch (err->code) {
	case -ENOENT:
		status = MHD_HTTP_NOT_FOUND;
		break;
	case -EACCES:
	case -EKEYREJECTED:
		status = MHD_HTTP_FORBIDDEN;
		break;
	case -EINVAL:
	case -EBADMSG:
	case -E2BIG:
	case -EILSEQ:
		status = MHD_HTTP_BAD_REQUEST;
		break;
	case -ENOSPC:
	case -EDQUOT:
		status = MHD_HTTP_INSUFFICIENT_STORAGE;
		break;
	default:
		status = MHD_HTTP_INTERNAL_SERVER_ERROR;
		break;
	}
	return error_line(conn, status, err->text);
}

enum MHD_Result reply_bytes(struct MHD_Connection *conn, const void *data, size_t size)
{
	struct MHD_Response *r;
	enum MHD_Result ret;

	r = MHD_create_response_from_buffer(size, (void *)data, MHD_RESPMEM_MUST_COPY);
	if (!r)
		return MHD_NO;
	MHD_add_response_header(r, "Content-Type", "application/octet-stream");
	ret = MHD_queue_response(conn, MHD_HTTP_OK, r);
	MHD_destroy_response(r);
	return ret;
}

void reply_peer(struct MHD_Connection *conn, char *peer, size_t size)
{
	const union MHD_ConnectionInfo *info;

	snprintf(peer, size, "?");
	info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	if (info && info->client_addr)
		getnameinfo(info->client_addr,
			    info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) :
								       sizeof(struct sockaddr_in),
			    peer, (socklen_t)size, NULL, 0, NI_NUMERICHOST);
}

unsigned int reply_status(struct MHD_Connection *conn)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(conn, MHD_CONNECTION_INFO_HTTP_STATUS);

	return info ? info->http_status : 0;
}
