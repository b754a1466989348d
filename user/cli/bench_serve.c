// SPDX-License-Identifier: MIT
#include "cli/bench_serve.h"

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/token.h"
#include "cli/commands.h"

enum {
	MAX_USERS = 1024,
	MAX_CONTEXT = 8 << 20,
	MAX_LINE = 65536, /* of an event stream; longer ones are no server's */
	MAX_REPLY = 4096, /* kept of an error's body */
	TIMEOUT_S = 600,
	WORDS = 24, /* of a question: about 32 tokens with the chat's own */
};

/* What happened to one request. */
struct sample {
	double ttft_s, total_s; /* from sending it */
	uint32_t tokens; /* events with text, or what usage says */
	uint32_t prompt; /* 0: usage does not say */
};

/* A user and the request that it waits for. */
struct user {
	struct load *load;
	CURL *easy;
	char *body;
	char *line; /* of the stream, as far as it has come */
	size_t line_len;
	char reply[MAX_REPLY]; /* of an answer that is no stream */
	size_t reply_len;
	uint64_t random;
	double sent, first;
	uint32_t events, usage, prompt;
	bool done; /* [DONE] came */
};

struct load {
	const struct bench_values *v;
	char url[2048];
	struct curl_slist *headers;
	CURLM *multi;
	char *context; /* NULL: the server knows it by name, or there is none */
	struct user *users;
	uint32_t n_users;
	bool counting; /* warmed up */
	struct sample *samples;
	size_t n_samples, room;
	uint64_t failed;
	char failure[256]; /* the first one's reason */
};

/* ---- a request ---- */

static uint32_t next_random(struct user *u)
{
	u->random = u->random * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(u->random >> 33);
}

/* Words of a small vocabulary in an order that no other request has, so that no cache knows more than the context. */
static void make_question(struct user *u, char *text, size_t size)
{
	static const char *const words[] = { "where", "is",   "the",   "pump",	"valve", "when",
					     "was",   "it",   "green", "amber", "room",	 "who",
					     "keeps", "what", "limit", "power", "north", "line" };
	const uint32_t n = u->load->v->words ? u->load->v->words : WORDS;
	size_t at = 0;

	for (uint32_t i = 0; i < n; i++)
		at += (size_t)snprintf(text + at, size - at, "%s%s", i ? " " : "",
				       words[next_random(u) % (sizeof(words) / sizeof(words[0]))]);
}

static char *make_body(struct user *u)
{
	const struct bench_values *v = u->load->v;
	char question[512], *body;
	json_t *messages = json_array(), *o;

	make_question(u, question, sizeof(question));
	if (u->load->context)
		json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content",
							  u->load->context));
	json_array_append_new(messages,
			      json_pack("{s:s, s:s}", "role", "user", "content", question));
	o = json_pack("{s:o, s:b, s:{s:b}, s:i, s:f}", "messages", messages, "stream", 1,
		      "stream_options", "include_usage", 1, "max_tokens",
		      v->tokens ? (int)v->tokens : 32, "temperature", 0.0);
	if (v->serve_model)
		json_object_set_new(o, "model", json_string(v->serve_model));
	if (v->serve_context)
		json_object_set_new(o, "context", json_string(v->serve_context));
	/*
	 * The end of turn would make requests of different lengths, and parts of a character, of which synthetic weights say many, are
	 * held back until the rest of it has come. llama.cpp knows these; who does not, refuses or ignores them.
	 */
	if (v->ignore_eos) {
		json_object_set_new(o, "ignore_eos", json_true());
		json_object_set_new(o, "logit_bias", json_pack("[[s, i]]", "a", 1000));
	}
	body = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return body;
}

static void fail(struct user *u, const char *why)
{
	if (!u->load->failed++)
		snprintf(u->load->failure, sizeof(u->load->failure), "%s", why);
}

static uint32_t number(const json_t *o, const char *name)
{
	return (uint32_t)json_integer_value(json_object_get(o, name));
}

/* One line of the stream: "data: {...}" or "data: [DONE]"; others say nothing. */
static void take_line(struct user *u)
{
	static const char data[] = "data: ";
	json_t *event, *choice, *usage;
	const char *text;

	u->line[u->line_len] = 0;
	if (strncmp(u->line, data, strlen(data)))
		return;
	if (!strcmp(u->line + strlen(data), "[DONE]")) {
		u->done = true;
		return;
	}
	event = json_loads(u->line + strlen(data), 0, NULL);
	choice = json_array_get(json_object_get(event, "choices"), 0);
	text = json_string_value(json_object_get(json_object_get(choice, "delta"), "content"));
	if (text && *text) {
		if (!u->events++)
			u->first = clock_seconds();
	}
	usage = json_object_get(event, "usage");
	if (json_is_object(usage)) {
		u->usage = number(usage, "completion_tokens");
		u->prompt = number(usage, "prompt_tokens");
	}
	json_decref(event);
}

static size_t on_data(char *data, size_t one, size_t n, void *arg)
{
	struct user *u = arg;

	for (size_t i = 0; i < n; i++) {
		if (u->reply_len < MAX_REPLY - 1)
			u->reply[u->reply_len++] = data[i];
		if (data[i] == '\n') {
			take_line(u);
			u->line_len = 0;
		} else if (data[i] != '\r') {
			if (u->line_len == MAX_LINE - 1)
				return 0;
			u->line[u->line_len++] = data[i];
		}
	}
	return n;
}

static int ask(struct user *u, struct lslm_error *err)
{
	CURL *e = u->easy;

	free(u->body);
	u->body = make_body(u);
	if (!u->body)
		return error_set(err, -ENOMEM, "out of memory");
	u->line_len = u->reply_len = 0;
	u->first = 0;
	u->events = u->usage = u->prompt = 0;
	u->done = false;
	curl_easy_setopt(e, CURLOPT_URL, u->load->url);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, u->load->headers);
	curl_easy_setopt(e, CURLOPT_POSTFIELDS, u->body);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, u);
	curl_easy_setopt(e, CURLOPT_PRIVATE, u);
	curl_easy_setopt(e, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
	if (u->load->v->cacert)
		curl_easy_setopt(e, CURLOPT_CAINFO, u->load->v->cacert);
	u->sent = clock_seconds();
	if (curl_multi_add_handle(u->load->multi, e))
		return error_set(err, -ENOMEM, "out of memory");
	return 0;
}

/* ---- its end ---- */

static int keep(struct load *l, const struct sample *s)
{
	struct sample *more;

	if (l->n_samples == l->room) {
		l->room = l->room ? l->room * 2 : 1024;
		more = reallocarray(l->samples, l->room, sizeof(*more));
		if (!more)
			return -ENOMEM;
		l->samples = more;
	}
	l->samples[l->n_samples++] = *s;
	return 0;
}

/* The server had closed a connection that was kept, and so has not seen the request. */
static bool was_stale(struct user *u, CURLcode result)
{
	long connects = 1;

	curl_easy_getinfo(u->easy, CURLINFO_NUM_CONNECTS, &connects);
	return result == CURLE_SEND_ERROR && !connects && !u->reply_len;
}

static int finish(struct user *u, CURLcode result, struct lslm_error *err)
{
	const double now = clock_seconds();
	long status = 0;

	curl_easy_getinfo(u->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_multi_remove_handle(u->load->multi, u->easy);
	if (was_stale(u, result))
		return 0;
	if (result || status != 200 || !u->done) {
		char why[256];

		u->reply[u->reply_len] = 0;
		u->reply[strcspn(u->reply, "\r\n")] = 0;
		snprintf(why, sizeof(why), "%s, status %ld: %.160s",
			 result ? curl_easy_strerror(result) : "answered", status, u->reply);
		fail(u, why);
		return 0;
	}
	if (u->load->counting &&
	    keep(u->load, &(struct sample){ .ttft_s = (u->first > 0 ? u->first : now) - u->sent,
					    .total_s = now - u->sent,
					    .tokens = u->usage ? u->usage : u->events,
					    .prompt = u->prompt }))
		return error_set(err, -ENOMEM, "out of memory");
	return 0;
}

/* Until `end`; nobody asks again after it, and answers under way are waited for. */
static int run_until(struct load *l, double end, struct lslm_error *err)
{
	int running, left, rc = 0;
	CURLMsg *msg;

	do {
		curl_multi_perform(l->multi, &running);
		while (!rc && (msg = curl_multi_info_read(l->multi, &left))) {
			struct user *u;

			if (msg->msg != CURLMSG_DONE)
				continue;
			curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&u);
			rc = finish(u, msg->data.result, err);
			if (!rc && clock_seconds() < end) {
				rc = ask(u, err);
				running++;
			}
		}
		if (!rc && running)
			curl_multi_poll(l->multi, NULL, 0, 100, NULL);
	} while (!rc && running);
	return rc;
}

/* ---- a point of the curve ---- */

static double quantile(const struct load *l, bool ttft, double share)
{
	double *x = calloc(l->n_samples + 1, sizeof(*x)), value = 0;

	for (size_t i = 0; x && i < l->n_samples; i++)
		x[i] = ttft ? l->samples[i].ttft_s : l->samples[i].total_s;
	if (x && l->n_samples)
		value = bench_quantile(x, l->n_samples, share);
	free(x);
	return value;
}

static json_t *describe(const struct load *l, double seconds)
{
	const double n = l->n_samples ? (double)l->n_samples : 1;
	uint64_t tokens = 0, prompt = 0;

	for (size_t i = 0; i < l->n_samples; i++) {
		tokens += l->samples[i].tokens;
		prompt += l->samples[i].prompt;
	}
	return json_pack("{s:I, s:I, s:I, s:s*, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
			 "users", (json_int_t)l->n_users, "requests", (json_int_t)l->n_samples,
			 "failed", (json_int_t)l->failed, "failure", l->failed ? l->failure : NULL,
			 "seconds", seconds, "requests_per_s", (double)l->n_samples / seconds,
			 "tokens_per_s", (double)tokens / seconds, "prompt_tokens",
			 (double)prompt / n, "ttft_p50_s", quantile(l, true, 0.5), "ttft_p95_s",
			 quantile(l, true, 0.95), "ttft_p99_s", quantile(l, true, 0.99),
			 "total_p50_s", quantile(l, false, 0.5), "total_p95_s",
			 quantile(l, false, 0.95));
}

static int begin(struct load *l, uint32_t n, struct lslm_error *err)
{
	int rc = 0;

	l->users = calloc(n, sizeof(*l->users));
	if (!l->users)
		return error_set(err, -ENOMEM, "out of memory");
	l->n_users = n;
	for (uint32_t i = 0; !rc && i < n; i++) {
		struct user *u = &l->users[i];

		u->load = l;
		u->random = l->v->seed * 1000003u + n * 1009u + i;
		u->line = malloc(MAX_LINE);
		u->easy = curl_easy_init();
		if (!u->line || !u->easy)
			return error_set(err, -ENOMEM, "out of memory");
		rc = ask(u, err);
	}
	return rc;
}

static void end(struct load *l)
{
	for (uint32_t i = 0; i < l->n_users; i++) {
		struct user *u = &l->users[i];

		if (u->easy)
			curl_multi_remove_handle(l->multi, u->easy);
		curl_easy_cleanup(u->easy);
		free(u->body);
		free(u->line);
	}
	free(l->users);
	l->users = NULL;
	l->n_users = 0;
	l->n_samples = 0;
	l->failed = 0;
}

/* A tenth of the time first, which does not count; everybody has then been answered, and asks anew. */
static int warm_up(struct load *l, double seconds, struct lslm_error *err)
{
	int rc;

	l->counting = false;
	rc = run_until(l, clock_seconds() + seconds / 10, err);
	l->counting = true;
	for (uint32_t i = 0; !rc && i < l->n_users; i++)
		rc = ask(&l->users[i], err);
	return rc;
}

static int point(struct load *l, uint32_t n, json_t *points, struct lslm_error *err)
{
	const double seconds = l->v->seconds ? l->v->seconds : 10;
	double start = clock_seconds();
	int rc;

	l->counting = true;
	rc = begin(l, n, err);
	if (!rc && !l->v->no_warm_up) {
		rc = warm_up(l, seconds, err);
		start = clock_seconds();
	}
	if (!rc)
		rc = run_until(l, start + seconds, err);
	if (!rc && !l->n_samples)
		rc = error_set(err, -EIO, "%s: %u users got no answer: %s", l->v->url, n,
			       l->failure);
	if (!rc)
		json_array_append_new(points, describe(l, clock_seconds() - start));
	end(l);
	return rc;
}

/* "1,2,4": the next number; false at the end or for anything else, *text then stays. */
static bool next_number(const char **text, uint32_t *n)
{
	char *after;
	unsigned long value = strtoul(*text, &after, 10);

	if (after == *text || !value || value > MAX_USERS || (*after && *after != ','))
		return false;
	*n = (uint32_t)value;
	*text = *after ? after + 1 : after;
	return true;
}

/* Before the first point takes its time. */
static int check_users(const char *users, struct lslm_error *err)
{
	const char *at = users;
	uint32_t n;

	while (next_number(&at, &n))
		;
	if (at != users && !*at && at[-1] != ',')
		return 0;
	return error_set(err, -EINVAL,
			 "--concurrency: '%s' is no list of numbers from 1 to %d, such as 1,4,16",
			 users, MAX_USERS);
}

/* ---- the whole ---- */

static void print_points(const json_t *points)
{
	const json_t *p;
	size_t i;

	printf("users  requests/s  tokens/s   ttft p50     p95     p99   total p50     p95  failed\n");
	json_array_foreach(points, i, p) {
#define REAL(name) json_real_value(json_object_get(p, name))
		printf("%5lld %11.2f %9.1f %10.3f %7.3f %7.3f %11.3f %7.3f %7lld\n",
		       (long long)json_integer_value(json_object_get(p, "users")),
		       REAL("requests_per_s"), REAL("tokens_per_s"), REAL("ttft_p50_s"),
		       REAL("ttft_p95_s"), REAL("ttft_p99_s"), REAL("total_p50_s"),
		       REAL("total_p95_s"),
		       (long long)json_integer_value(json_object_get(p, "failed")));
#undef REAL
	}
}

static int prepare(struct load *l, struct lslm_error *err)
{
	const struct bench_values *v = l->v;
	char *token, line[1024];
	size_t size;
	int rc = 0;

	if (!v->url)
		return error_set(err, -EINVAL, "serve needs --url of a server");
	snprintf(l->url, sizeof(l->url), "%s%sv1/chat/completions", v->url,
		 v->url[strlen(v->url) - 1] == '/' ? "" : "/");
	l->headers = curl_slist_append(NULL, "Content-Type: application/json");
	l->multi = curl_multi_init();
	if (!l->headers || !l->multi)
		return error_set(err, -ENOMEM, "out of memory");
	if (v->file)
		rc = file_read(v->file, MAX_CONTEXT, &l->context, &size, err);
	if (!rc)
		rc = token_read(v->token_file, false, &token, err);
	if (rc || !token)
		return rc;
	snprintf(line, sizeof(line), "Authorization: Bearer %s", token);
	token_free(token);
	l->headers = curl_slist_append(l->headers, line);
	return 0;
}

int bench_serve(const struct bench_values *v, struct lslm_error *err)
{
	const char *users = v->concurrency ? v->concurrency : "1,2,4,8,16,32,64";
	struct load l = { .v = v };
	json_t *points = json_array(), *o;
	uint32_t n;
	int rc;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	rc = check_users(users, err);
	if (!rc)
		rc = prepare(&l, err);
	while (!rc && next_number(&users, &n))
		rc = point(&l, n, points, err);
	if (!rc && v->json) {
		o = json_pack("{s:s, s:s, s:I, s:O}", "bench", "serve", "url", v->url, "max_tokens",
			      (json_int_t)(v->tokens ? v->tokens : 32), "points", points);
		json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
		json_decref(o);
		putchar('\n');
	} else if (!rc) {
		print_points(points);
	}
	json_decref(points);
	curl_multi_cleanup(l.multi);
	curl_slist_free_all(l.headers);
	free(l.samples);
	free(l.context);
	curl_global_cleanup();
	return rc;
}
