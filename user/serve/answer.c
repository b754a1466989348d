// SPDX-License-Identifier: MIT
#include "serve/answer.h"

#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "serve/reply.h"

enum {
	ID_BYTES = 12,
	STREAM_PIECE = 4096,
	/*
	 * Of text in one event. A client that did not read for a while has a whole answer waiting, and the batch's
	 * thread waits while an event is written, with all log-probabilities of its text.
	 */
	EVENT_TEXT = 512,
};

/* A token with its log-probabilities, where they were asked for. */
struct said {
	struct batch_token token;
	size_t start; /* of its text */
};

struct choice {
	struct answer *answer;
	uint32_t index;
	struct batch_request *handle; /* NULL: it was not submitted */
	char *text;
	size_t len, room;
	size_t seen; /* looked at for stop strings */
	size_t shown; /* may be told */
	size_t told;
	struct said *said;
	uint32_t n_said, said_room, said_told;
	uint32_t tokens; /* that arrived */
	bool by_stop, no_memory, ended;
	bool begin_told, end_told;
	struct batch_result result; /* once it has ended */
};

struct answer {
	struct answers *all;
	struct answer *next, **at; /* of the living, then of the dead; NULL before */
	/* Of all->lock. */
	uint32_t refs;
	bool stopped;

	/* Constant once it has started. */
	struct MHD_Connection *conn;
	const struct tokenizer *tokenizer;
	uint32_t model_index;
	struct tenant *tenant;
	struct attached_context *context;
	struct openai_head head;
	char *model_name;
	char id[16 + 2 * ID_BYTES];
	bool stream, include_usage, logprobs;
	struct stop stop;
	uint32_t n;

	pthread_mutex_t lock; /* of all below */
	bool suspended; /* the connection */
	bool gone; /* its client */
	uint32_t running; /* choices that have not ended */
	bool usage_told, over_told;
	char *event; /* being sent */
	size_t event_len, event_at;
	struct choice choices[OPENAI_MAX_CHOICES];
};

struct answers {
	struct answers_opts opts;
	pthread_mutex_t lock;
	struct answer *living, *dead;
	uint32_t n;
	bool stopping;
};

int answers_open(struct answers **out, const struct answers_opts *opts, struct lslm_error *err)
{
	struct answers *all = calloc(1, sizeof(*all));

	if (!all)
		return error_sys(err, -ENOMEM, "answers");
	all->opts = *opts;
	pthread_mutex_init(&all->lock, NULL);
	*out = all;
	return 0;
}

void answers_close(struct answers *all)
{
	if (!all)
		return;
	answers_sweep(all);
	pthread_mutex_destroy(&all->lock);
	free(all);
}

/* ---- owners ---- */

static void unlink_answer(struct answer *a)
{
	*a->at = a->next;
	if (a->next)
		a->next->at = a->at;
}

static void link_answer(struct answer *a, struct answer **list)
{
	a->next = *list;
	a->at = list;
	if (a->next)
		a->next->at = &a->next;
	*list = a;
}

static void hold(struct answer *a)
{
	pthread_mutex_lock(&a->all->lock);
	a->refs++;
	pthread_mutex_unlock(&a->all->lock);
}

static void let_go(struct answer *a)
{
	struct answers *all = a->all;
	bool last;

	pthread_mutex_lock(&all->lock);
	last = --a->refs == 0;
	if (last) {
		if (a->at)
			unlink_answer(a);
		link_answer(a, &all->dead);
	}
	pthread_mutex_unlock(&all->lock);
	if (last)
		all->opts.wake(all->opts.arg);
}

static void free_answer(struct answer *a)
{
	for (uint32_t i = 0; i < a->n; i++) {
		if (a->choices[i].handle)
			batch_release(a->choices[i].handle);
		free(a->choices[i].text);
		free(a->choices[i].said);
	}
	if (a->context)
		attached_put(a->context);
	stop_free(&a->stop);
	pthread_mutex_destroy(&a->lock);
	free(a->event);
	free(a->model_name);
	free(a);
}

void answers_sweep(struct answers *all)
{
	struct answer *dead, *a;
	uint32_t n = 0;

	pthread_mutex_lock(&all->lock);
	dead = all->dead;
	all->dead = NULL;
	pthread_mutex_unlock(&all->lock);
	for (; (a = dead); n++) {
		dead = a->next;
		free_answer(a);
	}
	/* Only now: who waits for the last answer wants its context closed. */
	pthread_mutex_lock(&all->lock);
	all->n -= n;
	pthread_mutex_unlock(&all->lock);
}

uint32_t answers_count(struct answers *all)
{
	uint32_t n;

	pthread_mutex_lock(&all->lock);
	n = all->n;
	pthread_mutex_unlock(&all->lock);
	return n;
}

/* ---- what there is to tell; under the answer's lock ---- */

static bool has_news(const struct choice *c)
{
	return c->shown > c->told || (c->tokens && !c->begin_told) || (c->ended && !c->end_told);
}

static bool is_ready(const struct answer *a)
{
	if (a->gone || !a->running)
		return true;
	for (uint32_t i = 0; a->stream && i < a->n; i++)
		if (has_news(&a->choices[i]))
			return true;
	return false;
}

static void wake(struct answer *a)
{
	if (!a->suspended || !is_ready(a))
		return;
	a->suspended = false;
	MHD_resume_connection(a->conn);
}

/* ---- the batch's side ---- */

static int make_room(struct choice *c, size_t n)
{
	size_t room = c->room ? c->room : 256;
	char *text;

	while (room < c->len + n)
		room *= 2;
	if (room == c->room)
		return 0;
	text = realloc(c->text, room);
	if (!text)
		return -ENOMEM;
	c->text = text;
	c->room = room;
	return 0;
}

static int keep_logprobs(struct choice *c, const struct batch_token *t)
{
	struct said *said;
	uint32_t room;

	if (!c->answer->logprobs)
		return 0;
	if (c->n_said == c->said_room) {
		room = c->said_room ? 2 * c->said_room : 16;
		said = realloc(c->said, room * sizeof(*said));
		if (!said)
			return -ENOMEM;
		c->said = said;
		c->said_room = room;
	}
	c->said[c->n_said++] = (struct said){ *t, c->len };
	return 0;
}

/* Non-zero: the choice ends here. */
static int take_token(struct choice *c, const struct batch_token *t)
{
	const struct answer *a = c->answer;
	size_t n;

	c->tokens++;
	if (t->is_end)
		return 0;
	n = tokenizer_piece(a->tokenizer, t->id, false, NULL, 0);
	if (make_room(c, n) || keep_logprobs(c, t)) {
		c->no_memory = true;
		return 1;
	}
	tokenizer_piece(a->tokenizer, t->id, false, c->text + c->len, n);
	c->len += n;
	c->shown = stop_scan(&a->stop, c->text, c->len, c->seen, &c->by_stop);
	c->seen = c->len;
	if (c->by_stop)
		c->len = c->shown;
	return c->by_stop;
}

static int on_token(void *arg, const struct batch_token *t)
{
	struct choice *c = arg;
	struct answer *a = c->answer;
	int end = 1;

	pthread_mutex_lock(&a->lock);
	if (!a->gone)
		end = take_token(c, t);
	wake(a);
	pthread_mutex_unlock(&a->lock);
	return end;
}

static uint64_t tokens_of(const struct answer *a)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < a->n; i++)
		if (a->choices[i].ended)
			sum += (uint64_t)a->choices[i].result.prompt_tokens +
			       a->choices[i].result.generated_tokens;
	return sum;
}

static void on_done(void *arg, const struct batch_result *r)
{
	struct choice *c = arg;
	struct answer *a = c->answer;
	const struct answers_opts *o = &a->all->opts;

	o->ended(o->arg, a->model_index, r, c->by_stop);
	pthread_mutex_lock(&a->lock);
	c->result = *r;
	c->ended = true;
	c->shown = c->len; /* what was held back is no stop string now */
	/* Before anybody is told: the next request finds the place free. */
	if (!--a->running)
		tenant_give(a->tenant, a->n, tokens_of(a), clock_seconds());
	wake(a);
	pthread_mutex_unlock(&a->lock);
	let_go(a);
}

/* ---- the connection's side ---- */

static void name_answer(struct answer *a, const struct openai_request *r,
			const struct answer_opts *o)
{
	uint8_t random[ID_BYTES];
	char hex[2 * ID_BYTES + 1];

	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(hex, sizeof(hex), random, sizeof(random));
	snprintf(a->id, sizeof(a->id), "%s-%s", r->chat ? "chatcmpl" : "cmpl", hex);
	a->head = (struct openai_head){
		.chat = r->chat,
		.id = a->id,
		.model = a->model_name,
		.created = time(NULL),
		.tells_usage = r->stream && r->include_usage,
	};
}

static struct answer *new_answer(struct answers *all, struct openai_request *r,
				 const struct answer_opts *o)
{
	struct answer *a = calloc(1, sizeof(*a));

	if (a)
		a->model_name = strdup(o->model_name);
	if (!a || !a->model_name) {
		free(a);
		return NULL;
	}
	pthread_mutex_init(&a->lock, NULL);
	a->all = all;
	a->conn = o->conn;
	a->tokenizer = o->model->tokenizer;
	a->model_index = o->model_index;
	a->tenant = o->tenant;
	a->context = o->context;
	a->stream = r->stream;
	a->include_usage = r->include_usage;
	a->logprobs = r->logprobs;
	a->stop = r->stop;
	r->stop = (struct stop){ 0 };
	a->n = a->running = r->n;
	for (uint32_t i = 0; i < a->n; i++) {
		a->choices[i].answer = a;
		a->choices[i].index = i;
	}
	name_answer(a, r, o);
	return a;
}

static int submit(struct choice *c, const struct openai_request *r, const struct answer_opts *o,
		  double *retry_s, struct lslm_error *err)
{
	struct batch_request_opts b = {
		.context = o->context ? attached_get(o->context) : NULL,
		.prompt = o->prompt,
		.n_prompt = o->n_prompt,
		.n_predict = o->n_predict,
		.sampling = r->sampling,
		.logprobs = r->logprobs ? r->top_logprobs : 0,
		.want_logprob = r->logprobs,
		.tenant = tenant_number(o->tenant),
		.compute_on_miss = true,
		.deadline_s = o->deadline_s,
		.token = on_token,
		.done = on_done,
		.arg = c,
	};
	struct tenant_store store;
	int rc;

	tenant_store(o->tenant, &store);
	b.salt = store.salt;
	b.sampling.seed = o->seed + c->index;
	hold(c->answer);
	rc = batch_submit(o->batch, &b, &c->handle, retry_s, err);
	if (rc)
		let_go(c->answer);
	return rc;
}

/* From choice `from` on none was submitted. */
static void take_back(struct answer *a, uint32_t from)
{
	bool none;

	pthread_mutex_lock(&a->lock);
	a->running -= a->n - from;
	none = !a->running;
	if (none)
		tenant_give(a->tenant, a->n, tokens_of(a), clock_seconds());
	pthread_mutex_unlock(&a->lock);
	if (!none)
		answer_leave(a);
}

int answer_start(struct answer **out, struct answers *all, struct openai_request *r,
		 const struct answer_opts *opts, double *retry_s, struct lslm_error *err)
{
	struct answer *a = new_answer(all, r, opts);
	bool stopping;
	int rc = 0;

	if (!a) {
		tenant_give(opts->tenant, r->n, 0, clock_seconds());
		if (opts->context)
			attached_put(opts->context);
		return error_set(err, -ENOMEM, "out of memory");
	}
	a->refs = 1;
	pthread_mutex_lock(&all->lock);
	all->n++;
	pthread_mutex_unlock(&all->lock);
	for (uint32_t i = 0; i < a->n && !rc; i++) {
		rc = submit(&a->choices[i], r, opts, retry_s, err);
		if (rc)
			take_back(a, i);
	}
	if (rc) {
		let_go(a);
		return rc;
	}
	/* Now that its handles are there; a stop that came before does not know it. */
	pthread_mutex_lock(&all->lock);
	link_answer(a, &all->living);
	stopping = all->stopping;
	pthread_mutex_unlock(&all->lock);
	if (stopping)
		answer_leave(a);
	*out = a;
	return 0;
}

void answer_leave(struct answer *a)
{
	pthread_mutex_lock(&a->lock);
	a->gone = true;
	wake(a);
	pthread_mutex_unlock(&a->lock);
	for (uint32_t i = 0; i < a->n; i++)
		if (a->choices[i].handle)
			batch_cancel(a->choices[i].handle);
}

void answer_drop(struct answer *a)
{
	/* Nothing is left to cancel where all has ended. */
	answer_leave(a);
	let_go(a);
}

/* One that was not told to stop yet, held. */
static struct answer *next_to_stop(struct answers *all)
{
	struct answer *a;

	pthread_mutex_lock(&all->lock);
	all->stopping = true;
	for (a = all->living; a && a->stopped; a = a->next)
		;
	if (a) {
		a->stopped = true;
		a->refs++;
	}
	pthread_mutex_unlock(&all->lock);
	return a;
}

void answers_stop(struct answers *all)
{
	struct answer *a;

	while ((a = next_to_stop(all))) {
		answer_leave(a);
		let_go(a);
	}
}

bool answer_wait(struct answer *a)
{
	bool wait;

	pthread_mutex_lock(&a->lock);
	wait = !is_ready(a);
	if (wait) {
		a->suspended = true;
		MHD_suspend_connection(a->conn);
	}
	pthread_mutex_unlock(&a->lock);
	return wait;
}

/* ---- telling ---- */

static int choice_error(const struct choice *c, struct lslm_error *err)
{
	if (c->no_memory)
		return error_set(err, -ENOMEM, "out of memory");
	if (!c->ended || c->by_stop)
		return 0;
	switch (c->result.end) {
	case BATCH_STOP:
	case BATCH_LENGTH:
		return 0;
	case BATCH_DEADLINE:
		return error_set(err, -ETIME, "the answer was not complete within its deadline");
	case BATCH_CANCELLED:
		return error_set(err, -ESHUTDOWN, "the server is shutting down");
	default:
		return error_set(err, c->result.err.code ? c->result.err.code : -EIO, "%s",
				 c->result.err.text);
	}
}

static int error_of(const struct answer *a, struct lslm_error *err)
{
	int rc = 0;

	if (a->gone)
		return error_set(err, -EPIPE,
				 "the client has left, or the server is shutting down");
	for (uint32_t i = 0; i < a->n && !rc; i++)
		rc = choice_error(&a->choices[i], err);
	return rc;
}

int answer_error(struct answer *a, struct lslm_error *err)
{
	int rc;

	pthread_mutex_lock(&a->lock);
	rc = error_of(a, err);
	pthread_mutex_unlock(&a->lock);
	return rc;
}

bool answer_streams(const struct answer *a)
{
	return a->stream;
}

static const char *finish_of(const struct choice *c)
{
	return !c->by_stop && c->result.end == BATCH_LENGTH ? "length" : "stop";
}

/* Of the tokens whose text begins before `end` and that were not told yet. */
static json_t *logprobs_until(struct choice *c, size_t end)
{
	const struct answer *a = c->answer;
	struct openai_token top[BATCH_MAX_LOGPROBS];
	json_t *o = openai_logprobs(a->head.chat);

	for (; c->said_told < c->n_said && c->said[c->said_told].start < end; c->said_told++) {
		const struct said *s = &c->said[c->said_told];
		const uint32_t n = s->token.n_top < BATCH_MAX_LOGPROBS ? s->token.n_top :
									 BATCH_MAX_LOGPROBS;

		for (uint32_t i = 0; i < n; i++)
			top[i] = (struct openai_token){ s->token.top_id[i],
							s->token.top_logprob[i] };
		openai_logprobs_add(o, a->head.chat, a->tokenizer,
				    (struct openai_token){ s->token.id, s->token.logprob }, top, n,
				    s->start);
	}
	return o;
}

static struct openai_usage usage_of(const struct answer *a)
{
	struct openai_usage u = { a->choices[0].result.prompt_tokens,
				  a->choices[0].result.cached_tokens, 0 };

	/* A prompt counts once, however many choices it has; the first one found the least. */
	for (uint32_t i = 0; i < a->n; i++) {
		u.completion_tokens += a->choices[i].result.generated_tokens;
		if (a->choices[i].result.cached_tokens < u.cached_tokens)
			u.cached_tokens = a->choices[i].result.cached_tokens;
	}
	return u;
}

json_t *answer_body(struct answer *a)
{
	json_t *choices = json_array(), *body;
	struct openai_usage usage;

	pthread_mutex_lock(&a->lock);
	for (uint32_t i = 0; i < a->n; i++) {
		struct choice *c = &a->choices[i];

		json_array_append_new(choices,
				      openai_choice(a->head.chat, i, c->text ? c->text : "", c->len,
						    a->logprobs ? logprobs_until(c, c->len) : NULL,
						    finish_of(c)));
	}
	usage = usage_of(a);
	body = openai_body(&a->head, false, choices, &usage);
	pthread_mutex_unlock(&a->lock);
	return body;
}

/* ---- a stream ---- */

/* Bytes of the next event, whole characters. */
static size_t next_text(const struct choice *c)
{
	const size_t n = c->shown - c->told;

	return n > EVENT_TEXT ? utf8_whole(c->text + c->told, EVENT_TEXT) : n;
}

/*
 * In a chat first who speaks, as OpenAI does it: its own client would count log-probabilities twice that came with it. Then text, then
 * the end, each in events of their own.
 */
static json_t *choice_event(struct choice *c)
{
	const struct answer *a = c->answer;
	const bool first = a->head.chat && !c->begin_told;
	const size_t n = first ? 0 : next_text(c);
	const bool end = !first && !n && c->ended;
	json_t *logprobs = NULL, *choices = json_array();

	if (a->logprobs && n)
		logprobs = logprobs_until(c, c->told + n);
	json_array_append_new(choices, openai_delta(a->head.chat, c->index, first,
						    c->text ? c->text + c->told : "", n, logprobs,
						    end ? finish_of(c) : NULL));
	c->told += n;
	c->begin_told = true;
	c->end_told = end;
	return openai_body(&a->head, true, choices, NULL);
}

/* An answer that fails in the middle has said 200 already; clients look for this. */
static json_t *error_event(struct answer *a, const struct lslm_error *why)
{
	const struct reply_openai e = { .type = "server_error",
					.code = why->code == -ETIME ? "deadline_exceeded" :
								      "answer_failed" };

	a->over_told = true;
	return reply_openai_body(&e, why->text);
}

static int set_event(struct answer *a, json_t *body)
{
	a->event = openai_event(body, &a->event_len);
	a->event_at = 0;
	return a->event ? 0 : -ENOMEM;
}

static int set_over(struct answer *a)
{
	static const char over[] = "data: [DONE]\n\n";

	a->over_told = true;
	a->event = strdup(over);
	a->event_len = strlen(over);
	a->event_at = 0;
	return a->event ? 0 : -ENOMEM;
}

/* The next event into a->event, if there is one. */
static int next_event(struct answer *a)
{
	struct lslm_error why;
	struct openai_usage usage;

	if (a->over_told)
		return 0;
	if (error_of(a, &why))
		return set_event(a, error_event(a, &why));
	for (uint32_t i = 0; i < a->n; i++)
		if (has_news(&a->choices[i]))
			return set_event(a, choice_event(&a->choices[i]));
	if (a->running)
		return 0;
	if (!a->include_usage || a->usage_told)
		return set_over(a);
	a->usage_told = true;
	usage = usage_of(a);
	return set_event(a, openai_body(&a->head, true, json_array(), &usage));
}

static ssize_t copy_event(struct answer *a, char *buf, size_t max)
{
	const size_t left = a->event_len - a->event_at, n = left < max ? left : max;

	memcpy(buf, a->event + a->event_at, n);
	a->event_at += n;
	if (n == left) {
		free(a->event);
		a->event = NULL;
	}
	return (ssize_t)n;
}

static ssize_t read_events(void *arg, uint64_t pos, char *buf, size_t max)
{
	struct answer *a = arg;
	ssize_t n = 0;

	pthread_mutex_lock(&a->lock);
	if (a->gone || (!a->event && next_event(a))) {
		n = MHD_CONTENT_READER_END_WITH_ERROR;
	} else if (a->event) {
		n = copy_event(a, buf, max);
	} else if (a->over_told) {
		n = MHD_CONTENT_READER_END_OF_STREAM;
	} else {
		a->suspended = true;
		MHD_suspend_connection(a->conn);
	}
	pthread_mutex_unlock(&a->lock);
	return n;
}

static void end_stream(void *arg)
{
	let_go(arg);
}

struct MHD_Response *answer_stream(struct answer *a)
{
	struct MHD_Response *r;

	hold(a);
	r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_PIECE, read_events, a,
					      end_stream);
	if (!r) {
		let_go(a);
		return NULL;
	}
	MHD_add_response_header(r, "Content-Type", "text/event-stream; charset=utf-8");
	MHD_add_response_header(r, "Cache-Control", "no-store");
	/* Proxies that collect replies would hold tokens back. */
	MHD_add_response_header(r, "X-Accel-Buffering", "no");
	return r;
}

void answer_counts(struct answer *a, struct answer_counts *out)
{
	*out = (struct answer_counts){ 0 };
	pthread_mutex_lock(&a->lock);
	for (uint32_t i = 0; i < a->n; i++) {
		const struct batch_result *r = &a->choices[i].result;

		if (!a->choices[i].ended)
			continue;
		out->ended++;
		out->prompt = r->prompt_tokens;
		out->cached = r->cached_tokens;
		out->generated += r->generated_tokens;
		if (r->ttft_s > out->ttft_s)
			out->ttft_s = r->ttft_s;
		if (r->total_s > out->total_s)
			out->total_s = r->total_s;
	}
	pthread_mutex_unlock(&a->lock);
}
