// SPDX-License-Identifier: MIT
/*
 * Compare the engine with a reference of llama.cpp: golden MODEL.gguf REFERENCE [KERNELS]
 *
 * scripts/goldens/make describes the two formats. A .greedy reference is met if every greedy token is
 * the reference's, or its runner-up where the two lie within 1e-3; such ties are counted and
 * decoding goes on with the reference's token. A .kl reference is met if the mean
 * Kullback-Leibler divergence over its positions is below 1e-3; the last ALONE of them are decoded one by one, the others
 * are one prompt. KERNELS are integer kernels other than the best. One TAP line.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "compute/matmul.h"
#include "compute/ops.h"
#include "engine/engine.h"
#include "engine/sequence.h"

static const double tie = 1e-3, max_kl = 1e-3;

enum { ALONE = 24 };

static void die(const char *what, const char *why)
{
	printf("not ok 1 - %s: %s\n", what, why);
	exit(1);
}

static int32_t best_of(const float *logits, uint32_t n)
{
	int32_t best = 0;

	for (uint32_t i = 1; i < n; i++)
		if (logits[i] > logits[best])
			best = (int32_t)i;
	return best;
}

static int greedy(struct engine *e, char *text, const char *name)
{
	const uint32_t n_vocab = e->model->params.n_vocab;
	float *logits = malloc(n_vocab * sizeof(*logits));
	int32_t feed[1024];
	uint32_t n = 0;
	int steps = 0, ties = 0, wrong = 0;
	struct sequence *seq;
	struct lslm_error err;
	char *line, *at = text;

	if (sequence_create(&seq, &e->geo, 1024, &err))
		die(name, err.text);
	while ((line = strsep(&at, "\n"))) {
		int id, second, ours;
		double p, q;

		if (!strncmp(line, "prompt", 6)) {
			char *word = line + 6, *end;

			for (; n < 1024; word = end) {
				feed[n] = (int32_t)strtol(word, &end, 10);
				if (end == word)
					break;
				n++;
			}
			continue;
		}
		if (sscanf(line, "%d %lf %d %lf", &id, &p, &second, &q) != 4)
			continue;
		if (engine_forward(e, seq, feed, n, logits, 0, &err))
			die(name, err.text);
		ours = best_of(logits, n_vocab);
		if (ours != id && ours == second && p - q < tie) {
			ties++;
		} else if (ours != id) {
			printf("# step %d: token %d, the reference has %d (then %d, %g behind)\n",
			       steps, ours, id, second, p - q);
			wrong++;
		}
		feed[0] = id;
		n = 1;
		steps++;
	}
	printf("%s 1 - %s: %d of %d greedy tokens, %d ties\n", wrong || !steps ? "not ok" : "ok",
	       name, steps - wrong, steps, ties);
	sequence_destroy(seq);
	free(logits);
	return wrong || !steps;
}

struct kl {
	char magic[8];
	uint32_t n, vocab, k;
};

/* D(reference || ours) at one position, over k tokens and everything else as one outcome. */
static double divergence(const uint16_t *ids, const uint16_t *costs, uint32_t k,
			 const float *logits, uint32_t n_vocab)
{
	const double norm = ops_log_sum_exp(logits, n_vocab);
	double kl = 0, p_rest = 1, q_rest = 1;

	for (uint32_t i = 0; i < k; i++) {
		const double log_p = -costs[i] / 2048.0, log_q = logits[ids[i]] - norm;

		kl += exp(log_p) * (log_p - log_q);
		p_rest -= exp(log_p);
		q_rest -= exp(log_q);
	}
	if (p_rest > 1e-9)
		kl += p_rest * log(p_rest / (q_rest > 1e-12 ? q_rest : 1e-12));
	return kl;
}

/* Logits behind each of n tokens. */
static void logits_of(struct engine *e, const int32_t *tokens, uint32_t n, float *logits,
		      const char *name)
{
	const uint32_t n_vocab = e->model->params.n_vocab, prompt = n > ALONE ? n - ALONE : n;
	struct sequence *seq;
	struct lslm_error err;
	int rc = sequence_create(&seq, &e->geo, n, &err);

	if (!rc)
		rc = engine_forward(e, seq, tokens, prompt, logits, 1, &err);
	for (uint32_t i = prompt; !rc && i < n; i++)
		rc = engine_forward(e, seq, tokens + i, 1, logits + (size_t)i * n_vocab, 0, &err);
	if (rc)
		die(name, err.text);
	sequence_destroy(seq);
}

static int mean_kl(struct engine *e, const char *data, size_t size, const char *name)
{
	const uint32_t n_vocab = e->model->params.n_vocab;
	struct kl h;
	const uint16_t *ids, *rows;
	int32_t tokens[ENGINE_BATCH];
	float *logits;
	double sum = 0, worst = 0;

	memcpy(&h, data, sizeof(h) < size ? sizeof(h) : size);
	if (size < sizeof(h) || h.vocab != n_vocab || h.n > ENGINE_BATCH ||
	    size != sizeof(h) + 2 * (size_t)h.n + 4 * (size_t)h.n * h.k)
		die(name, "the reference does not fit the model");
	ids = (const uint16_t *)(data + sizeof(h));
	rows = ids + h.n;
	logits = malloc((size_t)h.n * n_vocab * sizeof(*logits));
	for (uint32_t i = 0; i < h.n; i++)
		tokens[i] = ids[i];
	logits_of(e, tokens, h.n, logits, name);
	for (uint32_t i = 0; i < h.n; i++) {
		const uint16_t *row = rows + (size_t)i * 2 * h.k;
		const double kl =
			divergence(row, row + h.k, h.k, logits + (size_t)i * n_vocab, n_vocab);

		sum += kl;
		worst = kl > worst ? kl : worst;
	}
	printf("%s 1 - %s: mean KL %.2e over %u positions, worst %.2e\n",
	       sum / h.n < max_kl ? "ok" : "not ok", name, sum / h.n, h.n, worst);
	free(logits);
	return !(sum / h.n < max_kl);
}

int main(int argc, char **argv)
{
	struct lslm_error err;
	struct engine *engine;
	struct model *model;
	char name[128];
	size_t size;
	char *data;
	int bad;

	if (argc != 3 && argc != 4) {
		fputs("usage: golden MODEL.gguf REFERENCE [KERNELS]\n", stderr);
		return 2;
	}
	snprintf(name, sizeof(name), "%.60s%s%.60s",
		 strrchr(argv[2], '/') ? strrchr(argv[2], '/') + 1 : argv[2],
		 argc == 4 ? " by " : "", argc == 4 ? argv[3] : "");
	bad = argc == 4 ? matmul_use(argv[3]) : 0;
	if (bad == -ENOTSUP) {
		printf("ok 1 - %s # SKIP this processor does not have them\n", name);
		return 0;
	}
	if (bad)
		die(name, "no such kernels");
	if (file_read(argv[2], 64 << 20, &data, &size, &err) || model_open(&model, argv[1], &err) ||
	    engine_create(&engine, model, 0, &err))
		die(name, err.text);
	if (size >= 7 && !memcmp(data, "LSLMKL1", 7))
		bad = mean_kl(engine, data, size, name);
	else
		bad = greedy(engine, data, name);
	engine_destroy(engine);
	model_close(model);
	free(data);
	return bad;
}
