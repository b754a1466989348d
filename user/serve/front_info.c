// SPDX-License-Identifier: MIT
#include "serve/front_info.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum MHD_Result front_health(struct visit *v)
{
	return reply_json(v->conn, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
}

enum MHD_Result front_ready(struct visit *v)
{
	if (atomic_load(&v->front->draining))
		return visit_error(v, MHD_HTTP_SERVICE_UNAVAILABLE, "draining", 5,
				   "the server is shutting down");
	return reply_json(v->conn, MHD_HTTP_OK, json_pack("{s:s}", "status", "ready"));
}

/* ---- models ---- */

static json_t *describe(const struct front *f, const struct front_model *m)
{
	return json_pack("{s:s, s:s, s:I, s:s, s:I}", "id", m->name, "object", "model", "created",
			 (json_int_t)f->started, "owned_by", "lslm", "context_length",
			 (json_int_t)m->n_ctx);
}

enum MHD_Result front_models(struct visit *v)
{
	const struct front *f = v->front;
	json_t *list = json_array();

	for (uint32_t i = 0; i < f->n_models; i++)
		json_array_append_new(list, describe(f, &f->models[i]));
	return reply_json(v->conn, MHD_HTTP_OK,
			  json_pack("{s:s, s:o}", "object", "list", "data", list));
}

enum MHD_Result front_one_model(struct visit *v)
{
	const char *name = v->path + strlen("/v1/models/");
	const struct front *f = v->front;

	for (uint32_t i = 0; i < f->n_models; i++)
		if (!strcmp(f->models[i].name, name))
			return reply_json(v->conn, MHD_HTTP_OK, describe(f, &f->models[i]));
	return visit_error(v, MHD_HTTP_NOT_FOUND, "model_not_found", 0,
			   "there is no such model here; /v1/models lists them");
}

/* ---- metrics ---- */

/* One figure of every model, from one snapshot of each. */
struct figures {
	struct batch_stats batch;
	struct attached_sum contexts;
};

#define SERIES(fn, expr)                          \
	static double fn(const struct figures *f) \
	{                                         \
		return (double)(expr);            \
	}

SERIES(running, f->batch.running)
SERIES(queued, f->batch.queued)
SERIES(max_running, f->batch.max_running)
SERIES(steps, f->batch.steps)
SERIES(context_computed_tokens, f->batch.context_tokens)
SERIES(refused, f->batch.refused)
SERIES(preempted, f->batch.preempted)
SERIES(blocks, f->batch.blocks)
SERIES(blocks_used, f->batch.blocks_used)
SERIES(blocks_kept, f->batch.blocks_kept)
SERIES(blocks_evicted, f->batch.blocks_evicted)
SERIES(contexts, f->contexts.contexts)
SERIES(pinned, f->contexts.pinned)
SERIES(context_blocks, f->contexts.blocks)
SERIES(context_ready, f->contexts.ready)
SERIES(context_failed, f->contexts.failed)
SERIES(context_from_peers, f->contexts.from_peers)

static const struct {
	const char *name, *type, *help;
	double (*get)(const struct figures *f);
	bool own; /* of the contexts that are there for who asks, not of everybody */
} series[] = {
	{ "lslm_requests_running", "gauge", "Choices in the batch.", running },
	{ "lslm_requests_queued", "gauge", "Choices that wait for a place in it.", queued },
	{ "lslm_requests_running_max", "gauge", "Places in the batch.", max_running },
	{ "lslm_batch_steps_total", "counter", "Forward passes.", steps },
	{ "lslm_context_tokens_computed_total", "counter",
	  "Tokens of contexts that were computed here, once for all who share them.",
	  context_computed_tokens },
	{ "lslm_requests_refused_total", "counter", "Choices refused by a full queue.", refused },
	{ "lslm_requests_preempted_total", "counter",
	  "Times that one gave its blocks to an older one.", preempted },
	{ "lslm_kv_blocks", "gauge", "Private blocks that there are.", blocks },
	{ "lslm_kv_blocks_used", "gauge", "Of them, in use by requests.", blocks_used },
	{ "lslm_kv_blocks_kept", "gauge", "Of them, kept for later requests.", blocks_kept },
	{ "lslm_kv_blocks_evicted_total", "counter", "Kept blocks given up.", blocks_evicted },
	{ "lslm_contexts", "gauge", "Contexts attached.", contexts, true },
	{ "lslm_contexts_pinned", "gauge", "Of them, pinned.", pinned, true },
	{ "lslm_context_blocks", "gauge", "Blocks of contexts.", context_blocks, true },
	{ "lslm_context_blocks_ready", "gauge", "Of them, ready.", context_ready, true },
	{ "lslm_context_blocks_failed", "gauge", "Of them, failed.", context_failed, true },
	{ "lslm_context_blocks_from_peers", "gauge",
	  "Of those that are ready, from other gateways.", context_from_peers, true },
};

/* sum: of several fronts together; NULL: of this one. totals: also what is of all tenants together. */
static void print_figures(const struct visit *v, const struct tally_page *sum, bool totals,
			  FILE *to)
{
	const struct kv_hash salt = visit_salt(v);
	const struct front *f = v->front;
	struct figures *all = calloc(f->n_models, sizeof(*all));

	if (!all)
		return;
	for (uint32_t i = 0; i < f->n_models; i++) {
		batch_stats(f->models[i].batch, &all[i].batch);
		if (f->models[i].contexts)
			attached_sum(f->models[i].contexts, &salt, &all[i].contexts);
		if (!sum)
			continue;
		all[i].batch.running = (uint32_t)sum->now[i].running;
		all[i].batch.queued = (uint32_t)sum->now[i].queued;
		all[i].batch.max_running = (uint32_t)sum->now[i].places;
		all[i].batch.refused = sum->counts.models[i].refused;
	}
	for (size_t k = 0; k < sizeof(series) / sizeof(series[0]); k++) {
		if (!totals && !series[k].own)
			continue;
		metrics_head(to, series[k].name, series[k].type, series[k].help);
		for (uint32_t i = 0; i < f->n_models; i++)
			metrics_sample(to, series[k].name, "model", f->models[i].name,
				       series[k].get(&all[i]));
	}
	free(all);
}

struct tenant_printer {
	FILE *to;
	const char *only; /* this tenant's; NULL: everybody's */
	int which;
};

static void print_tenant(void *arg, const char *name, uint32_t running, uint64_t tokens,
			 uint64_t refused)
{
	static const char *const names[] = { "lslm_tenant_running", "lslm_tenant_tokens_total",
					     "lslm_tenant_refused_total" };
	const struct tenant_printer *p = arg;
	const double values[] = { (double)running, (double)tokens, (double)refused };

	if (!p->only || !strcmp(p->only, name))
		metrics_sample(p->to, names[p->which], "tenant", name, values[p->which]);
}

/* Who the others are, and how much they ask, is for admins. */
static void print_tenants(const struct visit *v, FILE *to)
{
	struct tenants *all = v->front->tenants;
	struct tenant_printer p = { to, visit_sees_all(v) ? NULL : tenant_name(v->tenant), 0 };

	metrics_head(to, "lslm_tenant_running", "gauge", "Choices of a tenant in flight.");
	tenants_each(all, print_tenant, &p);
	p.which = 1;
	metrics_head(to, "lslm_tenant_tokens_total", "counter",
		     "Tokens of its prompts and answers.");
	tenants_each(all, print_tenant, &p);
	p.which = 2;
	metrics_head(to, "lslm_tenant_refused_total", "counter", "Requests over its quota.");
	tenants_each(all, print_tenant, &p);
}

static void print_connections(const struct front *f, FILE *to)
{
	metrics_head(to, "lslm_connections", "gauge", "Connections to the front.");
	metrics_sample(to, "lslm_connections", NULL, "", watch_count(f->watch));
}

enum MHD_Result front_metrics(struct visit *v)
{
	/* What a tenant of another salt asks must not be seen in how sums grow. */
	const bool totals = visit_sees_all(v) || !tenants_have_salts(v->front->tenants);
	struct MHD_Response *r = NULL;
	enum MHD_Result ret;
	char *text = NULL;
	size_t size = 0;
	FILE *to = open_memstream(&text, &size);
	struct tally_page *sum = v->front->totals ? malloc(sizeof(*sum)) : NULL;

	if (!to) {
		free(sum);
		return MHD_NO;
	}
	if (sum && !v->front->totals(v->front->arg, sum)) {
		free(sum);
		sum = NULL;
	}
	if (totals)
		metrics_print(v->front->metrics, sum ? &sum->counts : NULL, to);
	print_figures(v, sum, totals, to);
	free(sum);
	print_tenants(v, to);
	if (totals)
		print_connections(v->front, to);
	if (v->front->more_metrics && visit_sees_all(v))
		v->front->more_metrics(v->front->arg, to);
	if (!fclose(to))
		r = MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE);
	if (!r) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(r, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
	ret = MHD_queue_response(v->conn, MHD_HTTP_OK, r);
	MHD_destroy_response(r);
	return ret;
}
