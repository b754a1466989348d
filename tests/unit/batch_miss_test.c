// SPDX-License-Identifier: MIT
/* Batched answers when a context's stream fails, its memory is lost, or it is another model's. */
#include "batch_rig.h"

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

/* With how likely its tokens were. */
static void ask_likelihoods(struct batch *b, struct client *c, struct context *ctx)
{
	struct batch_request_opts opts = ask_opts(c, ctx);
	struct lslm_error err = { 0 };
	double retry_s;

	opts.want_logprob = true;
	assert_ok(submit(b, c, &opts, &retry_s, &err), &err);
	await(c);
	check_whole(c);
}

/* Of one segment, as what replaces the map is: cut where two sides meet, weights are rounded against another maximum. */
static void ask_own(struct client own[2])
{
	struct batch *b = batch_of((struct batch_opts){ 0 });
	struct context *ctx = attach(context_path, CONTEXT_COMPUTE);

	for (uint32_t i = 0; i < 2; i++)
		ask_likelihoods(b, &own[i], ctx);
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
	struct client own[2] = { { .q = &questions[2] }, { .q = &questions[3] } };
	const struct kv_hash mapped = *context_values(ctx);
	struct lslm_error err = { 0 };
	struct batch_stats stats;
	struct buffer *stolen;
	uint64_t generation;
	bool gate = false;

	ask_own(own);
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
		ask_likelihoods(b, &later[i], ctx);
		assert_int_equal(later[i].n, own[i].n);
		for (uint32_t k = 0; k < later[i].n; k++)
			assert_true(fabsf(later[i].token[k].logprob - own[i].token[k].logprob) <
				    1e-4F);
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

/* All of what travels may come between one look and the next: the layers that are computed here are still to be computed. */
static void run__is_computed_however_fast_the_rest_comes(void **st)
{
	const uint64_t whole = n_context / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
	struct lslm_error err = { 0 };

	for (uint32_t i = 0; i < 300; i++) {
		struct context *c = attach(spliced_path, CONTEXT_BOTH);
		int rc;

		while (!(rc = context_settle_step(c, 0, &err)))
			;
		assert_int_equal(rc, 1);
		assert_int_equal(context_work(c), whole);
		context_close(c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(batch__computes_what_a_stream_owes),
		cmocka_unit_test(batch__goes_on_without_a_lost_buffer),
		cmocka_unit_test(batch__keeps_nothing_behind_a_lost_map),
		cmocka_unit_test(batch__computes_a_run_of_layers),
		cmocka_unit_test(run__is_computed_however_fast_the_rest_comes),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
