// SPDX-License-Identifier: MIT
#include "engine/generate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/probes.h"

struct request {
	struct engine *e;
	struct context *ctx;
	const int32_t *prompt;
	uint32_t n_prompt;
	const struct generate_opts *opts;
	struct generate_stats *stats;
	struct sequence *seq;
	struct sampler *sampler;
	float *logits; /* [n_vocab] */
	double start;
};

static int feed(struct request *r, const int32_t *tokens, uint32_t n, bool last,
		struct lslm_error *err)
{
	for (uint32_t at = 0; at < n;) {
		const uint32_t m = n - at < ENGINE_BATCH ? n - at : ENGINE_BATCH;
		const bool end = last && at + m == n;
		int rc = engine_forward(r->e, r->seq, tokens + at, m, end ? r->logits : NULL, 0,
					err);

		if (rc)
			return rc;
		/* A pass that waited for its layers: now they are all there. */
		if (r->ctx && r->stats->ready_s <= 0)
			r->stats->ready_s = clock_seconds() - r->start;
		at += m;
	}
	return 0;
}

/* An empty sequence, or one that begins with the context. */
static int begin(struct request *r, uint32_t n_context, struct lslm_error *err)
{
	struct generate_stats *st = r->stats;
	uint32_t before, shared = 0;
	int rc = 0;

	if (r->ctx) {
		before = context_computed(r->ctx);
		rc = context_settle(r->ctx, err);
		st->ready_s = context_is_gated(r->ctx) ? 0 : clock_seconds() - r->start;
		st->computed_stripes = context_computed(r->ctx);
		st->streamed_stripes = context_streamed(r->ctx);
		st->computed_tokens += (st->computed_stripes - before) * KV_BLOCK_TOKENS;
		shared = n_context / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
	}
	if (!rc)
		rc = sequence_create(&r->seq, &r->e->geo, r->opts->n_ctx - shared, err);
	if (!rc && r->ctx)
		rc = context_share(r->ctx, r->seq, err);
	return rc;
}

/* A fresh sequence with everything up to the first sampled token. */
static int prefill(struct request *r, struct lslm_error *err)
{
	const int32_t *context = NULL;
	uint32_t n_context = 0, at;
	int rc;

	if (r->ctx)
		context = context_tokens(r->ctx, &n_context);
	if (n_context >= r->opts->n_ctx || r->n_prompt >= r->opts->n_ctx - n_context)
		return error_set(err, -E2BIG,
				 "context (%u tokens) and prompt (%u) do not fit %u positions; "
				 "shorten the prompt or raise -c",
				 n_context, r->n_prompt, r->opts->n_ctx);
	rc = begin(r, n_context, err);
	if (rc)
		return rc;
	at = sequence_len(r->seq);
	rc = feed(r, context + at, n_context - at, false, err);
	if (!rc)
		rc = feed(r, r->prompt, r->n_prompt, true, err);
	if (!rc)
		r->stats->computed_tokens += n_context - at + r->n_prompt;
	return rc;
}

static int prefill_or_recompute(struct request *r, struct lslm_error *err)
{
	struct lslm_error why = { 0 };
	int rc = prefill(r, &why);

	if ((rc == -EIO || rc == -ESTALE) && r->ctx && context_is_streamed(r->ctx)) {
		context_give_up(r->ctx, &why);
		why = *context_miss(r->ctx);
		if (r->opts->compute_on_miss || !context_must_stream(r->ctx)) {
			sequence_destroy(r->seq);
			r->seq = NULL;
			rc = prefill(r, &why);
		}
	}
	r->stats->shared_tokens = r->stats->streamed_stripes * KV_BLOCK_TOKENS;
	if (r->ctx)
		r->stats->miss = *context_miss(r->ctx);
	return rc ? error_set(err, rc, "%s", why.text) : 0;
}

/* Say a token; returns whether the generation ends with it. */
static bool say(struct request *r, int32_t id)
{
	const struct tokenizer *t = r->e->model->tokenizer;
	char piece[256], *text = piece;
	size_t n;
	bool stop;

	n = tokenizer_piece(t, id, false, piece, sizeof(piece));
	if (n > sizeof(piece)) {
		text = malloc(n);
		if (!text)
			return true;
		tokenizer_piece(t, id, false, text, n);
	}
	stop = n && r->opts->on_piece && r->opts->on_piece(r->opts->arg, text, n);
	if (text != piece)
		free(text);
	return stop;
}

static int decode(struct request *r, struct lslm_error *err)
{
	const struct tokenizer *t = r->e->model->tokenizer;
	double first;
	int rc = 0;

	r->stats->ttft_s = 0;
	first = r->start;
	while (r->stats->generated_tokens < r->opts->n_predict) {
		const int32_t id = sampler_sample(r->sampler, r->logits);

		if (r->stats->generated_tokens++ == 0) {
			first = clock_seconds();
			r->stats->ttft_s = first - r->start;
			PROBE(first_token, r->ctx ? context_number(r->ctx) : 0,
			      (uint64_t)(r->stats->ttft_s * 1e9));
		}
		sampler_accept(r->sampler, id);
		if (tokenizer_is_eog(t, id) || say(r, id))
			break;
		if (r->stats->generated_tokens == r->opts->n_predict ||
		    sequence_len(r->seq) == r->opts->n_ctx)
			break;
		rc = engine_forward(r->e, r->seq, &id, 1, r->logits, 0, err);
		if (rc)
			break;
	}
	r->stats->decode_s = clock_seconds() - first;
	return rc;
}

int generate(struct engine *e, struct context *ctx, const int32_t *prompt, uint32_t n_prompt,
	     const struct generate_opts *opts, struct generate_stats *stats, struct lslm_error *err)
{
	struct request r = {
		.e = e,
		.ctx = ctx,
		.prompt = prompt,
		.n_prompt = n_prompt,
		.opts = opts,
		.stats = stats,
	};
	int rc;

	memset(stats, 0, sizeof(*stats));
	r.start = opts->start > 0 ? opts->start : clock_seconds();
	r.logits = malloc(e->model->params.n_vocab * sizeof(*r.logits));
	if (!r.logits)
		return error_set(err, -ENOMEM, "out of memory");
	rc = sampler_create(&r.sampler, &opts->sampling, e->model->params.n_vocab, err);
	if (!rc)
		rc = prefill_or_recompute(&r, err);
	for (uint32_t i = 0; !rc && i < n_prompt; i++)
		sampler_accept(r.sampler, prompt[i]);
	if (!rc)
		rc = decode(&r, err);
	sampler_destroy(r.sampler);
	sequence_destroy(r.seq);
	free(r.logits);
	return rc;
}
