// SPDX-License-Identifier: MIT
#include "serve/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { N_ENDS = BATCH_FAILED + 2, STOP_STRING = BATCH_FAILED + 1 };

/* Replies that the front gives; anything else is counted as 0. */
static const unsigned short statuses[] = { 0,	200, 202, 400, 401, 403, 404, 405, 409,
					   413, 429, 500, 501, 502, 503, 504, 507 };
enum { N_STATUSES = sizeof(statuses) / sizeof(statuses[0]) };

static const double bounds[] = { 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60 };
enum { N_BOUNDS = sizeof(bounds) / sizeof(bounds[0]) };

struct histogram {
	uint64_t buckets[N_BOUNDS + 1];
	double sum;
};

struct model_counts {
	uint64_t ends[N_ENDS];
	uint64_t meetings[METRICS_N_MEETINGS];
	uint64_t prompt, cached, generated;
	struct histogram queued, ttft, total;
};

struct metrics {
	pthread_mutex_t lock;
	const char *const *model_names;
	const char *const *route_names;
	uint32_t n_models, n_routes;
	struct model_counts *models;
	uint64_t (*requests)[N_STATUSES]; /* [n_routes] */
};

int metrics_open(struct metrics **out, const char *const *models, uint32_t n_models,
		 const char *const *routes, uint32_t n_routes, struct lslm_error *err)
{
	struct metrics *m = calloc(1, sizeof(*m));

	if (!m)
		return error_sys(err, -ENOMEM, "metrics");
	pthread_mutex_init(&m->lock, NULL);
	m->model_names = models;
	m->n_models = n_models;
	m->route_names = routes;
	m->n_routes = n_routes;
	m->models = calloc(n_models, sizeof(*m->models));
	m->requests = calloc(n_routes, sizeof(*m->requests));
	if (!m->models || !m->requests) {
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
	free(m->models);
	free(m->requests);
	free(m);
}

void metrics_request(struct metrics *m, uint32_t route, unsigned int status)
{
	uint32_t i;

	for (i = N_STATUSES - 1; i && statuses[i] != status; i--)
		;
	pthread_mutex_lock(&m->lock);
	m->requests[route][i]++;
	pthread_mutex_unlock(&m->lock);
}

void metrics_meeting(struct metrics *m, uint32_t model, enum metrics_meeting how)
{
	pthread_mutex_lock(&m->lock);
	m->models[model].meetings[how]++;
	pthread_mutex_unlock(&m->lock);
}

static void observe(struct histogram *h, double seconds)
{
	uint32_t i = 0;

	while (i < N_BOUNDS && seconds > bounds[i])
		i++;
	h->buckets[i]++;
	h->sum += seconds;
}

void metrics_choice(struct metrics *m, uint32_t model, const struct batch_result *r,
		    bool by_stop_string)
{
	struct model_counts *c = &m->models[model];

	pthread_mutex_lock(&m->lock);
	c->ends[by_stop_string ? STOP_STRING : r->end]++;
	c->prompt += r->prompt_tokens;
	c->cached += r->cached_tokens;
	c->generated += r->generated_tokens;
	if (r->generated_tokens) {
		observe(&c->queued, r->queued_s);
		observe(&c->ttft, r->ttft_s);
		observe(&c->total, r->total_s);
	}
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

static void print_requests(const struct metrics *m, FILE *to)
{
	metrics_head(to, "lslm_http_requests_total", "counter",
		     "Requests by route and status; 0: ended without a reply.");
	for (uint32_t r = 0; r < m->n_routes; r++) {
		for (uint32_t s = 0; s < N_STATUSES; s++) {
			if (!m->requests[r][s])
				continue;
			fprintf(to, "lslm_http_requests_total{route=\"%s\",status=\"%u\"} %llu\n",
				m->route_names[r], statuses[s],
				(unsigned long long)m->requests[r][s]);
		}
	}
}

static void print_ends(const struct metrics *m, FILE *to)
{
	static const char *const names[] = {
		[BATCH_STOP] = "stop",		 [BATCH_LENGTH] = "length",
		[BATCH_CANCELLED] = "cancelled", [BATCH_DEADLINE] = "deadline",
		[BATCH_FAILED] = "failed",	 [STOP_STRING] = "stop_string",
	};

	metrics_head(to, "lslm_answers_total", "counter", "Choices by how they ended.");
	for (uint32_t i = 0; i < m->n_models; i++)
		for (uint32_t e = 0; e < N_ENDS; e++)
			sample_of(to, "lslm_answers_total", m->model_names[i], "end", names[e],
				  (double)m->models[i].ends[e]);
}

static void print_meetings(const struct metrics *m, FILE *to)
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
				  names[k], (double)m->models[i].meetings[k]);
}

static void print_tokens(const struct metrics *m, FILE *to)
{
	metrics_head(to, "lslm_tokens_total", "counter",
		     "Tokens of choices that ended: of prompts, of those cached, generated.");
	for (uint32_t i = 0; i < m->n_models; i++) {
		const struct model_counts *c = &m->models[i];
		const char *name = m->model_names[i];

		sample_of(to, "lslm_tokens_total", name, "kind", "prompt", (double)c->prompt);
		sample_of(to, "lslm_tokens_total", name, "kind", "cached", (double)c->cached);
		sample_of(to, "lslm_tokens_total", name, "kind", "generated", (double)c->generated);
	}
}

static void print_histogram(FILE *to, const char *name, const char *model,
			    const struct histogram *h)
{
	char series[64], bound[32];
	uint64_t n = 0;

	snprintf(series, sizeof(series), "%s_bucket", name);
	for (uint32_t i = 0; i <= N_BOUNDS; i++) {
		n += h->buckets[i];
		if (i < N_BOUNDS)
			snprintf(bound, sizeof(bound), "%g", bounds[i]);
		sample_of(to, series, model, "le", i < N_BOUNDS ? bound : "+Inf", (double)n);
	}
	snprintf(series, sizeof(series), "%s_sum", name);
	metrics_sample(to, series, "model", model, h->sum);
	snprintf(series, sizeof(series), "%s_count", name);
	metrics_sample(to, series, "model", model, (double)n);
}

static void print_times(const struct metrics *m, FILE *to)
{
	static const struct {
		const char *name, *help;
		size_t at;
	} all[] = {
		{ "lslm_queued_seconds", "From a request to its first step.",
		  offsetof(struct model_counts, queued) },
		{ "lslm_ttft_seconds", "From a request to its first token.",
		  offsetof(struct model_counts, ttft) },
		{ "lslm_answer_seconds", "From a request to its last token.",
		  offsetof(struct model_counts, total) },
	};

	for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
		metrics_head(to, all[k].name, "histogram", all[k].help);
		for (uint32_t i = 0; i < m->n_models; i++)
			print_histogram(to, all[k].name, m->model_names[i],
					(const void *)((const char *)&m->models[i] + all[k].at));
	}
}

void metrics_print(struct metrics *m, FILE *to)
{
	pthread_mutex_lock(&m->lock);
	print_requests(m, to);
	print_ends(m, to);
	print_meetings(m, to);
	print_tokens(m, to);
	print_times(m, to);
	pthread_mutex_unlock(&m->lock);
}
