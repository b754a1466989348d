// SPDX-License-Identifier: MIT
#include "serve/contexts.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hex.h"
#include "net/rights.h"
#include "net/sender.h"
#include "serve/range.h"
#include "serve/reply.h"
#include "serve/stream.h"

void request_init(struct request *r, struct contexts *contexts, struct MHD_Connection *conn)
{
	memset(r, 0, sizeof(*r));
	r->contexts = contexts;
	r->conn = conn;
	r->fd = -1;
}

/* An upload that is not, or not any more, wanted. */
static void drop_upload(struct request *r)
{
	if (r->fd >= 0)
		close(r->fd);
	if (*r->path)
		unlink(r->path);
	r->fd = -1;
	*r->path = 0;
}

void request_fini(struct request *r)
{
	body_free(&r->body);
	drop_upload(r);
}

/* What was refused is gone before the client hears of it. */
enum MHD_Result request_refuse(struct request *r)
{
	drop_upload(r);
	if (r->failure_status)
		return reply_error(r->conn, r->failure_status, "%s", r->failure.text);
	return reply_failure(r->conn, &r->failure);
}

/* ---- reading ---- */

/* To a tenant the contexts of other salts are not there. */
static bool is_visible(const struct request *r, const struct manifest *m)
{
	return !r->is_tenant || kv_hash_equal(&m->identity.salt, &r->rights.salt);
}

int request_open(struct request *r, struct lskv **f)
{
	int ret = store_get(r->contexts->store, &r->key, f, &r->failure);

	/* A damaged file is our fault, not the request's. */
	if (ret < 0 && ret != -ENOENT)
		r->failure_status = MHD_HTTP_INTERNAL_SERVER_ERROR;
	if (ret < 0 || is_visible(r, lskv_manifest(*f)))
		return ret;
	lskv_close(*f);
	return error_set(&r->failure, -ENOENT, "there is no context with this key");
}

/* Does the tenant only read? It has been answered then. */
static bool is_forbidden(struct request *r, enum MHD_Result *ret)
{
	if (!r->is_tenant || !r->rights.readonly)
		return false;
	*ret = reply_error(r->conn, MHD_HTTP_FORBIDDEN, "this tenant may only fetch contexts");
	return true;
}

/* A title that is no UTF-8 is left out. */
static void set_title(json_t *o, const struct manifest *m)
{
	json_t *title = json_stringn(m->title, strnlen(m->title, sizeof(m->title)));

	json_object_set_new(o, "title", title ? title : json_string(""));
}

static uint64_t file_size(const struct lskv *f)
{
	struct stat st;

	return fstat(lskv_fd(f), &st) < 0 ? 0 : st.st_size;
}

/* What is told of a context. A file that cannot be opened is described by the reason; NULL: not to this tenant. */
static json_t *describe(struct request *r, const struct kv_hash *key)
{
	char text[KV_HASH_TEXT], publisher[2 * MANIFEST_PUBKEY_BYTES + 1], model[KV_HASH_TEXT];
	struct store *s = r->contexts->store;
	const struct manifest *m;
	struct lslm_error err;
	struct lskv *f;
	json_t *o;

	kv_hash_format(key, text);
	if (store_peek(s, key, &f, &err) < 0)
		return r->is_tenant ? NULL :
				      json_pack("{s:s, s:{s:s, s:s}}", "key", text, "error",
						"message", err.text, "type", "server_error");
	m = lskv_manifest(f);
	hex_format(publisher, m->publisher, sizeof(m->publisher));
	kv_hash_format(&m->identity.model, model);
	o = !is_visible(r, m) ? NULL :
				json_pack("{s:s, s:I, s:I, s:s, s:s, s:b}", "key", text, "n_tokens",
					  (json_int_t)m->n_tokens, "bytes",
					  (json_int_t)file_size(f), "publisher", publisher, "model",
					  model, "pinned", store_is_pinned(s, key));
	if (o)
		set_title(o, m);
	if (o && !kv_hash_is_zero(&m->identity.salt)) {
		const struct kv_hash name = rights_salt_name(&m->identity.salt);

		kv_hash_format(&name, text);
		json_object_set_new(o, "salt", json_string(text));
	}
	if (o && !kv_hash_is_zero(&m->identity.map)) {
		kv_hash_format(&m->identity.map, text);
		json_object_set_new(o, "map", json_string(text));
	}
	lskv_close(f);
	return o;
}

enum MHD_Result contexts_list(struct request *r)
{
	json_t *list = json_array();
	struct kv_hash *keys;
	size_t n, i;

	if (store_list(r->contexts->store, &keys, &n, &r->failure) < 0) {
		json_decref(list);
		return request_refuse(r);
	}
	for (i = 0; i < n; i++)
		json_array_append_new(list, describe(r, &keys[i]));
	free(keys);
	return reply_json(r->conn, MHD_HTTP_OK, json_pack("{s:o}", "contexts", list));
}

/* For what changes a context: 0 when it is there and may be changed, else it has been answered. */
static int admit_change(struct request *r, enum MHD_Result *ret)
{
	struct lskv *f;
	int rc;

	if (is_forbidden(r, ret))
		return -EACCES;
	rc = request_open(r, &f);
	if (!rc)
		lskv_close(f);
	/* One that is damaged is nobody's, and whoever is not a tenant may remove it. */
	else if (rc == -ENOENT || r->is_tenant)
		*ret = request_refuse(r);
	else
		rc = 0;
	return rc;
}

enum MHD_Result contexts_remove(struct request *r)
{
	enum MHD_Result ret;

	if (admit_change(r, &ret))
		return ret;
	if (store_remove(r->contexts->store, &r->key, &r->failure) < 0)
		return request_refuse(r);
	if (r->contexts->sender)
		sender_forget(r->contexts->sender, &r->key);
	return reply_json(r->conn, MHD_HTTP_OK, json_pack("{s:b}", "deleted", 1));
}

static enum MHD_Result set_pin(struct request *r, bool pinned)
{
	enum MHD_Result ret;

	if (admit_change(r, &ret))
		return ret;
	if (store_pin(r->contexts->store, &r->key, pinned, &r->failure) < 0)
		return request_refuse(r);
	return reply_json(r->conn, MHD_HTTP_OK, json_pack("{s:b}", "pinned", pinned));
}

enum MHD_Result contexts_add_pin(struct request *r)
{
	return set_pin(r, true);
}

enum MHD_Result contexts_remove_pin(struct request *r)
{
	return set_pin(r, false);
}

static json_t *list_maps(const struct contexts *c)
{
	json_t *list = json_array();
	char text[KV_HASH_TEXT];

	for (uint32_t i = 0; i < c->n_maps; i++) {
		const struct contexts_map *m = &c->maps[i];

		kv_hash_format(&m->fingerprint, text);
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:b, s:s}", "name",
						      m->name, "fingerprint", text, "from",
						      c->models[m->from].name, "to",
						      c->models[m->to].name, "proven", m->proven,
						      "evaluation", m->why));
	}
	return list;
}

enum MHD_Result contexts_models(struct request *r)
{
	json_t *list = json_array();
	char text[KV_HASH_TEXT];

	for (uint32_t i = 0; i < r->contexts->n_models; i++) {
		kv_hash_format(&r->contexts->models[i].fingerprint, text);
		json_array_append_new(list,
				      json_pack("{s:s, s:s}", "name", r->contexts->models[i].name,
						"fingerprint", text));
	}
	return reply_json(r->conn, MHD_HTTP_OK,
			  json_pack("{s:o, s:o}", "models", list, "maps", list_maps(r->contexts)));
}

enum MHD_Result contexts_manifest(struct request *r)
{
	enum MHD_Result ret;
	struct lskv *f;
	const void *data;
	size_t size;

	if (request_open(r, &f) < 0)
		return request_refuse(r);
	data = lskv_manifest_data(f, &size);
	ret = reply_bytes(r->conn, data, size);
	lskv_close(f);
	return ret;
}

static enum MHD_Result send_blocks(struct request *r, struct lskv *f)
{
	struct range range;

	if (!range_parse(r->conn, lskv_manifest(f), &range, &r->failure_status, &r->failure))
		return stream_blocks(r->conn, f, &range);
	lskv_close(f);
	return request_refuse(r);
}

enum MHD_Result contexts_blocks(struct request *r)
{
	struct lskv *f;

	return request_open(r, &f) < 0 ? request_refuse(r) : send_blocks(r, f);
}

/* ---- bodies ---- */

/* What Content-Length says; 0 when the body comes in chunks of unknown number. */
static uint64_t announced(struct request *r)
{
	const char *value = MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, "Content-Length");

	return value ? strtoull(value, NULL, 10) : 0;
}

static enum MHD_Result too_large(struct request *r, uint64_t max)
{
	return reply_error(r->conn, MHD_HTTP_CONTENT_TOO_LARGE,
			   "the body is larger than the %llu bytes accepted here",
			   (unsigned long long)max);
}

/* What became of a piece: a failure is told in the end, unless that would take too long. */
static enum MHD_Result took_body(struct request *r, int ret, uint64_t max)
{
	if (ret && !r->failure.code) {
		r->failure_status = ret == -ENOMEM ? 0 : MHD_HTTP_CONTENT_TOO_LARGE;
		if (ret == -ENOMEM)
			error_sys(&r->failure, -ENOMEM, "the body");
		else
			error_set(&r->failure, -EFBIG,
				  "the body is larger than the %llu bytes accepted here",
				  (unsigned long long)max);
	}
	return ret == -EMSGSIZE ? MHD_NO : MHD_YES;
}

enum MHD_Result request_keep(struct request *r, const char *data, size_t size, uint64_t max)
{
	return took_body(r, body_keep(&r->body, data, size, max), max);
}

/* ---- POST: publish a text ---- */

enum MHD_Result contexts_publish_begin(struct request *r)
{
	enum MHD_Result ret;

	if (is_forbidden(r, &ret))
		return ret;
	if (!r->contexts->queue)
		return reply_error(r->conn, MHD_HTTP_FORBIDDEN,
				   "this cloud computes no contexts; upload one instead");
	if (announced(r) > r->contexts->max_text)
		return too_large(r, r->contexts->max_text);
	return MHD_YES;
}

enum MHD_Result contexts_publish_body(struct request *r, const char *data, size_t size)
{
	return request_keep(r, data, size, r->contexts->max_text);
}

static bool has_model(const struct contexts *c, const char *name)
{
	for (uint32_t i = 0; i < c->n_models; i++)
		if (!strcmp(c->models[i].name, name))
			return true;
	return false;
}

/* What the context is to be made with is here: the model that it is for, and the map to that one. */
static int check_makers(struct request *r, const struct pubqueue_text *t)
{
	const struct contexts *c = r->contexts;
	const struct contexts_map *m = NULL;

	if (t->model && !has_model(c, t->model))
		return error_set(&r->failure, -EINVAL,
				 "this cloud has no model of that name; GET /v1/models lists them");
	for (uint32_t i = 0; t->map && i < c->n_maps; i++)
		if (!strcmp(c->maps[i].name, t->map))
			m = &c->maps[i];
	if (t->map && !m)
		return error_set(&r->failure, -EINVAL,
				 "this cloud has no map of that name; GET /v1/models lists them");
	if (m && t->model && strcmp(c->models[m->to].name, t->model))
		return error_set(&r->failure, -EINVAL, "the map is for the model %s",
				 c->models[m->to].name);
	return 0;
}

/* All but the text may be missing. wait: until it is computed. */
static json_t *parse_publish(struct request *r, struct pubqueue_text *t, int *wait)
{
	static const char wanted[] =
		"{\"text\": string, \"raw\": bool, \"title\": string, \"model\": string, \"map\": string, \"wait\": bool}";
	json_error_t where;
	json_t *root;
	int raw = 0;

	*wait = 1;
	root = json_loadb(r->body.text ? r->body.text : "", r->body.received,
			  JSON_REJECT_DUPLICATES, &where);
	if (!root)
		error_set(&r->failure, -EINVAL, "the body is not JSON: %s at byte %d", where.text,
			  where.position);
	else if (json_unpack_ex(root, &where, JSON_STRICT, "{s:s%, s?b, s?s, s?s, s?s, s?b}",
				"text", &t->text, &t->len, "raw", &raw, "title", &t->title, "model",
				&t->model, "map", &t->map, "wait", wait) < 0)
		error_set(&r->failure, -EINVAL, "wanted is %s: %s", wanted, where.text);
	else if (!t->len)
		error_set(&r->failure, -EINVAL, "the text is empty");
	else if (t->title && strlen(t->title) >= sizeof(((struct manifest *)0)->title))
		error_set(&r->failure, -EINVAL, "the title is longer than 127 bytes");
	else if (!check_makers(r, t)) {
		t->raw = raw;
		return root;
	}
	json_decref(root);
	return NULL;
}

/* Where a client finds a context: under the name it used for us, unless that is nonsense. */
static void format_url(struct request *r, const char *key, char *url, size_t size)
{
	static const char fine[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:[]";
	const char *host = MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, "Host");

	if (host && *host && !host[strspn(host, fine)] && strlen(host) < 256)
		snprintf(url, size, "https://%s/v1/contexts/%s", host, key);
	else
		snprintf(url, size, "/v1/contexts/%s", key);
}

static enum MHD_Result reply_stored(struct request *r, const struct kv_hash *key,
				    unsigned int status)
{
	char text[KV_HASH_TEXT], url[512];
	json_t *entry = describe(r, key);
	bool stored = entry && !json_object_get(entry, "error");

	kv_hash_format(key, text);
	format_url(r, text, url, sizeof(url));
	if (stored) {
		json_object_set_new(entry, "url", json_string(url));
		json_object_set_new(entry, "state", json_string("stored"));
	}
	return reply_json(r->conn, stored ? status : MHD_HTTP_INTERNAL_SERVER_ERROR, entry);
}

/* The library would count our own thinking as the client's silence. */
static void without_clock(struct request *r)
{
	MHD_set_connection_option(r->conn, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
}

static enum MHD_Result refuse_publish(struct request *r)
{
	if (r->failure.code == -EAGAIN)
		return reply_later(r->conn, MHD_HTTP_TOO_MANY_REQUESTS, 30, r->failure.text);
	return request_refuse(r);
}

static enum MHD_Result publish_later(struct request *r, const struct pubqueue_text *what)
{
	char id[PUBQUEUE_ID];

	if (pubqueue_submit(r->contexts->queue, what, id, &r->failure) < 0)
		return refuse_publish(r);
	return reply_json(r->conn, MHD_HTTP_ACCEPTED,
			  json_pack("{s:s, s:s}", "id", id, "state", "queued"));
}

enum MHD_Result contexts_publish(struct request *r)
{
	struct pubqueue_text what = { .salt = r->rights.salt, .quota = r->rights.max_bytes };
	enum MHD_Result ret;
	struct kv_hash key;
	json_t *root;
	int wait;

	if (r->failure.code)
		return request_refuse(r);
	root = parse_publish(r, &what, &wait);
	if (!root)
		return request_refuse(r);
	if (!wait) {
		ret = publish_later(r, &what);
	} else {
		without_clock(r);
		ret = pubqueue_publish(r->contexts->queue, &what, &key, &r->failure) < 0 ?
			      refuse_publish(r) :
			      reply_stored(r, &key, MHD_HTTP_CREATED);
	}
	json_decref(root);
	return ret;
}

enum MHD_Result contexts_publish_status(struct request *r)
{
	static const char *const states[] = { "queued", "computing", "stored", "failed" };
	struct pubqueue_status st;
	json_t *o;

	if (!r->contexts->queue ||
	    pubqueue_look(r->contexts->queue, r->id, &r->rights.salt, &st) < 0)
		return reply_error(r->conn, MHD_HTTP_NOT_FOUND,
				   "there is no publish of this number");
	if (st.state == PUBQUEUE_STORED)
		return reply_stored(r, &st.key, MHD_HTTP_OK);
	o = json_pack("{s:s, s:s}", "id", r->id, "state", states[st.state]);
	if (st.state == PUBQUEUE_QUEUED)
		json_object_set_new(o, "before", json_integer(st.before));
	if (st.total) {
		json_object_set_new(o, "tokens_done", json_integer(st.done));
		json_object_set_new(o, "tokens", json_integer(st.total));
	}
	if (st.state == PUBQUEUE_FAILED)
		json_object_set_new(o, "error",
				    json_pack("{s:s, s:s}", "message", st.err.text, "type",
					      "publish_failed"));
	return reply_json(r->conn, MHD_HTTP_OK, o);
}

/* ---- PUT: take a context made elsewhere ---- */

/* It would not fit, whatever else is removed. */
static int no_room(struct request *r)
{
	return error_set(
		&r->failure, -EDQUOT, "the upload does not fit: there is room for %llu bytes, %s",
		(unsigned long long)r->most,
		r->rights.max_bytes ? "of this tenant's quota or of the store" : "of the store");
}

enum MHD_Result contexts_upload_begin(struct request *r)
{
	enum MHD_Result ret;

	if (is_forbidden(r, &ret))
		return ret;
	if (!r->contexts->n_trusted)
		return reply_error(
			r->conn, MHD_HTTP_FORBIDDEN,
			"this cloud trusts no publisher; name the keys of those it may take uploads from with --trust");
	if (announced(r) > r->contexts->max_upload)
		return too_large(r, r->contexts->max_upload);
	r->most = store_most(r->contexts->store, &r->key, &r->rights.salt, r->rights.max_bytes);
	if (announced(r) > r->most) {
		no_room(r);
		return request_refuse(r);
	}
	store_incoming(r->contexts->store, r->path);
	r->fd = open(r->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (r->fd < 0) {
		error_sys(&r->failure, -errno, "cannot store the upload");
		*r->path = 0;
		return request_refuse(r);
	}
	return MHD_YES;
}

enum MHD_Result contexts_upload_body(struct request *r, const char *data, size_t size)
{
	const uint64_t max = r->contexts->max_upload;
	int ret = body_count(&r->body, size, max);

	if (ret || r->failure.code)
		return took_body(r, ret, max);
	if (r->body.received > r->most) {
		/* Its beginning need not lie on the disk while the rest is read and thrown away. */
		drop_upload(r);
		no_room(r);
		return MHD_YES;
	}
	ret = file_pwrite_all(r->fd, data, size, r->body.received - size);
	if (ret < 0)
		error_sys(&r->failure, ret, "cannot store the upload");
	return MHD_YES;
}

/* All that can be known without the model: structure, signature, key, every block. */
static int verify_upload(struct request *r, struct lskv *f, struct lslm_error *err)
{
	const struct manifest *m = lskv_manifest(f);
	const uint8_t(*trusted)[MANIFEST_PUBKEY_BYTES] = (const void *)r->contexts->trusted;
	struct kv_hash is;
	const void *data;
	size_t size;
	int ret;

	data = lskv_manifest_data(f, &size);
	ret = manifest_verify(data, size, trusted, r->contexts->n_trusted, err);
	if (ret < 0)
		return ret;
	is = kv_key(&m->identity, m->tokens, m->n_tokens);
	if (!kv_hash_equal(&m->key, &is))
		return error_set(err, -EBADMSG, "the manifest's key is not that of its tokens");
	if (!kv_hash_equal(&m->key, &r->key))
		return error_set(err, -EBADMSG, "the upload is another context than its URL says");
	if (!is_visible(r, m))
		return error_set(err, -EACCES, "the upload has another salt than this tenant's");
	return store_verify(f, err);
}

static int take_upload(struct request *r, struct lslm_error *err)
{
	struct lskv *f;
	int ret;

	if (fsync(r->fd) < 0)
		return error_sys(err, -errno, "cannot store the upload");
	ret = lskv_open(&f, r->path, err);
	if (ret < 0)
		return ret;
	ret = verify_upload(r, f, err);
	lskv_close(f);
	if (ret < 0)
		return ret;
	ret = store_add(r->contexts->store, r->path, &r->key, r->rights.max_bytes, err);
	*r->path = 0;
	return ret;
}

enum MHD_Result contexts_upload(struct request *r)
{
	if (r->failure.code)
		return request_refuse(r);
	without_clock(r);
	return take_upload(r, &r->failure) < 0 ? request_refuse(r) :
						 reply_stored(r, &r->key, MHD_HTTP_CREATED);
}
