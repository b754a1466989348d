// SPDX-License-Identifier: MIT
/*
 * Maps from a larger model's contexts to a smaller one's: made from calibration text by ridge regression, or given, and held
 * against the smaller model alone on text that they were not made from.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "cli/align.h"
#include "cli/commands.h"
#include "cli/heat_map.h"
#include "codec/calibration.h"
#include "codec/rows.h"
#include "engine/mapping.h"
#include "engine/splice.h"

#define AT(field) offsetof(struct align_values, field)

static const struct opt options[] = {
	{ "from", 0, OPT_STR, AT(from), "FILE", "the larger model (GGUF), the cloud's",
	  .required = true },
	{ "to", 0, OPT_STR, AT(to), "FILE", "the smaller model, the edge's", .required = true },
	{ "file", 'f', OPT_STR, AT(file), "FILE", "calibration: text, or questions (.jsonl)",
	  .required = true },
	{ "test", 0, OPT_STR, AT(test), "FILE",
	  "evaluate on this (the last fifth of the calibration, which then does not calibrate)" },
	{ "out", 'o', OPT_STR, AT(out), "MAP", "write the map" },
	{ "map", 0, OPT_STR, AT(map), "MAP", "evaluate this map, instead of making one" },
	{ "level", 0, OPT_STR, AT(level), "LEVEL",
	  "evaluate contexts that come at this level (f16); not with -o: a proof is of f16" },
	{ "calibration", 0, OPT_STR, AT(calibration), "FILE",
	  "the smaller model's (lslm calibrate), for --level e or p" },
	{ "heat-map", 0, OPT_STR, AT(heat_map), "PNG", "draw the similarity of layers" },
	{ "ridge", 0, OPT_F32, AT(ridge), "X", "regularisation, of the mean variance (0.001)", 0,
	  1e6 },
	{ "shallow", 0, OPT_U32, AT(shallow), "K", "layers that stay the smaller model's own (0)",
	  0, KV_MAX_LAYERS },
	{ "limit", 0, OPT_U32, AT(limit), "N", "contexts at most (100; 0: all)", 0, 1 << 20 },
	{ "ctx-size", 'c', OPT_U32, AT(n_ctx), "N",
	  "tokens of a window of text, or of a context at most (as trained)", 0, KV_MAX_TOKENS },
	{ "same-arch", 0, OPT_FLAG, AT(same), NULL,
	  "the models are of one shape: find the layers to compute, the others taken as they are" },
	{ "threads", 't', OPT_U32, AT(threads), "N", "threads (all allowed processors)", 0, 256 },
	{ "json", 0, OPT_FLAG, AT(json), NULL, "one JSON object instead of lines" },
	{ NULL },
};

static void defaults(void *values)
{
	*(struct align_values *)values = (struct align_values){ .ridge = 0.001f, .limit = 100 };
}

static void show(uint32_t done, uint32_t total)
{
	progress_show("align", done, total, "contexts");
}

static uint32_t window(const struct align_job *j)
{
	const uint32_t from = j->from->model->params.n_ctx_train;
	const uint32_t to = j->to->model->params.n_ctx_train;
	const uint32_t most = from < to ? from : to;

	return j->v->n_ctx && j->v->n_ctx < most ? j->v->n_ctx : most;
}

static int read_data(struct align_job *j, struct lslm_error *err)
{
	const struct align_values *v = j->v;
	int rc;

	j->data = (struct eval_data){ .lengths = { window(j) }, .n_lengths = 1 };
	j->test = j->data;
	rc = eval_data_read(&j->data, j->to->model, v->file, v->limit, err);
	if (!rc && v->test)
		rc = eval_data_read(&j->test, j->to->model, v->test, v->limit, err);
	/* Where no file is to be written all of it shows which layers to take. */
	if (rc || v->test || (v->same && !v->out))
		return rc;
	/* Books are moved, not copied: those of the last fifth belong to the test from here on. */
	j->test.n_books = j->data.n_books / 5;
	j->data.n_books -= j->test.n_books;
	if (!j->test.n_books || !j->data.n_books)
		return error_set(err, -EINVAL, "%s: %u contexts are too few to hold some out",
				 v->file, j->data.n_books);
	j->test.books = malloc(j->test.n_books * sizeof(*j->test.books));
	if (!j->test.books) {
		j->test.n_books = 0;
		return error_set(err, -ENOMEM, "out of memory");
	}
	memcpy(j->test.books, j->data.books + j->data.n_books,
	       j->test.n_books * sizeof(*j->test.books));
	return 0;
}

static int learn(struct align_job *j, struct lslm_error *err)
{
	int rc = align_create(&j->sums, j->from->geo.n_layer, rows_width(&j->from->geo),
			      j->to->geo.n_layer, rows_width(&j->to->geo), err);

	for (uint32_t i = 0; !rc && i < j->data.n_books; i++) {
		const struct eval_book *b = &j->data.books[i];
		uint8_t *own;

		rc = mapping_prefill(j->to, b->tokens, b->n_tokens, &own, err);
		if (rc)
			break;
		rc = mapping_learn(j->sums, j->from, j->to, b->tokens, b->n_tokens, own, err);
		free(own);
		show(i + 1, j->data.n_books);
	}
	progress_end();
	return rc;
}

static int assign(struct align_job *j, struct lslm_error *err)
{
	const uint32_t from = j->from->geo.n_layer, to = j->to->geo.n_layer;

	j->similarity = malloc((size_t)from * to * sizeof(*j->similarity));
	j->source = calloc(to, sizeof(*j->source));
	j->fit = calloc(2 * (size_t)to, sizeof(*j->fit));
	if (!j->similarity || !j->source || !j->fit)
		return error_set(err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < from; i++)
		for (uint32_t k = 0; k < to; k++)
			j->similarity[(size_t)i * to + k] = align_similarity(j->sums, i, k);
	align_assign(j->similarity, from, to, j->source);
	return 0;
}

static int solve(struct align_job *j, struct lslm_error *err)
{
	const uint32_t to = j->to->geo.n_layer;
	struct map_part *shape = calloc(2 * (size_t)to, sizeof(*shape));
	int rc;

	if (!shape)
		return error_set(err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < 2 * to; i++) {
		if (i / 2 < j->v->shallow)
			shape[i].keep = 1;
		else
			shape[i] = (struct map_part){ .first = j->source[i / 2], .count = 1 };
	}
	rc = map_new(&j->map, &j->from->geo, &j->to->geo, shape, err);
	free(shape);
	for (uint32_t i = 0; !rc && i < 2 * to; i++) {
		struct map_part *p = &j->map->parts[i];
		const uint32_t n = map_n_out(j->map);

		j->fit[i] = 1;
		if (p->count)
			rc = align_ridge(j->sums, p->first, i / 2, i % 2 * n, n, j->v->ridge, p->a,
					 p->bias, &j->fit[i], err);
	}
	return rc;
}

int align_name_models(struct align_job *j, struct lslm_error *err)
{
	struct kv_identity a, b;
	int rc = engine_identity(j->from, &a, err);

	if (!rc)
		rc = engine_identity(j->to, &b, err);
	if (rc)
		return rc;
	j->map->model_from = a.model;
	j->map->model_to = b.model;
	j->map->tokenizer = b.tokenizer;
	return 0;
}

static int make_map(struct align_job *j, struct lslm_error *err)
{
	int rc = learn(j, err);

	if (!rc)
		rc = assign(j, err);
	if (!rc)
		rc = solve(j, err);
	return rc ? rc : align_name_models(j, err);
}

/* Where a run of layers is computed here, only the others and their E blocks come at the level. */
static int map_book(void *arg, const struct eval_book *b, uint8_t *out, struct lslm_error *err)
{
	const struct align_job *j = arg;
	struct eval_cost cost = { 0 };
	int rc;

	if (map_is_run(j->map))
		return splice_make(j->from, j->to, b->tokens, b->n_tokens, &j->map->run, j->level,
				   &cost, out, err);
	rc = mapping_make(j->map, j->from, j->to, b->tokens, b->n_tokens, out, err);
	if (!rc && j->level)
		rc = eval_coder_run(j->level, &j->to->geo, j->cal, b->tokens, b->n_tokens, out,
				    &cost, err);
	return rc;
}

/* The map's scores beside those of the smaller model alone: exact match where there are questions, else nats per token. */
static void judge(const struct eval_score *alone, const struct eval_score *mapped, struct proof *e)
{
	const bool questions = alone->exact.n > 0;
	const struct stats_set *a = questions ? &alone->exact : &alone->surprise;
	const struct stats_set *b = questions ? &mapped->exact : &mapped->surprise;
	const struct stats_figure gain = questions ? stats_gain(b, a) : stats_gain(a, b);
	const double sign = questions ? 1 : -1;

	*e = (struct proof){
		.bar = e->bar,
		.metric = questions ? PROOF_EXACT : PROOF_NATS,
		.contexts = a->n_groups,
		.observations = (uint32_t)a->n,
		.alone = sign * stats_mean(a).value,
		.mapped = sign * stats_mean(b).value,
		.gain = gain.value,
		.low = gain.low,
		.high = gain.high,
	};
}

int align_prove(struct align_job *j, struct lslm_error *err)
{
	const struct eval_way ways[] = {
		{ .name = "alone" },
		{ .name = "map", .make = map_book, .arg = j },
	};
	struct eval_score scores[2] = { 0 };
	int rc = eval_run(j->to, &j->test, ways, 2, scores, show, err);

	progress_end();
	if (!rc)
		judge(&scores[0], &scores[1], &j->map->evaluation);
	for (uint32_t i = 0; i < 2; i++)
		eval_score_free(&scores[i]);
	return rc;
}

static json_t *array(const double *x, uint32_t n)
{
	json_t *a = json_array();

	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(a, json_real(x[i]));
	return a;
}

json_t *align_json_proof(const struct align_job *j)
{
	const struct proof *e = &j->map->evaluation;

	return json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "metric",
			 e->metric == PROOF_EXACT ? "exact" : "nats", "contexts",
			 (json_int_t)e->contexts, "observations", (json_int_t)e->observations,
			 "alone", e->alone, "mapped", e->mapped, "gain", e->gain, "low", e->low,
			 "high", e->high);
}

static int print_json(const struct align_job *j, struct lslm_error *err)
{
	const uint32_t from = j->from->geo.n_layer, to = j->to->geo.n_layer;
	json_t *o = json_pack("{s:s, s:s, s:s, s:o}", "align", "map", "from", j->v->from, "to",
			      j->v->to, "evaluation", align_json_proof(j));
	int rc;

	if (o && j->similarity) {
		json_t *rows = json_array(), *sources = json_array();

		for (uint32_t i = 0; i < from; i++)
			json_array_append_new(rows, array(j->similarity + (size_t)i * to, to));
		for (uint32_t k = 0; k < to; k++)
			json_array_append_new(sources, json_integer(j->source[k]));
		json_object_set_new(o, "similarity", rows);
		json_object_set_new(o, "source", sources);
		json_object_set_new(o, "fit", array(j->fit, 2 * to));
	}
	rc = o ? json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) : -1;
	json_decref(o);
	putchar('\n');
	return rc ? error_set(err, -EINVAL, "%s: not printable as JSON", j->v->from) : 0;
}

static void print_similarity(const struct align_job *j)
{
	const uint32_t from = j->from->geo.n_layer, to = j->to->geo.n_layer;

	printf("similarity (linear CKA), layers of the larger model down, of the smaller across; "
	       "* the assignment\n");
	for (uint32_t i = 0; i < from; i++) {
		printf("%4u", i);
		for (uint32_t k = 0; k < to; k++)
			printf("  %.3f%c", j->similarity[(size_t)i * to + k],
			       j->source[k] == i ? '*' : ' ');
		putchar('\n');
	}
	for (uint32_t k = 0; k < to; k++)
		printf("layer %-4u from %-4u explains %.1f %% of the variance of keys, %.1f %% of "
		       "values\n",
		       k, j->source[k], 100 * j->fit[2 * k], 100 * j->fit[2 * k + 1]);
}

void align_print_proof(const struct align_job *j)
{
	const struct proof *e = &j->map->evaluation;
	char why[200];
	const bool good = map_is_proven(j->map, why, sizeof(why));

	printf("evaluation: %u contexts; alone %.4f, mapped %.4f; %s\n", e->contexts, e->alone,
	       e->mapped, why);
	printf("an edge will %s\n", good ? "use it" : "not use it");
}

static void print_lines(const struct align_job *j)
{
	if (j->similarity)
		print_similarity(j);
	align_print_proof(j);
}

static int align_map(struct align_job *j, struct lslm_error *err)
{
	int rc;

	if (j->v->map) {
		rc = map_read(&j->map, j->v->map, err);
		if (!rc)
			rc = mapping_match(j->map, j->from, j->to, err);
		if (rc)
			return error_prefix(err, rc, "%s", j->v->map);
	} else {
		rc = make_map(j, err);
	}
	if (!rc)
		rc = align_prove(j, err);
	if (!rc && j->v->out)
		rc = map_write(j->map, j->v->out, err);
	if (!rc && j->v->heat_map)
		rc = heat_map_write(j->v->heat_map, j->similarity, j->from->geo.n_layer,
				    j->to->geo.n_layer, j->source, err);
	if (rc)
		return rc;
	if (j->v->json)
		return print_json(j, err);
	print_lines(j);
	return 0;
}

static void job_free(struct align_job *j)
{
	align_destroy(j->sums);
	map_free(j->map);
	calibration_free(j->cal);
	free(j->similarity);
	free(j->source);
	free(j->fit);
	eval_data_free(&j->data);
	eval_data_free(&j->test);
	engine_destroy(j->from);
	engine_destroy(j->to);
	model_close(j->model_from);
	model_close(j->model_to);
}

/* What the options do not allow with one another. */
static int check_values(struct align_job *j, struct lslm_error *err)
{
	const struct align_values *v = j->v;

	if (v->heat_map && (v->map || v->same))
		return error_set(
			err, -EINVAL,
			"--heat-map is of a map that is made, not of --map or --same-arch");
	if (!v->level)
		return v->calibration ? error_set(err, -EINVAL, "--calibration is for --level") : 0;
	if (v->out)
		return error_set(err, -EINVAL,
				 "--level with -o: what a map's file says of it is of f16");
	j->level = eval_coder_find(v->level);
	if (!j->level)
		return error_set(err, -EINVAL, "--level: '%s' is none of f16, q8, q4, e and p",
				 v->level);
	if (v->calibration && v->same)
		return error_set(err, -EINVAL, "--calibration is for maps, not for --same-arch");
	if (eval_coder_needs_calibration(j->level) && !v->calibration)
		return error_set(err, -EINVAL, "--level %s needs --calibration", v->level);
	return 0;
}

static int take_calibration(struct align_job *j, struct lslm_error *err)
{
	struct kv_identity id;
	int rc;

	if (!j->v->calibration)
		return 0;
	rc = calibration_open(&j->cal, j->v->calibration, err);
	if (!rc)
		rc = engine_identity(j->to, &id, err);
	if (!rc && calibration_match(j->cal, &j->to->geo, &id.model, err))
		rc = error_prefix(err, -EINVAL, "%s", j->v->calibration);
	return rc;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	const struct align_values *v = values;
	struct align_job j = { .v = v };
	int rc;

	if (check_values(&j, err))
		return EXIT_USAGE;
	rc = model_open(&j.model_from, v->from, err);

	if (!rc)
		rc = model_open(&j.model_to, v->to, err);
	if (!rc)
		rc = engine_create(&j.from, j.model_from, v->threads, err);
	if (!rc)
		rc = engine_create(&j.to, j.model_to, v->threads, err);
	if (!rc)
		rc = mapping_check(j.from, j.to, err);
	if (!rc)
		rc = take_calibration(&j, err);
	if (!rc)
		rc = read_data(&j, err);
	if (!rc)
		rc = v->same ? align_same(&j, err) : align_map(&j, err);
	job_free(&j);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_align = {
	.name = "align",
	.summary = "map a larger model's contexts to a smaller one's, with its proof",
	.words = "",
	.opts = options,
	.size = sizeof(struct align_values),
	.defaults = defaults,
	.run = run,
};
