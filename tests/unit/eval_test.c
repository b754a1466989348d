// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <math.h>
#include <unistd.h>

#include "compute/quant.h"
#include "engine/eval.h"
#include "engine/mapping.h"
#include "engine/splice.h"
#include "kv/manifest.h"

#define MODEL "tests/models/handbook-edge.gguf"

static struct model *model;

static int open_model(void **state)
{
	struct lslm_error err;

	return model_open(&model, MODEL, &err);
}

static int close_model(void **state)
{
	model_close(model);
	return 0;
}

static int read_as(struct eval_data *d, const char *suffix, const char *text, uint32_t limit,
		   struct lslm_error *err)
{
	char path[64];
	int fd, rc;

	snprintf(path, sizeof(path), "/tmp/eval-test-XXXXXX%s", suffix);
	fd = mkstemps(path, (int)strlen(suffix));
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	rc = eval_data_read(d, model, path, limit, err);
	unlink(path);
	return rc;
}

static struct eval_data lengths(uint32_t a, uint32_t b)
{
	return (struct eval_data){ .lengths = { a, b }, .n_lengths = 2 };
}

#define BOOK "{\"handbook\": \"The amber pump is in bay 4.\", \"questions\": ["
#define ASK  "{\"q\": \"Where is the amber pump?\", \"a\": \"The amber pump is in bay 4.\"}"

static void eval_data_read__questions(void **state)
{
	struct eval_data d = lengths(128, 256);
	const struct eval_question *q;
	struct lslm_error err;

	assert_ok(read_as(&d, ".jsonl", BOOK ASK ", " ASK "]}\n\n" BOOK ASK "]}\n", 0, &err), &err);
	assert_int_equal(d.n_books, 2);
	assert_int_equal(d.books[0].n_questions, 2);
	assert_int_equal(d.books[1].n_questions, 1);
	assert_int_equal(d.books[0].length, 0);
	q = &d.books[0].questions[1];
	assert_string_equal(q->text, "The amber pump is in bay 4.");
	assert_int_equal(q->answer[q->n_answer - 1], tokenizer_eos(model->tokenizer));
	eval_data_free(&d);

	d = lengths(128, 256);
	assert_ok(read_as(&d, ".jsonl", BOOK ASK "]}\n" BOOK ASK "]}\n", 1, &err), &err);
	assert_int_equal(d.n_books, 1);
	eval_data_free(&d);
}

static void eval_data_read__refuses(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ BOOK ASK "]}\n{", "line 2: not JSON" },
		{ "{\"questions\": [" ASK "]}", "line 1: a line needs \"handbook\"" },
		{ BOOK "]}", "a line needs" },
		{ BOOK "{\"q\": \"Where?\"}]}", "a question needs" },
		{ BOOK "7]}", "a question needs" },
		{ "\n", "no context" },
	};
	struct lslm_error err;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct eval_data d = lengths(128, 256);

		assert_int_equal(read_as(&d, ".jsonl", cases[i].text, 0, &err), -EINVAL);
		if (!strstr(err.text, cases[i].why))
			fail_msg("case %zu: %s", i, err.text);
		assert_int_equal(d.n_books, 0);
	}
	for (uint32_t bad = 0; bad < 2; bad++) {
		struct eval_data d = bad ? lengths(256, 128) : lengths(100, 256);

		assert_int_equal(read_as(&d, ".txt", "x", 0, &err), -EINVAL);
		assert_non_null(strstr(err.text, "ascend"));
	}
}

/* 200 words of one token or more: windows side by side, the context first, then a token to go on from. */
static void eval_data_read__text(void **state)
{
	struct eval_data d = lengths(128, 4096);
	char text[200 * 5 + 1];
	struct lslm_error err;
	int32_t *ids;
	size_t n;

	for (uint32_t i = 0; i < 200; i++)
		memcpy(text + (size_t)i * 5, i % 2 ? " pump" : " the ", 6);
	assert_ok(read_as(&d, ".txt", text, 0, &err), &err);
	assert_ok(tokenizer_encode(model->tokenizer, text, strlen(text), 0, &ids, &n, &err), &err);
	assert_int_equal(d.n_books, n / 128);
	assert_true(d.n_books > 1);
	assert_int_equal(d.n_skipped, 1); /* the length beyond the model's positions */
	for (uint32_t i = 0; i < d.n_books; i++) {
		const struct eval_book *b = &d.books[i];
		const int32_t *from = ids + (size_t)i * 128;

		assert_int_equal(b->n_tokens, 128 - EVAL_SUFFIX);
		assert_memory_equal(b->tokens, from, b->n_tokens * sizeof(*from));
		assert_int_equal(b->questions[0].ask[0], from[b->n_tokens]);
		assert_int_equal(b->questions[0].n_answer, EVAL_SUFFIX - 1);
		assert_memory_equal(b->questions[0].answer, from + b->n_tokens + 1,
				    (EVAL_SUFFIX - 1) * sizeof(*from));
		assert_null(b->questions[0].text);
	}
	free(ids);
	eval_data_free(&d);
}

/* 2 stripes of noise through a coder; returns the largest error relative to the largest of 32 neighbours. */
static double code(const char *name, struct eval_cost *cost)
{
	const struct kv_geometry geo = { 3, 2, 32 };
	const size_t n = 2 * kv_stripe_bytes(&geo, KV_LEVEL_F16) / sizeof(uint16_t);
	uint16_t *values = malloc(n * sizeof(*values)), *was = malloc(n * sizeof(*was));
	const struct eval_coder *c = eval_coder_find(name);
	int32_t tokens[130] = { 0 };
	struct lslm_error err;
	uint32_t seed = 1;
	double worst = 0;

	assert_non_null(c);
	assert_string_equal(eval_coder_name(c), name);
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		was[i] = values[i] = f32_to_f16((float)(seed >> 16) / 32768 - 1);
	}
	memset(cost, 0, sizeof(*cost));
	assert_ok(eval_coder_run(c, &geo, NULL, tokens, 130, (uint8_t *)values, cost, &err), &err);
	for (size_t g = 0; g < n; g += 32) {
		double max = 0, error = 0;

		for (size_t i = g; i < g + 32; i++) {
			max = fmax(max, fabs(f16_to_f32(was[i])));
			error = fmax(error, fabs(f16_to_f32(was[i]) - f16_to_f32(values[i])));
		}
		worst = fmax(worst, error / max);
	}
	assert_int_equal(cost->values, n);
	free(values);
	free(was);
	return worst;
}

static void eval_coder_run__costs_and_errors(void **state)
{
	struct eval_cost exact, q8, q4, q4h, zstd, own;

	assert_true(code("f16", &exact) == 0);
	assert_int_equal(exact.payload, 2 * exact.values);
	/* Half a step of 1/127, and the rounding of scale and result to f16. */
	assert_true(code("q8_0", &q8) < 0.5 / 127 + 0.001);
	assert_int_equal(q8.payload * 8, q8.values * 17 / 2);
	/* A whole step of 1/8 at the end that has no value of its own. */
	assert_true(code("q4_0", &q4) < 1.0 / 8 + 0.001);
	assert_int_equal(q4.payload * 8, q4.values * 9 / 2);
	/* A rotated error is spread over the head, of at most sqrt(32) times the largest value. */
	assert_true(code("q4_0h", &q4h) < 0.6);
	assert_int_equal(q4h.payload, q4.payload);
	assert_true(code("q8_zstd", &zstd) < 0.5 / 127 + 0.001);
	assert_true(zstd.payload < q8.payload * 1.01);
	/* Our levels, at least as good. Noise is the worst case of e. */
	assert_true(code("q8", &own) < 0.5 / 127 + 0.001);
	assert_int_equal(own.payload, q8.payload);
	code("q4", &own);
	assert_int_equal(own.payload, q4.payload);
	code("e", &own);
	assert_true(own.payload < q4.payload);
	assert_int_equal(own.overhead, q4.overhead + 2 * 3 * 4);
	assert_null(eval_coder_find("q5_0"));
	assert_null(eval_coder_at(100));
}

static void eval_coder_run__counts_the_manifest(void **state)
{
	const struct kv_geometry geo = { 3, 2, 32 };
	int32_t tokens[130] = { 0 };
	struct eval_cost cost;
	struct lslm_error err;
	struct manifest *m;
	size_t size;

	code("q8_0", &cost);
	assert_ok(manifest_new(&m, &geo, tokens, 130, KV_LEVEL_F16, &err), &err);
	assert_ok(manifest_encoded_size(m, &size, &err), &err);
	assert_int_equal(cost.overhead, size);
	manifest_free(m);
}

static int forget(void *arg, const struct eval_book *b, uint8_t *out, struct lslm_error *err)
{
	const struct kv_geometry *geo = arg;

	memset(out, 0, b->n_tokens / KV_BLOCK_TOKENS * kv_stripe_bytes(geo, KV_LEVEL_F16));
	return 0;
}

/* A handbook of 30 facts, one of which is asked for. */
static void write_book(char *text, size_t room)
{
	size_t at = (size_t)snprintf(text, room, "{\"handbook\": \"# Handbook\\n");

	for (uint32_t i = 0; i < 30; i++)
		at += (size_t)snprintf(text + at, room - at, "Key %u opens room %u. ", 10 + i,
				       101 + 7 * i);
	snprintf(
		text + at, room - at,
		"\", \"questions\": [{\"q\": \"What does key 14 open?\", \"a\": \"Key 14 opens room "
		"129.\"}]}\n");
}

static void eval_run__compares_with_the_first_way(void **state)
{
	struct eval_data d = { .lengths = { 512 }, .n_lengths = 1 };
	struct eval_score scores[3] = { 0 };
	struct eval_way ways[3] = {
		{ .name = "f16", .coder = eval_coder_find("f16") },
		{ .name = "q8_0", .coder = eval_coder_find("q8_0") },
		{ .name = "nothing", .make = forget },
	};
	struct engine *e;
	struct lslm_error err;
	char text[4096];

	write_book(text, sizeof(text));
	assert_ok(read_as(&d, ".jsonl", text, 0, &err), &err);
	assert_ok(engine_create(&e, model, 1, &err), &err);
	ways[2].arg = &e->geo;
	assert_ok(eval_run(e, &d, ways, 3, scores, NULL, &err), &err);
	assert_int_equal(scores[0].divergence.n, d.books[0].questions[0].n_answer);
	/* The reference against itself; a coder that loses next to nothing; a context that is gone. */
	assert_true(stats_mean(&scores[0].divergence).value == 0);
	assert_true(stats_mean(&scores[0].exact).value == 1);
	assert_true(stats_mean(&scores[0].f1).value == 1);
	assert_true(stats_mean(&scores[1].divergence).value > 0);
	assert_true(stats_mean(&scores[1].divergence).value < 0.01);
	assert_true(stats_mean(&scores[1].exact).value == 1);
	assert_true(stats_mean(&scores[2].divergence).value > 0.1);
	assert_true(stats_mean(&scores[2].exact).value == 0);
	assert_true(stats_mean(&scores[2].f1).value < 1);
	assert_true(stats_mean(&scores[2].surprise).value > stats_mean(&scores[0].surprise).value);
	for (size_t i = 0; i < 3; i++)
		eval_score_free(&scores[i]);
	engine_destroy(e);
	eval_data_free(&d);
}

/* The model with the signs of all embeddings changed: another model from its first layer on, with the same layers. */
static struct model *open_relative(void)
{
	const uint8_t *from = gguf_file_data(model->gguf);
	const size_t size = gguf_file_size(model->gguf), n = model->embd->size;
	const size_t at = (size_t)((const uint8_t *)model->embd->data - from);
	char path[] = "/tmp/eval-test-XXXXXX";
	uint8_t *copy = malloc(size);
	struct lslm_error err;
	struct model *m;
	int fd = mkstemp(path);

	memcpy(copy, from, size);
	for (size_t i = at + 1; i < at + n; i += 2)
		copy[i] ^= i % 3 ? 0x80 : 0;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, copy, size), (ssize_t)size);
	close(fd);
	assert_ok(model_open(&m, path, &err), &err);
	unlink(path);
	free(copy);
	return m;
}

/* Largest difference between two stripes in one layer. */
static double distance(const struct kv_geometry *g, const uint8_t *a, const uint8_t *b, uint32_t l)
{
	const uint16_t *x = (const uint16_t *)(a + l * kv_block_bytes(g, KV_LEVEL_F16));
	const uint16_t *y = (const uint16_t *)(b + l * kv_block_bytes(g, KV_LEVEL_F16));
	double most = 0;

	for (size_t i = 0; i < kv_block_bytes(g, KV_LEVEL_F16) / 2; i++)
		most = fmax(most, fabs(f16_to_f32(x[i]) - f16_to_f32(y[i])));
	return most;
}

/*
 * From layer 1 on the two have the same weights. So layers that one computes from the other's hidden state are the other's, and those that it
 * computes from the tokens are its own.
 */
static void splice_make__goes_on_from_the_hidden_state(void **state)
{
	struct model *relative = open_relative();
	const struct kv_geometry *g;
	struct engine *from, *to;
	uint8_t *theirs, *own, *out;
	struct lslm_error err;
	struct kv_run runs[3];
	int32_t tokens[64];

	for (int i = 0; i < 64; i++)
		tokens[i] = 20 + 11 * i;
	assert_ok(engine_create(&from, relative, 1, &err), &err);
	assert_ok(engine_create(&to, model, 1, &err), &err);
	g = &to->geo;
	runs[0] = splice_run(to, 1, 3);
	runs[1] = splice_run(to, 0, 2);
	runs[2] = splice_run(to, 0, 0);
	assert_ok(mapping_prefill(from, tokens, 64, &theirs, &err), &err);
	assert_ok(mapping_prefill(to, tokens, 64, &own, &err), &err);
	out = malloc(kv_stripe_bytes(g, KV_LEVEL_F16));
	for (uint32_t l = 0; l < 3; l++)
		assert_true(distance(g, theirs, own, l) > 0.5);

	assert_ok(splice_make(from, to, tokens, 64, &runs[0], NULL, NULL, out, &err), &err);
	for (uint32_t l = 0; l < 3; l++)
		assert_true(distance(g, out, theirs, l) < 0.05);
	assert_ok(splice_make(from, to, tokens, 64, &runs[1], NULL, NULL, out, &err), &err);
	assert_true(distance(g, out, own, 0) == 0 && distance(g, out, own, 1) == 0);
	assert_true(distance(g, out, theirs, 2) == 0);
	assert_ok(splice_make(from, to, tokens, 64, &runs[2], NULL, NULL, out, &err), &err);
	assert_memory_equal(out, theirs, kv_stripe_bytes(g, KV_LEVEL_F16));
	/* At a level the hidden state is coded, too: less exact, and never f16's layers. */
	for (uint32_t r = 0; r < 3; r++) {
		struct eval_cost cost = { 0 };
		double worst = 0;

		assert_ok(splice_make(from, to, tokens, 64, &runs[r], eval_coder_find("q8"), &cost,
				      out, &err),
			  &err);
		assert_int_equal(cost.payload, 64 * splice_bytes(to, &runs[r], KV_LEVEL_Q8));
		assert_int_equal(cost.values, 64 * splice_bytes(to, &runs[r], KV_LEVEL_F16) / 2);
		for (uint32_t l = 0; l < 3; l++)
			worst = fmax(worst, distance(g, out, r == 1 && l < 2 ? own : theirs, l));
		assert_true(worst > 0 && worst < 0.3);
	}
	assert_int_equal(splice_make(from, to, tokens, 64, &runs[0], eval_coder_find("q8_0"),
				     &(struct eval_cost){ 0 }, out, &err),
			 -ENOTSUP);
	/* 3 layers of 2 * 192 values; a run from above layer 0 brings 192 of hidden state. */
	assert_int_equal(splice_bytes(to, &runs[2], KV_LEVEL_F16), 3 * 768);
	assert_int_equal(splice_bytes(to, &runs[1], KV_LEVEL_F16), 768);
	assert_int_equal(splice_bytes(to, &runs[0], KV_LEVEL_F16), 768 + 384);
	/* At q8 34 bytes for 32 values. */
	assert_int_equal(splice_bytes(to, &runs[0], KV_LEVEL_Q8), (384 + 192) / 32 * 34);
	free(theirs);
	free(own);
	free(out);
	engine_destroy(from);
	engine_destroy(to);
	model_close(relative);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(eval_data_read__questions),
		cmocka_unit_test(eval_data_read__refuses),
		cmocka_unit_test(eval_data_read__text),
		cmocka_unit_test(eval_coder_run__costs_and_errors),
		cmocka_unit_test(eval_coder_run__counts_the_manifest),
		cmocka_unit_test(eval_run__compares_with_the_first_way),
		cmocka_unit_test(splice_make__goes_on_from_the_hidden_state),
	};

	return cmocka_run_group_tests(tests, open_model, close_model);
}
