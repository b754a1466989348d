// SPDX-License-Identifier: MIT
/*
 * Ask a question about a context:
 *   ask MODEL.gguf CONTEXT QUESTION [PUBLISHER]
 * CONTEXT is a .lskv file or an https URL; PUBLISHER the public key that signed it.
 *
 *   cc ask.c $(pkg-config --cflags --libs liblslm) -o ask
 */
#include <lslm/lslm.h>
#include <stdio.h>

static int print(void *arg, const char *piece, size_t len)
{
	return fwrite(piece, 1, len, stdout) != len;
}

int main(int argc, char **argv)
{
	LSLM_OPTS(lslm_context_opts, copts);
	LSLM_OPTS(lslm_generate_opts, gopts);
	LSLM_OPTS(lslm_generate_stats, stats);
	struct lslm_context *context = NULL;
	struct lslm_model *model = NULL;
	struct lslm_error err;
	int rc;

	if (argc < 4) {
		fprintf(stderr, "usage: %s MODEL.gguf CONTEXT QUESTION [PUBLISHER]\n", argv[0]);
		return 2;
	}
	copts.trust = argc > 4 ? argv[4] : NULL;
	copts.on_miss = LSLM_ON_MISS_COMPUTE; /* a dead link costs time, not the answer */
	gopts.n_predict = 64;
	gopts.on_piece = print;

	rc = lslm_model_open(&model, argv[1], NULL, &err);
	if (!rc)
		rc = lslm_context_attach(&context, model, argv[2], &copts, &err);
	if (!rc)
		rc = lslm_generate(model, context, argv[3], &gopts, &stats, &err);
	if (rc)
		fprintf(stderr, "ask: %s\n", err.text);
	else
		printf("\n%u of %u context tokens came as KV; first token after %.3f s\n",
		       stats.shared_tokens, stats.context_tokens, stats.ttft_s);
	lslm_context_close(context);
	lslm_model_close(model);
	return rc ? 1 : 0;
}
