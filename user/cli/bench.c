// SPDX-License-Identifier: MIT
/*
 * Measurements of one engine, as tests/bench/peer compares them with others'. The first repetition only warms up. Wall time is what a user waits for, processor time is what is
 * comparable on a machine that others keep busy.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/bench.h"
#include "cli/bench_serve.h"
#include "cli/commands.h"
#include "engine/engine.h"
#include "engine/sequence.h"

#define AT(field) offsetof(struct bench_values, field)

static const struct opt options[] = {
	{ "model", 'm', OPT_STR, AT(model), "FILE",
	  "GGUF model; all but serve and attention need one" },
	{ "tokens", 'n', OPT_U32, AT(tokens), "N",
	  "tokens of the prompt (128; ttft 16), or to decode one by one (32; batch 16)", 1,
	  1 << 20 },
	{ "depth", 'd', OPT_U32, AT(depth), "N", "tokens that stand before them (0)", 0, 1 << 20 },
	{ "users", 'u', OPT_U32, AT(users), "N",
	  "batch: who decode together (16); attention: queries at once (1)", 1, 512 },
	{ "shared", 0, OPT_U32, AT(context), "N",
	  "batch: tokens of the context that they share (1024)", 1, 1 << 20 },
	{ "threads", 't', OPT_U32, AT(threads), "N", "threads (all allowed processors)", 0, 256 },
	{ "repeat", 'r', OPT_U32, AT(repeat), "N", "repetitions, of which the median counts (5)", 1,
	  1000 },
	{ "kernels", 0, OPT_STR, AT(kernels), "NAME",
	  "integer kernels other than the best: VNNI, AVX2 or C" },
	{ "load", 0, OPT_CHOICE, AT(load), "L", "where weights come from, as for generate",
	  .choices = load_names },
	{ "packed", 0, OPT_STR, AT(packed), "FILE", "packed weights (those of lslm pack)" },
	{ "weights-mem", 0, OPT_U32, AT(weights_mem), "MIB", "memory for weights, as for generate",
	  1, 1 << 24 },
	{ "cold", 0, OPT_FLAG, AT(cold), NULL,
	  "load, ttft: put the files out of the page cache before each repetition" },
	{ "url", 0, OPT_STR, AT(url), "URL", "serve: the server, such as http://127.0.0.1:8080" },
	{ "concurrency", 0, OPT_STR, AT(concurrency), "LIST",
	  "serve: how many ask at the same time (1,2,4,8,16,32,64)" },
	{ "seconds", 0, OPT_U32, AT(seconds), "S", "serve: for each number of users (10)", 1,
	  86400 },
	{ "file", 'f', OPT_STR, AT(file), "FILE",
	  "serve: a text that is the system message of every request" },
	{ "context", 0, OPT_STR, AT(serve_context), "NAME",
	  "serve: a context that the server knows by this name" },
	{ "name", 0, OPT_STR, AT(serve_model), "NAME", "serve: the model's name there" },
	{ "ignore-eos", 0, OPT_FLAG, AT(ignore_eos), NULL,
	  "serve: answers of equal length, of one letter, by fields that llama.cpp has" },
	{ "words", 0, OPT_U32, AT(words), "N", "serve: of a question (24)", 1, 64 },
	{ "no-warm-up", 0, OPT_FLAG, AT(no_warm_up), NULL,
	  "serve: count from the first request on" },
	{ "seed", 's', OPT_U32, AT(seed), "S", "serve: of the questions (0)", 0, UINT32_MAX },
	{ "token-file", 0, OPT_STR, AT(token_file), "FILE", "serve: bearer token" },
	{ "cacert", 0, OPT_STR, AT(cacert), "FILE", "serve: CA of an https server (PEM)" },
	{ "shape", 0, OPT_STR, AT(shape), "Q/KV/D/L",
	  "attention: query heads, key-value heads, their size, layers (32/4/64/22)" },
	{ "kv", 0, OPT_CHOICE, AT(kv), "F", "attention: format of keys and values",
	  .choices = bench_kv },
	{ "apart", 0, OPT_FLAG, AT(apart), NULL,
	  "attention, batch: read what users share for each by itself" },
	{ "json", 0, OPT_FLAG, AT(json), NULL, "one JSON object instead of lines" },
	{ NULL },
};

static void defaults(void *values)
{
	*(struct bench_values *)values =
		(struct bench_values){ .repeat = 5, .shape = "32/4/64/22" };
}

struct bench {
	const struct bench_values *v;
	bool decode;
	uint32_t tokens;
	struct model *model;
	struct engine *engine;
	struct sequence *seq;
	float *logits;
	double *wall, *cpu; /* seconds of each repetition */
	double *read,
		*share; /* of reading all weights once, beside it; and of that in the time of a token */
	double *disk; /* bytes that came from there in a second */
};

double bench_cpu_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* Tokens first .. first + n (at most ENGINE_BATCH) of a text without meaning. */
static int pass(struct bench *b, uint32_t first, uint32_t n, bool logits, struct lslm_error *err)
{
	const uint32_t n_vocab = b->model->params.n_vocab;
	int32_t tokens[ENGINE_BATCH];

	for (uint32_t k = 0; k < n; k++)
		tokens[k] = (int32_t)((first + k) * 7919u % n_vocab);
	return engine_forward(b->engine, b->seq, tokens, n, logits ? b->logits : NULL, 0, err);
}

static struct matrices_stats weights(const struct bench *b)
{
	struct matrices_stats s;

	matrices_stats(b->engine->matrices, &s);
	return s;
}

/*
 * Memory is as fast as others leave it, so it is measured beside each token. Layers that take turns are read from a
 * disk and have no such measure.
 */
static double read_once(const struct bench *b)
{
	return b->decode && !weights(b).ringed ? bench_read_weights(b->engine) : 0;
}

/* The sequence is taken back to where it was: the tokens before it are computed once. */
static int measure(struct bench *b, uint32_t i, struct lslm_error *err)
{
	const uint32_t step = b->decode ? 1 : ENGINE_BATCH;
	const uint64_t arrived = weights(b).arrived;
	int rc = 0;

	b->seq->own.n_tokens = b->v->depth;
	b->wall[i] = b->cpu[i] = b->read[i] = 0;
	for (uint32_t at = 0, n; !rc && at < b->tokens; at += n) {
		double wall, cpu;

		n = b->tokens - at < step ? b->tokens - at : step;
		b->read[i] += read_once(b);
		wall = clock_seconds();
		cpu = bench_cpu_seconds();
		rc = pass(b, at, n, b->decode || at + n == b->tokens, err);
		b->wall[i] += clock_seconds() - wall;
		b->cpu[i] += bench_cpu_seconds() - cpu;
	}
	b->share[i] = b->read[i] / b->wall[i];
	b->disk[i] = (double)(weights(b).arrived - arrived) / b->wall[i];
	b->read[i] /= b->tokens;
	return rc;
}

static int ascending(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(double *x, uint32_t n)
{
	qsort(x, n, sizeof(*x), ascending);
	return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

double bench_quantile(double *x, size_t n, double share)
{
	const size_t at = (size_t)(share * (double)n);

	qsort(x, n, sizeof(*x), ascending);
	return x[at < n ? at : n - 1];
}

/* The type that most bytes of the matrices have. */
const char *bench_main_type(const struct gguf *g)
{
	uint64_t bytes[GGUF_BF16 + 1] = { 0 };
	int best = GGUF_F32;

	for (size_t i = 0; i < gguf_n_tensors(g); i++)
		bytes[gguf_tensor(g, i)->type] += gguf_tensor(g, i)->size;
	for (int t = 0; t <= GGUF_BF16; t++)
		best = bytes[t] > bytes[best] ? t : best;
	return gguf_type_name((enum gguf_type)best);
}

static int report(struct bench *b, struct lslm_error *err)
{
	const unsigned int threads = pool_threads(b->engine->pool);
	const double wall = bench_median(b->wall, b->v->repeat),
		     cpu = bench_median(b->cpu, b->v->repeat);
	const double rate = b->tokens / wall, cpu_rate = b->tokens * threads / cpu;
	const double read = bench_median(b->read, b->v->repeat),
		     share = bench_median(b->share, b->v->repeat);
	const double disk = bench_median(b->disk, b->v->repeat);
	const size_t bytes = bench_weight_bytes(b->engine);
	const uint32_t ringed = weights(b).ringed;
	const char *name = b->decode ? "decode" : "prefill";
	json_t *o;
	int rc;

	if (!b->v->json) {
		printf("%s of %u tokens after %u, %s, %u threads: %.2f tokens/s, %.2f tokens per "
		       "processor second and thread\n",
		       name, b->tokens, b->v->depth, bench_main_type(b->model->gguf), threads, rate,
		       cpu_rate);
		if (ringed)
			printf("%u of %u layers read from the disk in every pass, at %.2f GB/s\n",
			       ringed, b->model->params.n_layer, disk / 1e9);
		else if (b->decode)
			printf("weights read at %.2f GB/s, %.0f %% of the %.2f GB/s that the same "
			       "threads only reading them get\n",
			       rate * (double)bytes / 1e9, 100 * share, (double)bytes / read / 1e9);
		return 0;
	}
	o = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:f, s:f}", "bench", name,
		      "model", b->v->model, "type", bench_main_type(b->model->gguf), "threads",
		      (json_int_t)threads, "tokens", (json_int_t)b->tokens, "depth",
		      (json_int_t)b->v->depth, "repeat", (json_int_t)b->v->repeat, "compute",
		      matmul_describe(), "tokens_per_s", rate, "tokens_per_cpu_s", cpu_rate,
		      "wall_s", wall, "cpu_s", cpu);
	if (o && ringed)
		json_object_update_new(o, json_pack("{s:I, s:f}", "layers_in_every_pass",
						    (json_int_t)ringed, "disk_bytes_per_s", disk));
	if (o && b->decode)
		json_object_update_new(o, json_pack("{s:f, s:f, s:f}", "bytes_per_s",
						    rate * (double)bytes, "read_bytes_per_s",
						    read > 0 ? (double)bytes / read : 0.0,
						    "share_of_read", share));
	rc = o ? json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) : -1;
	json_decref(o);
	putchar('\n');
	return rc ? error_set(err, -EINVAL, "%s: not printable as JSON", b->v->model) : 0;
}

struct matrices_opts bench_weights(const struct bench_values *v)
{
	return (struct matrices_opts){
		.load = (enum matrices_load)v->load,
		.packed = v->packed,
		.memory = (uint64_t)v->weights_mem << 20,
	};
}

int bench_kernels(const struct bench_values *v, struct lslm_error *err)
{
	if (v->kernels && matmul_use(v->kernels))
		return error_set(err, -EINVAL, "no kernels named %s here; have: %s", v->kernels,
				 matmul_describe());
	return 0;
}

static int prepare(struct bench *b, struct lslm_error *err)
{
	const struct matrices_opts weights = bench_weights(b->v);
	int rc = model_open(&b->model, b->v->model, err);

	if (!rc)
		rc = engine_create_with(&b->engine, b->model, b->v->threads, &weights, err);
	if (!rc)
		rc = bench_kernels(b->v, err);
	if (rc)
		return rc;
	b->logits = malloc(b->model->params.n_vocab * sizeof(*b->logits));
	b->wall = calloc(5 * (size_t)b->v->repeat, sizeof(*b->wall));
	if (!b->logits || !b->wall)
		return error_set(err, -ENOMEM, "out of memory");
	b->cpu = b->wall + b->v->repeat;
	b->read = b->cpu + b->v->repeat;
	b->share = b->read + b->v->repeat;
	b->disk = b->share + b->v->repeat;
	rc = sequence_create(&b->seq, &b->engine->geo, b->v->depth + b->tokens, err);
	for (uint32_t at = 0, n; !rc && at < b->v->depth; at += n) {
		n = b->v->depth - at < ENGINE_BATCH ? b->v->depth - at : ENGINE_BATCH;
		rc = pass(b, at, n, false, err);
	}
	return rc;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	const struct bench_values *v = values;
	struct bench b = { .v = v, .decode = !strcmp(words[0], "decode") };
	int rc;

	if (!strcmp(words[0], "serve"))
		return bench_serve(v, err) ? EXIT_FAILED : EXIT_DONE;
	if (!strcmp(words[0], "attention"))
		return bench_attention(v, err) ? EXIT_FAILED : EXIT_DONE;
	if (!v->model) {
		error_set(err, -EINVAL, "-m MODEL is missing");
		return EXIT_USAGE;
	}
	if (!strcmp(words[0], "codec"))
		return bench_codec(v, err) ? EXIT_FAILED : EXIT_DONE;
	if (!strcmp(words[0], "load") || !strcmp(words[0], "ttft"))
		return bench_start(v, words[0], err) ? EXIT_FAILED : EXIT_DONE;
	if (!strcmp(words[0], "batch"))
		return bench_batch(v, err) ? EXIT_FAILED : EXIT_DONE;
	if (!b.decode && strcmp(words[0], "prefill")) {
		error_set(
			err, -EINVAL,
			"unknown measurement '%s'; have load, ttft, prefill, decode, batch, attention, codec and serve",
			words[0]);
		return EXIT_USAGE;
	}
	b.tokens = v->tokens ? v->tokens : b.decode ? 32 : 128;
	rc = prepare(&b, err);
	if (!rc)
		rc = measure(&b, 0, err); /* caches, pages, clock */
	for (uint32_t i = 0; !rc && i < v->repeat; i++)
		rc = measure(&b, i, err);
	if (!rc)
		rc = report(&b, err);
	sequence_destroy(b.seq);
	engine_destroy(b.engine);
	model_close(b.model);
	free(b.logits);
	free(b.wall);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_bench = {
	.name = "bench",
	.summary = "measure a model on this machine: its start, prefill, decode; or a server",
	.words = "load|ttft|prefill|decode|batch|attention|codec|serve",
	.min_words = 1,
	.max_words = 1,
	.opts = options,
	.size = sizeof(struct bench_values),
	.defaults = defaults,
	.run = run,
};
