// SPDX-License-Identifier: MIT
#include "serve/sessions.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hex.h"
#include "net/sender.h"
#include "serve/reply.h"

enum { MAX_BODY = 4096 };

static enum MHD_Result is_off(struct request *r)
{
	return reply_off(r->conn, "this cloud places nothing over UDP; fetch the blocks instead");
}

static struct sender_client client_of(struct request *r)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(r->conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

	return (struct sender_client){ r->owner, info ? info->client_addr : NULL };
}

static enum MHD_Result reply_grant(struct request *r, struct sender_grant *grant)
{
	char to_edge[2 * LSLM_WIRE_KEY_BYTES + 1], to_cloud[sizeof(to_edge)], *text;
	int n;

	hex_format(to_edge, grant->pair.to_edge, sizeof(grant->pair.to_edge));
	hex_format(to_cloud, grant->pair.to_cloud, sizeof(grant->pair.to_cloud));
	n = asprintf(&text,
		     "{\"session\":%u,\"id\":\"%s\",\"port\":%d,\"key\":%u,\"to_edge\":\"%s\","
		     "\"to_cloud\":\"%s\",\"max_packets\":%llu,\"lifetime_s\":%u}",
		     grant->session, grant->id, sender_port(r->contexts->sender), grant->pair.key,
		     to_edge, to_cloud, (unsigned long long)grant->pair.max_packets,
		     grant->pair.lifetime_s);
	sodium_memzero(grant, sizeof(*grant));
	sodium_memzero(to_edge, sizeof(to_edge));
	sodium_memzero(to_cloud, sizeof(to_cloud));
	return n < 0 ? MHD_NO : reply_secret(r->conn, MHD_HTTP_CREATED, text);
}

static enum MHD_Result refuse(struct request *r, unsigned int wait_s)
{
	switch (r->failure.code) {
	case -EUSERS:
	case -EAGAIN:
		return reply_later(r->conn, MHD_HTTP_TOO_MANY_REQUESTS, wait_s, r->failure.text);
	case -EBUSY:
		return reply_later(r->conn, MHD_HTTP_SERVICE_UNAVAILABLE, wait_s, r->failure.text);
	default:
		return request_refuse(r);
	}
}

/* {"context": KEY, "session": NUMBER} */
static int parse_open(struct request *r, uint32_t *edge)
{
	json_int_t number = 0;
	json_error_t where;
	const char *key;
	json_t *root;
	int ret = 0;

	*edge = 0;
	root = json_loadb(r->body.text ? r->body.text : "", r->body.received,
			  JSON_REJECT_DUPLICATES, &where);
	if (!root)
		return error_set(&r->failure, -EINVAL, "the body is not JSON: %s at byte %d",
				 where.text, where.position);
	if (json_unpack_ex(root, &where, JSON_STRICT, "{s:s, s:I}", "context", &key, "session",
			   &number) < 0)
		ret = error_set(&r->failure, -EINVAL,
				"wanted is {\"context\": KEY, \"session\": NUMBER}: %s",
				where.text);
	else if (kv_hash_parse(&r->key, key) < 0)
		ret = error_set(&r->failure, -EINVAL, "a context's key has 64 hexadecimal digits");
	else if (number < 1 || number > UINT32_MAX)
		ret = error_set(&r->failure, -EINVAL, "session is a number from 1 to 2^32 - 1");
	json_decref(root);
	*edge = (uint32_t)number;
	return ret;
}

enum MHD_Result sessions_open_body(struct request *r, const char *data, size_t size)
{
	return request_keep(r, data, size, MAX_BODY);
}

enum MHD_Result sessions_open(struct request *r)
{
	struct sender_client who = client_of(r);
	struct sender_grant grant;
	unsigned int wait_s;
	struct lskv *file;
	uint32_t edge;
	int ret;

	if (!r->contexts->sender)
		return is_off(r);
	if (!who.address)
		return MHD_NO;
	if (r->failure.code || parse_open(r, &edge) < 0)
		return request_refuse(r);
	if (request_open(r, &file) < 0)
		return request_refuse(r);
	ret = sender_open(r->contexts->sender, file, edge, &who, &grant, &wait_s, &r->failure);
	return ret < 0 ? refuse(r, wait_s) : reply_grant(r, &grant);
}

enum MHD_Result sessions_renew(struct request *r)
{
	struct sender_client who = client_of(r);
	struct sender_grant grant;
	unsigned int wait_s;

	if (!r->contexts->sender)
		return is_off(r);
	if (sender_renew(r->contexts->sender, r->id, &who, &grant, &wait_s, &r->failure) < 0)
		return refuse(r, wait_s);
	return reply_grant(r, &grant);
}

enum MHD_Result sessions_end(struct request *r)
{
	struct sender_client who = client_of(r);

	if (!r->contexts->sender)
		return is_off(r);
	if (sender_end(r->contexts->sender, r->id, &who, &r->failure) < 0)
		return request_refuse(r);
	return reply_json(r->conn, MHD_HTTP_OK, json_pack("{s:b}", "deleted", 1));
}
