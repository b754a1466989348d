// SPDX-License-Identifier: MIT
/* The public API, include/lslm/lslm.h, in terms of the rooms below. */
#include "lslm/lslm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/calibration.h"
#include "compute/kvbf16.h"
#include "compute/matmul.h"
#include "engine/context.h"
#include "engine/engine.h"
#include "engine/generate.h"
#include "engine/mapping.h"
#include "engine/prompt.h"
#include "engine/weights_remote.h"
#include "kv/publisher.h"

struct lslm_model {
	struct model *model;
	struct engine *engine;
	uint32_t n_ctx;
};

struct lslm_context {
	struct lslm_model *owner;
	struct context *context;
	struct stripe_store *store; /* NULL: none */
	struct calibrations calibrations;
	enum lslm_on_miss on_miss;
	bool used; /* the first generation's time counts from attaching */
};

/* Positions are 32-bit and the private KV of all of them is reserved. */
enum { MAX_CTX = KV_MAX_TOKENS };

/*
 * Copy a caller's options into our version of the structure: what the caller does not know is zero,
 * and what we do not know must be.
 */
static int take_opts(void *to, size_t size, const void *from, struct lslm_error *err)
{
	const unsigned char *bytes = from;
	size_t given = 0;

	memset(to, 0, size);
	if (!from)
		return 0;
	memcpy(&given, from, sizeof(given));
	if (given < sizeof(given))
		return error_set(err, -EINVAL, "options: sz is %zu; declare them with LSLM_OPTS()",
				 given);
	for (size_t i = size; i < given; i++)
		if (bytes[i])
			return error_set(err, -E2BIG,
					 "options: a field is set that liblslm %s does not know",
					 lslm_version());
	memcpy(to, from, given < size ? given : size);
	return 0;
}

const char *lslm_version(void)
{
	return LSLM_VERSION;
}

/* Those of a courier, or nothing; what it has found damaged is not used in another way either. */
static void open_shared(struct lslm_model *m, const struct lslm_model_opts *o,
			enum matrices_load *load)
{
	struct weights_remote remote = { .socket = o->courier };
	const struct matrices_share share = { .find = weights_remote_find, .arg = &remote };
	const struct matrices_opts shared = {
		.load = MATRICES_SHARED,
		.packed = o->packed,
		.share = &share,
	};

	if (o->courier && (*load == MATRICES_AUTO || *load == MATRICES_READ))
		engine_create_with(&m->engine, m->model, o->n_threads, &shared, NULL);
	if (remote.bad && !m->engine)
		*load = MATRICES_PACK;
}

static int open_engine(struct lslm_model *m, const struct lslm_model_opts *o,
		       struct lslm_error *err)
{
	struct matrices_opts own = {
		.load = (enum matrices_load)o->load,
		.packed = o->packed,
		.memory = o->weights_bytes,
		.keep = o->keep_packed,
	};

	open_shared(m, o, &own.load);
	return m->engine ? 0 : engine_create_with(&m->engine, m->model, o->n_threads, &own, err);
}

int lslm_model_open(struct lslm_model **out, const char *path, const struct lslm_model_opts *opts,
		    struct lslm_error *err)
{
	struct lslm_model_opts o;
	struct lslm_model *m;
	int rc = take_opts(&o, sizeof(o), opts, err);

	if (rc)
		return rc;
	if (o.load > LSLM_LOAD_PACK)
		return error_set(err, -EINVAL, "options: unknown way to load");
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	rc = model_open(&m->model, path, err);
	if (!rc)
		rc = open_engine(m, &o, err);
	if (rc) {
		lslm_model_close(m);
		return rc;
	}
	m->n_ctx = o.n_ctx ? o.n_ctx : m->model->params.n_ctx_train;
	if (m->n_ctx > MAX_CTX)
		m->n_ctx = MAX_CTX;
	*out = m;
	return 0;
}

void lslm_model_close(struct lslm_model *m)
{
	if (!m)
		return;
	engine_destroy(m->engine);
	model_close(m->model);
	free(m);
}

static const enum context_source sources[] = {
	[LSLM_SOURCE_BOTH] = CONTEXT_BOTH,
	[LSLM_SOURCE_COMPUTE] = CONTEXT_COMPUTE,
	[LSLM_SOURCE_STREAM_ONLY] = CONTEXT_STREAM,
};

static int attach_courier(struct lslm_context *ctx, const struct lslm_context_opts *o,
			  const char *name, const struct publisher_trust *trust,
			  const struct kv_hash *salt, struct lslm_error *err)
{
	const struct delivery_remote_opts r = {
		.socket = o->courier,
		.context = name,
		.order = context_order(sources[o->source]),
		.trusted = (const uint8_t(*)[MANIFEST_PUBKEY_BYTES])trust->keys,
		.n_trusted = trust->n,
		.timeout_ms = (int)o->connect_timeout_ms,
	};

	return context_attach_remote(&ctx->context, ctx->owner->engine, &r, salt,
				     sources[o->source], err);
}

static int attach_source(struct lslm_context *ctx, const struct lslm_context_opts *o,
			 const char *source, const struct publisher_trust *trust,
			 const struct kv_hash *salt, struct lslm_error *err)
{
	const struct stripe_store_opts store = { .dir = o->store };
	struct courier_opts c = {
		.source = source,
		.trusted = (const uint8_t(*)[MANIFEST_PUBKEY_BYTES])trust->keys,
		.n_trusted = trust->n,
		.backend = (enum buffer_backend)o->backend,
		.cacert = o->cacert,
		.token = o->token,
		.cert = o->cert,
		.key = o->key,
		.offline = o->on_miss == LSLM_ON_MISS_COMPUTE,
		.connect_timeout_ms = (int)o->connect_timeout_ms,
		.stall_timeout_ms = (int)o->stall_timeout_ms,
		.transport = (enum courier_transport)o->transport,
		.deadline_s = o->deadline_s,
	};
	int rc = o->levels ? kv_levels_parse(o->levels, &c.levels, err) : 0;

	if (!rc && o->calibration)
		rc = calibrations_open(&ctx->calibrations, &o->calibration, 1, err);
	if (!rc && o->store)
		rc = stripe_store_open(&ctx->store, &store, err);
	if (rc)
		return rc;
	c.store = ctx->store;
	c.calibrations = &ctx->calibrations;
	return context_attach(&ctx->context, ctx->owner->engine, &c, salt, sources[o->source], err);
}

static int check_context_opts(const struct lslm_context_opts *o, const char *source,
			      struct kv_hash *salt, struct lslm_error *err)
{
	if (o->source > LSLM_SOURCE_STREAM_ONLY || o->backend > LSLM_BACKEND_MEMFD ||
	    o->on_miss > LSLM_ON_MISS_COMPUTE || o->transport > LSLM_TRANSPORT_UDP)
		return error_set(err, -EINVAL,
				 "options: unknown source, backend, on_miss or transport");
	if (o->salt && kv_hash_parse(salt, o->salt))
		return error_set(err, -EINVAL, "salt: not 64 hexadecimal digits");
	if (!source && !o->courier)
		return error_set(err, -EINVAL, "no context: name a .lskv file or a URL");
	return 0;
}

int lslm_context_attach(struct lslm_context **out, struct lslm_model *model, const char *source,
			const struct lslm_context_opts *opts, struct lslm_error *err)
{
	struct publisher_trust trust = { 0 };
	struct lslm_context_opts o;
	struct kv_hash salt = { { 0 } };
	struct lslm_context *ctx;
	int rc = take_opts(&o, sizeof(o), opts, err);

	if (!rc)
		rc = check_context_opts(&o, source, &salt, err);
	if (!rc && (o.trust || !o.courier))
		rc = publisher_trust_load(&trust, o.trust, err);
	if (rc)
		return rc;
	ctx = calloc(1, sizeof(*ctx));
	if (!ctx) {
		publisher_trust_free(&trust);
		return error_set(err, -ENOMEM, "out of memory");
	}
	ctx->owner = model;
	ctx->on_miss = o.on_miss;
	rc = o.map ? mapping_use(model->engine, o.map, err) : 0;
	if (!rc)
		rc = o.courier ? attach_courier(ctx, &o, source, &trust, &salt, err) :
				 attach_source(ctx, &o, source, &trust, &salt, err);
	publisher_trust_free(&trust);
	if (rc) {
		lslm_context_close(ctx);
		return rc;
	}
	*out = ctx;
	return 0;
}

void lslm_context_close(struct lslm_context *ctx)
{
	if (!ctx)
		return;
	context_close(ctx->context);
	stripe_store_close(ctx->store);
	calibrations_free(&ctx->calibrations);
	free(ctx);
}

/* The caller's structure may be older and shorter, or newer and longer. */
static void give_stats(struct lslm_generate_stats *out, const struct generate_stats *g,
		       const struct lslm_model *model, struct lslm_context *ctx)
{
	struct matrices_stats w;
	struct lslm_generate_stats s = {
		.sz = out->sz,
		.shared_tokens = g->shared_tokens,
		.computed_tokens = g->computed_tokens,
		.generated_tokens = g->generated_tokens,
		.computed_stripes = g->computed_stripes,
		.streamed_stripes = g->streamed_stripes,
		.met_token = g->computed_stripes * KV_BLOCK_TOKENS,
		.context_ready_s = g->ready_s,
		.ttft_s = g->ttft_s,
		.decode_s = g->decode_s,
	};

	matrices_stats(model->engine->matrices, &w);
	s.weights_s = w.seconds;
	s.weights_waited_s = w.waited;
	snprintf(s.weights, sizeof(s.weights), "%s", w.text);
	snprintf(s.compute, sizeof(s.compute), "%s, contexts of f16 %s", matmul_describe(),
		 kvbf16_describe(model->engine->geo.head_dim));
	snprintf(s.backend, sizeof(s.backend), "private");
	snprintf(s.path, sizeof(s.path), "none");
	snprintf(s.levels, sizeof(s.levels), "none");
	snprintf(s.miss, sizeof(s.miss), "%s", g->miss.code ? g->miss.text : "");
	if (ctx) {
		struct courier_stats c;

		context_stats(ctx->context, &c);
		context_tokens(ctx->context, &s.context_tokens);
		s.bytes_received = c.bytes_received;
		snprintf(s.backend, sizeof(s.backend), "%s", context_backend(ctx->context));
		snprintf(s.path, sizeof(s.path), "%s", *c.path ? c.path : "none");
		courier_levels_text(c.blocks_at, s.levels, sizeof(s.levels));
	}
	memcpy(out, &s, out->sz < sizeof(s) ? out->sz : sizeof(s));
}

static void translate(struct generate_opts *to, const struct lslm_generate_opts *o,
		      const struct lslm_model *model, const struct lslm_context *ctx)
{
	*to = (struct generate_opts){
		.n_ctx = model->n_ctx,
		.n_predict = o->n_predict ? o->n_predict : 256,
		.sampling = {
			.temperature = o->temperature,
			.top_k = o->top_k,
			.top_p = o->top_p > 0 ? o->top_p : 1.0f,
			.min_p = o->min_p,
			.repeat_penalty = o->repeat_penalty > 0 ? o->repeat_penalty : 1.0f,
			.repeat_last_n = o->repeat_last_n ? o->repeat_last_n : 64,
			.seed = o->seed,
		},
		.compute_on_miss = ctx && ctx->on_miss == LSLM_ON_MISS_COMPUTE,
		.on_piece = o->on_piece,
		.arg = o->arg,
	};
	if (ctx && !ctx->used)
		to->start = context_wanted(ctx->context);
}

int lslm_generate(struct lslm_model *model, struct lslm_context *ctx, const char *prompt,
		  const struct lslm_generate_opts *opts, struct lslm_generate_stats *stats,
		  struct lslm_error *err)
{
	struct lslm_generate_opts o;
	struct generate_stats g;
	struct generate_opts to;
	int32_t *ids;
	uint32_t n;
	int rc = take_opts(&o, sizeof(o), opts, err);

	if (rc)
		return rc;
	if (ctx && ctx->owner != model)
		return error_set(err, -EINVAL, "the context is attached to another model");
	rc = prompt_user(model->model, prompt, strlen(prompt), o.raw, !ctx, &ids, &n, err);
	if (rc)
		return rc;
	translate(&to, &o, model, ctx);
	rc = generate(model->engine, ctx ? ctx->context : NULL, ids, n, &to, &g, err);
	free(ids);
	if (ctx)
		ctx->used = true;
	if (stats && stats->sz >= sizeof(stats->sz))
		give_stats(stats, &g, model, ctx);
	return rc;
}
