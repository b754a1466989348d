// SPDX-License-Identifier: MIT
/*
 * Batched answers against the same questions asked one by one, with a real model. A token that
 * differs is right only where the reference's two best are a tie (design.md, section 3); the
 * comparison of that answer ends there.
 */
#include "unit/unit.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "codec/map.h"
#include "compute/ops.h"
#include "engine/batch.h"
#include "engine/prompt.h"
#include "engine/publish.h"
#include "engine/sequence.h"
#include "engine/splice.h"
#include "synthetic.h"

enum { MAX_ANSWER = 96, MAX_PROMPT = 512, PATIENCE_S = 300 };

static const char model_path[] = "tests/models/handbook-edge.gguf";
static char dir[] = "/tmp/lslm-batch-XXXXXX", context_path[64], broken_path[64], mapped_path[64];
static char spliced_path[64], torn_path[64];
static const struct synthetic publisher = { 0 };
static uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];
static struct model *model;
static struct engine *engine; /* the batch's */
static struct engine *alone; /* the reference's */
static int32_t *context;
static uint32_t n_context;
static uint32_t n_ties;

/* --- what is asked, and what the answer is --- */

struct answer {
	int32_t id[MAX_ANSWER];
	int32_t second[MAX_ANSWER];
	float gap[MAX_ANSWER]; /* of log-probability, to the second */
	float logprob[MAX_ANSWER];
	uint32_t n;
};

struct question {
	int32_t prompt[MAX_PROMPT];
	uint32_t n_prompt, n_predict;
	bool with_context;
	struct answer answer;
};

static uint32_t state = 1;

static uint32_t dice(uint32_t sides)
{
	state = state * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)state * sides >> 32);
}

static void best_two(const float *logits, uint32_t n, int32_t *first, int32_t *second)
{
	*first = 0;
	*second = -1;
	for (uint32_t i = 1; i < n; i++)
		if (logits[i] > logits[*first]) {
			*second = *first;
			*first = (int32_t)i;
		} else if (*second < 0 || logits[i] > logits[*second]) {
			*second = (int32_t)i;
		}
}

static void feed(struct sequence *seq, const int32_t *tokens, uint32_t n, float *logits)
{
	struct lslm_error err = { 0 };

	for (uint32_t at = 0; at < n;) {
		const uint32_t m = n - at < ENGINE_BATCH ? n - at : ENGINE_BATCH;

		assert_ok(engine_forward(alone, seq, tokens + at, m, logits, 0, &err), &err);
		at += m;
	}
}

/* By the engine alone, one sequence, greedily. */
static void answer_alone(struct question *q)
{
	const uint32_t n_vocab = model->params.n_vocab;
	float *logits = malloc(n_vocab * sizeof(*logits));
	struct answer *a = &q->answer;
	struct lslm_error err = { 0 };
	struct sequence *seq;

	assert_ok(sequence_create(&seq, &alone->geo, 2048, &err), &err);
	if (q->with_context)
		feed(seq, context, n_context, NULL);
	feed(seq, q->prompt, q->n_prompt, logits);
	for (a->n = 0; a->n < q->n_predict;) {
		int32_t *id = &a->id[a->n], *second = &a->second[a->n];

		best_two(logits, n_vocab, id, second);
		a->gap[a->n] = logits[*id] - logits[*second];
		a->logprob[a->n] = (float)(logits[*id] - ops_log_sum_exp(logits, n_vocab));
		a->n++;
		if (tokenizer_is_eog(model->tokenizer, *id))
			break;
		feed(seq, id, 1, logits);
	}
	sequence_destroy(seq);
	free(logits);
}

/* About the handbook where there is one, else any tokens; short, and longer than a block or two. */
static void make_question(struct question *q, bool with_context, uint32_t i)
{
	static const char *const texts[] = {
		"Where is the amber pump?",
		"How do I restart the main compressor?",
		"Which spare part does the green pump use?",
		"Where is the red valve, and who looks after it?",
	};
	const char *text = texts[i % ARRAY_LEN(texts)];
	struct lslm_error err = { 0 };
	int32_t *ids;
	uint32_t n;

	*q = (struct question){ .with_context = with_context, .n_predict = 8 + i * 5 % 40 };
	assert_ok(prompt_user(model, text, strlen(text), false, !with_context, &ids, &n, &err),
		  &err);
	while (q->n_prompt < i * 37 % 200)
		q->prompt[q->n_prompt++] = (int32_t)(5 + dice(model->params.n_vocab - 5));
	memcpy(q->prompt + q->n_prompt, ids, n * sizeof(*ids));
	q->n_prompt += n;
	free(ids);
	answer_alone(q);
}

/* --- asking a batch --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

struct client {
	const struct question *q;
	struct batch_request *request;
	struct batch_token token[MAX_ANSWER];
	uint32_t n;
	uint32_t leave_after; /* tokens; 0: stays */
	const bool *gate; /* each token waits for it; NULL: does not */
	struct batch_result result;
	uint32_t done; /* the how many-th to be done; 0: not yet */
};

static uint32_t n_done;

static void wait_for_change(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	assert_int_equal(pthread_cond_timedwait(&changed, &lock, &until), 0);
}

static int on_token(void *arg, const struct batch_token *t)
{
	struct client *c = arg;
	int leave;

	pthread_mutex_lock(&lock);
	while (c->gate && !*c->gate)
		pthread_cond_wait(&changed, &lock);
	c->token[c->n++] = *t;
	leave = c->n == c->leave_after;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return leave;
}

static void on_done(void *arg, const struct batch_result *r)
{
	struct client *c = arg;

	pthread_mutex_lock(&lock);
	c->result = *r;
	c->done = ++n_done;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static struct batch_request_opts ask_opts(struct client *c, struct context *ctx)
{
	return (struct batch_request_opts){
		.context = c->q->with_context ? ctx : NULL,
		.prompt = c->q->prompt,
		.n_prompt = c->q->n_prompt,
		.n_predict = c->q->n_predict,
		.sampling = { .top_p = 1, .repeat_penalty = 1 },
		.token = on_token,
		.done = on_done,
		.arg = c,
	};
}

static int submit(struct batch *b, struct client *c, const struct batch_request_opts *opts,
		  double *retry_s, struct lslm_error *err)
{
	c->n = c->done = 0;
	return batch_submit(b, opts, &c->request, retry_s, err);
}

static void ask(struct batch *b, struct client *c, struct context *ctx)
{
	struct batch_request_opts opts = ask_opts(c, ctx);
	struct lslm_error err = { 0 };
	double retry_s;

	assert_ok(submit(b, c, &opts, &retry_s, &err), &err);
}

/* Done, and the handle given back. */
static void await(struct client *c)
{
	pthread_mutex_lock(&lock);
	while (!c->done)
		wait_for_change();
	pthread_mutex_unlock(&lock);
	batch_release(c->request);
	c->request = NULL;
}

static void await_tokens(struct client *c, uint32_t n)
{
	pthread_mutex_lock(&lock);
	while (c->n < n && !c->done)
		wait_for_change();
	pthread_mutex_unlock(&lock);
}

/* Until there is another token than those so far: a client with a gate then holds the batch's thread. */
static void await_step(struct batch *b, uint64_t so_far)
{
	struct batch_stats stats;

	do {
		usleep(1000);
		batch_stats(b, &stats);
	} while (stats.tokens_generated <= so_far);
}

static void open_gate(bool *gate)
{
	pthread_mutex_lock(&lock);
	*gate = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* As far as it got. */
static void check_tokens(const struct client *c)
{
	const struct answer *a = &c->q->answer;

	for (uint32_t i = 0; i < c->n; i++) {
		assert_true(i < a->n);
		if (c->token[i].id == a->id[i])
			continue;
		if (c->token[i].id != a->second[i] || a->gap[i] >= 1e-3f)
			fail_msg("token %u is %d, alone it was %d (then %d, %g behind)", i,
				 c->token[i].id, a->id[i], a->second[i], (double)a->gap[i]);
		n_ties++;
		return;
	}
}

static void check_whole(const struct client *c)
{
	const struct answer *a = &c->q->answer;
	const bool stop = tokenizer_is_eog(model->tokenizer, a->id[a->n - 1]);
	const uint32_t before = n_ties;

	check_tokens(c);
	if (n_ties != before)
		return;
	if (c->result.end == BATCH_FAILED)
		fail_msg("failed: %s", c->result.err.text);
	assert_int_equal(c->n, a->n);
	assert_int_equal(c->result.end, stop ? BATCH_STOP : BATCH_LENGTH);
	assert_int_equal(c->result.generated_tokens, a->n);
	assert_int_equal(c->result.prompt_tokens,
			 c->q->n_prompt + (c->q->with_context ? n_context : 0));
	assert_int_equal(c->token[c->n - 1].is_end, stop);
}

static struct batch *batch_of(struct batch_opts opts)
{
	struct lslm_error err = { 0 };
	struct batch *b;

	if (!opts.kv_bytes)
		opts.kv_bytes = 64 << 20;
	assert_ok(batch_create(&b, engine, &opts, &err), &err);
	return b;
}

static struct context *attach(const char *path, enum context_source source)
{
	const struct courier_opts opts = {
		.source = path,
		.trusted = (const void *)trusted,
		.n_trusted = 1,
		.backend = BUFFER_MEMFD,
	};
	const struct kv_hash salt = { { 0 } };
	struct lslm_error err = { 0 };
	struct context *c;

	assert_ok(context_attach(&c, engine, &opts, &salt, source, &err), &err);
	return c;
}

/* --- the same answers --- */

enum { CLIENTS = 12 };

static struct question questions[2 * CLIENTS]; /* with the context, then without */

static void ask_all(struct batch *b, struct context *ctx, const struct question *q)
{
	struct client clients[CLIENTS] = { 0 };

	for (uint32_t i = 0; i < CLIENTS; i++) {
		clients[i].q = &q[i];
		ask(b, &clients[i], ctx);
	}
	for (uint32_t i = 0; i < CLIENTS; i++) {
		await(&clients[i]);
		check_whole(&clients[i]);
	}
}

static void batch__answers_as_one_user_would_be(void **st)
{
	for (int no_reuse = 0; no_reuse < 2; no_reuse++) {
		struct batch *b = batch_of((struct batch_opts){ .no_reuse = no_reuse });
		struct batch_stats stats;

		/* Twice: what the first ones left is found by the second. */
		ask_all(b, NULL, questions + CLIENTS);
		ask_all(b, NULL, questions + CLIENTS);
		assert_int_equal(batch_drain(b, PATIENCE_S), 0);
		batch_stats(b, &stats);
		assert_int_equal(stats.requests, 2 * CLIENTS);
		assert_int_equal(stats.failed + stats.refused + stats.cancelled, 0);
		assert_int_equal(stats.tokens_cached > 0, !no_reuse);
		batch_destroy(b);
	}
}

static void batch__shares_a_context_from_wherever_it_comes(void **st)
{
	static const enum context_source sources[] = { CONTEXT_COMPUTE, CONTEXT_BOTH,
						       CONTEXT_STREAM };

	for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
		struct batch *b = batch_of((struct batch_opts){ 0 });
		struct context *ctx = attach(context_path, sources[i]);

		ask_all(b, ctx, questions);
		batch_destroy(b);
		context_close(ctx);
	}
}

/* In any order, mixed, some leaving: those who stay get what they would have got. */
static void batch__is_right_in_any_order(void **st)
{
	static struct client clients[48];
	struct batch *b = batch_of((struct batch_opts){ .max_running = 7 });
	struct context *ctx = attach(context_path, CONTEXT_BOTH);

	state = 77;
	memset(clients, 0, sizeof(clients));
	for (uint32_t i = 0; i < ARRAY_LEN(clients); i++) {
		struct client *c = &clients[i];

		c->q = &questions[dice(ARRAY_LEN(questions))];
		if (dice(4) == 0)
			c->leave_after = 1 + dice(6);
		ask(b, c, ctx);
		/*
		 * Now and then somebody waits, somebody gives up, and the others go on meanwhile.
		 */
		if (dice(3) == 0)
			await_tokens(&clients[dice(i + 1)], 1 + dice(4));
		if (dice(5) == 0)
			batch_cancel(clients[dice(i + 1)].request);
	}
	for (uint32_t i = 0; i < ARRAY_LEN(clients); i++) {
		struct client *c = &clients[i];

		await(c);
		if (c->result.end == BATCH_CANCELLED)
			check_tokens(c);
		else
			check_whole(c);
	}
	batch_destroy(b);
	context_close(ctx);
}

/* --- memory --- */

static uint64_t blocks_bytes(uint32_t n)
{
	return n * (uint64_t)kv_stripe_bytes(&engine->geo, KV_LEVEL_F16);
}

static void batch__goes_on_when_blocks_run_out(void **st)
{
	for (int no_reuse = 0; no_reuse < 2; no_reuse++) {
		struct batch *b = batch_of(
			(struct batch_opts){ .kv_bytes = blocks_bytes(7), .no_reuse = no_reuse });
		struct client clients[CLIENTS] = { 0 };
		struct batch_stats stats;
		struct question q[CLIENTS];
		bool gate = false;

		/* All begin in one block, and all come to need two or three. */
		for (uint32_t i = 0; i < CLIENTS; i++) {
			make_question(&q[i], false, 0);
			for (uint32_t k = 0; k < 20; k++)
				q[i].prompt[k] = (int32_t)(5 + dice(model->params.n_vocab - 5));
			q[i].n_prompt = 20 + i;
			q[i].n_predict = MAX_ANSWER;
			answer_alone(&q[i]);
			clients[i].q = &q[i];
		}
		clients[0].gate = &gate;
		for (uint32_t i = 0; i < CLIENTS; i++)
			ask(b, &clients[i], NULL);
		open_gate(&gate);
		for (uint32_t i = 0; i < CLIENTS; i++) {
			await(&clients[i]);
			check_whole(&clients[i]);
		}
		batch_stats(b, &stats);
		assert_int_equal(stats.blocks, 7);
		assert_true(stats.preempted > 0);
		batch_destroy(b);
	}
}

static void batch__refuses_what_will_never_fit(void **st)
{
	struct batch *b =
		batch_of((struct batch_opts){ .kv_bytes = blocks_bytes(3), .n_ctx = 512 });
	struct client c = { .q = &questions[CLIENTS] };
	struct batch_request_opts opts = ask_opts(&c, NULL);
	struct lslm_error err = { 0 };
	int32_t outside = (int32_t)model->params.n_vocab;
	double retry_s;

	opts.n_predict = 3 * 64 + 1 - opts.n_prompt;
	assert_int_equal(submit(b, &c, &opts, &retry_s, &err), -E2BIG);
	opts.n_predict--;
	opts.deadline_s = 1e-9;
	assert_ok(submit(b, &c, &opts, &retry_s, &err), &err);
	await(&c);
	assert_int_equal(c.result.end, BATCH_DEADLINE);
	opts.n_prompt = 512;
	opts.prompt = calloc(512, sizeof(*opts.prompt));
	assert_int_equal(submit(b, &c, &opts, &retry_s, &err), -E2BIG);
	free((void *)opts.prompt);
	opts.prompt = &outside;
	opts.n_prompt = 1;
	assert_int_equal(submit(b, &c, &opts, &retry_s, &err), -EINVAL);
	opts.n_prompt = 0;
	assert_int_equal(submit(b, &c, &opts, &retry_s, &err), -EINVAL);
	opts = ask_opts(&c, NULL);
	opts.n_predict = 1;
	opts.sampling.top_p = -1;
	assert_int_equal(submit(b, &c, &opts, &retry_s, &err), -EINVAL);
	batch_destroy(b);
}

static void batch__finds_what_is_the_same(void **st)
{
	struct batch *b = batch_of((struct batch_opts){ 0 });
	struct context *ctx = attach(context_path, CONTEXT_COMPUTE);
	struct client first = { .q = &questions[0] }, again = { .q = &questions[0] };
	struct client other = { .q = &questions[1] }, stranger = { .q = &questions[0] };
	struct batch_request_opts opts = ask_opts(&stranger, ctx);
	struct lslm_error err = { 0 };
	double retry_s;

	assert_true(n_context % 64 > 0);
	ask(b, &first, ctx);
	await(&first);
	/*
	 * Stripes come from the context; what is left of it was computed with the first question.
	 */
	assert_int_equal(first.result.cached_tokens, n_context / 64 * 64);
	ask(b, &again, ctx);
	await(&again);
	assert_int_equal(again.result.cached_tokens, n_context + again.q->n_prompt - 1);
	ask(b, &other, ctx);
	await(&other);
	assert_true(other.result.cached_tokens >= n_context);
	opts.tenant = 9;
	assert_ok(submit(b, &stranger, &opts, &retry_s, &err), &err);
	await(&stranger);
	assert_int_equal(stranger.result.cached_tokens, n_context / 64 * 64);
	check_whole(&first);
	check_whole(&again);
	check_whole(&other);
	check_whole(&stranger);
	batch_destroy(b);
	context_close(ctx);
}

/* All at once, while the context is not there yet: its last tokens are computed by one of them. */
static void batch__computes_the_same_once(void **st)
{
	struct batch *b = batch_of((struct batch_opts){ 0 });
	struct context *ctx = attach(context_path, CONTEXT_COMPUTE);
	struct client clients[CLIENTS] = { 0 };
	uint32_t alone_of = 0;

	for (uint32_t i = 0; i < CLIENTS; i++) {
		clients[i].q = &questions[i];
		ask(b, &clients[i], ctx);
	}
	for (uint32_t i = 0; i < CLIENTS; i++) {
		await(&clients[i]);
		check_whole(&clients[i]);
		alone_of += clients[i].result.cached_tokens < n_context;
	}
	assert_int_equal(alone_of, 1);
	batch_destroy(b);
	context_close(ctx);
}

/* --- whose turn --- */

static void batch__bounds_its_queue_and_is_fair(void **st)
{
	struct batch *b = batch_of((struct batch_opts){ .max_running = 1, .max_queued = 4 });
	struct client held = { .q = &questions[CLIENTS] }, many[3] = { 0 }, one = { 0 };
	struct batch_request_opts opts = ask_opts(&held, NULL);
	struct lslm_error err = { 0 };
	struct batch_stats stats;
	double retry_s = 0;
	bool gate = false;

	held.gate = &gate;
	opts.tenant = 1;
	assert_ok(submit(b, &held, &opts, &retry_s, &err), &err);
	await_step(b, 0);
	for (uint32_t i = 0; i < ARRAY_LEN(many); i++) {
		many[i].q = &questions[CLIENTS + 1 + i];
		opts = ask_opts(&many[i], NULL);
		opts.tenant = 1;
		assert_ok(submit(b, &many[i], &opts, &retry_s, &err), &err);
	}
	one.q = &questions[CLIENTS];
	opts = ask_opts(&one, NULL);
	opts.tenant = 2;
	assert_ok(submit(b, &one, &opts, &retry_s, &err), &err);
	assert_int_equal(submit(b, &(struct client){ 0 }, &opts, &retry_s, &err), -EAGAIN);
	assert_true(retry_s > 0);
	open_gate(&gate);
	await(&held);
	await(&one);
	for (uint32_t i = 0; i < ARRAY_LEN(many); i++) {
		await(&many[i]);
		check_whole(&many[i]);
	}
	assert_true(one.done < many[0].done);
	assert_true(many[0].done < many[1].done && many[1].done < many[2].done);
	batch_stats(b, &stats);
	assert_int_equal(stats.refused, 1);
	assert_int_equal(batch_drain(b, PATIENCE_S), 0);
	assert_int_equal(submit(b, &one, &opts, &retry_s, &err), -ESHUTDOWN);
	batch_destroy(b);
}

static void batch__lets_nobody_fill_a_shared_queue(void **st)
{
	struct batch *b = batch_of(
		(struct batch_opts){ .max_running = 1, .max_queued = 4, .share_queue = true });
	struct client held = { .q = &questions[CLIENTS] }, many[2] = { 0 }, one = { 0 };
	struct batch_request_opts opts = ask_opts(&held, NULL);
	struct lslm_error err = { 0 };
	double retry_s = 0;
	bool gate = false;

	held.gate = &gate;
	opts.tenant = 1;
	assert_ok(submit(b, &held, &opts, &retry_s, &err), &err);
	await_step(b, 0);
	for (uint32_t i = 0; i < ARRAY_LEN(many); i++) {
		many[i].q = &questions[CLIENTS + 1 + i];
		opts = ask_opts(&many[i], NULL);
		opts.tenant = 1;
		assert_ok(submit(b, &many[i], &opts, &retry_s, &err), &err);
	}
	assert_int_equal(submit(b, &(struct client){ 0 }, &opts, &retry_s, &err), -EAGAIN);
	assert_true(retry_s > 0);
	one.q = &questions[CLIENTS];
	opts = ask_opts(&one, NULL);
	opts.tenant = 2;
	assert_ok(submit(b, &one, &opts, &retry_s, &err), &err);
	open_gate(&gate);
	await(&held);
	await(&one);
	for (uint32_t i = 0; i < ARRAY_LEN(many); i++)
		await(&many[i]);
	batch_destroy(b);
}

static void batch__ends_who_is_in_flight(void **st)
{
	struct batch *b = batch_of((struct batch_opts){ .max_running = 1 });
	struct client running = { .q = &questions[CLIENTS] }, queued = { .q = &questions[CLIENTS] };
	bool gate = false;

	running.gate = &gate;
	ask(b, &running, NULL);
	await_step(b, 0);
	ask(b, &queued, NULL);
	batch_cancel(running.request);
	assert_int_equal(batch_drain(b, 0), 2);
	open_gate(&gate);
	batch_destroy(b);
	await(&running);
	await(&queued);
	assert_int_equal(running.n, 1);
	assert_int_equal(running.result.end, BATCH_CANCELLED);
	check_tokens(&running);
	/* It may have had its turn before the end came. */
	if (queued.result.end == BATCH_CANCELLED)
		check_tokens(&queued);
	else
		check_whole(&queued);
}

/* --- what is told about a token --- */

static void batch__tells_probabilities(void **st)
{
	struct batch *b = batch_of((struct batch_opts){ 0 });
	struct client c = { .q = &questions[0] };
	struct context *ctx = attach(context_path, CONTEXT_COMPUTE);
	struct batch_request_opts opts = ask_opts(&c, ctx);
	struct lslm_error err = { 0 };
	double retry_s;

	opts.logprobs = 4;
	opts.want_logprob = true;
	assert_ok(submit(b, &c, &opts, &retry_s, &err), &err);
	await(&c);
	check_whole(&c);
	for (uint32_t i = 0; i < c.n; i++) {
		const struct batch_token *t = &c.token[i];

		assert_true(fabsf(t->logprob - c.q->answer.logprob[i]) < 0.02f);
		assert_int_equal(t->n_top, 4);
		assert_int_equal(t->top_id[0], t->id);
		assert_true(t->top_logprob[0] == t->logprob);
		for (uint32_t k = 1; k < t->n_top; k++)
			assert_true(t->top_logprob[k] <= t->top_logprob[k - 1]);
	}
	batch_destroy(b);
	context_close(ctx);
}

/* --- streams that fail --- */

static void batch__computes_what_a_stream_owes(void **st)
{
	struct batch *b = batch_of((struct batch_opts){ 0 });
	struct context *both = attach(broken_path, CONTEXT_BOTH);
	struct context *stream = attach(broken_path, CONTEXT_STREAM);
	struct client strict = { .q = &questions[1] }, patient = { .q = &questions[0] };
	struct batch_request_opts opts;
	struct lslm_error err = { 0 };
	double retry_s;

	ask_all(b, both, questions);
	ask(b, &strict, stream);
	opts = ask_opts(&patient, stream);
	opts.compute_on_miss = true;
	assert_ok(submit(b, &patient, &opts, &retry_s, &err), &err);
	await(&strict);
	await(&patient);
	assert_int_equal(strict.result.end, BATCH_FAILED);
	assert_int_equal(strict.n, 0);
	assert_non_null(strstr(strict.result.err.text, "damaged"));
	check_whole(&patient);
	batch_destroy(b);
	context_close(both);
	context_close(stream);
}

/* The courier's side of the only buffer of this process, which no engine would have. */
static struct buffer *steal_buffer(void)
{
	struct lslm_error err = { 0 };
	struct buffer *b = NULL;

	for (int fd = 0; fd < 256 && !b; fd++) {
		char path[64], name[128];
		ssize_t n;
		int mine;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, name, sizeof(name) - 1);
		if (n < 0)
			continue;
		name[n] = '\0';
		if (!strstr(name, "lslm-buffer"))
			continue;
		mine = open(path, O_RDWR | O_CLOEXEC);
		assert_true(mine >= 0);
		assert_ok(buffer_import(&b, mine, &err), &err);
	}
	assert_non_null(b);
	return b;
}

/*
 * Purged between two steps: the answer goes on where it was, after what was lost has been computed.
 */
static void batch__goes_on_without_a_lost_buffer(void **st)
{
	struct batch *b = batch_of((struct batch_opts){ 0 });
	struct context *ctx = attach(context_path, CONTEXT_STREAM);
	struct client c = { .q = &questions[3] }, later = { .q = &questions[2] };
	struct client strict = { .q = &questions[1] };
	struct batch_request_opts opts = ask_opts(&c, ctx);
	struct lslm_error err = { 0 };
	struct buffer *stolen;
	uint64_t generation;
	bool gate = false;
	double retry_s;

	assert_true(c.q->answer.n > 2);
	c.gate = strict.gate = &gate;
	opts.compute_on_miss = true;
	assert_ok(submit(b, &c, &opts, &retry_s, &err), &err);
	await_step(b, 0);
	stolen = steal_buffer();
	assert_ok(buffer_purge(stolen, &generation, &err), &err);
	buffer_close(stolen);
	ask(b, &strict, ctx);
	open_gate(&gate);
	await(&c);
	await(&strict);
	check_whole(&c);
	assert_int_equal(strict.result.end, BATCH_FAILED);
	assert_non_null(strstr(strict.result.err.text, "lost its contents"));
	assert_int_equal(context_streamed(ctx), 0);
	ask(b, &later, ctx);
	await(&later);
	check_whole(&later);
	batch_destroy(b);
	context_close(ctx);
}

/*
 * The same, but what was lost came from another model: what is computed in its place has other values, so nothing that was
 * computed after it may be found again, and who was answering begins anew.
 */
static void batch__keeps_nothing_behind_a_lost_map(void **st)
{
	struct batch *b = batch_of((struct batch_opts){ 0 });
	struct context *ctx = attach(mapped_path, CONTEXT_BOTH);
	struct client before = { .q = &questions[2] }, c = { .q = &questions[3] };
	struct client later[2] = { { .q = &questions[2] }, { .q = &questions[3] } };
	const struct kv_hash mapped = *context_values(ctx);
	struct batch_request_opts opts;
	struct lslm_error err = { 0 };
	struct batch_stats stats;
	struct buffer *stolen;
	uint64_t generation;
	bool gate = false;
	double retry_s;

	assert_true(kv_hash_equal(&mapped, context_key(ctx)));
	ask(b, &before, ctx);
	await(&before);
	assert_int_equal(before.result.end, BATCH_STOP);
	assert_int_equal(context_computed(ctx), 0);
	batch_stats(b, &stats);
	c.gate = &gate;
	ask(b, &c, ctx);
	await_step(b, stats.tokens_generated);
	stolen = steal_buffer();
	assert_ok(buffer_purge(stolen, &generation, &err), &err);
	buffer_close(stolen);
	open_gate(&gate);
	await(&c);
	assert_true(c.result.end == BATCH_STOP || c.result.end == BATCH_LENGTH);
	batch_stats(b, &stats);
	assert_int_equal(stats.preempted, 1);
	assert_int_equal(context_streamed(ctx), 0);
	assert_false(kv_hash_equal(&mapped, context_values(ctx)));
	/* As if there had never been a map; how likely tokens are shows less than an answer would hide. */
	for (uint32_t i = 0; i < 2; i++) {
		opts = ask_opts(&later[i], ctx);
		opts.want_logprob = true;
		assert_ok(submit(b, &later[i], &opts, &retry_s, &err), &err);
		await(&later[i]);
		check_whole(&later[i]);
		for (uint32_t k = 0; k < later[i].n; k++)
			assert_true(fabsf(later[i].token[k].logprob -
					  later[i].q->answer.logprob[k]) < 5e-3F);
	}
	batch_destroy(b);
	context_close(ctx);
}

/*
 * A context without layers 1 and 2, which are computed here, from the hidden state in E blocks: the relative is the model itself, so
 * the answers are its own. The second one is damaged behind its E blocks, when the layers are computed or being computed.
 */
static void batch__computes_a_run_of_layers(void **st)
{
	struct batch *b = batch_of((struct batch_opts){ 0 });
	struct context *whole = attach(spliced_path, CONTEXT_BOTH);
	struct context *torn = attach(torn_path, CONTEXT_BOTH);

	ask_all(b, whole, questions);
	assert_int_equal(context_computed(whole), 0);
	assert_int_equal(context_work(whole), n_context / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS);
	assert_int_equal(context_miss(whole)->code, 0);
	ask_all(b, torn, questions);
	assert_int_equal(context_computed(torn), n_context / KV_BLOCK_TOKENS);
	assert_non_null(strstr(context_miss(torn)->text, "damaged"));
	batch_destroy(b);
	context_close(whole);
	context_close(torn);
}

/* --- --- */

static void damage(const char *path, const char *to, size_t from_end)
{
	struct lslm_error err = { 0 };
	size_t size;
	char *data;

	assert_ok(file_read(path, 64 << 20, &data, &size, &err), &err);
	data[size - from_end] ^= 1;
	assert_ok(file_write(to, data, size, 0600, FILE_REPLACE, &err), &err);
	free(data);
}

/* Layers 1 and 2 do not travel. */
static void publish_spliced(const char *text, const struct publish_opts *opts)
{
	const struct kv_run run = splice_run(alone, 1, 3);
	struct publish_opts o = *opts;
	struct lslm_error err = { 0 };
	struct kv_identity id;
	struct kv_hash key;
	struct map *m;
	char path[80];

	snprintf(spliced_path, sizeof(spliced_path), "%s/spliced.lskv", dir);
	snprintf(torn_path, sizeof(torn_path), "%s/torn.lskv", dir);
	snprintf(path, sizeof(path), "%s/run.map", dir);
	assert_ok(engine_identity(alone, &id, &err), &err);
	assert_ok(map_new_run(&m, &alone->geo, &run, &err), &err);
	m->model_from = m->model_to = id.model;
	m->tokenizer = id.tokenizer;
	m->evaluation = (struct proof){ PROOF_EXACT, 8, 80, 0.7, 0.7, 0, 0, 0, PROOF_NO_WORSE };
	assert_ok(map_write(m, path, &err), &err);
	o.map = m;
	o.from = alone;
	assert_ok(publish_file(alone, text, strlen(text), &o, spliced_path, &key, &err), &err);
	damage(spliced_path, torn_path, 1);
	unlink(path);
	map_free(m);
}

/* The model's own keys and values, but for what is added to each: through a map that is said to be good. */
static void publish_mapped(const char *text, const struct publish_opts *opts)
{
	const struct kv_geometry *g = &alone->geo;
	struct map_part *shape = calloc(2 * (size_t)g->n_layer, sizeof(*shape));
	struct publish_opts o = *opts;
	struct lslm_error err = { 0 };
	struct kv_identity id;
	struct kv_hash key;
	struct map *m;
	char path[80];

	snprintf(mapped_path, sizeof(mapped_path), "%s/mapped.lskv", dir);
	snprintf(path, sizeof(path), "%s/some.map", dir);
	assert_ok(engine_identity(alone, &id, &err), &err);
	for (uint32_t i = 0; i < 2 * g->n_layer; i++)
		shape[i].keep = 1;
	assert_ok(map_new(&m, g, g, shape, &err), &err);
	for (uint32_t i = 0; i < 2 * g->n_layer; i++)
		for (uint32_t k = 0; k < map_n_out(m); k++)
			m->parts[i].bias[k] = (k + i) % 3 ? 0.5F : -1.0F;
	m->model_from = m->model_to = id.model;
	m->tokenizer = id.tokenizer;
	m->evaluation = (struct proof){ PROOF_EXACT, 8, 80, 0.7, 0.75, 0.05, 0.01, 0.09 };
	assert_ok(map_write(m, path, &err), &err);
	o.map = m;
	o.from = alone;
	assert_ok(publish_file(alone, text, strlen(text), &o, mapped_path, &key, &err), &err);
	unlink(path);
	map_free(m);
	free(shape);
}

static void publish(const char *text)
{
	uint8_t pub[MANIFEST_PUBKEY_BYTES], sec[MANIFEST_SECKEY_BYTES];
	const struct publish_opts opts = { .title = "handbook", .seckey = sec };
	struct lslm_error err = { 0 };
	struct kv_hash key;
	struct stat st;

	synthetic_keys(&publisher, pub, sec);
	memcpy(trusted[0], pub, sizeof(pub));
	assert_ok(publish_file(alone, text, strlen(text), &opts, context_path, &key, &err), &err);
	publish_mapped(text, &opts);
	publish_spliced(text, &opts);
	assert_ok(prompt_context(model, text, strlen(text), false, &context, &n_context, &err),
		  &err);
	/* Another one with a damaged block in its middle. */
	assert_int_equal(stat(context_path, &st), 0);
	damage(context_path, broken_path, (size_t)st.st_size / 3);
}

static int setup(void **st)
{
	struct lslm_error err = { 0 };
	const struct matrices_opts weights = { .load = MATRICES_PACK };
	size_t size;
	char *text;

	if (!mkdtemp(dir))
		return -1;
	snprintf(context_path, sizeof(context_path), "%s/context.lskv", dir);
	snprintf(broken_path, sizeof(broken_path), "%s/broken.lskv", dir);
	assert_ok(model_open(&model, model_path, &err), &err);
	assert_ok(engine_create_with(&engine, model, 2, &weights, &err), &err);
	assert_ok(engine_create_with(&alone, model, 1, &weights, &err), &err);
	assert_ok(file_read("tests/models/handbook.txt", 1 << 20, &text, &size, &err), &err);
	publish(text);
	free(text);
	for (uint32_t i = 0; i < 2 * CLIENTS; i++)
		make_question(&questions[i], i < CLIENTS, i % CLIENTS);
	return 0;
}

static int teardown(void **st)
{
	printf("# %u ties, %u tokens of context\n", n_ties, n_context);
	engine_destroy(engine);
	engine_destroy(alone);
	model_close(model);
	free(context);
	unlink(context_path);
	unlink(broken_path);
	unlink(mapped_path);
	unlink(spliced_path);
	unlink(torn_path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(batch__answers_as_one_user_would_be),
		cmocka_unit_test(batch__shares_a_context_from_wherever_it_comes),
		cmocka_unit_test(batch__is_right_in_any_order),
		cmocka_unit_test(batch__goes_on_when_blocks_run_out),
		cmocka_unit_test(batch__refuses_what_will_never_fit),
		cmocka_unit_test(batch__finds_what_is_the_same),
		cmocka_unit_test(batch__computes_the_same_once),
		cmocka_unit_test(batch__bounds_its_queue_and_is_fair),
		cmocka_unit_test(batch__lets_nobody_fill_a_shared_queue),
		cmocka_unit_test(batch__ends_who_is_in_flight),
		cmocka_unit_test(batch__tells_probabilities),
		cmocka_unit_test(batch__computes_what_a_stream_owes),
		cmocka_unit_test(batch__goes_on_without_a_lost_buffer),
		cmocka_unit_test(batch__keeps_nothing_behind_a_lost_map),
		cmocka_unit_test(batch__computes_a_run_of_layers),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
