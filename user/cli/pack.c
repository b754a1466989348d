// SPDX-License-Identifier: MIT
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/commands.h"
#include "compute/matmul.h"
#include "engine/matrices.h"
#include "engine/packfile.h"

struct values {
	const char *out;
	uint32_t threads;
};

#define AT(field) offsetof(struct values, field)

static const struct opt options[] = {
	{ "out", 'o', OPT_STR, AT(out), "FILE",
	  "write there, for generate's --packed (the cache directory, where models look by themselves)" },
	{ "threads", 't', OPT_U32, AT(threads), "N", "threads (all allowed processors)", 0, 256 },
	{ NULL },
};

static void defaults(void *values)
{
	memset(values, 0, sizeof(struct values));
}

static void show(void *arg, uint64_t done, uint64_t total)
{
	progress_show("packed", done >> 20, total >> 20, "MiB");
}

static int pack(const struct values *v, const char *path, struct lslm_error *err)
{
	const struct packfile_progress progress = { .show = show };
	const double start = clock_seconds();
	struct model *model = NULL;
	struct pool *pool = NULL;
	char *written = NULL;
	int rc;

	matmul_init();
	rc = model_open(&model, path, err);
	if (!rc)
		rc = pool_create(&pool, v->threads, err);
	if (!rc)
		rc = matrices_pack(model, pool, v->out, &progress, &written, err);
	progress_end();
	if (!rc)
		printf("%s: packed into %s in %.1f s\n", path, written, clock_seconds() - start);
	free(written);
	pool_destroy(pool);
	model_close(model);
	return rc;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	return pack(values, words[0], err) ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_pack = {
	.name = "pack",
	.summary = "pack a model's weights once, so that it starts at the speed of the disk",
	.words = "MODEL.gguf",
	.min_words = 1,
	.max_words = 1,
	.opts = options,
	.size = sizeof(struct values),
	.defaults = defaults,
	.run = run,
	.notes =
		"What is written takes as much room as the model. It is used until the model changes.",
};
