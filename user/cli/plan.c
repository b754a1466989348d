// SPDX-License-Identifier: MIT
/*
 * `lslm plan`: is a context sooner here by stream, by computing, or by both?
 *
 * Computing is measured with two passes, one at the context's beginning and one at its end, where attention is dearest; the keys and
 * values before the latter are zeros, which cost what others cost. The link is said, or measured by fetching from the context's
 * URL for a few seconds.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/token.h"
#include "cli/commands.h"
#include "codec/codec.h"
#include "engine/engine.h"
#include "engine/plan.h"
#include "engine/sequence.h"
#include "kv/publisher.h"
#include "net/courier.h"

struct values {
	const char *model, *context, *trust, *cacert, *token_file, *cert, *key;
	uint32_t tokens, threads, delay_ms, seconds;
	float link;
	int transport;
	bool json;
};

#define AT(field) offsetof(struct values, field)

static const struct opt options[] = {
	{ "model", 'm', OPT_STR, AT(model), "FILE", "GGUF model that computes", .required = true },
	{ "tokens", 'n', OPT_U32, AT(tokens), "N", "tokens of the context (1024, or the context's)",
	  64, 1 << 20 },
	{ "link", 'l', OPT_F32, AT(link), "MBIT",
	  "rate of the link in Mbit/s (1, 10, 100 and 1000)", 1e-3, 1e6 },
	{ "delay", 0, OPT_U32, AT(delay_ms), "MS", "from asking to the first byte (100)", 0,
	  3600000 },
	{ "context", 0, OPT_STR, AT(context), "FILE|URL",
	  "this context; from a URL the link is measured, if it is not said" },
	{ "seconds", 0, OPT_U32, AT(seconds), "S", "how long the link is measured at most (3)", 1,
	  3600 },
	{ "transport", 0, OPT_CHOICE, AT(transport), "T", "of the measurement (https)",
	  .choices = transport_names },
	{ "trust", 0, OPT_STR, AT(trust), "KEY|FILE",
	  "publishers to believe (default: this machine's own)" },
	{ "cacert", 0, OPT_STR, AT(cacert), "FILE", "CA of the cloud's certificate (PEM)" },
	{ "token-file", 0, OPT_STR, AT(token_file), "FILE", "bearer token for the cloud" },
	{ "cert", 0, OPT_STR, AT(cert), "FILE", "client certificate (PEM)" },
	{ "key", 0, OPT_STR, AT(key), "FILE", "client key (PEM)" },
	{ "threads", 't', OPT_U32, AT(threads), "N", "threads (all allowed processors)", 0, 256 },
	{ "json", 0, OPT_FLAG, AT(json), NULL, "one JSON object instead of a table" },
	{ NULL },
};

static void defaults(void *values)
{
	*(struct values *)values = (struct values){ .delay_ms = 100, .seconds = 3 };
}

struct plan {
	const struct values *v;
	struct model *model;
	struct engine *engine;
	uint32_t n_tokens;
	uint64_t stripe_bytes;
	struct plan_rates rates;
	bool measured; /* the link */
};

/* Seconds of a pass of m tokens after `depth`: the better of two, the first of which also warms up. */
static int time_pass(struct plan *p, uint32_t depth, uint32_t m, double *seconds,
		     struct lslm_error *err)
{
	int32_t tokens[ENGINE_BATCH];
	struct sequence *seq = NULL;
	int rc = sequence_create(&seq, &p->engine->geo, depth + m, err);

	for (uint32_t i = 0; i < m; i++)
		tokens[i] = (int32_t)(i * 7919u % p->model->params.n_vocab);
	*seconds = 0;
	for (int i = 0; !rc && i < 2; i++) {
		const double start = clock_seconds();
		double took;

		seq->own.n_tokens = depth;
		rc = engine_forward(p->engine, seq, tokens, m, NULL, 0, err);
		took = clock_seconds() - start;
		if (i == 0 || took < *seconds)
			*seconds = took;
	}
	sequence_destroy(seq);
	return rc;
}

static int measure_compute(struct plan *p, struct lslm_error *err)
{
	const uint32_t most = p->n_tokens < ENGINE_BATCH ? p->n_tokens : ENGINE_BATCH;
	const uint32_t m = most < 256 ? most : 256, late = p->n_tokens - m;
	double early_s, late_s = 0;
	int rc = time_pass(p, 0, m, &early_s, err);

	if (!rc && late)
		rc = time_pass(p, late, m, &late_s, err);
	if (!rc)
		plan_fit(&p->rates, m, early_s, late, late_s);
	return rc;
}

/* Fetch until the time is over or all is here. */
static int measure_link(struct plan *p, struct courier *c, struct lslm_error *err)
{
	const double start = clock_seconds();
	struct courier_stats st;
	double now, first = 0;
	uint64_t base = 0;
	int rc = courier_run(c, err);

	if (rc)
		return rc == -ENODATA ? 0 : rc;
	courier_stats(c, &st);
	base = st.bytes_received;
	do {
		usleep(2000);
		now = clock_seconds();
		courier_stats(c, &st);
		if (!first && st.bytes_received > base)
			first = now;
		if (courier_failed(c, err))
			return err->code;
	} while (now - start < p->v->seconds && st.blocks_ready < st.blocks_total);
	courier_stop(c);
	if (!first)
		return error_set(err, -ETIMEDOUT,
				 "%s: nothing arrived within %u s; say the link with --link",
				 p->v->context, p->v->seconds);
	p->rates.delay_s = first - start;
	p->rates.bytes_per_s =
		(double)(st.bytes_received - base) / (now - start - p->rates.delay_s + 2e-3);
	p->measured = true;
	return 0;
}

static int use_context(struct plan *p, const struct courier_opts *opts, struct lslm_error *err)
{
	const struct manifest *m;
	struct courier *c;
	int rc = courier_open(&c, opts, err);

	if (rc)
		return rc;
	m = courier_manifest(c);
	if (memcmp(&m->geo, &p->engine->geo, sizeof(m->geo)))
		rc = error_set(err, -ENOEXEC,
			       "%s: is not of this model's shape (%u layers of %u heads of %u)",
			       p->v->context, m->geo.n_layer, m->geo.n_head_kv, m->geo.head_dim);
	if (!rc && !p->v->tokens)
		p->n_tokens = m->n_tokens;
	if (!rc && p->v->link <= 0)
		rc = measure_link(p, c, err);
	courier_close(c);
	return rc;
}

static int open_context(struct plan *p, struct lslm_error *err)
{
	struct publisher_trust trust = { 0 };
	struct courier_opts opts = {
		.source = p->v->context,
		.backend = BUFFER_AUTO,
		.order = ORDER_TAIL,
		.cacert = p->v->cacert,
		.cert = p->v->cert,
		.key = p->v->key,
		.transport = (enum courier_transport)p->v->transport,
	};
	char *token;
	int rc = token_read(p->v->token_file, false, &token, err);

	if (!rc)
		rc = publisher_trust_load(&trust, p->v->trust, err);
	if (!rc) {
		opts.token = token;
		opts.trusted = (const uint8_t(*)[MANIFEST_PUBKEY_BYTES])trust.keys;
		opts.n_trusted = trust.n;
		rc = use_context(p, &opts, err);
	}
	publisher_trust_free(&trust);
	token_free(token);
	return rc;
}

static const char *best(const struct plan_times *t)
{
	/* Both is never slower but by a stripe; where it gains nothing the simpler one is said. */
	if (t->met_token == 0)
		return "stream";
	return t->both_s >= t->compute_s * 0.999 ? "compute" : "both";
}

static void row(struct plan *p, enum kv_level level, double mbit, json_t *rows)
{
	const uint64_t stripe = codec_stripe_aim(&p->engine->geo, level);
	struct plan_rates r = p->rates;
	struct plan_times t;

	r.bytes_per_s = mbit * 1e6 / 8;
	t = plan_context(&r, p->n_tokens, stripe);
	if (rows) {
		json_array_append_new(rows, json_pack("{s:s, s:f, s:f, s:f, s:f, s:I, s:s}",
						      "level", kv_level_name(level), "mbit_per_s",
						      mbit, "stream_s", t.stream_s, "compute_s",
						      t.compute_s, "both_s", t.both_s, "met_token",
						      (json_int_t)t.met_token, "best", best(&t)));
		return;
	}
	printf("%-5s %10.1f %10.3f %10.3f %10.3f %9u  %s\n", kv_level_name(level), mbit, t.stream_s,
	       t.compute_s, t.both_s, t.met_token, best(&t));
}

static void table(struct plan *p, json_t *rows)
{
	static const double usual[] = { 1, 10, 100, 1000 };

	for (uint32_t level = 0; kv_level_name(level); level++) {
		if (p->v->link > 0)
			row(p, level, (double)p->v->link, rows);
		else if (p->measured)
			row(p, level, p->rates.bytes_per_s * 8 / 1e6, rows);
		else
			for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
				row(p, level, usual[i], rows);
	}
}

/* Never: computing is done before the first byte could be here. */
static bool ever(const struct plan_times *t)
{
	return t->break_even < 1e100;
}

static void heading(const struct plan *p, const struct plan_times *t, uint64_t bytes, double rate)
{
	printf("context of %u tokens, %.2f MB at f16; computed here with %u threads at %.0f tokens/s; "
	       "first byte after %.3f s\n",
	       p->n_tokens, (double)bytes / 1e6, pool_threads(p->engine->pool), rate,
	       p->rates.delay_s);
	if (ever(t))
		printf("streaming f16 beats computing above %.2f Mbit/s\n",
		       t->break_even * 8 / 1e6);
	else
		printf("computing is done before the first byte: no link beats it\n");
	printf("level     Mbit/s   stream s  compute s     both s  meets at  best\n");
}

static int report(struct plan *p, struct lslm_error *err)
{
	const uint64_t f16 = kv_stripe_bytes(&p->engine->geo, KV_LEVEL_F16);
	const struct plan_times t = plan_context(&p->rates, p->n_tokens, f16);
	const double rate = t.compute_s > 0 ? p->n_tokens / t.compute_s : 0;
	const uint64_t bytes = f16 * (p->n_tokens / KV_BLOCK_TOKENS);
	json_t *rows, *o;
	int rc;

	if (!p->v->json) {
		heading(p, &t, bytes, rate);
		table(p, NULL);
		return 0;
	}
	rows = json_array();
	table(p, rows);
	o = json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:o, s:b, s:o}", "model", p->v->model,
		      "tokens", (json_int_t)p->n_tokens, "threads",
		      (json_int_t)pool_threads(p->engine->pool), "bytes", (json_int_t)bytes,
		      "prefill_tokens_per_s", rate, "delay_s", p->rates.delay_s,
		      "break_even_mbit_per_s",
		      ever(&t) ? json_real(t.break_even * 8 / 1e6) : json_null(), "link_measured",
		      p->measured, "rows", rows);
	rc = o ? json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) : -1;
	json_decref(o);
	putchar('\n');
	return rc ? error_set(err, -EINVAL, "%s: not printable as JSON", p->v->model) : 0;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	const struct values *v = values;
	struct plan p = {
		.v = v,
		.n_tokens = v->tokens ? v->tokens : 1024,
		.rates.delay_s = v->delay_ms / 1e3,
	};
	int rc = model_open(&p.model, v->model, err);

	if (!rc)
		rc = engine_create(&p.engine, p.model, v->threads, err);
	if (!rc && v->context)
		rc = open_context(&p, err);
	if (!rc)
		rc = measure_compute(&p, err);
	if (!rc)
		rc = report(&p, err);
	engine_destroy(p.engine);
	model_close(p.model);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_plan = {
	.name = "plan",
	.summary = "stream a context or compute it: how long each takes here",
	.words = "",
	.opts = options,
	.size = sizeof(struct values),
	.defaults = defaults,
	.run = run,
	.notes =
		"Times are of the context alone, without the user's prompt. --source both meets by itself and needs no plan: this is\n"
		"for choosing links, levels and machines.\n",
};
