// SPDX-License-Identifier: MIT
#include "net/grant.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hex.h"

enum {
	REPLY_MAX = 4096,
	URL_MAX = 2048,
	/* For the last word to a server that may be gone. */
	END_MS = 1000,
};

struct reply {
	char text[REPLY_MAX];
	size_t size;
};

static int collect(void *arg, const uint8_t *data, size_t size, struct lslm_error *err)
{
	struct reply *r = arg;

	/* max_size has bounded it. */
	memcpy(r->text + r->size, data, size);
	r->size += size;
	return 0;
}

static int ask(struct http_client *http, const char *method, const char *url, const char *body,
	       const atomic_bool *stop, struct reply *r, struct lslm_error *err)
{
	struct http_request req = {
		.method = method,
		.url = url,
		.body = body,
		.body_size = body ? strlen(body) : 0,
		.content_type = body && *body ? "application/json" : NULL,
		.exact_size = HTTP_ANY_SIZE,
		.max_size = sizeof(r->text),
		.data = collect,
		.arg = r,
		.stop = stop,
	};

	if (!strcmp(method, "DELETE")) {
		req.reply_timeout_ms = END_MS;
		req.last = true;
	}
	r->size = 0;
	return http_perform(http, &req, err);
}

/* ---- reading the reply ---- */

static int nonsense(const char *what, struct lslm_error *err)
{
	return error_set(err, -EPROTO, "the server's grant makes no sense (%s)", what);
}

static int get_number(const json_t *root, const char *name, uint64_t least, uint64_t most,
		      uint64_t *out, struct lslm_error *err)
{
	const json_t *v = json_object_get(root, name);

	if (!json_is_integer(v) || json_integer_value(v) < 0 ||
	    (uint64_t)json_integer_value(v) < least || (uint64_t)json_integer_value(v) > most)
		return nonsense(name, err);
	*out = (uint64_t)json_integer_value(v);
	return 0;
}

/* The text is wiped where jansson keeps it. */
static int get_key(const json_t *root, const char *name, uint8_t out[LSLM_WIRE_KEY_BYTES],
		   struct lslm_error *err)
{
	const json_t *v = json_object_get(root, name);
	char *text = (char *)json_string_value(v);
	int ret;

	if (!text)
		return nonsense(name, err);
	ret = hex_parse(out, LSLM_WIRE_KEY_BYTES, text, json_string_length(v));
	explicit_bzero(text, json_string_length(v));
	return ret < 0 ? nonsense(name, err) : 0;
}

static int get_keys(const json_t *root, struct grant_keys *out, struct lslm_error *err)
{
	uint64_t key = 0, lifetime = 0;
	int ret;

	/* Both are wiped, whatever else is wrong. */
	ret = get_key(root, "to_edge", out->to_edge, err);
	if (get_key(root, "to_cloud", out->to_cloud, ret ? NULL : err) < 0)
		ret = -EPROTO;
	if (!ret)
		ret = get_number(root, "key", 0, LSLM_WIRE_KEYS - 1, &key, err);
	if (!ret)
		ret = get_number(root, "max_packets", 1, INT64_MAX, &out->max_packets, err);
	if (!ret)
		ret = get_number(root, "lifetime_s", 1, UINT32_MAX, &lifetime, err);
	out->key = (uint32_t)key;
	if (out->max_packets > LSLM_COUNTER_MAX)
		out->max_packets = LSLM_COUNTER_MAX;
	out->lifetime_s = lifetime < GRANT_LIFETIME_MAX ? (uint32_t)lifetime : GRANT_LIFETIME_MAX;
	return ret;
}

/* It becomes a part of URLs. */
static int get_id(const json_t *root, char out[GRANT_ID_MAX + 1], struct lslm_error *err)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const char *text = json_string_value(json_object_get(root, "id"));
	size_t size = text ? strlen(text) : 0;

	if (!size || size > GRANT_ID_MAX || strspn(text, allowed) != size)
		return nonsense("id", err);
	memcpy(out, text, size + 1);
	return 0;
}

static int parse(struct reply *r, json_t **root, struct lslm_error *err)
{
	*root = json_loadb(r->text, r->size, JSON_REJECT_DUPLICATES, NULL);
	explicit_bzero(r->text, r->size);
	return json_is_object(*root) ? 0 : nonsense("no JSON object", err);
}

static int read_grant(struct reply *r, struct grant *out, struct lslm_error *err)
{
	uint64_t session = 0, port = 0;
	json_t *root;
	int ret;

	ret = parse(r, &root, err);
	if (!ret)
		ret = get_keys(root, &out->keys, err);
	if (!ret)
		ret = get_id(root, out->id, err);
	if (!ret)
		ret = get_number(root, "session", 1, UINT32_MAX, &session, err);
	if (!ret)
		ret = get_number(root, "port", 1, UINT16_MAX, &port, err);
	if (!ret && out->keys.key)
		ret = nonsense("the first key is not number 0", err);
	json_decref(root);
	out->session = (uint32_t)session;
	out->port = (uint16_t)port;
	return ret;
}

/* ---- the three requests ---- */

int grant_ask(struct http_client *http, const char *site, const struct kv_hash *context,
	      uint32_t number, const atomic_bool *stop, struct grant *out, struct lslm_error *err)
{
	char url[URL_MAX], body[160], key[KV_HASH_TEXT];
	struct reply r;
	int ret;

	memset(out, 0, sizeof(*out));
	kv_hash_format(context, key);
	snprintf(body, sizeof(body), "{\"context\":\"%s\",\"session\":%u}", key, number);
	if (snprintf(url, sizeof(url), "%s/v1/sessions", site) >= (int)sizeof(url))
		return error_set(err, -EINVAL, "the URL is too long");
	ret = ask(http, "POST", url, body, stop, &r, err);
	if (!ret)
		ret = read_grant(&r, out, err);
	explicit_bzero(&r, sizeof(r));
	if (ret < 0)
		explicit_bzero(out, sizeof(*out));
	return ret;
}

int grant_renew(struct http_client *http, const char *site, const struct grant *g,
		const atomic_bool *stop, struct grant_keys *out, struct lslm_error *err)
{
	json_t *root = NULL;
	char url[URL_MAX];
	struct reply r;
	int ret;

	memset(out, 0, sizeof(*out));
	if (snprintf(url, sizeof(url), "%s/v1/sessions/%s/keys", site, g->id) >= (int)sizeof(url))
		return error_set(err, -EINVAL, "the URL is too long");
	ret = ask(http, "POST", url, "", stop, &r, err);
	if (!ret)
		ret = parse(&r, &root, err);
	if (!ret)
		ret = get_keys(root, out, err);
	json_decref(root);
	explicit_bzero(&r, sizeof(r));
	if (ret < 0)
		explicit_bzero(out, sizeof(*out));
	return ret;
}

int grant_end(struct http_client *http, const char *site, const struct grant *g,
	      struct lslm_error *err)
{
	char url[URL_MAX];
	struct reply r;

	if (snprintf(url, sizeof(url), "%s/v1/sessions/%s", site, g->id) >= (int)sizeof(url))
		return error_set(err, -EINVAL, "the URL is too long");
	return ask(http, "DELETE", url, NULL, NULL, &r, err);
}
