// SPDX-License-Identifier: MIT
#include "net/sites.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"

enum { HEALTH_BYTES = 64 << 10 };

struct site {
	struct sites *all;
	char name[SITE_BYTES];
	struct breaker breaker;
	uint32_t returns;
	struct lslm_error why;
};

struct sites {
	struct sites_opts opts;
	struct http_client *http; /* the thread's */
	pthread_t thread;
	bool running;
	atomic_bool stop;
	pthread_mutex_t calls; /* held while listeners are called; never taken with `lock` held */
	struct sites_listener *listeners;
	pthread_mutex_t lock; /* of what follows, and of what is in each site */
	pthread_cond_t changed;
	struct site sites[SITES_MAX];
	uint32_t n;
};

/* ---- what changes ---- */

static void tell(struct sites *all)
{
	pthread_mutex_lock(&all->lock);
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->lock);
	pthread_mutex_lock(&all->calls);
	for (const struct sites_listener *l = all->listeners; l; l = l->next)
		l->changed(l->arg);
	pthread_mutex_unlock(&all->calls);
}

__attribute__((format(printf, 2, 3))) static void say(const struct site *s, const char *fmt, ...)
{
	const struct sites_opts *o = &s->all->opts;
	char prefix[SITE_BYTES + 8];
	va_list ap;

	snprintf(prefix, sizeof(prefix), "cloud %s", s->name);
	va_start(ap, fmt);
	error_tell(o->log, o->arg, prefix, fmt, ap);
	va_end(ap);
}

static void has_returned(struct site *s)
{
	say(s, "answers again");
	tell(s->all);
}

/* ---- probes ---- */

/* The next one that is due, begun; NULL: *until says when there may be one. Under the lock. */
static struct site *take_due(struct sites *all, double *until)
{
	const double now = clock_seconds();

	*until = now + BREAKER_LAST_S;
	for (uint32_t i = 0; i < all->n; i++) {
		struct breaker *b = &all->sites[i].breaker;

		if (breaker_begin_probe(b, now))
			return &all->sites[i];
		if (b->state == BREAKER_OPEN && b->probe_at < *until)
			*until = b->probe_at;
	}
	return NULL;
}

/* Any answer will do: one that says no comes from a server that lives. */
static bool is_alive(struct sites *all, const struct site *s, struct lslm_error *why)
{
	char url[SITE_BYTES + 16];
	const struct http_request req = {
		.url = url,
		.exact_size = HTTP_ANY_SIZE,
		.max_size = HEALTH_BYTES,
		.last = true,
	};
	int ret;

	snprintf(url, sizeof(url), "%s/health", s->name);
	ret = http_perform(all->http, &req, why);
	return ret != -EREMOTEIO && ret != -ECANCELED && !http_is_outage(ret);
}

static void probe(struct sites *all, struct site *s)
{
	struct lslm_error why;
	const bool alive = is_alive(all, s, &why);
	bool returned = false;

	pthread_mutex_lock(&all->lock);
	if (alive)
		returned = breaker_probe_answered(&s->breaker);
	else
		breaker_probe_failed(&s->breaker, clock_seconds());
	if (!alive && why.code != -ECANCELED)
		s->why = why;
	s->returns += returned;
	pthread_mutex_unlock(&all->lock);
	if (returned)
		has_returned(s);
	else
		tell(all);
}

static struct timespec at(double seconds)
{
	const double left = seconds - clock_seconds();

	return clock_after_ms(left > 0 ? (unsigned int)(left * 1000) + 1 : 0);
}

static void *run(void *arg)
{
	struct sites *all = arg;
	struct timespec until;
	struct site *s;
	double next;

	pthread_mutex_lock(&all->lock);
	while (!atomic_load(&all->stop)) {
		s = take_due(all, &next);
		if (s) {
			pthread_mutex_unlock(&all->lock);
			tell(all);
			probe(all, s);
			pthread_mutex_lock(&all->lock);
			continue;
		}
		until = at(next);
		pthread_cond_timedwait(&all->changed, &all->lock, &until);
	}
	pthread_mutex_unlock(&all->lock);
	return NULL;
}

/* ---- those who ask ---- */

int site_may_ask(struct site *s, struct lslm_error *err)
{
	int ret = 0;

	if (!s)
		return 0;
	pthread_mutex_lock(&s->all->lock);
	if (s->breaker.state != BREAKER_CLOSED)
		ret = error_set(err, -ENETDOWN, "the cloud is away: %s", s->why.text);
	pthread_mutex_unlock(&s->all->lock);
	return ret;
}

double site_away_since(struct site *s)
{
	double since = 0;

	if (!s)
		return 0;
	pthread_mutex_lock(&s->all->lock);
	if (s->breaker.state != BREAKER_CLOSED)
		since = s->breaker.opened_at;
	pthread_mutex_unlock(&s->all->lock);
	return since;
}

uint32_t site_returns(struct site *s)
{
	uint32_t n;

	if (!s)
		return 0;
	pthread_mutex_lock(&s->all->lock);
	n = s->returns;
	pthread_mutex_unlock(&s->all->lock);
	return n;
}

void site_answered(struct site *s)
{
	bool returned;

	if (!s)
		return;
	pthread_mutex_lock(&s->all->lock);
	returned = breaker_answered(&s->breaker);
	s->returns += returned;
	pthread_mutex_unlock(&s->all->lock);
	if (returned)
		has_returned(s);
}

void site_failed(struct site *s, const struct lslm_error *why)
{
	bool opened;

	if (!s)
		return;
	pthread_mutex_lock(&s->all->lock);
	opened = breaker_failed(&s->breaker, clock_seconds());
	if (opened)
		s->why = *why;
	pthread_mutex_unlock(&s->all->lock);
	if (!opened)
		return;
	say(s, "%d failures in a row, it is not asked before it answers a probe: %s",
	    BREAKER_FAILURES, why->text);
	tell(s->all);
}

void sites_listen(struct sites *all, struct sites_listener *l)
{
	if (!all)
		return;
	pthread_mutex_lock(&all->calls);
	l->next = all->listeners;
	all->listeners = l;
	pthread_mutex_unlock(&all->calls);
}

void sites_unlisten(struct sites *all, struct sites_listener *l)
{
	if (!all)
		return;
	pthread_mutex_lock(&all->calls);
	for (struct sites_listener **at = &all->listeners; *at; at = &(*at)->next) {
		if (*at != l)
			continue;
		*at = l->next;
		break;
	}
	pthread_mutex_unlock(&all->calls);
}

/* ---- finding them ---- */

/* "https://HOST[:PORT]" of a URL, as it is written; 0: it has none that fits, or that may be told. */
static size_t site_length(const char *url)
{
	static const char scheme[] = "https://";
	size_t len = strlen(scheme);

	if (strncmp(url, scheme, len))
		return 0;
	len += strcspn(url + len, "/?#");
	return len < SITE_BYTES && !memchr(url, '@', len) ? len : 0;
}

static void begin_site(struct sites *all, struct site *s, const char *url, size_t len)
{
	const struct sites_opts *o = &all->opts;
	uint64_t seed = 0;

	s->all = all;
	memcpy(s->name, url, len);
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = clock_ns();
	breaker_init(&s->breaker, seed);
	if (!o->was_away || !o->was_away(o->arg, s->name))
		return;
	breaker_reopen(&s->breaker, clock_seconds());
	error_set(&s->why, -ENETDOWN, "it was when the courier before this one ended");
}

struct site *sites_find(struct sites *all, const char *url)
{
	const size_t len = all ? site_length(url) : 0;
	struct site *s = NULL;
	bool fresh = false;

	if (!len)
		return NULL;
	pthread_mutex_lock(&all->lock);
	for (uint32_t i = 0; i < all->n && !s; i++)
		if (!strncmp(all->sites[i].name, url, len) && !all->sites[i].name[len])
			s = &all->sites[i];
	fresh = !s && all->n < SITES_MAX;
	if (fresh) {
		s = &all->sites[all->n++];
		begin_site(all, s, url, len);
	}
	pthread_mutex_unlock(&all->lock);
	if (fresh)
		tell(all);
	return s;
}

int sites_look(struct sites *all, uint32_t i, struct site_stats *out)
{
	const struct site *s;
	int ret = -ENOENT;

	if (!all)
		return ret;
	pthread_mutex_lock(&all->lock);
	if (i < all->n) {
		s = &all->sites[i];
		*out = (struct site_stats){
			.state = s->breaker.state,
			.opened = s->breaker.opened,
			.probes = s->breaker.probes,
		};
		memcpy(out->name, s->name, sizeof(out->name));
		if (out->state == BREAKER_OPEN && s->breaker.probe_at > clock_seconds())
			out->next_s = s->breaker.probe_at - clock_seconds();
		if (out->state != BREAKER_CLOSED)
			snprintf(out->why, sizeof(out->why), "%s", s->why.text);
		ret = 0;
	}
	pthread_mutex_unlock(&all->lock);
	return ret;
}

int sites_open(struct sites **out, const struct sites_opts *opts, struct lslm_error *err)
{
	struct sites *all = calloc(1, sizeof(*all));
	struct http_opts http = opts->http;
	int ret;

	if (!all)
		return error_sys(err, -ENOMEM, "clouds");
	all->opts = *opts;
	pthread_mutex_init(&all->calls, NULL);
	pthread_mutex_init(&all->lock, NULL);
	clock_cond_init(&all->changed);
	http.stop = &all->stop;
	http.site = NULL;
	ret = http_open(&all->http, &http, err);
	if (!ret) {
		ret = -pthread_create(&all->thread, NULL, run, all);
		all->running = !ret;
		if (ret)
			error_sys(err, ret, "cannot start a thread");
	}
	if (ret < 0) {
		sites_close(all);
		return ret;
	}
	*out = all;
	return 0;
}

void sites_stop(struct sites *all)
{
	if (!all || !all->running)
		return;
	pthread_mutex_lock(&all->lock);
	atomic_store(&all->stop, true);
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->lock);
	http_wake(all->http);
	pthread_join(all->thread, NULL);
	all->running = false;
}

void sites_close(struct sites *all)
{
	if (!all)
		return;
	sites_stop(all);
	http_close(all->http);
	pthread_cond_destroy(&all->changed);
	pthread_mutex_destroy(&all->lock);
	pthread_mutex_destroy(&all->calls);
	free(all);
}
