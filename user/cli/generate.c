// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/token.h"
#include "cli/commands.h"
#include "lslm/lslm.h"

struct values {
	const char *model, *prompt, *file, *context, *trust, *salt;
	const char *cacert, *token_file, *cert, *key, *courier, *store;
	const char *packed, *map, *levels, *calibration;
	int source, on_miss, backend, transport, load, keep_packed;
	uint32_t n_predict, n_ctx, threads, top_k, repeat_last_n, stall_ms, connect_ms, weights_mem;
	float temp, top_p, min_p, repeat_penalty, deadline_s;
	uint64_t seed;
	bool raw, stats;
};

static const char *const sources[] = { "both", "stream", "compute", NULL };
static const enum lslm_source source_values[] = { LSLM_SOURCE_BOTH, LSLM_SOURCE_STREAM_ONLY,
						  LSLM_SOURCE_COMPUTE };
static const char *const misses[] = { "fail", "compute", NULL };
static const char *const keeps[] = { "auto", "no", NULL };

#define AT(field) offsetof(struct values, field)

static const struct opt options[] = {
	{ "model", 'm', OPT_STR, AT(model), "FILE", "GGUF model", .required = true },
	{ "prompt", 'p', OPT_STR, AT(prompt), "TEXT", "what to answer or continue" },
	{ "file", 'f', OPT_STR, AT(file), "FILE", "read the prompt from a file" },
	{ "context", 0, OPT_STR, AT(context), "FILE|URL",
	  "a .lskv file or a context's https URL; with --courier its key, a beginning of that, or its title" },
	{ "map", 0, OPT_STR, AT(map), "MAP",
	  "take contexts that a larger model made through this map, where that is proven better" },
	{ "courier", 0, OPT_STR, AT(courier), "SOCKET",
	  "let lslm edge bring the context, and the weights if it reads them, and hold only read-only descriptors here" },
	{ "store", 0, OPT_STR, AT(store), "DIR",
	  "keep what comes from the cloud there, and look there first" },
	{ "source", 0, OPT_CHOICE, AT(source), "S",
	  "where the context's KV comes from; with both it streams in from its tail and is computed from its head until they meet",
	  .choices = sources },
	{ "on-miss", 0, OPT_CHOICE, AT(on_miss), "M", "when a stream alone fails or is wrong",
	  .choices = misses },
	{ "backend", 0, OPT_CHOICE, AT(backend), "B", "buffer backend", .choices = backend_names },
	{ "transport", 0, OPT_CHOICE, AT(transport), "T",
	  "how the KV comes from a URL (https); auto is udp, and https for what that cannot bring",
	  .choices = transport_names },
	{ "level", 0, OPT_STR, AT(levels), "auto|L[,L...]",
	  "levels that may come: f16, q8, q4, e, p; of several the finest that meets the deadline (auto: all)" },
	{ "calibration", 0, OPT_STR, AT(calibration), "FILE",
	  "the model's (lslm calibrate), without which level p cannot come" },
	{ "deadline", 0, OPT_F32, AT(deadline_s), "S",
	  "seconds in which a URL's context is to be here whole (5)", 1e-3, 1e9 },
	{ "trust", 0, OPT_STR, AT(trust), "KEY|FILE",
	  "publishers to believe (default: this machine's own)" },
	{ "salt", 0, OPT_STR, AT(salt), "HEX", "tenant salt of the context" },
	{ "cacert", 0, OPT_STR, AT(cacert), "FILE", "CA of the cloud's certificate (PEM)" },
	{ "token-file", 0, OPT_STR, AT(token_file), "FILE", "bearer token for the cloud" },
	{ "cert", 0, OPT_STR, AT(cert), "FILE", "client certificate (PEM)" },
	{ "key", 0, OPT_STR, AT(key), "FILE", "client key (PEM)" },
	{ "connect-timeout", 0, OPT_U32, AT(connect_ms), "MS", "give up connecting after", 1,
	  3600000 },
	{ "stall-timeout", 0, OPT_U32, AT(stall_ms), "MS", "give up a silent stream after", 1,
	  3600000 },
	{ "predict", 'n', OPT_U32, AT(n_predict), "N", "tokens to generate at most (256)", 1,
	  1 << 24 },
	{ "ctx-size", 'c', OPT_U32, AT(n_ctx), "N", "positions at most (as trained)", 0, 1 << 24 },
	{ "threads", 't', OPT_U32, AT(threads), "N", "threads (all allowed processors)", 0, 256 },
	{ "load", 0, OPT_CHOICE, AT(load), "L",
	  "packed weights: read into own 2 MiB pages, or mapped from the page cache; pack: from the model, at start",
	  .choices = load_names },
	{ "packed", 0, OPT_STR, AT(packed), "FILE", "packed weights (those of lslm pack)" },
	{ "keep-packed", 0, OPT_CHOICE, AT(keep_packed), "K",
	  "what had to be packed at start: auto writes it for the next one, if there is room; no",
	  .choices = keeps },
	{ "weights-mem", 0, OPT_U32, AT(weights_mem), "MIB",
	  "memory for weights; layers that do not fit are read in every pass (most of what is free)",
	  1, 1 << 24 },
	{ "temp", 0, OPT_F32, AT(temp), "T", "temperature, 0 is greedy (0.8)", 0, 100 },
	{ "top-k", 0, OPT_U32, AT(top_k), "K", "keep the K likeliest tokens, 0 all (40)", 0,
	  1 << 24 },
	{ "top-p", 0, OPT_F32, AT(top_p), "P", "keep tokens up to this mass (0.95)", 1e-6, 1 },
	{ "min-p", 0, OPT_F32, AT(min_p), "P", "drop tokens below this share of the best (0.05)", 0,
	  1 },
	{ "repeat-penalty", 0, OPT_F32, AT(repeat_penalty), "R", "1 is none (1)", 1e-3, 1000 },
	{ "repeat-last-n", 0, OPT_U32, AT(repeat_last_n), "N", "tokens it looks back on (64)", 1,
	  65536 },
	{ "seed", 's', OPT_U64, AT(seed), "S", "of the sampler (0)" },
	{ "raw", 0, OPT_FLAG, AT(raw), NULL, "continue the prompt as it is, no chat template" },
	{ "stats", 0, OPT_FLAG, AT(stats), NULL, "print figures to standard error afterwards" },
	{ NULL },
};

static void defaults(void *values)
{
	*(struct values *)values = (struct values){
		.n_predict = 256,
		.temp = 0.8f,
		.top_k = 40,
		.top_p = 0.95f,
		.min_p = 0.05f,
		.repeat_penalty = 1,
		.repeat_last_n = 64,
	};
}

static int print_piece(void *arg, const char *piece, size_t len)
{
	return fwrite(piece, 1, len, stdout) != len || fflush(stdout) ? 1 : 0;
}

static int load_prompt(const struct values *v, char **prompt, struct lslm_error *err)
{
	enum { MAX_PROMPT = 64 << 20 };
	size_t size;
	int rc;

	if (!v->prompt == !v->file)
		return error_set(err, -EINVAL, "give the prompt with -p TEXT or -f FILE");
	if (v->prompt) {
		*prompt = strdup(v->prompt);
		return *prompt ? 0 : error_set(err, -ENOMEM, "out of memory");
	}
	rc = file_read(v->file, MAX_PROMPT, prompt, &size, err);
	if (!rc && strlen(*prompt) != size) {
		free(*prompt);
		return error_set(err, -EINVAL, "%s: holds a NUL byte; a prompt is text", v->file);
	}
	return rc;
}

static int attach(const struct values *v, struct lslm_model *model, struct lslm_context **context,
		  struct lslm_error *err)
{
	LSLM_OPTS(lslm_context_opts, o);
	char *token;
	int rc;

	*context = NULL;
	if (!v->context && !v->courier)
		return 0;
	if (v->courier && (v->levels || v->calibration || v->deadline_s > 0))
		return error_set(
			err, -EINVAL,
			"--level, --calibration and --deadline are the courier's, give them to lslm edge");
	rc = token_read(v->token_file, false, &token, err);
	if (rc)
		return rc;
	o.source = source_values[v->source];
	o.backend = (enum lslm_backend)v->backend;
	o.trust = v->trust;
	o.salt = v->salt;
	o.cacert = v->cacert;
	o.token = token;
	o.cert = v->cert;
	o.key = v->key;
	o.connect_timeout_ms = v->connect_ms;
	o.stall_timeout_ms = v->stall_ms;
	o.on_miss = (enum lslm_on_miss)v->on_miss;
	o.courier = v->courier;
	o.map = v->map;
	o.store = v->store;
	o.transport = (enum lslm_transport)v->transport;
	o.levels = v->levels && strcmp(v->levels, "auto") ? v->levels : NULL;
	o.deadline_s = (double)v->deadline_s;
	o.calibration = v->calibration;
	rc = lslm_context_attach(context, model, v->context, &o, err);
	token_free(token);
	return rc;
}

static void print_stats(const struct lslm_generate_stats *s)
{
	const uint32_t decoded = s->generated_tokens > 1 ? s->generated_tokens - 1 : 0;

	fprintf(stderr,
		"ttft_s=%.4f context_ready_s=%.4f context_tokens=%u shared_tokens=%u computed_tokens=%u met_token=%u "
		"streamed_stripes=%u computed_stripes=%u generated_tokens=%u decode_tokens_per_s=%.1f bytes_received=%llu backend=%s "
		"path=\"%s\" levels=\"%s\" weights_s=%.4f weights_waited_s=%.4f weights=\"%s\" compute=\"%s\"\n",
		s->ttft_s, s->context_ready_s, s->context_tokens, s->shared_tokens,
		s->computed_tokens, s->met_token, s->streamed_stripes, s->computed_stripes,
		s->generated_tokens, s->decode_s > 0 ? decoded / s->decode_s : 0,
		(unsigned long long)s->bytes_received, s->backend, s->path, s->levels, s->weights_s,
		s->weights_waited_s, s->weights, s->compute);
}

static int answer(const struct values *v, struct lslm_model *model, struct lslm_context *context,
		  const char *prompt, struct lslm_error *err)
{
	LSLM_OPTS(lslm_generate_opts, o);
	LSLM_OPTS(lslm_generate_stats, stats);
	int rc;

	o.n_predict = v->n_predict;
	o.temperature = v->temp;
	o.top_k = v->top_k;
	o.top_p = v->top_p;
	o.min_p = v->min_p;
	o.repeat_penalty = v->repeat_penalty;
	o.repeat_last_n = v->repeat_last_n;
	o.seed = v->seed;
	o.raw = v->raw;
	o.on_piece = print_piece;
	rc = lslm_generate(model, context, prompt, &o, &stats, err);
	if (rc)
		return rc;
	putchar('\n');
	/* What was asked for did not happen, although the answer is right: say so. */
	if (stats.miss[0])
		fprintf(stderr, "lslm generate: computed locally: %s\n", stats.miss);
	if (v->stats)
		print_stats(&stats);
	if (ferror(stdout) || fflush(stdout))
		return error_sys(err, -EIO, "standard output");
	return 0;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	const struct values *v = values;
	LSLM_OPTS(lslm_model_opts, mo);
	struct lslm_context *context = NULL;
	struct lslm_model *model = NULL;
	char *prompt = NULL;
	int rc;

	mo.n_threads = v->threads;
	mo.n_ctx = v->n_ctx;
	mo.load = (enum lslm_load)v->load;
	mo.packed = v->packed;
	mo.keep_packed = v->keep_packed == 0;
	mo.weights_bytes = (uint64_t)v->weights_mem << 20;
	mo.courier = v->courier;
	rc = load_prompt(v, &prompt, err);
	if (rc)
		return EXIT_USAGE;
	rc = lslm_model_open(&model, v->model, &mo, err);
	if (!rc)
		rc = attach(v, model, &context, err);
	if (!rc)
		rc = answer(v, model, context, prompt, err);
	lslm_context_close(context);
	lslm_model_close(model);
	free(prompt);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_generate = {
	.name = "generate",
	.summary = "answer a prompt, after a context from a file or the cloud",
	.words = "",
	.opts = options,
	.size = sizeof(struct values),
	.defaults = defaults,
	.run = run,
	.notes =
		"The prompt is a user's message where the model has a chat template; --raw continues "
		"it as text.",
};
