// SPDX-License-Identifier: MIT
/*
 * How a model starts. load: until all weights are in memory, nothing else being done. ttft: from
 * nothing to the logits behind a prompt, as a program that is asked one question does it, and then the
 * same prompt again with everything there: what is left of the difference is the price of starting.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/residency.h"
#include "cli/bench.h"
#include "engine/engine.h"
#include "engine/packfile.h"
#include "engine/sequence.h"

struct start {
	const struct bench_values *v;
	bool load; /* else ttft */
	uint32_t tokens;
	struct matrices_stats stats; /* of the last repetition */
	char type[16];
	unsigned int threads;
	double *total, *open, *prompt, *weights, *waited, *cpu; /* seconds of each repetition */
};

/* --- cold --- */

static double share_cached(int fd, size_t size)
{
	void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	double share;

	if (map == MAP_FAILED)
		return 0;
	share = residency_cached(map, size);
	munmap(map, size);
	return share;
}

/* Only this file's pages, so that nobody else on the machine pays for the measurement. */
static int put_out(const char *path, struct lslm_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	double left;

	if (fd < 0)
		return errno == ENOENT ? 0 : error_sys(err, -errno, "%s: cannot open", path);
	if (fstat(fd, &st) < 0)
		st.st_size = 0;
	fdatasync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	left = share_cached(fd, (size_t)st.st_size);
	close(fd);
	if (left < 0.02)
		return 0;
	return error_set(
		err, -EBUSY,
		"%s: %.0f %% of it stay in the page cache, because another process uses it; "
		"no cold start can be measured",
		path, left * 100);
}

static int cool(const struct bench_values *v, struct lslm_error *err)
{
	char *packed = NULL;
	struct gguf *g;
	int rc;

	if (!v->cold)
		return 0;
	if (!v->packed) {
		rc = gguf_open(&g, v->model, err);
		if (rc)
			return rc;
		rc = packfile_cache_path(g, &packed, err);
		gguf_close(g);
		if (rc)
			return rc;
	}
	rc = put_out(v->packed ? v->packed : packed, err);
	if (!rc)
		rc = put_out(v->model, err);
	free(packed);
	return rc;
}

/* --- one repetition --- */

static int all_weights(struct engine *e, struct lslm_error *err)
{
	int rc = 0;

	for (uint32_t l = 0; !rc && l <= e->model->params.n_layer; l++)
		rc = matrices_need(e->matrices, l, err);
	return rc;
}

static int prompt(struct engine *e, struct sequence *seq, uint32_t n, float *logits,
		  struct lslm_error *err)
{
	int32_t tokens[ENGINE_BATCH];

	seq->own.n_tokens = 0;
	for (uint32_t i = 0; i < n; i++)
		tokens[i] = (int32_t)(i * 7919u % e->model->params.n_vocab);
	return engine_forward(e, seq, tokens, n, logits, 0, err);
}

static int first_token(struct start *b, struct engine *e, uint32_t i, double begin,
		       struct lslm_error *err)
{
	float *logits = malloc(e->model->params.n_vocab * sizeof(*logits));
	struct sequence *seq = NULL;
	double again;
	int rc;

	if (!logits)
		return error_set(err, -ENOMEM, "out of memory");
	rc = sequence_create(&seq, &e->geo, b->tokens, err);
	if (!rc)
		rc = prompt(e, seq, b->tokens, logits, err);
	again = clock_seconds();
	b->total[i] = again - begin;
	matrices_stats(e->matrices, &b->stats);
	if (!rc)
		rc = prompt(e, seq, b->tokens, logits, err);
	b->prompt[i] = clock_seconds() - again;
	sequence_destroy(seq);
	free(logits);
	return rc;
}

static int repetition(struct start *b, uint32_t i, struct lslm_error *err)
{
	const struct matrices_opts weights = bench_weights(b->v);
	struct model *model = NULL;
	struct engine *e = NULL;
	double begin, cpu;
	int rc = cool(b->v, err);

	if (rc)
		return rc;
	begin = clock_seconds();
	cpu = bench_cpu_seconds();
	rc = model_open(&model, b->v->model, err);
	b->open[i] = clock_seconds() - begin;
	if (!rc)
		rc = engine_create_with(&e, model, b->v->threads, &weights, err);
	if (!rc && b->load) {
		rc = all_weights(e, err);
		b->total[i] = clock_seconds() - begin - b->open[i];
		matrices_stats(e->matrices, &b->stats);
	} else if (!rc) {
		rc = first_token(b, e, i, begin, err);
	}
	b->cpu[i] = bench_cpu_seconds() - cpu;
	b->weights[i] = b->stats.seconds;
	b->waited[i] = b->stats.waited;
	if (!rc) {
		b->threads = pool_threads(e->pool);
		snprintf(b->type, sizeof(b->type), "%s", bench_main_type(model->gguf));
	}
	engine_destroy(e);
	model_close(model);
	return rc;
}

/* --- the report --- */

static int report(struct start *b, struct lslm_error *err)
{
	const uint32_t n = b->v->repeat;
	const double total = bench_median(b->total, n), open = bench_median(b->open, n);
	const double again = bench_median(b->prompt, n), waited = bench_median(b->waited, n);
	const double weights = bench_median(b->weights, n), cpu = bench_median(b->cpu, n);
	const char *name = b->load ? "load" : "ttft";
	json_t *o;
	int rc;

	if (!b->v->json) {
		printf("%s, %s, %s, %u threads: %.4f s (opening the model %.4f s, weights %.4f s, of which "
		       "waited for %.4f s)\nweights: %.1f MB at %.2f GB/s, %s\n",
		       name, b->type, b->v->cold ? "cold" : "warm", b->threads, total, open,
		       weights, waited, (double)b->stats.bytes / 1e6,
		       weights > 0 ? (double)b->stats.bytes / weights / 1e9 : 0, b->stats.text);
		if (!b->load)
			printf("the same %u tokens with everything in memory: %.4f s\n", b->tokens,
			       again);
		return 0;
	}
	o = json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:f}",
		      "bench", name, "model", b->v->model, "type", b->type, "cold", b->v->cold,
		      "threads", (json_int_t)b->threads, "tokens", (json_int_t)b->tokens, "repeat",
		      (json_int_t)n, "weights", b->stats.how, "weights_why", b->stats.text, "bytes",
		      (json_int_t)b->stats.bytes, b->load ? "load_s" : "ttft_s", total, "open_s",
		      open, "weights_s", weights, "waited_s", waited, "cpu_s", cpu);
	if (o && !b->load)
		json_object_set_new(o, "prompt_s", json_real(again));
	if (o && weights > 0)
		json_object_set_new(o, "bytes_per_s", json_real((double)b->stats.bytes / weights));
	rc = o ? json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) : -1;
	json_decref(o);
	putchar('\n');
	return rc ? error_set(err, -EINVAL, "%s: not printable as JSON", b->v->model) : 0;
}

int bench_start(const struct bench_values *v, const char *name, struct lslm_error *err)
{
	struct start b = { .v = v, .load = !strcmp(name, "load") };
	double *all = calloc(6 * (size_t)v->repeat, sizeof(*all));
	int rc = 0;

	b.tokens = b.load ? 0 : v->tokens ? v->tokens : 16;
	if (b.tokens > ENGINE_BATCH) {
		free(all);
		return error_set(err, -EINVAL, "ttft takes at most %d tokens", ENGINE_BATCH);
	}
	if (!all)
		return error_set(err, -ENOMEM, "out of memory");
	b.total = all;
	b.open = b.total + v->repeat;
	b.prompt = b.open + v->repeat;
	b.weights = b.prompt + v->repeat;
	b.waited = b.weights + v->repeat;
	b.cpu = b.waited + v->repeat;
	for (uint32_t i = 0; !rc && i < v->repeat; i++)
		rc = repetition(&b, i, err);
	if (!rc)
		rc = report(&b, err);
	free(all);
	return rc;
}
