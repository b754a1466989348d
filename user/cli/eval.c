// SPDX-License-Identifier: MIT
/*
 * Quality of a way in which a context reaches a gateway, against computing it there. The table is made to be pasted into
 * docs/quality.md, the JSON for scripts/plot_quality.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "cli/commands.h"
#include "codec/calibration.h"
#include "codec/map.h"
#include "compute/kvbf16.h"
#include "engine/eval.h"
#include "engine/mapping.h"
#include "engine/sequence.h"

enum { MAX_WAYS = 16 };

struct values {
	const char *model, *file, *levels, *calibration, *lengths, *map, *from, *shallow;
	uint32_t limit, threads;
	bool both, bf16, json;
};

#define AT(field) offsetof(struct values, field)

static const struct opt options[] = {
	{ "model", 'm', OPT_STR, AT(model), "FILE", "GGUF model of the gateway", .required = true },
	{ "file", 'f', OPT_STR, AT(file), "FILE",
	  "text, or questions (.jsonl, see scripts/train/corpus.py)", .required = true },
	{ "level", 0, OPT_STR, AT(levels), "L,L,...",
	  "levels and baselines to compare with f16 (all; p only with --calibration)" },
	{ "calibration", 0, OPT_STR, AT(calibration), "FILE",
	  "the model's (lslm calibrate), for level p" },
	{ "map", 0, OPT_STR, AT(map), "MAP", "contexts of another model through this map as well" },
	{ "from", 0, OPT_STR, AT(from), "FILE", "that model (GGUF)" },
	{ "shallow", 0, OPT_STR, AT(shallow), "K,K,...",
	  "with the map, for each K: layers below K computed by the gateway's model (0)" },
	{ "both", 0, OPT_FLAG, AT(both), NULL,
	  "also a context as --source both leaves it: the first half computed in small pieces, the rest streamed" },
	{ "bf16", 0, OPT_FLAG, AT(bf16), NULL,
	  "also f16 as a context is multiplied where the processor has bf16" },
	{ "context-length", 0, OPT_STR, AT(lengths), "N,N,...",
	  "contexts of so many tokens, or up to so many (512,1024,2048)" },
	{ "limit", 0, OPT_U32, AT(limit), "N", "contexts of each length at most (16; 0: all)", 0,
	  1 << 20 },
	{ "threads", 't', OPT_U32, AT(threads), "N", "threads (all allowed processors)", 0, 256 },
	{ "json", 0, OPT_FLAG, AT(json), NULL, "one JSON object instead of a table" },
	{ NULL },
};

static void defaults(void *values)
{
	*(struct values *)values =
		(struct values){ .lengths = "512,1024,2048", .shallow = "0", .limit = 16 };
}

struct job;

/* Layers below `shallow` stay the model's own, the others come through the map. */
struct map_way {
	const struct job *job;
	uint32_t shallow;
	char name[16];
};

struct job {
	const struct values *v;
	struct model *model, *model_from;
	struct engine *engine, *from;
	struct map *map;
	struct calibration *cal;
	struct map_way maps[MAX_WAYS];
	uint32_t n_maps;
	struct eval_data data;
	struct eval_way ways[MAX_WAYS];
	uint32_t n_ways;
	struct eval_score *scores; /* [n_ways][n_lengths] */
};

static void show(uint32_t done, uint32_t total)
{
	progress_show("eval", done, total, "contexts");
}

static int parse_lengths(struct eval_data *d, const char *text, struct lslm_error *err)
{
	while (*text) {
		char *end;
		const unsigned long n = strtoul(text, &end, 10);

		if (end == text || (*end && *end != ',') || n > KV_MAX_TOKENS ||
		    d->n_lengths == EVAL_MAX_LENGTHS)
			return error_set(err, -EINVAL,
					 "--context-length: '%s' is not up to %d numbers of tokens",
					 text, EVAL_MAX_LENGTHS);
		d->lengths[d->n_lengths++] = (uint32_t)n;
		text = *end ? end + 1 : end;
	}
	return 0;
}

static int add_way(struct job *j, const struct eval_coder *coder, struct lslm_error *err)
{
	if (j->n_ways == MAX_WAYS)
		return error_set(err, -EINVAL, "--level: more than %d", MAX_WAYS);
	j->ways[j->n_ways++] = (struct eval_way){ .name = eval_coder_name(coder), .coder = coder };
	return 0;
}

/* f16 always comes first: it is the reference. */
static int parse_levels(struct job *j, const char *text, struct lslm_error *err)
{
	int rc = add_way(j, eval_coder_at(0), err);

	for (uint32_t i = 1; !text && !rc && eval_coder_at(i); i++)
		if (j->v->calibration || !eval_coder_needs_calibration(eval_coder_at(i)))
			rc = add_way(j, eval_coder_at(i), err);
	while (!rc && text && *text) {
		const size_t n = strcspn(text, ",");
		char name[16];
		const struct eval_coder *coder;

		snprintf(name, sizeof(name), "%.*s", (int)n, text);
		coder = eval_coder_find(name);
		if (!coder)
			return error_set(err, -EINVAL, "--level: no level named '%.*s'", (int)n,
					 text);
		if (coder != eval_coder_at(0))
			rc = add_way(j, coder, err);
		text += n + (text[n] == ',');
	}
	return rc;
}

static int map_book(void *arg, const struct eval_book *b, uint8_t *out, struct lslm_error *err)
{
	const struct map_way *w = arg;
	const struct job *j = w->job;
	const struct kv_geometry *g = &j->engine->geo;
	const size_t stripe = kv_stripe_bytes(g, KV_LEVEL_F16);
	const size_t own_bytes = w->shallow * kv_block_bytes(g, KV_LEVEL_F16);
	const uint32_t n = b->n_tokens / KV_BLOCK_TOKENS;
	uint8_t *own = malloc(n * own_bytes + 1);
	int rc;

	if (!own)
		return error_set(err, -ENOMEM, "out of memory");
	for (uint32_t s = 0; s < n; s++)
		memcpy(own + s * own_bytes, out + s * stripe, own_bytes);
	rc = mapping_make(j->map, j->from, j->engine, b->tokens, b->n_tokens, out, err);
	for (uint32_t s = 0; !rc && s < n; s++)
		memcpy(out + s * stripe, own + s * own_bytes, own_bytes);
	free(own);
	return rc;
}

/*
 * What the scheduler makes of a context: stripes from the head on, computed in pieces as small as they get, in front of those that one
 * single run made elsewhere. Nothing but rounding may differ.
 */
static int meet_book(void *arg, const struct eval_book *b, uint8_t *out, struct lslm_error *err)
{
	const struct job *j = arg;
	const struct kv_geometry *g = &j->engine->geo;
	const uint32_t n = b->n_tokens / KV_BLOCK_TOKENS / 2;
	struct sequence *s;
	int rc;

	if (!n)
		return 0;
	rc = sequence_create(&s, g, n * KV_BLOCK_TOKENS, err);
	if (rc)
		return rc;
	for (uint32_t i = 0; !rc && i < n; i++)
		rc = engine_forward(j->engine, s, b->tokens + (size_t)i * KV_BLOCK_TOKENS,
				    KV_BLOCK_TOKENS, NULL, 0, err);
	if (!rc)
		memcpy(out, s->memory, n * kv_stripe_bytes(g, KV_LEVEL_F16));
	sequence_destroy(s);
	return rc;
}

static int add_both(struct job *j, struct lslm_error *err)
{
	if (j->n_ways == MAX_WAYS)
		return error_set(err, -EINVAL, "--level: more than there is room for");
	j->ways[j->n_ways++] = (struct eval_way){ .name = "both", .make = meet_book, .arg = j };
	return 0;
}

static int add_bf16(struct job *j, struct lslm_error *err)
{
	if (j->n_ways == MAX_WAYS)
		return error_set(err, -EINVAL, "--level: more than there is room for");
	if (!kvbf16_fast(j->engine->geo.head_dim))
		return error_set(err, -EOPNOTSUPP,
				 "--bf16: contexts of %u values a head are not rounded here",
				 j->engine->geo.head_dim);
	j->ways[j->n_ways++] = (struct eval_way){ .name = "bf16", .rounded = true };
	return 0;
}

static int add_map(struct job *j, uint32_t shallow, struct lslm_error *err)
{
	struct map_way *w = &j->maps[j->n_maps];

	if (shallow > j->engine->geo.n_layer || j->n_ways == MAX_WAYS)
		return error_set(err, -EINVAL, "--shallow: %u is more than %s", shallow,
				 j->n_ways == MAX_WAYS ? "there is room for" : "there are layers");
	*w = (struct map_way){ .job = j, .shallow = shallow };
	snprintf(w->name, sizeof(w->name), shallow ? "map from %u" : "map", shallow);
	j->ways[j->n_ways++] = (struct eval_way){ .name = w->name, .make = map_book, .arg = w };
	j->n_maps++;
	return 0;
}

static int add_maps(struct job *j, struct lslm_error *err)
{
	const char *at = j->v->shallow;
	int rc = map_read(&j->map, j->v->map, err);

	if (!rc)
		rc = model_open(&j->model_from, j->v->from, err);
	if (!rc)
		rc = engine_create(&j->from, j->model_from, j->v->threads, err);
	if (!rc)
		rc = mapping_match(j->map, j->from, j->engine, err);
	while (!rc && *at) {
		char *end;
		const unsigned long k = strtoul(at, &end, 10);

		if (end == at || (*end && *end != ',') || k > KV_MAX_LAYERS)
			return error_set(err, -EINVAL, "--shallow: '%s' is not numbers of layers",
					 at);
		rc = add_map(j, (uint32_t)k, err);
		at = *end ? end + 1 : end;
	}
	return rc;
}

static double bits(uint64_t bytes, const struct eval_cost *c)
{
	return c->values ? (double)bytes * 8 / (double)c->values : NAN;
}

/* Bytes of f16 per second of processor time. */
static double rate(const struct eval_cost *c, double seconds)
{
	return seconds > 0 ? (double)c->values * 2 / seconds : NAN;
}

static const struct eval_score *score_at(const struct job *j, uint32_t way, uint32_t length)
{
	return &j->scores[(size_t)way * j->data.n_lengths + length];
}

static void exp_figure(struct stats_figure *f)
{
	f->value = exp(f->value);
	f->low = exp(f->low);
	f->high = exp(f->high);
}

/* A figure, or null: JSON has no NAN. */
static json_t *real(double x)
{
	return isnan(x) ? json_null() : json_real(x);
}

static json_t *json_figure(struct stats_figure f)
{
	return json_pack("{s:o, s:o, s:o}", "value", real(f.value), "low", real(f.low), "high",
			 real(f.high));
}

static json_t *json_score(struct job *j, uint32_t way, uint32_t length)
{
	struct eval_score *s = &j->scores[(size_t)way * j->data.n_lengths + length];
	const struct eval_score *base = score_at(j, 0, length);
	const struct eval_cost *c = &s->cost;
	struct stats_figure ppl = stats_mean(&s->surprise);

	exp_figure(&ppl);
	return json_pack(
		"{s:s, s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"way", j->ways[way].name, "length", (int)j->data.lengths[length], "tokens",
		(json_int_t)s->surprise.n, "questions", (json_int_t)s->exact.n, "bits_per_value",
		real(bits(c->payload + c->overhead, c)), "payload_bits_per_value",
		real(bits(c->payload, c)), "encode_bytes_per_s", real(rate(c, c->encode_s)),
		"decode_bytes_per_s", real(rate(c, c->decode_s)), "exact",
		json_figure(stats_mean(&s->exact)), "exact_gain",
		json_figure(stats_gain(&s->exact, &base->exact)), "f1",
		json_figure(stats_mean(&s->f1)), "perplexity", json_figure(ppl), "agreement",
		json_figure(stats_mean(&s->agrees)), "surprise_gain",
		json_figure(stats_gain(&s->surprise, &base->surprise)), "divergence",
		json_figure(stats_mean(&s->divergence)),
		/* Last: it sorts the set. */
		"divergence_p99", json_figure(stats_quantile(&s->divergence, 0.99)));
}

static int print_json(struct job *j, struct lslm_error *err)
{
	json_t *all = json_array(), *o;
	int rc;

	for (uint32_t l = 0; l < j->data.n_lengths; l++)
		for (uint32_t w = 0; w < j->n_ways; w++)
			if (score_at(j, w, l)->surprise.n)
				json_array_append_new(all, json_score(j, w, l));
	o = json_pack("{s:s, s:s, s:s, s:I, s:I, s:o}", "eval", "levels", "model", j->v->model,
		      "file", j->v->file, "contexts", (json_int_t)j->data.n_books, "skipped",
		      (json_int_t)j->data.n_skipped, "scores", all);
	rc = o ? json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) : -1;
	json_decref(o);
	putchar('\n');
	return rc ? error_set(err, -EINVAL, "%s: not printable as JSON", j->v->file) : 0;
}

static void cell(struct stats_figure f, double scale, const char *format)
{
	char one[32], low[32], high[32];

	if (isnan(f.value)) {
		printf(" - |");
		return;
	}
	snprintf(one, sizeof(one), format, f.value * scale);
	snprintf(low, sizeof(low), format, f.low * scale);
	snprintf(high, sizeof(high), format, f.high * scale);
	printf(" %s (%s to %s) |", one, low, high);
}

static void number(double x, const char *format)
{
	if (isnan(x))
		printf(" - |");
	else
		printf(format, x);
}

static void print_row(struct job *j, uint32_t way, uint32_t length)
{
	struct eval_score *s = &j->scores[(size_t)way * j->data.n_lengths + length];
	const struct eval_cost *c = &s->cost;
	struct stats_figure ppl = stats_mean(&s->surprise);

	exp_figure(&ppl);
	printf("| %s |", j->ways[way].name);
	number(bits(c->payload + c->overhead, c), " %.2f |");
	number(rate(c, c->encode_s) / 1e9, " %.2f |");
	number(rate(c, c->decode_s) / 1e9, " %.2f |");
	cell(stats_mean(&s->divergence), 1, "%.2g");
	cell(stats_quantile(&s->divergence, 0.99), 1, "%.2g");
	cell(stats_mean(&s->agrees), 100, "%.2f");
	cell(ppl, 1, "%.3f");
	cell(stats_mean(&s->exact), 100, "%.1f");
	cell(stats_gain(&s->exact, &score_at(j, 0, length)->exact), 100, "%+.1f");
	cell(stats_mean(&s->f1), 100, "%.1f");
	putchar('\n');
}

static void print_table(struct job *j)
{
	for (uint32_t l = 0; l < j->data.n_lengths; l++) {
		const struct eval_score *s = score_at(j, 0, l);

		if (!s->surprise.n)
			continue;
		printf("Contexts of up to %u tokens: %zu questions, %zu tokens predicted.\n\n"
		       "| | bit/value | encode GB/s | decode GB/s | KL nats (95 %%) | KL p99 | "
		       "top-1 %% | perplexity | exact match %% | less f16's | F1 %% |\n"
		       "|---|---|---|---|---|---|---|---|---|---|---|\n",
		       j->data.lengths[l], s->exact.n, s->surprise.n);
		for (uint32_t w = 0; w < j->n_ways; w++)
			print_row(j, w, l);
		putchar('\n');
	}
	if (j->data.n_skipped)
		printf("%u contexts or lengths were left out: too long, or too little text.\n",
		       j->data.n_skipped);
}

/* Known only when the model is: ways were parsed before. */
static int take_calibration(struct job *j, struct lslm_error *err)
{
	struct kv_identity id;
	int rc = calibration_open(&j->cal, j->v->calibration, err);

	if (!rc)
		rc = engine_identity(j->engine, &id, err);
	if (!rc && calibration_match(j->cal, &j->engine->geo, &id.model, err))
		rc = error_prefix(err, -EINVAL, "%s", j->v->calibration);
	for (uint32_t i = 0; i < j->n_ways; i++)
		j->ways[i].cal = j->cal;
	return rc;
}

static int evaluate(struct job *j, struct lslm_error *err)
{
	int rc;

	j->scores = calloc((size_t)j->n_ways * j->data.n_lengths, sizeof(*j->scores));
	if (!j->scores)
		return error_set(err, -ENOMEM, "out of memory");
	rc = eval_run(j->engine, &j->data, j->ways, j->n_ways, j->scores, show, err);
	progress_end();
	return rc;
}

static int run(const void *values, const char *const *words, struct lslm_error *err)
{
	const struct values *v = values;
	struct job j = { .v = v };
	int rc = parse_lengths(&j.data, v->lengths, err);

	if (!rc)
		rc = parse_levels(&j, v->levels, err);
	if (!rc && !v->map != !v->from)
		rc = error_set(err, -EINVAL, "--map and --from go together");
	if (rc)
		return EXIT_USAGE;
	rc = model_open(&j.model, v->model, err);
	if (!rc)
		rc = engine_create(&j.engine, j.model, v->threads, err);
	if (!rc && v->calibration)
		rc = take_calibration(&j, err);
	if (!rc && v->both)
		rc = add_both(&j, err);
	if (!rc && v->bf16)
		rc = add_bf16(&j, err);
	if (!rc && v->map)
		rc = add_maps(&j, err);
	if (!rc)
		rc = eval_data_read(&j.data, j.model, v->file, v->limit, err);
	if (!rc)
		rc = evaluate(&j, err);
	if (!rc && v->json)
		rc = print_json(&j, err);
	else if (!rc)
		print_table(&j);
	for (uint32_t i = 0; j.scores && i < j.n_ways * j.data.n_lengths; i++)
		eval_score_free(&j.scores[i]);
	free(j.scores);
	eval_data_free(&j.data);
	map_free(j.map);
	calibration_free(j.cal);
	engine_destroy(j.from);
	model_close(j.model_from);
	engine_destroy(j.engine);
	model_close(j.model);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_eval = {
	.name = "eval",
	.summary = "quality of levels, maps and splits on a text or questions",
	.words = "",
	.opts = options,
	.size = sizeof(struct values),
	.defaults = defaults,
	.run = run,
};
