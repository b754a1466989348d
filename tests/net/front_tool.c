// SPDX-License-Identifier: MIT
/*
 * The HTTP front with a real model, without a supervisor:
 *
 *   front_tool MODEL [name=value ...]
 *
 * listen=ADDR, tokens=FILE, cert=FILE, key=FILE, context=FILE|URL (may be given again; cacert=, token= are for it), tenant=NAME (whose the
 * contexts after it are), source=both|stream|compute, twice=NAME (a second model of that name, which shares the first one's batch), and the front's and the batch's limits by
 * their names. Prints "listening on port N", a line per request to standard error, and "left N" after SIGTERM, on which it drains.
 * SIGHUP reads the tokens again.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/publisher.h"
#include "serve/front.h"

enum { MAX_CONTEXTS = 16 };

struct tool {
	struct model *model;
	struct engine *engine;
	struct batch *batch;
	struct attached *contexts;
	struct front *front;
	struct publisher_trust trust;
	struct courier_opts courier;
	enum context_source source;

	struct front_opts opts;
	struct batch_opts batch_opts;
	unsigned int threads;
	const char *name, *twice;
	const char *sources[MAX_CONTEXTS];
	struct kv_hash salts[MAX_CONTEXTS], salt;
	uint32_t n_sources;
	double drain_s;
};

/* ---- contexts ---- */

static int attach_for(struct tool *t, const struct kv_hash *salt, const char *source,
		      struct kv_hash *key, struct lslm_error *err)
{
	static const struct kv_hash no_salt;
	struct courier_opts o = t->courier;
	struct context *c;
	int rc;

	o.source = source;
	rc = context_attach(&c, t->engine, &o, salt ? salt : &no_salt, t->source, err);
	if (rc)
		return rc;
	*key = context_manifest(c)->key;
	rc = attached_add(t->contexts, c, err);
	if (rc)
		context_close(c);
	return rc;
}

static int attach(void *arg, const char *model, const struct kv_hash *salt, const char *source,
		  struct kv_hash *key, struct lslm_error *err)
{
	return attach_for(arg, salt, source, key, err);
}

/* The front does the rest. */
static int pin(void *arg, const char *model, const struct kv_hash *key, bool pinned,
	       struct lslm_error *err)
{
	return 0;
}

static int drop(void *arg, const char *model, const struct kv_hash *key, struct lslm_error *err)
{
	return 0;
}

/* ---- options ---- */

static int parse_source(struct tool *t, const char *value)
{
	static const char *const names[] = {
		[CONTEXT_BOTH] = "both", [CONTEXT_STREAM] = "stream", [CONTEXT_COMPUTE] = "compute"
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(value, names[i]))
			t->source = (enum context_source)i;
	return 0;
}

static int parse_word(struct tool *t, const char *name, const char *value)
{
	const struct {
		const char *name, **at;
	} words[] = {
		{ "listen", &t->opts.listen },
		{ "tokens", &t->opts.tokens },
		{ "cert", &t->opts.cert },
		{ "key", &t->opts.key },
		{ "cacert", &t->courier.cacert },
		{ "token", &t->courier.token },
		{ "name", &t->name },
		{ "twice", &t->twice },
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!strcmp(name, words[i].name)) {
			*words[i].at = value;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_number(struct tool *t, const char *name, const char *value)
{
	const struct {
		const char *name;
		unsigned int *at;
	} numbers[] = {
		{ "n_ctx", &t->batch_opts.n_ctx },
		{ "max_running", &t->batch_opts.max_running },
		{ "max_queued", &t->batch_opts.max_queued },
		{ "max_predict", &t->opts.max_predict },
		{ "max_connections", &t->opts.max_connections },
		{ "max_per_address", &t->opts.max_per_address },
		{ "header_timeout_s", &t->opts.header_timeout_s },
		{ "body_timeout_s", &t->opts.body_timeout_s },
		{ "threads", &t->threads },
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (!strcmp(name, numbers[i].name)) {
			*numbers[i].at = (unsigned int)strtoul(value, NULL, 10);
			return 0;
		}
	}
	return -EINVAL;
}

static int parse(struct tool *t, char *arg)
{
	char *value = strchr(arg, '=');

	if (!value)
		return -EINVAL;
	*value++ = 0;
	if (!strcmp(arg, "context") && t->n_sources < MAX_CONTEXTS) {
		t->salts[t->n_sources] = t->salt;
		t->sources[t->n_sources++] = value;
		return 0;
	}
	if (!strcmp(arg, "salt"))
		return kv_hash_parse(&t->salt, value);
	if (!strcmp(arg, "source"))
		return parse_source(t, value);
	if (!strcmp(arg, "max_body"))
		t->opts.max_body = strtoull(value, NULL, 10);
	else if (!strcmp(arg, "drain_s"))
		t->drain_s = strtod(value, NULL);
	else
		return parse_word(t, arg, value) ? parse_number(t, arg, value) : 0;
	return 0;
}

/* ---- running ---- */

static void log_line(void *arg, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

static int open_engine(struct tool *t, const char *path, struct lslm_error *err)
{
	struct kv_identity id;
	int rc = model_open(&t->model, path, err);

	if (!rc)
		rc = engine_create(&t->engine, t->model, t->threads, err);
	/* Once, before two threads may ask for it. */
	if (!rc)
		rc = engine_identity(t->engine, &id, err);
	if (!rc)
		rc = publisher_trust_load(&t->trust, NULL, err);
	if (!rc)
		rc = attached_open(&t->contexts, err);
	if (!rc)
		rc = batch_create(&t->batch, t->engine, &t->batch_opts, err);
	t->courier.trusted = (const uint8_t(*)[MANIFEST_PUBKEY_BYTES])t->trust.keys;
	t->courier.n_trusted = t->trust.n;
	return rc;
}

static int start(struct tool *t, const char *path, struct lslm_error *err)
{
	const struct front_ops ops = { attach, pin, drop, t };
	struct front_model models[2];
	struct kv_hash key;
	int rc = open_engine(t, path, err);

	for (uint32_t i = 0; i < t->n_sources && !rc; i++)
		rc = attach_for(t, &t->salts[i], t->sources[i], &key, err);
	if (rc)
		return rc;
	models[0] = (struct front_model){ t->name, t->model, t->batch, t->batch_opts.n_ctx,
					  t->contexts };
	models[1] = models[0];
	models[1].name = t->twice;
	models[1].contexts = NULL;
	t->opts.models = models;
	t->opts.n_models = t->twice ? 2 : 1;
	t->opts.ops = &ops;
	t->opts.log = log_line;
	return front_start(&t->front, &t->opts, err);
}

static void serve(struct tool *t, const sigset_t *set)
{
	struct lslm_error err;
	int number;

	printf("listening on port %d\n", front_port(t->front));
	fflush(stdout);
	while (!sigwait(set, &number) && number == SIGHUP) {
		if (front_reload(t->front, &err))
			fprintf(stderr, "front_tool: %s\n", err.text);
		printf("reloaded\n");
		fflush(stdout);
	}
	printf("draining\n");
	fflush(stdout);
	printf("left %u\n", front_drain(t->front, t->drain_s));
	fflush(stdout);
}

static void stop(struct tool *t)
{
	front_stop(t->front);
	batch_destroy(t->batch);
	attached_close(t->contexts);
	publisher_trust_free(&t->trust);
	engine_destroy(t->engine);
	model_close(t->model);
}

int main(int argc, char **argv)
{
	struct tool t = {
		.name = "handbook",
		.opts = { .listen = "127.0.0.1:0" },
		.source = CONTEXT_BOTH,
		.threads = 2,
		.drain_s = 60,
	};
	struct lslm_error err = { 0 };
	sigset_t set;
	int rc;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 2; i < argc; i++) {
		if (parse(&t, argv[i])) {
			fprintf(stderr, "front_tool: what is %s?\n", argv[i]);
			return 2;
		}
	}
	if (argc < 2)
		return 2;
	rc = start(&t, argv[1], &err);
	if (rc)
		fprintf(stderr, "front_tool: %s\n", err.text);
	else
		serve(&t, &set);
	stop(&t);
	return rc ? 1 : 0;
}
