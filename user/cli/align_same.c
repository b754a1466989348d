// SPDX-License-Identifier: MIT
/*
 * `lslm align --same-arch`: which layers must a model compute itself when the others come from a relative? Every contiguous run is tried.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include <jansson.h>

#include "cli/align.h"
#include "cli/commands.h"
#include "engine/splice.h"
#include "kv/proof.h"

struct trial {
	struct align_job *job;
	struct kv_run run;
	uint32_t bytes[2]; /* per token at f16 and at q8 */
	struct eval_cost cost; /* at --level */
	struct stats_figure
		gain; /* over the model alone: exact match, or nats where there are no questions */
	struct stats_figure worth; /* the same figure itself */
};

static int splice_book(void *arg, const struct eval_book *b, uint8_t *out, struct lslm_error *err)
{
	struct trial *t = arg;

	return splice_make(t->job->from, t->job->to, b->tokens, b->n_tokens, &t->run, t->job->level,
			   &t->cost, out, err);
}

static void judge(struct trial *t, const struct eval_score *alone, const struct eval_score *s)
{
	const bool questions = alone->exact.n > 0;

	t->worth = stats_mean(questions ? &s->exact : &s->surprise);
	t->gain = questions ? stats_gain(&s->exact, &alone->exact) :
			      stats_gain(&alone->surprise, &s->surprise);
}

/* All runs, the shorter ones first. */
static uint32_t list_runs(struct align_job *j, struct trial *trials)
{
	const uint32_t n = j->to->geo.n_layer;
	uint32_t count = 1;

	trials[0] = (struct trial){ .job = j };
	for (uint32_t length = 1; length < n; length++)
		for (uint32_t first = 0; first + length <= n; first++)
			trials[count++] =
				(struct trial){ .job = j,
						.run = splice_run(j->to, first, first + length) };
	for (uint32_t i = 0; i < count; i++)
		for (uint32_t q8 = 0; q8 < 2; q8++)
			trials[i].bytes[q8] = splice_bytes(j->to, &trials[i].run,
							   q8 ? KV_LEVEL_Q8 : KV_LEVEL_F16);
	return count;
}

/* shown: as far as the whole interval goes; else as far as its better end does. */
static bool is_enough(const struct trial *t, bool shown)
{
	return shown ? t->gain.low > -PROOF_MARGIN : t->gain.high >= 0;
}

/* The fewest layers that are enough, and among runs of that length the best one. */
static const struct trial *shortest(const struct trial *trials, uint32_t n, bool shown)
{
	const struct trial *best = NULL;

	for (uint32_t i = 0; i < n; i++) {
		const struct trial *t = &trials[i];
		const uint32_t length = t->run.end - t->run.first;

		if (!is_enough(t, shown) || (best && length > best->run.end - best->run.first))
			continue;
		if (!best || t->gain.value > best->gain.value)
			best = t;
	}
	return best;
}

/*
 * The shortest run that is shown to keep what an edge will ask of it (kv/proof.h); where the text was too short for any of them, the
 * shortest that is not found to be worse than the model alone. NULL: none is good enough.
 */
static const struct trial *choose(const struct trial *trials, uint32_t n)
{
	const struct trial *best = shortest(trials, n, true);

	return best ? best : shortest(trials, n, false);
}

/* Bytes per token at --level, as they were coded; without it, those of q8. */
static uint32_t coded_bytes(const struct trial *t)
{
	return t->cost.values ? (uint32_t)lround((double)t->cost.payload /
						 (2.0 * (double)t->cost.values) * t->bytes[0]) :
				t->bytes[1];
}

static const char *level_name(const struct align_job *j)
{
	return j->level ? eval_coder_name(j->level) : "q8";
}

static json_t *json_trial(const struct trial *t)
{
	return json_pack("{s:i, s:i, s:i, s:i, s:s, s:i, s:f, s:f, s:f, s:f}", "first",
			 (int)t->run.first, "end", (int)t->run.end, "bytes_per_token",
			 (int)t->bytes[0], "q8_bytes_per_token", (int)t->bytes[1], "level",
			 level_name(t->job), "level_bytes_per_token", (int)coded_bytes(t), "value",
			 t->worth.value, "gain", t->gain.value, "low", t->gain.low, "high",
			 t->gain.high);
}

static int print_json(const struct align_job *j, const struct trial *trials, uint32_t n,
		      const struct trial *best, struct lslm_error *err)
{
	json_t *runs = json_array(), *o;
	int rc;

	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(runs, json_trial(&trials[i]));
	o = json_pack("{s:s, s:s, s:s, s:o, s:o*}", "align", "same", "from", j->v->from, "to",
		      j->v->to, "runs", runs, "chosen", best ? json_trial(best) : NULL);
	if (o && j->map)
		json_object_set_new(o, "evaluation", align_json_proof(j));
	rc = o ? json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) : -1;
	json_decref(o);
	putchar('\n');
	return rc ? error_set(err, -EINVAL, "%s: not printable as JSON", j->v->from) : 0;
}

static void print_lines(const struct trial *trials, uint32_t n, const struct trial *best,
			bool questions)
{
	const double scale = questions ? 100 : 1;

	if (trials[0].job->level)
		printf("At level %s:\n\n", level_name(trials[0].job));
	printf("| layers computed | bytes/token | at %s | %s | gain over the model alone (95 %%) |\n"
	       "|---|---|---|---|---|\n",
	       level_name(trials[0].job), questions ? "exact match %" : "nats/token");
	for (uint32_t i = 0; i < n; i++) {
		const struct trial *t = &trials[i];

		if (t->run.first == t->run.end)
			printf("| none |");
		else
			printf("| %u to %u |", t->run.first, t->run.end - 1);
		printf(" %u | %u | %.3f | %+.3f (%+.3f to %+.3f) |\n", t->bytes[0], coded_bytes(t),
		       t->worth.value * scale, t->gain.value * scale, t->gain.low * scale,
		       t->gain.high * scale);
	}
	if (!best)
		puts("\nNo run of layers is enough: compute the context.");
	else if (best->run.first == best->run.end)
		puts("\nNo layer need be computed.");
	else
		printf("\nLayers %u to %u must be computed.\n", best->run.first, best->run.end - 1);
}

static int measure(struct align_job *j, struct trial *trials, uint32_t n, struct lslm_error *err)
{
	struct eval_way *ways = calloc(n + 1, sizeof(*ways));
	struct eval_score *scores = calloc(n + 1, sizeof(*scores));
	int rc = ways && scores ? 0 : error_set(err, -ENOMEM, "out of memory");

	for (uint32_t i = 0; !rc && i < n; i++)
		ways[i + 1] = (struct eval_way){ .make = splice_book, .arg = &trials[i] };
	if (!rc)
		rc = eval_run(j->to, &j->data, ways, n + 1, scores, NULL, err);
	for (uint32_t i = 0; !rc && i < n; i++)
		judge(&trials[i], &scores[0], &scores[i + 1]);
	for (uint32_t i = 0; scores && i < n + 1; i++)
		eval_score_free(&scores[i]);
	free(scores);
	free(ways);
	return rc;
}

/* The file that says which layers, with what they are worth on text that they were not chosen on. */
static int ship(struct align_job *j, const struct trial *best, struct lslm_error *err)
{
	int rc = map_new_run(&j->map, &j->to->geo, &best->run, err);

	if (!rc)
		rc = align_name_models(j, err);
	if (!rc)
		rc = align_prove(j, err);
	return rc ? rc : map_write(j->map, j->v->out, err);
}

int align_same(struct align_job *j, struct lslm_error *err)
{
	const uint32_t layers = j->to->geo.n_layer;
	struct trial *trials = calloc((size_t)layers * (layers + 1) / 2 + 1, sizeof(*trials));
	const struct trial *best = NULL;
	uint32_t n;
	int rc = splice_check(j->from, j->to, err);

	if (!rc && !trials)
		rc = error_set(err, -ENOMEM, "out of memory");
	if (rc) {
		free(trials);
		return rc;
	}
	n = list_runs(j, trials);
	rc = measure(j, trials, n, err);
	if (!rc) {
		best = choose(trials, n);
		rc = best && j->v->out ? ship(j, best, err) : 0;
	}
	if (!rc) {
		if (j->v->json)
			rc = print_json(j, trials, n, best, err);
		else
			print_lines(trials, n, best, j->data.books[0].questions[0].text != NULL);
		if (!j->v->json && j->map)
			align_print_proof(j);
	}
	free(trials);
	return rc;
}
