// SPDX-License-Identifier: MIT
/*
 * Logits of llama.cpp's CPU backend, for scripts/goldens/make: token ids on stdin,
 * raw 32-bit floats [position][vocabulary] on stdout.
 *
 *   dump MODEL.gguf 0     one row for every id (row i predicts what follows id i)
 *   dump MODEL.gguf N     one row for the last id, then N - 1 rows, each after feeding
 *                         the best token of the row before (greedy decoding)
 *
 * Uses the public API of llama.h only and builds against any llama library since
 * February 2025: cc dump.c -I.../include -lllama.
 */
#include <stdio.h>
#include <stdlib.h>

#include <llama.h>

enum { MAX_IDS = 4096 };

static llama_token ids[MAX_IDS];

static void die(const char *what)
{
	fprintf(stderr, "dump: %s\n", what);
	exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *data)
{
	if (level == GGML_LOG_LEVEL_ERROR)
		fputs(text, stderr);
}

/* Feed n ids from position pos on; logits are wanted for the last one or for all. */
static void feed(struct llama_context *ctx, const llama_token *id, int n, int pos, int all)
{
	struct llama_batch batch = llama_batch_init(n, 0, 1);

	for (int i = 0; i < n; i++) {
		batch.token[i] = id[i];
		batch.pos[i] = pos + i;
		batch.n_seq_id[i] = 1;
		batch.seq_id[i][0] = 0;
		batch.logits[i] = all || i == n - 1;
	}
	batch.n_tokens = n;
	if (llama_decode(ctx, batch))
		die("llama_decode failed");
	llama_batch_free(batch);
}

static llama_token best(const float *row, int n)
{
	int k = 0;

	for (int i = 1; i < n; i++)
		if (row[i] > row[k])
			k = i;
	return k;
}

int main(int argc, char **argv)
{
	struct llama_context_params params = llama_context_default_params();
	struct llama_context *ctx;
	struct llama_model *model;
	int n = 0, steps, n_vocab, id;

	if (argc != 3)
		die("usage: dump MODEL.gguf N <ids");
	steps = atoi(argv[2]);
	while (n < MAX_IDS && scanf("%d", &id) == 1)
		ids[n++] = id;
	llama_log_set(quiet, NULL);
	llama_backend_init();
	model = llama_model_load_from_file(argv[1], llama_model_default_params());
	if (!model)
		die("cannot load the model");
	params.n_ctx = n + steps;
	params.n_batch = params.n_ubatch = n + 1;
	params.n_threads = params.n_threads_batch = 1;
	ctx = llama_init_from_model(model, params);
	if (!ctx)
		die("cannot make a context");
	n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
	feed(ctx, ids, n, 0, !steps);
	if (!steps)
		for (int i = 0; i < n; i++)
			fwrite(llama_get_logits_ith(ctx, i), sizeof(float), n_vocab, stdout);
	for (int i = 0; i < steps; i++) {
		const float *row = llama_get_logits_ith(ctx, -1);
		llama_token next = best(row, n_vocab);

		fwrite(row, sizeof(float), n_vocab, stdout);
		if (i + 1 < steps)
			feed(ctx, &next, 1, n + i, 0);
	}
	return fflush(stdout) ? 1 : 0;
}
