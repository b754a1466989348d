// SPDX-License-Identifier: MIT
/* Batched answers against the same questions asked one by one: the same, in turn, in little memory. */
#include "batch_rig.h"

/* --- the same answers --- */

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

/*
 * Not only the same tokens: whoever made the context's blocks, they are multiplied alike. Where some are computed and others
 * come, sums are cut where the two have met; all of either are one segment.
 */
static void batch__gets_the_same_bits_from_either_side(void **st)
{
	struct client clients[2] = { { .q = &questions[3] }, { .q = &questions[3] } };

	for (int i = 0; i < 2; i++) {
		struct batch *b = batch_of((struct batch_opts){ 0 });
		struct context *ctx = attach(context_path, i ? CONTEXT_COMPUTE : CONTEXT_STREAM);
		struct batch_request_opts opts = ask_opts(&clients[i], ctx);
		struct lslm_error err = { 0 };
		double retry_s;

		opts.want_logprob = true;
		assert_ok(submit(b, &clients[i], &opts, &retry_s, &err), &err);
		await(&clients[i]);
		check_whole(&clients[i]);
		batch_destroy(b);
		context_close(ctx);
	}
	assert_int_equal(clients[0].n, clients[1].n);
	for (uint32_t k = 0; k < clients[0].n; k++) {
		assert_int_equal(clients[0].token[k].id, clients[1].token[k].id);
		assert_true(clients[0].token[k].logprob == clients[1].token[k].logprob);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(batch__answers_as_one_user_would_be),
		cmocka_unit_test(batch__shares_a_context_from_wherever_it_comes),
		cmocka_unit_test(batch__gets_the_same_bits_from_either_side),
		cmocka_unit_test(batch__is_right_in_any_order),
		cmocka_unit_test(batch__goes_on_when_blocks_run_out),
		cmocka_unit_test(batch__refuses_what_will_never_fit),
		cmocka_unit_test(batch__finds_what_is_the_same),
		cmocka_unit_test(batch__computes_the_same_once),
		cmocka_unit_test(batch__bounds_its_queue_and_is_fair),
		cmocka_unit_test(batch__lets_nobody_fill_a_shared_queue),
		cmocka_unit_test(batch__ends_who_is_in_flight),
		cmocka_unit_test(batch__tells_probabilities),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
