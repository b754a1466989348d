// SPDX-License-Identifier: MIT
#include "engine/batch_request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/probes.h"
#include "compute/ops.h"
#include "engine/sequence.h"

static uint32_t blocks_for(uint32_t tokens)
{
	return (tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
}

static int check(const struct engine *e, const struct batch_request_opts *o, struct lslm_error *err)
{
	const uint32_t n_vocab = e->model->params.n_vocab;

	if (!o->n_prompt)
		return error_set(err, -EINVAL, "no prompt: a request needs one token at least");
	if (o->logprobs > BATCH_MAX_LOGPROBS)
		return error_set(err, -EINVAL, "%u log-probabilities: at most %d", o->logprobs,
				 BATCH_MAX_LOGPROBS);
	for (uint32_t i = 0; i < o->n_prompt; i++)
		if (o->prompt[i] < 0 || (uint32_t)o->prompt[i] >= n_vocab)
			return error_set(err, -EINVAL, "token %d is outside the vocabulary of %u",
					 o->prompt[i], n_vocab);
	return 0;
}

/* How many tokens it may come to have. */
static int measure(struct batch_request *r, uint32_t n_context, uint32_t n_prompt, uint32_t n_ctx,
		   uint32_t pool_blocks, struct lslm_error *err)
{
	uint32_t room;

	if (n_context >= n_ctx || n_prompt >= n_ctx - n_context)
		return error_set(err, -E2BIG,
				 "context (%u tokens) and prompt (%u) do not fit %u positions; "
				 "shorten the prompt",
				 n_context, n_prompt, n_ctx);
	r->n_shared = n_context / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
	r->n_given = n_context - r->n_shared + n_prompt;
	room = n_ctx - r->n_shared - r->n_given;
	if (r->n_predict > room)
		r->n_predict = room + 1; /* the last one needs no position */
	r->most = r->n_given + (r->n_predict < room ? r->n_predict : room);
	if (blocks_for(r->most) > pool_blocks)
		return error_set(err, -E2BIG,
				 "prompt and answer (%u tokens) do not fit the memory for them, %u",
				 r->most, pool_blocks * KV_BLOCK_TOKENS);
	return 0;
}

/* The context's last tokens and the prompt. */
static int copy(struct batch_request *r, const int32_t *context, const int32_t *prompt,
		uint32_t n_prompt, struct lslm_error *err)
{
	const uint32_t tail = r->n_given - n_prompt;

	r->tokens = malloc(((size_t)r->most + 1) * sizeof(*r->tokens));
	r->blocks = malloc(blocks_for(r->most) * sizeof(*r->blocks));
	if (!r->tokens || !r->blocks)
		return error_set(err, -ENOMEM, "out of memory");
	if (tail)
		memcpy(r->tokens, context + r->n_shared, tail * sizeof(*context));
	memcpy(r->tokens + tail, prompt, n_prompt * sizeof(*prompt));
	r->n_tokens = r->n_given;
	return 0;
}

int batch_request_create(struct batch_request **out, const struct engine *e, uint32_t n_ctx,
			 uint32_t pool_blocks, const struct batch_request_opts *o,
			 struct lslm_error *err)
{
	static const struct kv_hash no_salt;
	const int32_t *context = NULL;
	uint32_t n_context = 0;
	struct batch_request *r;
	int rc = check(e, o, err);

	if (rc)
		return rc;
	r = calloc(1, sizeof(*r));
	if (!r)
		return error_set(err, -ENOMEM, "out of memory");
	atomic_init(&r->references, 1);
	r->submitted = clock_seconds();
	r->context = o->context;
	r->tenant = o->tenant;
	r->scope.salt = o->salt;
	r->scope.tenant = kv_hash_equal(&o->salt, &no_salt) ? o->tenant : 0;
	r->n_predict = o->n_predict;
	r->logprobs = o->logprobs;
	r->want_logprob = o->want_logprob;
	r->compute_on_miss = o->compute_on_miss;
	r->deadline = o->deadline_s > 0 ? r->submitted + o->deadline_s : 0;
	r->token = o->token;
	r->done = o->done;
	r->arg = o->arg;
	if (r->context) {
		context = context_tokens(r->context, &n_context);
	}
	rc = measure(r, n_context, o->n_prompt, n_ctx, pool_blocks, err);
	if (!rc)
		rc = copy(r, context, o->prompt, o->n_prompt, err);
	if (!rc)
		rc = sampler_create(&r->sampler, &o->sampling, e->model->params.n_vocab, err);
	if (rc) {
		batch_request_drop(r);
		return rc;
	}
	for (uint32_t i = 0; i < o->n_prompt; i++)
		sampler_accept(r->sampler, o->prompt[i]);
	r->result.prompt_tokens = n_context + o->n_prompt;
	*out = r;
	return 0;
}

void batch_request_drop(struct batch_request *r)
{
	if (atomic_fetch_sub(&r->references, 1) > 1)
		return;
	sampler_destroy(r->sampler);
	free(r->tokens);
	free(r->blocks);
	free(r);
}

uint32_t batch_request_pending(const struct batch_request *r)
{
	return r->n_tokens - r->seq->own.n_tokens;
}

/* The n best tokens, best first, the lower id first on a tie. */
static void best(struct batch_token *t, const float *logits, uint32_t n_vocab, uint32_t n)
{
	t->n_top = 0;
	for (uint32_t id = 0; n && id < n_vocab; id++) {
		uint32_t at = t->n_top;

		if (at == n && logits[id] <= t->top_logprob[n - 1])
			continue;
		at = at < n ? t->n_top++ : n - 1;
		while (at && t->top_logprob[at - 1] < logits[id]) {
			t->top_logprob[at] = t->top_logprob[at - 1];
			t->top_id[at] = t->top_id[at - 1];
			at--;
		}
		t->top_logprob[at] = logits[id];
		t->top_id[at] = (int32_t)id;
	}
}

void batch_request_sample(struct batch_request *r, const struct tokenizer *t, const float *logits,
			  uint32_t n_vocab)
{
	const int32_t id = sampler_sample(r->sampler, logits);
	struct batch_token *out = &r->out;

	sampler_accept(r->sampler, id);
	out->id = id;
	out->is_end = tokenizer_is_eog(t, id);
	if (r->want_logprob || r->logprobs) {
		const double all = ops_log_sum_exp(logits, n_vocab);

		best(out, logits, n_vocab, r->logprobs < n_vocab ? r->logprobs : n_vocab);
		out->logprob = (float)(logits[id] - all);
		for (uint32_t i = 0; i < out->n_top; i++)
			out->top_logprob[i] = (float)(out->top_logprob[i] - all);
	}
	r->tokens[r->n_tokens++] = id;
}

bool batch_request_say(struct batch_request *r, enum batch_end *end)
{
	struct batch_result *res = &r->result;

	if (res->generated_tokens++ == 0) {
		res->ttft_s = clock_seconds() - r->submitted;
		PROBE(first_token, r->context ? context_number(r->context) : 0,
		      (uint64_t)(res->ttft_s * 1e9));
	}
	*end = BATCH_CANCELLED;
	if (r->token && r->token(r->arg, &r->out))
		return true;
	*end = r->out.is_end ? BATCH_STOP : BATCH_LENGTH;
	return r->out.is_end || res->generated_tokens == r->n_predict;
}

void batch_request_finish(struct batch_request *r, enum batch_end end, const struct lslm_error *why)
{
	r->result.end = end;
	r->result.total_s = clock_seconds() - r->submitted;
	if (!r->started)
		r->result.queued_s = r->result.total_s;
	if (why)
		r->result.err = *why;
	r->done(r->arg, &r->result);
	batch_request_drop(r);
}
