// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/file.h"
#include "base/token.h"
#include "cli/commands.h"
#include "codec/calibration.h"
#include "codec/map.h"
#include "engine/engine.h"
#include "engine/publish.h"
#include "kv/publisher.h"
#include "net/http_client.h"

struct values {
	const char *model, *file, *out, *to, *title, *salt, *publisher_key;
	const char *cacert, *token_file, *cert, *key;
	const char *map, *edge;
	uint32_t threads, n_ctx;
	const char *levels, *calibration;
	bool raw;
};

enum { MAX_TEXT = 64 << 20, MAX_REPLY = 1 << 20, REPLY_TIMEOUT_MS = 60000, POLL_US = 100000 };

#define AT(field) offsetof(struct values, field)

static const struct opt options[] = {
	{ "model", 'm', OPT_STR, AT(model), "FILE",
	  "GGUF model to compute with; with --to its name in the cloud" },
	{ "file", 'f', OPT_STR, AT(file), "FILE", "the context's text", .required = true },
	{ "map", 0, OPT_STR, AT(map), "MAP",
	  "make it for the smaller model of --edge, through this map (lslm align); with --to its name in the cloud" },
	{ "edge", 0, OPT_STR, AT(edge), "FILE", "that model (GGUF)" },
	{ "out", 'o', OPT_STR, AT(out), "FILE", "write a .lskv file" },
	{ "to", 0, OPT_STR, AT(to), "URL", "let this cloud compute and serve it" },
	{ "title", 0, OPT_STR, AT(title), "TEXT", "name for people (the file's name)" },
	{ "raw", 0, OPT_FLAG, AT(raw), NULL, "take the text as it is, not as the system message" },
	{ "level", 0, OPT_STR, AT(levels), "L[,L...]",
	  "at which the context is on offer: f16 (alone), q8, q4, e, p (a cloud has its own --level)" },
	{ "calibration", 0, OPT_STR, AT(calibration), "FILE",
	  "for level p: of the model that the context is for (lslm calibrate)" },
	{ "salt", 0, OPT_STR, AT(salt), "HEX",
	  "tenant salt, 64 hexadecimal digits (not with --to)" },
	{ "publisher-key", 0, OPT_STR, AT(publisher_key), "FILE",
	  "sign with this key, made if missing (~/.config/lslm/publisher.key)" },
	{ "threads", 't', OPT_U32, AT(threads), "N", "threads (all allowed processors)", 0, 256 },
	{ "ctx-size", 'c', OPT_U32, AT(n_ctx), "N", "positions at most (as trained)", 0, 1 << 24 },
	{ "cacert", 0, OPT_STR, AT(cacert), "FILE", "CA of the cloud's certificate (PEM)" },
	{ "token-file", 0, OPT_STR, AT(token_file), "FILE", "bearer token for the cloud" },
	{ "cert", 0, OPT_STR, AT(cert), "FILE", "client certificate (PEM)" },
	{ "key", 0, OPT_STR, AT(key), "FILE", "client key (PEM)" },
	{ NULL },
};

static void defaults(void *values)
{
	memset(values, 0, sizeof(struct values));
}

static const char *title_of(const struct values *v)
{
	const char *slash = strrchr(v->file, '/');

	return v->title ? v->title : slash ? slash + 1 : v->file;
}

static void show(void *arg, uint32_t done, uint32_t total)
{
	progress_show("prefill", done, total, "tokens");
}

/* What a publication is computed with: a model, or a larger one, a map, and the model that it is for. */
struct press {
	struct model *model, *model_from;
	struct engine *engine, *from;
	struct map *map;
};

static int open_engine(struct model **model, struct engine **engine, const char *path,
		       uint32_t threads, struct lslm_error *err)
{
	int rc = model_open(model, path, err);

	return rc ? rc : engine_create(engine, *model, threads, err);
}

static int press_open(struct press *p, const struct values *v, struct lslm_error *err)
{
	int rc;

	if (!v->map)
		return open_engine(&p->model, &p->engine, v->model, v->threads, err);
	rc = map_read(&p->map, v->map, err);
	if (!rc)
		rc = open_engine(&p->model_from, &p->from, v->model, v->threads, err);
	return rc ? rc : open_engine(&p->model, &p->engine, v->edge, v->threads, err);
}

static void press_close(struct press *p)
{
	engine_destroy(p->engine);
	engine_destroy(p->from);
	model_close(p->model);
	model_close(p->model_from);
	map_free(p->map);
}

static int publish_here(const struct values *v, const char *text, size_t len,
			struct lslm_error *err)
{
	struct publish_opts o = {
		.raw = v->raw,
		.title = title_of(v),
		.n_ctx = v->n_ctx,
		.progress = show,
	};
	char hex[KV_HASH_TEXT], pub[PUBLISHER_TEXT];
	struct calibrations calibrations = { 0 };
	struct publisher who = { 0 };
	struct press press = { 0 };
	struct kv_hash key;
	struct stat st;
	int rc = 0;

	if (v->salt && kv_hash_parse(&o.salt, v->salt))
		return error_set(err, -EINVAL, "--salt: not 64 hexadecimal digits");
	if (v->levels && kv_levels_parse(v->levels, &o.levels, err))
		return error_prefix(err, -EINVAL, "--level");
	rc = publisher_open(&who, v->publisher_key, err);
	if (!rc)
		rc = calibrations_open(&calibrations, &v->calibration, v->calibration ? 1 : 0, err);
	if (!rc)
		rc = press_open(&press, v, err);
	o.seckey = who.seckey;
	o.map = press.map;
	o.from = press.from;
	o.calibrations = &calibrations;
	if (!rc)
		rc = publish_file(press.engine, text, len, &o, v->out, &key, err);
	progress_end();
	if (!rc) {
		kv_hash_format(&key, hex);
		publisher_key_text(who.pubkey, pub);
		stat(v->out, &st);
		printf("key %s\nfile %s\nbytes %lld\npublisher %s\n", hex, v->out,
		       (long long)st.st_size, pub);
	}
	publisher_wipe(&who);
	calibrations_free(&calibrations);
	press_close(&press);
	return rc;
}

struct reply {
	char text[MAX_REPLY];
	size_t len;
};

static int take_reply(void *arg, const uint8_t *data, size_t size, struct lslm_error *err)
{
	struct reply *reply = arg;

	/* http_perform() keeps to max_size, which is below the array's. */
	memcpy(reply->text + reply->len, data, size);
	reply->len += size;
	return 0;
}

static int print_reply(const char *text, size_t len, struct lslm_error *err)
{
	static const char *const fields[] = { "key", "url", "publisher" };
	json_t *reply = json_loadb(text, len, 0, NULL);
	int rc = 0;

	for (size_t i = 0; !rc && i < sizeof(fields) / sizeof(fields[0]); i++) {
		const char *value = json_string_value(json_object_get(reply, fields[i]));

		if (!value)
			rc = error_set(err, -EPROTO,
				       "the cloud's reply has no \"%s\"; is it an lslm cloud?",
				       fields[i]);
		else
			printf("%s %s\n", fields[i], value);
	}
	if (!rc)
		printf("tokens %lld\nbytes %lld\n",
		       (long long)json_integer_value(json_object_get(reply, "n_tokens")),
		       (long long)json_integer_value(json_object_get(reply, "bytes")));
	json_decref(reply);
	return rc;
}

static int exchange(struct http_client *http, const struct values *v, const char *path,
		    const char *body, struct reply *reply, struct lslm_error *err)
{
	char url[2048];

	snprintf(url, sizeof(url), "%s%s%s", v->to, v->to[strlen(v->to) - 1] == '/' ? "" : "/",
		 path);
	*reply = (struct reply){ 0 };
	return http_perform(http,
			    &(struct http_request){
				    .method = body ? "POST" : "GET",
				    .url = url,
				    .body = body,
				    .body_size = body ? strlen(body) : 0,
				    .content_type = body ? "application/json" : NULL,
				    .reply_timeout_ms = REPLY_TIMEOUT_MS,
				    .exact_size = HTTP_ANY_SIZE,
				    .max_size = MAX_REPLY,
				    .data = take_reply,
				    .arg = reply,
			    },
			    err);
}

static const char *text_in(const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	return text ? text : "";
}

/* 1: not done yet. */
static int look_at(const struct values *v, const struct reply *reply, struct lslm_error *err)
{
	json_t *o = json_loadb(reply->text, reply->len, 0, NULL);
	const char *state = text_in(o, "state");
	int rc = 1;

	if (!strcmp(state, "stored"))
		rc = print_reply(reply->text, reply->len, err);
	else if (!strcmp(state, "failed"))
		rc = error_set(err, -EIO, "%s: %s", v->to,
			       text_in(json_object_get(o, "error"), "message"));
	else if (strcmp(state, "queued") && strcmp(state, "computing"))
		rc = error_set(err, -EPROTO, "%s: does not say how the publish is going", v->to);
	else
		progress_show(state,
			      (uint64_t)json_integer_value(json_object_get(o, "tokens_done")),
			      (uint64_t)json_integer_value(json_object_get(o, "tokens")), "tokens");
	json_decref(o);
	return rc;
}

/* Asked again and again, so that no connection has to live as long as computing takes. */
static int post(struct http_client *http, const struct values *v, const char *body,
		struct lslm_error *err)
{
	struct reply *reply = calloc(1, sizeof(*reply));
	char path[128];
	json_t *o;
	int rc;

	if (!reply)
		return error_set(err, -ENOMEM, "out of memory");
	rc = exchange(http, v, "v1/contexts", body, reply, err);
	if (!rc) {
		o = json_loadb(reply->text, reply->len, 0, NULL);
		snprintf(path, sizeof(path), "v1/publishes/%.64s", text_in(o, "id"));
		rc = *text_in(o, "id") ?
			     1 :
			     error_set(err, -EPROTO,
				       "%s: the reply has no \"id\"; is it an lslm cloud?", v->to);
		json_decref(o);
	}
	while (rc == 1) {
		rc = exchange(http, v, path, NULL, reply, err);
		if (!rc)
			rc = look_at(v, reply, err);
		if (rc == 1)
			usleep(POLL_US);
	}
	progress_end();
	free(reply);
	return rc;
}

static int publish_there(const struct values *v, const char *text, size_t len,
			 struct lslm_error *err)
{
	struct http_opts o = { .cacert = v->cacert, .cert = v->cert, .key = v->key };
	struct http_client *http = NULL;
	char *token = NULL, *body;
	json_t *request;
	int rc;

	request = json_pack("{s:s%, s:b, s:s, s:b}", "text", text, len, "raw", v->raw, "title",
			    title_of(v), "wait", 0);
	if (v->model)
		json_object_set_new(request, "model", json_string(v->model));
	if (v->map)
		json_object_set_new(request, "map", json_string(v->map));
	body = request ? json_dumps(request, JSON_COMPACT) : NULL;
	json_decref(request);
	if (!body)
		return error_set(err, -EINVAL, "%s: not UTF-8 text", v->file);
	rc = token_read(v->token_file, false, &token, err);
	o.token = token;
	if (!rc)
		rc = http_open(&http, &o, err);
	if (!rc)
		rc = post(http, v, body, err);
	if (http)
		http_close(http);
	token_free(token);
	free(body);
	return rc;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	const struct values *v = values;
	size_t len;
	char *text;
	int rc;

	if (!v->out == !v->to || (v->out && !v->model) ||
	    (v->to && (v->salt || v->edge || v->levels || v->calibration)) ||
	    (v->out && !v->map != !v->edge)) {
		error_set(
			err, -EINVAL,
			"either -m MODEL [--map MAP --edge MODEL] -o FILE.lskv (compute here) or --to URL [--map NAME] "
			"(the cloud does)");
		return EXIT_USAGE;
	}
	rc = file_read(v->file, MAX_TEXT, &text, &len, err);
	if (rc)
		return EXIT_FAILED;
	rc = v->to ? publish_there(v, text, len, err) : publish_here(v, text, len, err);
	free(text);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_publish = {
	.name = "publish",
	.summary = "compute a text's KV once and make it a context",
	.words = "",
	.opts = options,
	.size = sizeof(struct values),
	.defaults = defaults,
	.run = run,
};
