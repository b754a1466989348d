// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/commands.h"
#include "engine/calibrate.h"
#include "engine/engine.h"
#include "engine/eval_data.h"

struct values {
	const char *model, *out;
	struct opt_list files;
	uint32_t threads, n_ctx;
	bool raw;
};

enum { MAX_TEXT = 64 << 20 };

#define AT(field) offsetof(struct values, field)

static const struct opt options[] = {
	{ "model", 'm', OPT_STR, AT(model), "FILE", "GGUF model", .required = true },
	{ "file", 'f', OPT_LIST, AT(files), "FILE",
	  "a text like the contexts to come, or contexts with questions (.jsonl, as lslm eval takes); repeatable" },
	{ "out", 'o', OPT_STR, AT(out), "FILE", "the calibration", .required = true },
	{ "raw", 0, OPT_FLAG, AT(raw), NULL, "take texts as they are, not as system messages" },
	{ "threads", 't', OPT_U32, AT(threads), "N", "threads (all allowed processors)", 0, 256 },
	{ "ctx-size", 'c', OPT_U32, AT(n_ctx), "N", "positions at most (as trained)", 64, 1 << 24 },
	{ NULL },
};

static void defaults(void *values)
{
	memset(values, 0, sizeof(struct values));
}

static void show(void *arg, uint32_t done, uint32_t total)
{
	progress_show("prefill", done, total, "tokens");
}

static void show_books(void *arg, uint32_t done, uint32_t total)
{
	progress_show("calibrate", done, total, "contexts");
}

static int add_file(struct engine *e, struct calibrator *c, const struct values *v,
		    const char *path, struct lslm_error *err)
{
	size_t len;
	char *text;
	int rc;

	if (eval_data_has_questions(path)) {
		rc = calibrate_questions(e, c, path, v->n_ctx, show_books, NULL, err);
		progress_end();
		return rc;
	}
	rc = file_read(path, MAX_TEXT, &text, &len, err);
	if (rc)
		return rc;
	rc = calibrate_text(e, c, text, len, v->raw, v->n_ctx, show, NULL, err);
	progress_end();
	free(text);
	return rc ? error_prefix(err, rc, "%s", path) : 0;
}

static int write_out(const struct calibrator *c, const char *path, struct lslm_error *err)
{
	struct calibration *cal;
	char hex[KV_HASH_TEXT];
	int rc = calibrator_finish(c, &cal, err);

	if (rc)
		return rc;
	rc = file_write(path, cal->data, cal->size, 0644, FILE_REPLACE, err);
	if (!rc) {
		kv_hash_format(&cal->fingerprint, hex);
		printf("calibration %s\nfile %s\nbytes %zu\ntokens %u\n", hex, path, cal->size,
		       cal->n_tokens);
	}
	calibration_free(cal);
	return rc;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	const struct values *v = values;
	struct calibrator *c = NULL;
	struct engine *engine = NULL;
	struct model *model = NULL;
	int rc;

	if (v->files.n == 0) {
		error_set(err, -EINVAL, "no text to calibrate with; give one with -f");
		return EXIT_USAGE;
	}
	rc = model_open(&model, v->model, err);
	if (!rc)
		rc = engine_create(&engine, model, v->threads, err);
	if (!rc)
		rc = calibrate_begin(engine, &c, err);
	for (uint32_t i = 0; !rc && i < v->files.n; i++)
		rc = add_file(engine, c, v, v->files.v[i], err);
	if (!rc)
		rc = write_out(c, v->out, err);
	calibrator_free(c);
	engine_destroy(engine);
	model_close(model);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_calibrate = {
	.name = "calibrate",
	.summary = "measure what a model's keys and values are like, for levels e and p",
	.words = "",
	.opts = options,
	.size = sizeof(struct values),
	.defaults = defaults,
	.run = run,
};
