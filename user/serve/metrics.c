// SPDX-License-Identifier: MIT
#include "serve/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { STOP_STRING = BATCH_FAILED + 1 };

_Static_assert((int)METRICS_N_ENDS <= (int)TALLY_ENDS, "room for every end");
_Static_assert((int)METRICS_N_MEETINGS <= (int)TALLY_MEETINGS, "room for every meeting");

struct metrics {
	pthread_mutex_t lock;
	const char *const *model_names;
	const char *const *route_names;
	uint32_t n_models, n_routes;
	struct tally *counts;
	bool shared; /* they are somebody else's */
};

const char *metrics_end_name(uint32_t end)
{
	static const char *const names[METRICS_N_ENDS] = {
		[BATCH_STOP] = "stop",		 [BATCH_LENGTH] = "length",
		[BATCH_CANCELLED] = "cancelled", [BATCH_DEADLINE] = "deadline",
		[BATCH_FAILED] = "failed",	 [STOP_STRING] = "stop_string",
	};

	return names[end];
}

int metrics_open(struct metrics **out, const char *const *models, uint32_t n_models,
		 const char *const *routes, uint32_t n_routes, struct tally *into,
		 struct lslm_error *err)
{
	struct metrics *m;

	if (n_models > TALLY_MODELS || n_routes > TALLY_ROUTES)
		return error_set(err, -E2BIG, "more than %d models", TALLY_MODELS);
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_sys(err, -ENOMEM, "metrics");
	pthread_mutex_init(&m->lock, NULL);
	m->model_names = models;
	m->n_models = n_models;
	m->route_names = routes;
	m->n_routes = n_routes;
	m->shared = into;
	m->counts = into ? into : calloc(1, sizeof(*m->counts));
	if (!m->counts) {
		metrics_close(m);
		return error_sys(err, -ENOMEM, "metrics");
	}
	*out = m;
	return 0;
}

void metrics_close(struct metrics *m)
{
	if (!m)
		return;
	pthread_mutex_destroy(&m->lock);
	if (!m->shared)
		free(m->counts);
	free(m);
}

void metrics_request(struct metrics *m, uint32_t route, unsigned int status)
{
	pthread_mutex_lock(&m->lock);
	tally_bump(&m->counts->requests[route][tally_status(status)], 1);
	pthread_mutex_unlock(&m->lock);
}

void metrics_meeting(struct metrics *m, uint32_t model, enum metrics_meeting how)
{
	pthread_mutex_lock(&m->lock);
	tally_bump(&m->counts->models[model].meetings[how], 1);
	pthread_mutex_unlock(&m->lock);
}

void metrics_choice(struct metrics *m, uint32_t model, const struct batch_result *r,
		    bool by_stop_string)
{
	struct tally_model *c = &m->counts->models[model];
	const double decoding = r->total_s - r->ttft_s;

	pthread_mutex_lock(&m->lock);
	tally_bump(&c->ends[by_stop_string ? STOP_STRING : r->end], 1);
	tally_bump(&c->prompt, r->prompt_tokens);
	tally_bump(&c->cached, r->cached_tokens);
	tally_bump(&c->generated, r->generated_tokens);
	if (r->generated_tokens) {
		tally_observe(&c->queued, tally_seconds, r->queued_s);
		tally_observe(&c->ttft, tally_seconds, r->ttft_s);
		tally_observe(&c->total, tally_seconds, r->total_s);
	}
	if (r->generated_tokens > 1 && decoding > 0)
		tally_observe(&c->rate, tally_rates, (double)(r->generated_tokens - 1) / decoding);
	pthread_mutex_unlock(&m->lock);
}

/* ---- printing ---- */

void metrics_head(FILE *to, const char *name, const char *type, const char *help)
{
	fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value: names of models may be paths. */
static void print_value(FILE *to, const char *value)
{
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			fputc('\\', to);
		fputc(*value == '\n' ? ' ' : *value, to);
	}
}

static void print_number(FILE *to, double n)
{
	if (n == floor(n) && fabs(n) < 1e15)
		fprintf(to, " %.0f\n", n);
	else
		fprintf(to, " %.9g\n", n);
}

void metrics_sample(FILE *to, const char *name, const char *label, const char *value, double n)
{
	fputs(name, to);
	if (label) {
		fprintf(to, "{%s=\"", label);
		print_value(to, value);
		fputs("\"}", to);
	}
	print_number(to, n);
}

static void sample_of(FILE *to, const char *name, const char *model, const char *label,
		      const char *value, double n)
{
	fprintf(to, "%s{model=\"", name);
	print_value(to, model);
	fprintf(to, "\",%s=\"%s\"}", label, value);
	print_number(to, n);
}

static void print_requests(const struct metrics *m, const struct tally *t, FILE *to)
{
	metrics_head(to, "lslm_http_requests_total", "counter",
		     "Requests by route and status; 0: ended without a reply.");
	for (uint32_t r = 0; r < m->n_routes; r++) {
		for (uint32_t s = 0; s < TALLY_STATUSES; s++) {
			if (!t->requests[r][s])
				continue;
			fprintf(to, "lslm_http_requests_total{route=\"%s\",status=\"%u\"} %llu\n",
				m->route_names[r], tally_statuses[s],
				(unsigned long long)t->requests[r][s]);
		}
	}
}

static void print_ends(const struct metrics *m, const struct tally *t, FILE *to)
{
	metrics_head(to, "lslm_answers_total", "counter", "Choices by how they ended.");
	for (uint32_t i = 0; i < m->n_models; i++)
		for (uint32_t e = 0; e < METRICS_N_ENDS; e++)
			sample_of(to, "lslm_answers_total", m->model_names[i], "end",
				  metrics_end_name(e), (double)t->models[i].ends[e]);
}

static void print_meetings(const struct metrics *m, const struct tally *t, FILE *to)
{
	static const char *const names[] = {
		[METRICS_MATCHED] = "matched",
		[METRICS_NAMED] = "named",
		[METRICS_ALONE] = "none",
	};

	metrics_head(to, "lslm_context_requests_total", "counter",
		     "Requests by how they met a context.");
	for (uint32_t i = 0; i < m->n_models; i++)
		for (uint32_t k = 0; k < METRICS_N_MEETINGS; k++)
			sample_of(to, "lslm_context_requests_total", m->model_names[i], "context",
				  names[k], (double)t->models[i].meetings[k]);
}

static void print_tokens(const struct metrics *m, const struct tally *t, FILE *to)
{
	metrics_head(to, "lslm_tokens_total", "counter",
		     "Tokens of choices that ended: of prompts, of those cached, generated.");
	for (uint32_t i = 0; i < m->n_models; i++) {
		const struct tally_model *c = &t->models[i];
		const char *name = m->model_names[i];

		sample_of(to, "lslm_tokens_total", name, "kind", "prompt", (double)c->prompt);
		sample_of(to, "lslm_tokens_total", name, "kind", "cached", (double)c->cached);
		sample_of(to, "lslm_tokens_total", name, "kind", "generated", (double)c->generated);
	}
}

static void print_histogram(FILE *to, const char *name, const char *model,
			    const struct tally_histogram *h, const double bounds[TALLY_BOUNDS])
{
	char series[64], bound[32];
	uint64_t n = 0;

	snprintf(series, sizeof(series), "%s_bucket", name);
	for (uint32_t i = 0; i <= TALLY_BOUNDS; i++) {
		n += h->buckets[i];
		if (i < TALLY_BOUNDS)
			snprintf(bound, sizeof(bound), "%g", bounds[i]);
		sample_of(to, series, model, "le", i < TALLY_BOUNDS ? bound : "+Inf", (double)n);
	}
	snprintf(series, sizeof(series), "%s_sum", name);
	metrics_sample(to, series, "model", model, (double)h->sum / TALLY_UNIT);
	snprintf(series, sizeof(series), "%s_count", name);
	metrics_sample(to, series, "model", model, (double)n);
}

static void print_times(const struct metrics *m, const struct tally *t, FILE *to)
{
	static const struct {
		const char *name, *help;
		size_t at;
		const double *bounds;
	} all[] = {
		{ "lslm_queued_seconds", "From a request to its first step.",
		  offsetof(struct tally_model, queued), tally_seconds },
		{ "lslm_ttft_seconds", "From a request to its first token.",
		  offsetof(struct tally_model, ttft), tally_seconds },
		{ "lslm_answer_seconds", "From a request to its last token.",
		  offsetof(struct tally_model, total), tally_seconds },
		{ "lslm_decode_tokens_per_second", "Of an answer from its first token to its last.",
		  offsetof(struct tally_model, rate), tally_rates },
	};

	for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
		metrics_head(to, all[k].name, "histogram", all[k].help);
		for (uint32_t i = 0; i < m->n_models; i++)
			print_histogram(to, all[k].name, m->model_names[i],
					(const void *)((const char *)&t->models[i] + all[k].at),
					all[k].bounds);
	}
}

void metrics_print(struct metrics *m, const struct tally *all, FILE *to)
{
	const struct tally *t = all ? all : m->counts;

	pthread_mutex_lock(&m->lock);
	print_requests(m, t, to);
	print_ends(m, t, to);
	print_meetings(m, t, to);
	print_tokens(m, t, to);
	print_times(m, t, to);
	pthread_mutex_unlock(&m->lock);
}
