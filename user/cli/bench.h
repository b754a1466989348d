/* SPDX-License-Identifier: MIT */
/* What the measurements of `lslm bench` share: their options, and statistics of repetitions. */
#ifndef LSLM_CLI_BENCH_H
#define LSLM_CLI_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/matrices.h"

struct bench_values {
	const char *model, *kernels, *packed, *shape;
	uint32_t tokens, depth, threads, repeat, weights_mem, users, context;
	int load, kv;
	bool json, cold, apart;
	/* of serve */
	const char *url, *concurrency, *file, *token_file, *cacert, *serve_model, *serve_context;
	uint32_t seconds, seed, words;
	bool ignore_eos, no_warm_up;
};

struct matrices_opts bench_weights(const struct bench_values *v);
/* Those that were asked for by name; -EINVAL. */
int bench_kernels(const struct bench_values *v, struct lslm_error *err);
double bench_cpu_seconds(void);
double bench_median(double *x, uint32_t n); /* sorts x */
/* The value that a share of n > 0 values do not reach; sorts x. */
double bench_quantile(double *x, size_t n, double share);
/* "Q8_0": the type that most bytes of the matrices have. */
const char *bench_main_type(const struct gguf *g);

/*
 * Seconds in which the engine's threads read all matrices once, and bytes of these, as they stand in memory: up to 3 % more
 * than in the file. Weights must be there, and not take turns. bench_read.c
 */
double bench_read_weights(const struct engine *e);
size_t bench_weight_bytes(const struct engine *e);

/* load and ttft, bench_start.c */
int bench_start(const struct bench_values *v, const char *name, struct lslm_error *err);
/* bench_codec.c */
int bench_codec(const struct bench_values *v, struct lslm_error *err);
/* bench_attention.c; names of enum attention_format, NULL behind them. */
extern const char *const bench_kv[];
int bench_attention(const struct bench_values *v, struct lslm_error *err);

/* batch, bench_batch.c */
int bench_batch(const struct bench_values *v, struct lslm_error *err);

#endif
