// SPDX-License-Identifier: MIT
#include "engine/batch.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "engine/batch_context.h"
#include "engine/batch_kv.h"
#include "engine/batch_queue.h"
#include "engine/batch_shares.h"
#include "engine/batch_request.h"
#include "engine/sequence.h"

enum {
	DEFAULT_RUNNING = 64,
	DEFAULT_QUEUED = 256,
	/*
	 * Prompt tokens of a step in which others decode. Fewer would waste what reading the
	 * weights costs.
	 */
	LEAST_PREFILL = 32,
	MOST_PREFILL = 256,
	WORTH_WAITING = 8, /* tokens that somebody else computes in this step */
	MEASURE_ROWS = 16, /* a step with so many prompt tokens says how fast they are */
	POLL_MS = 5, /* while only streams are waited for */
};
/* Seconds that prompt tokens may add to a step in which others decode. */
static const double most_stall = 0.1;
/* Seconds after which to try again: where nothing is known, and at most. */
static const double first_retry = 1, most_retry = 60;

struct batch {
	struct engine *e;
	uint32_t n_ctx, max_running;
	pthread_t thread;
	bool has_thread;

	pthread_mutex_t lock; /* of what is below, up to the next blank line */
	pthread_cond_t work; /* for the thread */
	pthread_cond_t ended; /* a request did */
	struct batch_request *incoming; /* in order */
	struct batch_shares waiting; /* those that were never admitted */
	uint32_t n_left; /* not done */
	bool draining, stop, stirred; /* something happened that the thread should look at */
	double last_end,
		interval; /* seconds between two ends of requests, the latest weighing an eighth */
	struct batch_stats stats;

	/* The thread's. */
	struct batch_kv kv;
	struct batch_queue queue;
	struct batch_context *contexts;
	struct batch_request **running; /* [max_running], the oldest first */
	uint32_t n_running;
	uint64_t orders;
	float *logits; /* [max_running][n_vocab] */
	size_t logits_bytes;
	double prefill_rate; /* prompt tokens per second; 0: not known */

	/* Of a step. */
	struct engine_part *parts; /* [max_running] */
	struct batch_request **members; /* whose part */
	uint32_t n_parts;
	struct batch_request **sampled; /* those that have logits, in order */
	uint32_t n_sampled;
};

/* --- the end of a request --- */

/* How often requests end says when the queue will have moved. */
static void note_end(struct batch *b, enum batch_end end, const struct batch_request *r)
{
	const double now = clock_seconds();
	const bool waiting = !r->order;

	pthread_mutex_lock(&b->lock);
	if (b->last_end > 0)
		b->interval = b->interval > 0 ?
				      b->interval + (now - b->last_end - b->interval) / 8 :
				      now - b->last_end;
	b->last_end = now;
	if (waiting)
		batch_shares_give(&b->waiting, r->tenant);
	else
		b->stats.tokens_cached += r->result.cached_tokens;
	b->stats.cancelled += end == BATCH_CANCELLED || end == BATCH_DEADLINE;
	b->stats.failed += end == BATCH_FAILED;
	pthread_mutex_unlock(&b->lock);
}

/* One that is in no list any more. */
static void finish(struct batch *b, struct batch_request *r, enum batch_end end,
		   const struct lslm_error *why)
{
	note_end(b, end, r);
	batch_context_leave(&b->contexts, r->known);
	batch_request_finish(r, end, why);
	pthread_mutex_lock(&b->lock);
	b->n_left--;
	pthread_cond_broadcast(&b->ended);
	pthread_mutex_unlock(&b->lock);
}

static void stop_running(struct batch *b, struct batch_request *r, bool again)
{
	uint32_t i = 0;

	while (b->running[i] != r)
		i++;
	memmove(b->running + i, b->running + i + 1,
		(--b->n_running - i) * sizeof(struct batch_request *));
	/* Also what was computed for nobody's good may be of use to the next one. */
	batch_kv_offer(&b->kv, r, true);
	batch_kv_end(&b->kv, r);
	r->parked = false;
	batch_queue_leave(&b->queue, r, again);
}

static void preempt(struct batch *b, struct batch_request *r)
{
	stop_running(b, r, true);
	pthread_mutex_lock(&b->lock);
	b->stats.preempted++;
	pthread_mutex_unlock(&b->lock);
}

static void end_running(struct batch *b, struct batch_request *r, enum batch_end end,
			const struct lslm_error *why)
{
	stop_running(b, r, false);
	finish(b, r, end, why);
}

static void end_queued(struct batch *b, struct batch_request *r, enum batch_end end,
		       const struct lslm_error *why)
{
	batch_queue_take(&b->queue, r, false);
	finish(b, r, end, why);
}

/* Is it over, whatever becomes of it? */
static bool is_over(const struct batch_request *r, double now, enum batch_end *end)
{
	if (atomic_load(&r->cancelled))
		*end = BATCH_CANCELLED;
	else if (r->deadline > 0 && now >= r->deadline)
		*end = BATCH_DEADLINE;
	else
		return false;
	return true;
}

static void sweep(struct batch *b)
{
	const double now = clock_seconds();
	struct batch_request *r, *next;
	enum batch_end end;

	for (uint32_t i = b->n_running; i-- > 0;)
		if (is_over(b->running[i], now, &end))
			end_running(b, b->running[i], end, NULL);
	for (r = b->queue.first; r; r = next) {
		next = r->next;
		if (is_over(r, now, &end))
			end_queued(b, r, end, NULL);
	}
}

/* --- contexts --- */

/* Every request of a context that may not, or cannot, go on. */
static void end_users(struct batch *b, const struct batch_context *c, bool all,
		      const struct lslm_error *why)
{
	struct batch_request *r, *next;

	for (uint32_t i = b->n_running; i-- > 0;) {
		r = b->running[i];
		if (r->known == c && (all || !r->compute_on_miss))
			end_running(b, r, BATCH_FAILED, why);
	}
	for (r = b->queue.first; r; r = next) {
		next = r->next;
		if (r->known == c && (all || !r->compute_on_miss))
			end_queued(b, r, BATCH_FAILED, why);
	}
}

/*
 * The context's values are other ones from now on, so what was computed after the old ones is of no use to anybody: its
 * requests are queued again, and compute that anew when the context is there.
 */
static void begin_anew(struct batch *b, const struct batch_context *c)
{
	const struct kv_hash *values = context_values(c->context);

	for (uint32_t i = b->n_running; i-- > 0;) {
		struct batch_request *r = b->running[i];

		if (r->known == c && !kv_hash_equal(&r->scope.context, values))
			preempt(b, r);
	}
	for (struct batch_request *r = b->queue.first; r; r = r->next)
		if (r->known == c)
			r->scope.context = *values;
}

/*
 * Its stream failed or its buffer lost its contents. Where it is computed here with the same values, what requests
 * have computed after it stays as true as it was, and they go on when the context is there again.
 */
static void lose(struct batch *b, struct batch_context *c, const struct lslm_error *why)
{
	const bool streamed = context_is_streamed(c->context);
	struct lslm_error miss = *why;

	c->settled = false;
	c->users++; /* so that it stays while its users end */
	if (streamed) {
		context_give_up(c->context, why);
		if (context_miss(c->context)->code)
			miss = *context_miss(c->context);
	}
	if (!streamed || context_must_stream(c->context))
		end_users(b, c, !streamed, &miss);
	begin_anew(b, c);
	for (uint32_t i = 0; i < b->n_running; i++)
		if (b->running[i]->known == c) {
			context_unshare(c->context, b->running[i]->seq);
			sequence_unshare(b->running[i]->seq);
			b->running[i]->parked = true;
		}
	batch_context_leave(&b->contexts, c);
}

/* Those who had to wait for it in the middle have it again. */
static void resume(struct batch *b, const struct batch_context *c)
{
	for (uint32_t i = b->n_running; i-- > 0;) {
		struct batch_request *r = b->running[i];
		struct lslm_error err;

		if (r->known != c || !r->parked)
			continue;
		r->parked = false;
		if (context_share(c->context, r->seq, &err))
			end_running(b, r, BATCH_FAILED, &err);
	}
}

/* Prompt tokens of a step in which others decode, and of a piece of a context. */
static uint32_t shared_prefill(const struct batch *b)
{
	const double n = b->prefill_rate * most_stall;

	return n < LEAST_PREFILL ? LEAST_PREFILL : n > MOST_PREFILL ? MOST_PREFILL : (uint32_t)n;
}

static bool anyone_runs(const struct batch *b)
{
	for (uint32_t i = 0; i < b->n_running; i++)
		if (!b->running[i]->parked)
			return true;
	return false;
}

/* A piece of a context that has to settle: whether there was anything to do. */
static bool settle(struct batch *b)
{
	struct batch_context *c = batch_context_unsettled(&b->contexts);
	uint32_t most = 0, head;
	uint64_t before;
	struct lslm_error err;
	int rc;

	if (!c)
		return false;
	if (anyone_runs(b))
		most = (shared_prefill(b) + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS *
		       KV_BLOCK_TOKENS;
	before = context_work(c->context);
	head = context_computed(c->context);
	rc = context_settle_step(c->context, most, &err);
	pthread_mutex_lock(&b->lock);
	b->stats.context_tokens += (context_computed(c->context) - head) * KV_BLOCK_TOKENS;
	pthread_mutex_unlock(&b->lock);
	if (rc == 1) {
		c->settled = true;
		resume(b, c);
	} else if (rc == -EIO || rc == -ESTALE) {
		lose(b, c, &err);
	} else if (rc < 0) {
		end_users(b, c, true, &err);
	} else {
		return context_work(c->context) != before;
	}
	return true;
}

/* --- who runs --- */

static void take_in(struct batch *b, struct batch_request *r)
{
	struct lslm_error err;
	int rc = batch_queue_reserve(&b->queue, &err);

	if (!rc && r->context) {
		r->known = batch_context_use(&b->contexts, r->context);
		rc = r->known ? 0 : error_set(&err, -ENOMEM, "out of memory");
		/* Only here they do not change meanwhile. */
		r->scope.context = *context_values(r->context);
	}
	if (rc)
		finish(b, r, BATCH_FAILED, &err);
	else
		batch_queue_add(&b->queue, r);
}

static bool ready(void *arg, const struct batch_request *r)
{
	return !r->known || r->known->settled;
}

static void start(struct batch *b, struct batch_request *r)
{
	struct lslm_error err;
	uint32_t i = b->n_running++;
	int rc;

	if (!r->order) {
		r->order = ++b->orders;
		r->started = clock_seconds();
		r->result.queued_s = r->started - r->submitted;
		pthread_mutex_lock(&b->lock);
		batch_shares_give(&b->waiting, r->tenant);
		pthread_mutex_unlock(&b->lock);
	}
	batch_queue_take(&b->queue, r, true);
	for (; i && b->running[i - 1]->order > r->order; i--)
		b->running[i] = b->running[i - 1];
	b->running[i] = r;
	r->fresh = true;
	r->waited = false;
	rc = batch_kv_begin(&b->kv, r, &err);
	if (rc)
		end_running(b, r, BATCH_FAILED, &err);
}

static void admit(struct batch *b)
{
	while (b->n_running < b->max_running) {
		struct batch_request *r = batch_queue_next(&b->queue, ready, NULL);

		/* Nobody overtakes one that is too large for now, or it would wait for ever. */
		if (!r || (b->n_running && !batch_kv_fits(&b->kv, r)))
			return;
		start(b, r);
	}
}

/* Room for n tokens of r, whatever younger ones it costs: whether r itself is still running. */
static bool make_room(struct batch *b, struct batch_request *r, uint32_t n)
{
	while (batch_kv_grow(&b->kv, r, n)) {
		struct batch_request *youngest = b->running[b->n_running - 1];

		preempt(b, youngest);
		if (youngest == r)
			return false;
	}
	return true;
}

/* --- a step --- */

static bool decodes(const struct batch_request *r)
{
	return !r->parked && batch_request_pending(r) == 1;
}

/*
 * Several that begin alike, as those do who were waiting for the same context: one computes it, and
 * the others find it when it is there.
 */
static bool computed_by_another(const struct batch *b, const struct batch_request *r)
{
	const uint32_t have = r->seq->own.n_tokens;

	for (uint32_t i = 0; i < b->n_parts; i++) {
		const struct batch_request *p = b->members[i];
		const uint32_t most = r->n_tokens < p->n_tokens ? r->n_tokens : p->n_tokens;
		uint32_t same = 0;

		if (p->seq->own.n_tokens >= p->n_given || !prefix_scope_equal(&p->scope, &r->scope))
			continue;
		while (same < most && p->tokens[same] == r->tokens[same])
			same++;
		if (same >= have + WORTH_WAITING && p->seq->own.n_tokens < same)
			return true;
	}
	return false;
}

/* Is it the turn of one that computed nothing yet? */
static bool begins(struct batch *b, struct batch_request *r)
{
	if (b->kv.tree && computed_by_another(b, r)) {
		r->waited = true;
		return false;
	}
	if (r->waited)
		batch_kv_find(&b->kv, r);
	/* Where there are no rows left it has to wait, too. */
	r->waited = true;
	return true;
}

static void add_part(struct batch *b, struct batch_request *r, uint32_t n)
{
	const bool last = n == batch_request_pending(r) && r->n_predict;

	if (r->fresh && !r->result.generated_tokens)
		r->result.cached_tokens = r->n_shared + r->seq->own.n_tokens;
	r->fresh = false;

	b->members[b->n_parts] = r;
	b->parts[b->n_parts++] = (struct engine_part){
		.seq = r->seq,
		.tokens = r->tokens + r->seq->own.n_tokens,
		.n = n,
		.rows = last,
	};
	if (last)
		b->sampled[b->n_sampled++] = r;
}

/* One token of everybody who decodes; what is left is for prompts, the oldest first. */
static void plan(struct batch *b)
{
	uint32_t decoding = 0, prefill, rows;

	b->n_parts = b->n_sampled = 0;
	for (uint32_t i = 0; i < b->n_running; i++)
		decoding += decodes(b->running[i]);
	rows = ENGINE_BATCH - decoding;
	prefill = decoding ? shared_prefill(b) : rows;
	prefill = prefill < rows ? prefill : rows;
	/* The array gets shorter from its end when there is no room. */
	for (uint32_t i = 0; i < b->n_running; i++) {
		struct batch_request *r = b->running[i];
		uint32_t n = 1;

		if (r->parked || (r->fresh && !begins(b, r)))
			continue;
		if (!decodes(r)) {
			n = batch_request_pending(r);
			n = n < prefill ? n : prefill;
		}
		if (!n || !make_room(b, r, n))
			continue;
		if (!decodes(r))
			prefill -= n;
		add_part(b, r, n);
	}
}

static void sample_item(void *arg, uint32_t item, unsigned int thread)
{
	const struct batch *b = arg;
	const uint32_t n_vocab = b->e->model->params.n_vocab;

	batch_request_sample(b->sampled[item], b->e->model->tokenizer,
			     b->logits + (size_t)item * n_vocab, n_vocab);
}

static void measure(struct batch *b, double seconds)
{
	uint32_t prompt = 0, all = 0;
	double rate;

	for (uint32_t i = 0; i < b->n_parts; i++) {
		const bool answer = b->members[i]->seq->own.n_tokens > b->members[i]->n_given;

		prompt += answer ? 0 : b->parts[i].n;
		all += b->parts[i].n;
	}
	pthread_mutex_lock(&b->lock);
	b->stats.steps++;
	b->stats.tokens_prefilled += prompt;
	b->stats.tokens_generated += b->n_sampled;
	pthread_mutex_unlock(&b->lock);
	if (prompt < MEASURE_ROWS)
		return;
	rate = all / seconds;
	b->prefill_rate = b->prefill_rate > 0 ? (b->prefill_rate + rate) / 2 : rate;
}

/* After a pass that r was in. */
static void advance(struct batch *b, struct batch_request *r, bool sampled)
{
	enum batch_end end;

	batch_kv_offer(&b->kv, r, !r->result.generated_tokens);
	if (sampled) {
		if (batch_request_say(r, &end))
			end_running(b, r, end, NULL);
	} else if (!batch_request_pending(r)) {
		end_running(b, r, BATCH_LENGTH, NULL);
	}
}

static void pass_failed(struct batch *b, uint32_t part, const struct lslm_error *err)
{
	const bool stream = err->code == -EIO || err->code == -ESTALE;

	if (part < b->n_parts && stream && b->members[part]->known) {
		lose(b, b->members[part]->known, err);
		return;
	}
	for (uint32_t i = 0; i < b->n_parts; i++)
		if (part == i || part >= b->n_parts)
			end_running(b, b->members[i], BATCH_FAILED, err);
}

static bool step(struct batch *b)
{
	const double began = clock_seconds();
	struct lslm_error err;
	uint32_t failed;

	plan(b);
	if (!b->n_parts)
		return false;
	if (engine_pass(b->e, b->parts, b->n_parts, b->n_sampled ? b->logits : NULL, &failed,
			&err)) {
		pass_failed(b, failed, &err);
		return true;
	}
	pool_run(b->e->pool, b->n_sampled, sample_item, b);
	measure(b, clock_seconds() - began);
	for (uint32_t i = 0; i < b->n_parts; i++)
		advance(b, b->members[i], b->parts[i].rows);
	return true;
}

/* --- the thread --- */

static void publish_stats(struct batch *b)
{
	struct batch_stats *s = &b->stats;

	s->running = b->n_running;
	s->queued = b->queue.n;
	s->blocks = kvpool_size(b->kv.pool);
	s->blocks_kept = kvpool_idle_blocks(b->kv.pool);
	s->blocks_used = s->blocks - s->blocks_kept - kvpool_free_blocks(b->kv.pool);
	s->blocks_evicted = b->kv.tree ? prefix_tree_evicted(b->kv.tree) : 0;
}

/* What came meanwhile; waits where there is nothing to do. NULL and *stop: the end. */
static struct batch_request *collect(struct batch *b, bool idle, bool *stop)
{
	struct batch_request *r;
	struct timespec until;

	pthread_mutex_lock(&b->lock);
	publish_stats(b);
	until = clock_after_ms(POLL_MS);
	while (idle && !b->incoming && !b->stop && !b->stirred)
		if (!b->queue.n && !b->n_running)
			pthread_cond_wait(&b->work, &b->lock);
		else if (pthread_cond_timedwait(&b->work, &b->lock, &until))
			break;
	b->stirred = false;
	r = b->incoming;
	b->incoming = NULL;
	*stop = b->stop;
	pthread_mutex_unlock(&b->lock);
	return r;
}

static void end_all(struct batch *b)
{
	while (b->n_running)
		end_running(b, b->running[b->n_running - 1], BATCH_CANCELLED, NULL);
	while (b->queue.first)
		end_queued(b, b->queue.first, BATCH_CANCELLED, NULL);
}

static void *batch_main(void *arg)
{
	struct batch *b = arg;
	bool idle = true, stop = false;

	while (!stop) {
		struct batch_request *r = collect(b, idle, &stop), *next;

		for (; r; r = next) {
			next = r->next;
			take_in(b, r);
		}
		if (stop)
			break;
		sweep(b);
		idle = !settle(b);
		admit(b);
		idle = !step(b) && idle;
	}
	end_all(b);
	return NULL;
}

/* --- from outside --- */

static void make_lock(struct batch *b)
{
	pthread_mutex_init(&b->lock, NULL);
	clock_cond_init(&b->work);
	clock_cond_init(&b->ended);
}

static int make_room_for_logits(struct batch *b, struct lslm_error *err)
{
	void *p;

	b->logits_bytes = (size_t)b->max_running * b->e->model->params.n_vocab * sizeof(*b->logits);
	p = mmap(NULL, b->logits_bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return error_set(err, -ENOMEM, "out of memory");
	/* As good as the text. */
	madvise(p, b->logits_bytes, MADV_DONTDUMP);
	b->logits = p;
	return 0;
}

static int allocate(struct batch *b, const struct batch_opts *o, struct lslm_error *err)
{
	const uint32_t n = b->max_running;
	int rc;

	b->running = calloc(n, sizeof(struct batch_request *));
	b->members = calloc(n, sizeof(struct batch_request *));
	b->sampled = calloc(n, sizeof(struct batch_request *));
	b->parts = calloc(n, sizeof(*b->parts));
	if (!b->running || !b->members || !b->sampled || !b->parts)
		return error_set(err, -ENOMEM, "out of memory");
	rc = make_room_for_logits(b, err);
	return rc ? rc : batch_kv_create(&b->kv, b->e, o->kv_bytes, !o->no_reuse, err);
}

int batch_create(struct batch **out, struct engine *e, const struct batch_opts *o,
		 struct lslm_error *err)
{
	const uint32_t trained = e->model->params.n_ctx_train;
	struct batch *b = calloc(1, sizeof(*b));
	int rc;

	if (!b)
		return error_set(err, -ENOMEM, "out of memory");
	b->e = e;
	b->n_ctx = o->n_ctx ? o->n_ctx : trained;
	b->n_ctx = b->n_ctx < KV_MAX_TOKENS ? b->n_ctx : KV_MAX_TOKENS;
	b->max_running = o->max_running ? o->max_running : DEFAULT_RUNNING;
	b->max_running = b->max_running < ENGINE_BATCH ? b->max_running : ENGINE_BATCH;
	b->waiting.max = o->max_queued ? o->max_queued : DEFAULT_QUEUED;
	b->waiting.shared = o->share_queue;
	b->stats.max_running = b->max_running;
	make_lock(b);
	rc = allocate(b, o, err);
	if (!rc) {
		rc = -pthread_create(&b->thread, NULL, batch_main, b);
		if (rc)
			rc = error_sys(err, rc, "cannot start the batch's thread");
		b->has_thread = !rc;
	}
	if (rc) {
		batch_destroy(b);
		return rc;
	}
	*out = b;
	return 0;
}

void batch_destroy(struct batch *b)
{
	if (!b)
		return;
	pthread_mutex_lock(&b->lock);
	b->stop = b->draining = true;
	pthread_cond_signal(&b->work);
	pthread_mutex_unlock(&b->lock);
	if (b->has_thread)
		pthread_join(b->thread, NULL);
	batch_kv_destroy(&b->kv);
	batch_queue_free(&b->queue);
	batch_shares_free(&b->waiting);
	if (b->logits)
		munmap(b->logits, b->logits_bytes);
	free(b->running);
	free(b->members);
	free(b->sampled);
	free(b->parts);
	pthread_cond_destroy(&b->work);
	pthread_cond_destroy(&b->ended);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

/* A quarter of the queue from now. */
static double retry_after(const struct batch *b)
{
	const double seconds = b->interval * (1 + b->waiting.max / 4.0);

	if (b->interval <= 0)
		return first_retry;
	return seconds < most_retry ? seconds : most_retry;
}

static int enqueue(struct batch *b, struct batch_request *r, double *retry_s,
		   struct lslm_error *err)
{
	struct batch_request **at = &b->incoming;
	int rc;

	if (b->draining)
		return error_set(err, -ESHUTDOWN, "shutting down: no more requests are taken");
	rc = batch_shares_take(&b->waiting, r->tenant, err);
	if (rc) {
		b->stats.refused++;
		*retry_s = retry_after(b);
		return rc;
	}
	while (*at)
		at = &(*at)->next;
	*at = r;
	b->n_left++;
	b->stats.requests++;
	pthread_cond_signal(&b->work);
	return 0;
}

int batch_submit(struct batch *b, const struct batch_request_opts *opts, struct batch_request **out,
		 double *retry_s, struct lslm_error *err)
{
	struct batch_request *r;
	int rc = batch_request_create(&r, b->e, b->n_ctx, kvpool_size(b->kv.pool), opts, err);

	if (rc)
		return rc;
	r->batch = b;
	atomic_fetch_add(&r->references, 1);
	*out = r;
	pthread_mutex_lock(&b->lock);
	rc = enqueue(b, r, retry_s, err);
	pthread_mutex_unlock(&b->lock);
	if (rc) {
		*out = NULL;
		batch_request_drop(r);
		batch_request_drop(r);
	}
	return rc;
}

void batch_cancel(struct batch_request *r)
{
	struct batch *b = r->batch;

	if (atomic_exchange(&r->cancelled, true))
		return;
	pthread_mutex_lock(&b->lock);
	b->stirred = true;
	pthread_cond_signal(&b->work);
	pthread_mutex_unlock(&b->lock);
}

void batch_release(struct batch_request *r)
{
	batch_request_drop(r);
}

uint32_t batch_drain(struct batch *b, double seconds)
{
	const double end = clock_seconds() + (seconds < 1e9 ? seconds : 1e9);
	const struct timespec until = { .tv_sec = (time_t)end,
					.tv_nsec = (long)((end - (double)(time_t)end) * 1e9) };
	uint32_t left;

	pthread_mutex_lock(&b->lock);
	b->draining = true;
	while (b->n_left && !pthread_cond_timedwait(&b->ended, &b->lock, &until))
		;
	left = b->n_left;
	pthread_mutex_unlock(&b->lock);
	return left;
}

void batch_stats(const struct batch *b, struct batch_stats *out)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)&b->lock;

	pthread_mutex_lock(lock);
	*out = b->stats;
	pthread_mutex_unlock(lock);
}
