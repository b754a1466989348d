// SPDX-License-Identifier: MIT
#include "net/peer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "net/peers.h"
#include "net/shares.h"

enum {
	/* Attempts in a row that brought nothing; each waits twice as long as the one before. */
	PEER_ATTEMPTS = 5,
	PEER_FIRST_WAIT_MS = 100,
};

/* Between two questions of what it has. */
#define PEER_ASK_S 1.0

struct peer {
	struct peer_opts opts;
	struct http_client *http;
	pthread_t thread;
	char site[PEERS_URL_BYTES];
	char url[PEERS_URL_BYTES + 96]; /* of the context there */
	char request[PEERS_URL_BYTES + 256];
	uint8_t *held; /* [n_stripes] 1 + level at which it has them; 0: not */
	double asked_at; /* when it said so; 0: never */
	uint8_t *unit; /* one, while it comes */
	size_t unit_size;
	atomic_bool hopeful, over;
	atomic_bool looked_alone; /* for something to bring, since nobody else brings any */
	int ret; /* settled when it is over */
};

/* A request's run of units, as far as they have come. */
struct run {
	struct peer *peer;
	const struct sink_pick *pick;
	struct order order; /* of the level's units */
	uint32_t index, end;
	size_t got; /* of the unit at index */
	uint64_t bytes; /* of all */
	bool new; /* a unit has come */
};

static bool is_stopped(const struct peer *p)
{
	return atomic_load(p->opts.http.stop);
}

static size_t unit_bytes(const struct run *r, uint32_t index, uint32_t *stripe, uint32_t *unit)
{
	order_block(&r->order, index, stripe, unit);
	return manifest_unit_bytes(r->peer->opts.sink->manifest, r->pick->level, *stripe, *unit);
}

/* Room for its largest unit. */
static int begin_run(struct run *r, struct lslm_error *err)
{
	struct peer *p = r->peer;
	size_t largest = 1;
	uint32_t stripe, unit;
	uint8_t *more;

	for (uint32_t i = r->index; i < r->end; i++) {
		const size_t n = unit_bytes(r, i, &stripe, &unit);

		largest = n > largest ? n : largest;
		r->bytes += n;
	}
	if (largest <= p->unit_size)
		return 0;
	more = realloc(p->unit, largest);
	if (!more)
		return error_sys(err, -ENOMEM, "peer");
	p->unit = more;
	p->unit_size = largest;
	return 0;
}

static int take(void *arg, const uint8_t *data, size_t size, struct lslm_error *err)
{
	struct run *r = arg;
	struct peer *p = r->peer;
	struct sink *sink = p->opts.sink;
	uint32_t stripe, unit;
	int ret = 0;

	atomic_fetch_add_explicit(&sink->received, size, memory_order_relaxed);
	shares_came(sink->shares, p->opts.source, size);
	while (size && !ret) {
		size_t n;

		if (r->index == r->end)
			return error_set(err, -EMSGSIZE, "the peer sends more than was asked for");
		n = unit_bytes(r, r->index, &stripe, &unit) - r->got;
		n = size < n ? size : n;
		memcpy(p->unit + r->got, data, n);
		data += n;
		size -= n;
		r->got += n;
		if (r->got < unit_bytes(r, r->index, &stripe, &unit))
			break;
		ret = sink_offer(sink, r->pick, stripe, unit, p->unit, err);
		r->index++;
		r->got = 0;
		r->new = true;
	}
	return ret;
}

/* *came: a unit of it has. */
static int fetch(struct peer *p, const struct sink_pick *pick, bool *came, struct lslm_error *err)
{
	const struct order *all = &p->opts.sink->order;
	struct run run = {
		.peer = p,
		.pick = pick,
		.order = { ORDER_TAIL, all->n_stripes, pick->level->n_units },
	};
	struct http_request req = { .url = p->request, .data = take, .arg = &run };
	int ret;

	run.index = order_index(&run.order, pick->first, 0);
	run.end = run.index + pick->n * pick->level->n_units;
	ret = begin_run(&run, err);
	if (ret < 0)
		return ret;
	req.exact_size = req.max_size = run.bytes;
	snprintf(p->request, sizeof(p->request), "%s/blocks?level=%s&order=tail&from=%u&count=%u",
		 p->url, kv_level_name(pick->level->level), run.index, run.end - run.index);
	ret = http_perform(p->http, &req, err);
	*came = run.new;
	return ret;
}

/* -ENOENT: it does not have the context at all, for now. */
static int ask_held(struct peer *p, struct lslm_error *err)
{
	const uint32_t n = p->opts.sink->order.n_stripes;
	uint8_t *data;
	size_t size;
	int ret;

	snprintf(p->request, sizeof(p->request), "%s/held", p->url);
	ret = http_get(p->http, p->request, n, &data, &size, err);
	p->asked_at = clock_seconds();
	memset(p->held, 0, n);
	if (ret < 0)
		return ret;
	if (size == n)
		memcpy(p->held, data, n);
	else
		ret = error_set(err, -EPROTO, "it has a context of another length by this key");
	free(data);
	return ret;
}

/* Is nothing left to do for anybody? Then the cloud's source need not wait for what it asked for. */
static bool is_done(struct peer *p)
{
	if (!sink_is_done(p->opts.sink))
		return false;
	p->opts.recall(p->opts.arg);
	return true;
}

/* Nothing to bring: others do, or nobody. */
static void rest(struct peer *p, bool recall)
{
	atomic_store(&p->hopeful, recall);
	if (recall)
		p->opts.recall(p->opts.arg);
	shares_wait(p->opts.sink->shares);
}

/* One step: 0 to go on, also after a failure that may pass. */
static int step(struct peer *p, int *failed, struct lslm_error *err)
{
	const bool alone = atomic_load(p->opts.alone);
	struct sink_pick pick = { .source = p->opts.source };
	bool recall, came = false;
	int ret = 0;

	if (!p->asked_at ||
	    (!atomic_load(&p->hopeful) && clock_seconds() - p->asked_at > PEER_ASK_S))
		ret = ask_held(p, err);
	if (ret == -ENOENT)
		ret = 0;
	if (!ret && !sink_pick(p->opts.sink, p->held, alone, &pick, &recall)) {
		atomic_store(&p->looked_alone, alone);
		rest(p, recall);
		return 0;
	}
	if (!ret) {
		atomic_store(&p->hopeful, true);
		ret = fetch(p, &pick, &came, err);
		shares_tell(p->opts.sink->shares);
	}
	*failed = !ret || came ? 0 : *failed + 1;
	/* It may have lost what it had. */
	if (ret)
		p->asked_at = 0;
	if (!ret || (!http_is_transient(ret) && ret != -ENOENT) || *failed == PEER_ATTEMPTS)
		return ret;
	shares_leave(p->opts.sink->shares, p->opts.source);
	http_sleep(p->http, PEER_FIRST_WAIT_MS << *failed);
	shares_join(p->opts.sink->shares, p->opts.source);
	return 0;
}

static void *bring(void *arg)
{
	struct peer *p = arg;
	struct lslm_error why = { 0 };
	int ret = 0, failed = 0;

	while (!ret && !is_stopped(p) && !is_done(p))
		ret = step(p, &failed, &why);
	p->ret = ret;
	atomic_store(&p->hopeful, false);
	shares_leave(p->opts.sink->shares, p->opts.source);
	if (ret < 0 && ret != -ECANCELED && !is_stopped(p))
		p->opts.gone(p->opts.arg, p->site, &why);
	atomic_store(&p->over, true);
	shares_tell(p->opts.sink->shares);
	return NULL;
}

static void release(struct peer *p)
{
	http_close(p->http);
	free(p->held);
	free(p->unit);
	free(p);
}

int peer_start(struct peer **out, const struct peer_opts *opts, struct lslm_error *err)
{
	struct peer *p = calloc(1, sizeof(*p));
	char hex[KV_HASH_TEXT];
	int ret;

	if (!p)
		return error_sys(err, -ENOMEM, "peer");
	p->opts = *opts;
	kv_hash_format(opts->key, hex);
	snprintf(p->site, sizeof(p->site), "%s", opts->url);
	snprintf(p->url, sizeof(p->url), "%s/v1/contexts/%s", p->site, hex);
	atomic_store(&p->hopeful, true);
	p->held = calloc(opts->sink->order.n_stripes, 1);
	ret = p->held ? http_open(&p->http, &opts->http, err) : error_sys(err, -ENOMEM, "peer");
	if (!ret) {
		shares_join(opts->sink->shares, opts->source);
		ret = -pthread_create(&p->thread, NULL, bring, p);
		if (ret) {
			shares_leave(opts->sink->shares, opts->source);
			error_sys(err, ret, "cannot start a peer's thread");
		}
	}
	if (ret < 0) {
		release(p);
		return ret;
	}
	*out = p;
	return 0;
}

int peer_join(struct peer *p)
{
	int ret;

	pthread_join(p->thread, NULL);
	ret = p->ret;
	release(p);
	return ret;
}

void peer_wake(struct peer *p)
{
	http_wake(p->http);
}

bool peer_is_hopeful(const struct peer *p)
{
	return atomic_load(&p->hopeful);
}

bool peer_may_bring(const struct peer *p)
{
	return !atomic_load(&p->over) &&
	       (atomic_load(&p->hopeful) || !atomic_load(&p->looked_alone));
}

bool peer_is_over(const struct peer *p)
{
	return atomic_load(&p->over);
}

const char *peer_url(const struct peer *p)
{
	return p->site;
}
