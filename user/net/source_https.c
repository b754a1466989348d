// SPDX-License-Identifier: MIT
#include "net/source.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/courier.h"
#include "net/http_client.h"
#include "net/rights.h"
#include "net/sites.h"

enum {
	/* Attempts in a row that brought no new block; each waits twice as long as the one before. */
	HTTPS_ATTEMPTS = 5,
	HTTPS_FIRST_WAIT_MS = 250,
	/* Blocks that are not wanted but shorter than this are read along: a request costs a round trip. */
	HTTPS_BRIDGE_BYTES = 128 << 10,
};

struct source_https {
	struct source source;
	struct http_client *http;
	struct site *breaker; /* NULL: none */
	const struct rights *rights; /* NULL: of nobody but the usual one */
	const char *shown; /* the token, as long as the source is being opened */
	struct kv_hash key;
	char *url; /* https://host[:port]/v1/contexts/KEY */
	char *site; /* of it, https://host[:port] */
	char *request; /* room for a longer one */
	size_t request_size;
};

/* One request's run of blocks, numbered as its level's units are, and where it stands: got bytes of block index. */
struct stream {
	struct sink *sink;
	const struct manifest_level *level;
	struct order order;
	uint32_t index;
	uint32_t end;
	size_t got;
	uint64_t bytes; /* of all blocks of the run */
	bool skip; /* the block at index is not wanted: its bytes are dropped */
	int attempts; /* since the last new block, over all requests */
};

static struct source_https *of(struct source *s)
{
	return (struct source_https *)s;
}

/* Before the next of several attempts; failed is how many there were, at least one. */
static void wait_after(struct source_https *h, int failed)
{
	http_sleep(h->http, HTTPS_FIRST_WAIT_MS << (failed - 1));
}

/* A busy server is asked again; one that is not there has its user waiting, who is told at once. */
static int get_manifest(struct source_https *h, uint8_t **data, size_t *size,
			struct lslm_error *err)
{
	int attempts = 0, ret;

	snprintf(h->request, h->request_size, "%s/manifest", h->url);
	for (;;) {
		ret = http_get(h->http, h->request, MANIFEST_MAX_BYTES, data, size, err);
		if (ret != -EAGAIN || ++attempts == HTTPS_ATTEMPTS)
			return ret;
		wait_after(h, attempts);
	}
}

/* To another token it may be there. */
static bool is_hidden(int code)
{
	return code == -ENOENT || code == -EACCES;
}

static int https_manifest(struct source *s, uint8_t **data, size_t *size, struct lslm_error *err)
{
	struct source_https *h = of(s);
	int ret = get_manifest(h, data, size, err), again = ret;
	struct lslm_error why;

	for (uint32_t i = 0; h->rights && i < h->rights->n && is_hidden(again); i++) {
		const char *token = h->rights->all[i].cloud;

		if (!token)
			continue;
		again = http_set_token(h->http, token, &why);
		if (!again)
			again = get_manifest(h, data, size, &why);
		if (!again)
			h->shown = token;
	}
	if (!again)
		return 0;
	/* What is said is what the usual one heard. */
	return ret;
}

static void https_salt(struct source *s, const struct kv_hash *salt)
{
	struct source_https *h = of(s);

	/* Without memory for it there is none, and the cloud says so. */
	if (h->rights)
		http_set_token(h->http, rights_cloud(h->rights, salt, h->shown), NULL);
}

/* The number of a unit in the sink's order. */
static uint32_t block_of(const struct stream *st, uint32_t unit)
{
	uint32_t stripe, layer;

	order_block(&st->order, unit, &stripe, &layer);
	return order_index(&st->sink->order, stripe, layer);
}

/* At the level of the run, which need not be that of a block that is only read along. */
static size_t bytes_of(const struct stream *st, uint32_t unit)
{
	uint32_t stripe, layer;

	order_block(&st->order, unit, &stripe, &layer);
	return manifest_unit_bytes(st->sink->manifest, st->level, stripe, layer);
}

/* Before a block's first byte. What the engine has reached meanwhile may be all that was left. */
static int begin_block(struct stream *st, struct lslm_error *err)
{
	if (st->index == st->end)
		return error_set(err, -EMSGSIZE, "the server sends more than was asked for");
	st->skip = !sink_wants(st->sink, block_of(st, st->index));
	if (st->skip && sink_is_done(st->sink))
		return error_set(err, -ECANCELED, "nothing is missing any more");
	return 0;
}

static int end_block(struct stream *st, struct lslm_error *err)
{
	int ret = st->skip ? 0 : sink_block(st->sink, block_of(st, st->index), err);

	if (ret < 0)
		return ret;
	if (!st->skip)
		st->attempts = 0;
	st->index++;
	st->got = 0;
	return 0;
}

/* curl's piece goes to its place in the buffer: the one copy there is. */
static int take(void *arg, const uint8_t *data, size_t size, struct lslm_error *err)
{
	struct stream *st = arg;
	struct sink *sink = st->sink;
	size_t n = 0;
	int ret = 0;

	sink_came(sink, size);
	for (; size && !ret; data += n, size -= n) {
		if (!st->got)
			ret = begin_block(st, err);
		if (ret)
			break;
		n = bytes_of(st, st->index) - st->got;
		n = size < n ? size : n;
		if (!st->skip)
			memcpy(sink_place(sink, block_of(st, st->index)) + st->got, data, n);
		st->got += n;
		if (st->got == bytes_of(st, st->index))
			ret = end_block(st, err);
	}
	return ret;
}

/*
 * May the block be part of the run? Where the level of a stripe depends on how fast those before it
 * come, the run ends before it.
 */
static bool belongs(struct stream *st, uint32_t index)
{
	if (st->end > st->index && !sink_level(st->sink, index) && !sink_budget(st->sink))
		return false;
	return sink_claim(st->sink, index, false) && sink_level(st->sink, index) == st->level;
}

/* The first block that is wanted of this source; order_count() when there is none for now. */
static uint32_t first_claimed(struct sink *sink, bool over)
{
	const uint32_t count = order_count(&sink->order);
	uint32_t first = sink_next(sink, 0);

	while (first < count && !sink_claim(sink, first, over))
		first = sink_next(sink, first + 1);
	return first;
}

/* The first run that is wanted, of one level, with short gaps in it; false when nothing is. */
static bool next_run(struct stream *st)
{
	struct sink *sink = st->sink;
	uint32_t first, stripe, layer, count;
	uint64_t bytes = 0;

	/* What was under way is not any more, whatever became of it. */
	sink_settle(sink);
	first = first_claimed(sink, false);
	if (first == order_count(&sink->order))
		first = first_claimed(sink, true);
	if (first == order_count(&sink->order))
		return false;
	st->level = sink_level(sink, first);
	st->order = sink->order;
	st->order.n_layer = st->level->n_units;
	order_block(&sink->order, first, &stripe, &layer);
	st->index = st->end = order_index(&st->order, stripe, layer);
	st->got = 0;
	count = order_count(&st->order);
	for (uint32_t unit = st->index; unit < count; unit++) {
		const uint32_t index = block_of(st, unit);

		if (sink_wants(sink, index) && !belongs(st, index))
			break;
		bytes += bytes_of(st, unit);
		if (sink_wants(sink, index)) {
			st->end = unit + 1;
			st->bytes = bytes;
		} else if (bytes - st->bytes > HTTPS_BRIDGE_BYTES) {
			break;
		}
	}
	return true;
}

/* Is nothing wanted behind the run? */
static bool is_last(const struct stream *st)
{
	const struct order *o = &st->sink->order;
	const uint32_t end = st->end;

	return end == order_count(&st->order) ||
	       sink_next(st->sink, block_of(st, end)) == order_count(o);
}

static int request_run(struct source_https *h, struct stream *st, struct lslm_error *err)
{
	struct sink *sink = st->sink;
	int len;
	struct http_request req = {
		.url = h->request,
		.exact_size = st->bytes,
		.max_size = st->bytes,
		.data = take,
		.arg = st,
		.last = is_last(st),
		.stop = &sink->stop,
	};

	len = snprintf(h->request, h->request_size, "%s/blocks?level=%s&order=%s&from=%u", h->url,
		       kv_level_name(st->level->level),
		       sink->order.kind == ORDER_TAIL ? "tail" : "layer", st->index);
	if (st->end < order_count(&st->order))
		snprintf(h->request + len, h->request_size - len, "&count=%u", st->end - st->index);
	return http_perform(h->http, &req, err);
}

static int https_receive(struct source *s, struct sink *sink, struct lslm_error *err)
{
	struct source_https *h = of(s);
	struct stream st = { .sink = sink };
	int ret;

	for (;;) {
		if (!next_run(&st)) {
			if (sink_is_done(sink))
				return 0;
			/* Peers bring what is missing, or will not. */
			sink_wait(sink);
			if (atomic_load(&sink->stop))
				return error_set(err, -ECANCELED, "stopped");
			continue;
		}
		ret = request_run(h, &st, err);
		if (!ret)
			continue;
		if (!http_is_transient(ret))
			return ret;
		if (++st.attempts == HTTPS_ATTEMPTS)
			return error_prefix(err, ret,
					    "given up after %d attempts, %u of %u blocks are here",
					    HTTPS_ATTEMPTS, (unsigned int)atomic_load(&sink->ready),
					    order_count(&sink->order));
		wait_after(h, st.attempts);
		if (atomic_load(&sink->stop))
			return error_set(err, -ECANCELED, "stopped");
	}
}

static void https_wake(struct source *s)
{
	http_wake(of(s)->http);
}

static void https_close(struct source *s)
{
	struct source_https *h = of(s);

	http_close(h->http);
	free(h->request);
	free(h->site);
	free(h->url);
	source_fini(s);
	free(h);
}

static const struct source_ops https_ops = {
	.manifest = https_manifest,
	.salt = https_salt,
	.receive = https_receive,
	.wake = https_wake,
	.close = https_close,
};

/* A part of the URL, "" when it has none; malloc'd by curl. */
static char *url_part(CURLU *u, CURLUPart part)
{
	char *text = NULL;

	curl_url_get(u, part, &text, 0);
	return text;
}

/* Only https://host[:port]/v1/contexts/KEY: everything else is a slip that is better told at once. */
static int check_url(CURLU *u, const char *url, struct kv_hash *key, struct lslm_error *err)
{
	static const char prefix[] = "/v1/contexts/";
	char *scheme = NULL, *user = NULL, *path = NULL, *query = NULL;
	int ret = 0;

	if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
		return error_set(err, -EINVAL,
				 "not a URL; wanted is https://HOST[:PORT]/v1/contexts/KEY");
	scheme = url_part(u, CURLUPART_SCHEME);
	user = url_part(u, CURLUPART_USER);
	path = url_part(u, CURLUPART_PATH);
	query = url_part(u, CURLUPART_QUERY);
	if (!scheme || strcmp(scheme, "https"))
		ret = error_set(err, -EINVAL, "contexts are fetched over https:// only");
	else if (user)
		ret = error_set(err, -EINVAL, "a URL is no place for a password; use --token-file");
	else if (query || !path || strncmp(path, prefix, strlen(prefix)) ||
		 kv_hash_parse(key, path + strlen(prefix)) < 0)
		ret = error_set(
			err, -EINVAL,
			"not the URL of a context; wanted is https://HOST[:PORT]/v1/contexts/KEY with a key of 64 hexadecimal digits");
	curl_free(scheme);
	curl_free(user);
	curl_free(path);
	curl_free(query);
	return ret;
}

int source_https_key(const char *url, struct kv_hash *key, struct lslm_error *err)
{
	CURLU *u = curl_url();
	int ret;

	if (!u)
		return error_sys(err, -ENOMEM, "URL");
	ret = check_url(u, url, key, err);
	curl_url_cleanup(u);
	return ret;
}

static int parse_url(struct source_https *h, const char *url, struct lslm_error *err)
{
	int ret = source_https_key(url, &h->key, err);

	if (ret < 0)
		return ret;
	h->request_size = strlen(url) + 128;
	h->request = malloc(h->request_size);
	h->url = strdup(url);
	h->site = strndup(url, (size_t)(strstr(url, "/v1/contexts/") - url));
	return h->request && h->url && h->site ? 0 : error_sys(err, -ENOMEM, "URL");
}

struct http_client *source_https_client(struct source *s)
{
	return of(s)->http;
}

const char *source_https_site(const struct source *s)
{
	return ((const struct source_https *)s)->site;
}

struct site *source_https_breaker(const struct source *s)
{
	return ((const struct source_https *)s)->breaker;
}

struct http_opts source_https_opts(const struct courier_opts *opts)
{
	return (struct http_opts){
		.cacert = opts->cacert,
		.token = opts->token,
		.cert = opts->cert,
		.key = opts->key,
		.connect_timeout_ms = opts->connect_timeout_ms,
		.stall_timeout_ms = opts->stall_timeout_ms,
	};
}

int source_https_open(struct source **out, const struct courier_opts *opts, struct lslm_error *err)
{
	struct http_opts http = source_https_opts(opts);
	struct source_https *h;
	int ret;

	http.stop = opts->stop;
	h = calloc(1, sizeof(*h));
	if (!h)
		return error_sys(err, -ENOMEM, "source");
	source_init(&h->source, &https_ops, CONTROL_FROM_CLOUD, "https");
	h->source.key = &h->key;
	ret = parse_url(h, opts->source, err);
	h->shown = opts->token;
	if (!ret && opts->rights && (!opts->rights->site || !strcmp(opts->rights->site, h->site)))
		h->rights = opts->rights;
	if (!ret)
		http.site = h->breaker = sites_find(opts->sites, h->url);
	if (!ret)
		ret = http_open(&h->http, &http, err);
	if (ret < 0) {
		https_close(&h->source);
		return ret;
	}
	*out = &h->source;
	return 0;
}
