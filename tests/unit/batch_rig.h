/* SPDX-License-Identifier: MIT */
/*
 * A batch, its clients, and the same questions asked one by one with a real model. A token that
 * differs is right only where the reference's two best are a tie (design.md, section 3); the
 * comparison of that answer ends there.
 */
#ifndef LSLM_TESTS_BATCH_RIG_H
#define LSLM_TESTS_BATCH_RIG_H

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

static inline uint32_t dice(uint32_t sides)
{
	state = state * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)state * sides >> 32);
}

static inline void best_two(const float *logits, uint32_t n, int32_t *first, int32_t *second)
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

static inline void feed(struct sequence *seq, const int32_t *tokens, uint32_t n, float *logits)
{
	struct lslm_error err = { 0 };

	for (uint32_t at = 0; at < n;) {
		const uint32_t m = n - at < ENGINE_BATCH ? n - at : ENGINE_BATCH;

		assert_ok(engine_forward(alone, seq, tokens + at, m, logits, 0, &err), &err);
		at += m;
	}
}

/* By the engine alone, one sequence, greedily. */
static inline void answer_alone(struct question *q)
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
static inline void make_question(struct question *q, bool with_context, uint32_t i)
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

static inline void wait_for_change(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	assert_int_equal(pthread_cond_timedwait(&changed, &lock, &until), 0);
}

static inline int on_token(void *arg, const struct batch_token *t)
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

static inline void on_done(void *arg, const struct batch_result *r)
{
	struct client *c = arg;

	pthread_mutex_lock(&lock);
	c->result = *r;
	c->done = ++n_done;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static inline struct batch_request_opts ask_opts(struct client *c, struct context *ctx)
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

static inline int submit(struct batch *b, struct client *c, const struct batch_request_opts *opts,
			 double *retry_s, struct lslm_error *err)
{
	c->n = c->done = 0;
	return batch_submit(b, opts, &c->request, retry_s, err);
}

static inline void ask(struct batch *b, struct client *c, struct context *ctx)
{
	struct batch_request_opts opts = ask_opts(c, ctx);
	struct lslm_error err = { 0 };
	double retry_s;

	assert_ok(submit(b, c, &opts, &retry_s, &err), &err);
}

/* Done, and the handle given back. */
static inline void await(struct client *c)
{
	pthread_mutex_lock(&lock);
	while (!c->done)
		wait_for_change();
	pthread_mutex_unlock(&lock);
	batch_release(c->request);
	c->request = NULL;
}

static inline void await_tokens(struct client *c, uint32_t n)
{
	pthread_mutex_lock(&lock);
	while (c->n < n && !c->done)
		wait_for_change();
	pthread_mutex_unlock(&lock);
}

/* Until there is another token than those so far: a client with a gate then holds the batch's thread. */
static inline void await_step(struct batch *b, uint64_t so_far)
{
	struct batch_stats stats;

	do {
		usleep(1000);
		batch_stats(b, &stats);
	} while (stats.tokens_generated <= so_far);
}

static inline void open_gate(bool *gate)
{
	pthread_mutex_lock(&lock);
	*gate = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* As far as it got. */
static inline void check_tokens(const struct client *c)
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

static inline void check_whole(const struct client *c)
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

static inline struct batch *batch_of(struct batch_opts opts)
{
	struct lslm_error err = { 0 };
	struct batch *b;

	if (!opts.kv_bytes)
		opts.kv_bytes = 64 << 20;
	assert_ok(batch_create(&b, engine, &opts, &err), &err);
	return b;
}

static inline struct context *attach(const char *path, enum context_source source)
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

enum { CLIENTS = 12 };

static struct question questions[2 * CLIENTS]; /* with the context, then without */

static inline void ask_all(struct batch *b, struct context *ctx, const struct question *q)
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

/* --- the model, its contexts and its questions --- */

static inline void damage(const char *path, const char *to, size_t from_end)
{
	struct lslm_error err = { 0 };
	size_t size;
	char *data;

	assert_ok(file_read(path, 64 << 20, &data, &size, &err), &err);
	data[size - from_end] ^= 1;
	assert_ok(file_write(to, data, size, 0600, FILE_REPLACE, &err), &err);
	free(data);
}

/* The model is its own donor; takes the map. */
static inline void publish_through(struct map *m, const char *text, const struct publish_opts *opts,
				   const char *to)
{
	struct publish_opts o = *opts;
	struct lslm_error err = { 0 };
	struct kv_identity id;
	struct kv_hash key;
	char path[80];

	snprintf(path, sizeof(path), "%s/some.map", dir);
	assert_ok(engine_identity(alone, &id, &err), &err);
	m->model_from = m->model_to = id.model;
	m->tokenizer = id.tokenizer;
	assert_ok(map_write(m, path, &err), &err);
	o.map = m;
	o.from = alone;
	assert_ok(publish_file(alone, text, strlen(text), &o, to, &key, &err), &err);
	unlink(path);
	map_free(m);
}

/* Layers 1 and 2 do not travel. */
static inline void publish_spliced(const char *text, const struct publish_opts *opts)
{
	const struct kv_run run = splice_run(alone, 1, 3);
	struct lslm_error err = { 0 };
	struct map *m;

	snprintf(spliced_path, sizeof(spliced_path), "%s/spliced.lskv", dir);
	snprintf(torn_path, sizeof(torn_path), "%s/torn.lskv", dir);
	assert_ok(map_new_run(&m, &alone->geo, &run, &err), &err);
	m->evaluation = (struct proof){ PROOF_EXACT, 8, 80, 0.7, 0.7, 0, 0, 0, PROOF_NO_WORSE };
	publish_through(m, text, opts, spliced_path);
	damage(spliced_path, torn_path, 1);
}

/* The model's own keys and values, but for what is added to each: through a map that is said to be good. */
static inline void publish_mapped(const char *text, const struct publish_opts *opts)
{
	const struct kv_geometry *g = &alone->geo;
	struct map_part *shape = calloc(2 * (size_t)g->n_layer, sizeof(*shape));
	struct lslm_error err = { 0 };
	struct map *m;

	snprintf(mapped_path, sizeof(mapped_path), "%s/mapped.lskv", dir);
	for (uint32_t i = 0; i < 2 * g->n_layer; i++)
		shape[i].keep = 1;
	assert_ok(map_new(&m, g, g, shape, &err), &err);
	for (uint32_t i = 0; i < 2 * g->n_layer; i++)
		for (uint32_t k = 0; k < map_n_out(m); k++)
			m->parts[i].bias[k] = (k + i) % 3 ? 0.5F : -1.0F;
	m->evaluation = (struct proof){ PROOF_EXACT, 8, 80, 0.7, 0.75, 0.05, 0.01, 0.09 };
	publish_through(m, text, opts, mapped_path);
	free(shape);
}

static inline void publish(const char *text)
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

static inline int setup(void **st)
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

static inline int teardown(void **st)
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

#endif
