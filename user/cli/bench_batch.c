// SPDX-License-Identifier: MIT
/*
 * Many users of one context against one user: each step decodes one token of everybody, in one
 * pass, and the same steps are taken with one user in turn, so that the ratio is of one run on one
 * machine. The context is computed once and shared as a segment, as a streamed one is.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "base/clock.h"
#include "cli/bench.h"
#include "engine/engine.h"
#include "engine/sequence.h"

enum { DEFAULT_USERS = 16, DEFAULT_CONTEXT = 1024, DEFAULT_TOKENS = 16, QUESTION = 16 };

struct crowd {
	const struct bench_values *v;
	uint32_t users, context, tokens;
	struct model *model;
	struct engine *engine;
	struct sequence *head; /* the context */
	struct sequence **seq; /* [users] */
	struct engine_part *parts; /* [users] */
	int32_t question[QUESTION];
	float *logits; /* [users][n_vocab] */
	double *one, *many, *ratio; /* tokens per second of each repetition */
	struct engine_spent spent; /* by the many */
};

static int32_t some_token(const struct crowd *c, uint32_t i)
{
	return (int32_t)(i * 7919u % c->model->params.n_vocab);
}

static int compute_context(struct crowd *c, struct lslm_error *err)
{
	int32_t tokens[ENGINE_BATCH];
	int rc = sequence_create(&c->head, &c->engine->geo, c->context, err);

	for (uint32_t at = 0, m; !rc && at < c->context; at += m) {
		m = c->context - at < ENGINE_BATCH ? c->context - at : ENGINE_BATCH;
		for (uint32_t i = 0; i < m; i++)
			tokens[i] = some_token(c, at + i);
		rc = engine_forward(c->engine, c->head, tokens, m, NULL, 0, err);
	}
	return rc;
}

/* Everybody has asked something, and nobody the same. */
static int seat_users(struct crowd *c, struct lslm_error *err)
{
	struct segment context = c->head->own;
	int rc = 0;

	context.rounded = true;
	for (uint32_t u = 0; !rc && u < c->users; u++) {
		rc = sequence_create(&c->seq[u], &c->engine->geo, QUESTION + c->tokens, err);
		if (!rc)
			rc = sequence_share(c->seq[u], &context, err);
		for (uint32_t i = 0; i < QUESTION; i++)
			c->question[i] = some_token(c, 31 * u + i);
		if (!rc)
			rc = engine_forward(c->engine, c->seq[u], c->question, QUESTION, NULL, 0,
					    err);
	}
	return rc;
}

/* Tokens per second of the first n users together. */
static int decode(struct crowd *c, uint32_t n, double *rate, struct lslm_error *err)
{
	const double start = clock_seconds();
	int rc = 0;

	for (uint32_t u = 0; u < n; u++)
		c->seq[u]->own.n_tokens = QUESTION;
	for (uint32_t i = 0; !rc && i < c->tokens; i++) {
		for (uint32_t u = 0; u < n; u++)
			c->parts[u] = (struct engine_part){
				.seq = c->seq[u],
				.tokens = &c->question[(i + u) % QUESTION],
				.n = 1,
				.rows = 1,
			};
		rc = engine_pass(c->engine, c->parts, n, c->logits, NULL, err);
	}
	*rate = n * c->tokens / (clock_seconds() - start);
	return rc;
}

static int repetition(struct crowd *c, uint32_t i, struct lslm_error *err)
{
	const struct engine_spent *now = &c->engine->spent;
	struct engine_spent before;
	int rc = decode(c, 1, &c->one[i], err);

	before = *now;
	if (!rc)
		rc = decode(c, c->users, &c->many[i], err);
	c->ratio[i] = c->many[i] / c->one[i];
	c->spent.seconds += now->seconds - before.seconds;
	c->spent.products += now->products - before.products;
	c->spent.attention += now->attention - before.attention;
	c->spent.operations += now->operations - before.operations;
	return rc;
}

static int report(struct crowd *c, struct lslm_error *err)
{
	const uint32_t n = c->v->repeat;
	const double one = bench_median(c->one, n), many = bench_median(c->many, n);
	const double ratio = bench_median(c->ratio, n);
	const unsigned int threads = pool_threads(c->engine->pool);
	const double products = c->spent.products / c->spent.seconds;
	const double attention = c->spent.attention / c->spent.seconds;
	const double rate = c->spent.operations / c->spent.products;
	json_t *o;
	int rc;

	if (!c->v->json) {
		printf("%u users of %u tokens, %s, %u threads: %.1f tokens/s, one user %.2f: %.2f times "
		       "(%.2f to %.2f)\n"
		       "products: %.0f %% of the time, %.0f GOP/s; attention: %.0f %%\n",
		       c->users, c->context, bench_main_type(c->model->gguf), threads, many, one,
		       ratio, c->ratio[0], c->ratio[n - 1], products * 100, rate / 1e9,
		       attention * 100);
		return 0;
	}
	o = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:f, s:f, s:f, s:f, "
		      "s:f, s:f}",
		      "bench", "batch", "model", c->v->model, "type",
		      bench_main_type(c->model->gguf), "threads", (json_int_t)threads, "users",
		      (json_int_t)c->users, "context", (json_int_t)c->context, "tokens",
		      (json_int_t)c->tokens, "repeat", (json_int_t)n, "compute", matmul_describe(),
		      "tokens_per_s", many, "one_user_tokens_per_s", one, "ratio", ratio,
		      "ratio_min", c->ratio[0], "ratio_max", c->ratio[n - 1], "products_share",
		      products, "attention_share", attention, "products_operations_per_s", rate);
	rc = o ? json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) : -1;
	json_decref(o);
	putchar('\n');
	return rc ? error_set(err, -EINVAL, "%s: not printable as JSON", c->v->model) : 0;
}

static int prepare(struct crowd *c, struct lslm_error *err)
{
	const struct matrices_opts weights = bench_weights(c->v);
	int rc = model_open(&c->model, c->v->model, err);

	if (!rc)
		rc = engine_create_with(&c->engine, c->model, c->v->threads, &weights, err);
	if (!rc)
		rc = bench_kernels(c->v, err);
	if (rc)
		return rc;
	c->engine->attend_apart = c->v->apart;
	c->seq = calloc(c->users, sizeof(struct sequence *));
	c->parts = calloc(c->users, sizeof(*c->parts));
	c->logits = malloc((size_t)c->users * c->model->params.n_vocab * sizeof(*c->logits));
	c->one = calloc(3 * (size_t)c->v->repeat, sizeof(*c->one));
	if (!c->seq || !c->parts || !c->logits || !c->one)
		return error_set(err, -ENOMEM, "out of memory");
	c->many = c->one + c->v->repeat;
	c->ratio = c->many + c->v->repeat;
	rc = compute_context(c, err);
	return rc ? rc : seat_users(c, err);
}

static void leave(struct crowd *c)
{
	for (uint32_t u = 0; c->seq && u < c->users; u++)
		sequence_destroy(c->seq[u]);
	sequence_destroy(c->head);
	engine_destroy(c->engine);
	model_close(c->model);
	free(c->seq);
	free(c->parts);
	free(c->logits);
	free(c->one);
}

int bench_batch(const struct bench_values *v, struct lslm_error *err)
{
	struct crowd c = {
		.v = v,
		.users = v->users ? v->users : DEFAULT_USERS,
		.context = v->context ? v->context : DEFAULT_CONTEXT,
		.tokens = v->tokens ? v->tokens : DEFAULT_TOKENS,
	};
	int rc = prepare(&c, err);

	if (!rc)
		rc = repetition(&c, 0, err); /* caches, pages, clock */
	c.spent = (struct engine_spent){ 0 };
	for (uint32_t i = 0; !rc && i < v->repeat; i++)
		rc = repetition(&c, i, err);
	if (!rc)
		rc = report(&c, err);
	leave(&c);
	return rc;
}
