/* SPDX-License-Identifier: MIT */
/*
 * The clouds that a courier asks, and whether they are to be asked: a breaker (net/breaker.h) for each.
 *
 * A cloud is a site, "https://HOST[:PORT]". Whoever asks one over HTTPS says so to its client (struct http_opts, site), which asks
 * for leave before each request and reports what became of it; sessions over UDP report their own ends. What counts as a failure
 * is that nobody was reached, that the connection broke or fell silent, that the server could not show who it is, and a status of
 * 500 and above. An answer that says no is an answer. What a server sent, and whether it lies, is not looked at.
 *
 * While a breaker is open every request ends at once with -ENETDOWN, also those under way that have heard nothing since. One
 * thread sends the probes, GET /health, over a connection of its own. Each change is told in a line, and to those who listen.
 *
 * From any thread.
 */
#ifndef LSLM_NET_SITES_H
#define LSLM_NET_SITES_H

#include "net/breaker.h"
#include "net/http_client.h"

struct sites;
struct site;

enum { SITES_MAX = 16, SITE_BYTES = 256 };

struct sites_opts {
	struct http_opts http; /* of the probes; its strings outlive the sites */
	/* One line per change. NULL: no log. */
	void (*log)(void *arg, const char *line);
	/* Was it away when the process before this one ended? Then a probe comes first. NULL: nobody knows. */
	bool (*was_away)(void *arg, const char *name);
	void *arg;
};

int sites_open(struct sites **out, const struct sites_opts *opts, struct lslm_error *err);
/* No more probes and calls; requests go on. Before sites_close(), when nobody asks any more. NULL is allowed, in both. */
void sites_stop(struct sites *all);
void sites_close(struct sites *all);

/*
 * The one that a URL is of, as long as `all`. NULL where `all` is, for what is no https:// URL, and when there are SITES_MAX others: it
 * is then asked without a breaker.
 */
struct site *sites_find(struct sites *all, const char *url);

/* Of whoever listens, who keeps it. */
struct sites_listener {
	void (*changed)(void *arg);
	void *arg;
	struct sites_listener *next; /* the sites' */
};

/*
 * Something has changed, of one of them, or there is one more; not with a lock held, and from any thread. After
 * sites_unlisten() it is not called any more; one that does not listen may be given to that, too.
 */
void sites_listen(struct sites *all, struct sites_listener *l);
void sites_unlisten(struct sites *all, struct sites_listener *l);

/* In all that follows s may be NULL: it may be asked, then, and never fails. */

/* -ENETDOWN: not now; the line says since which failure. */
int site_may_ask(struct site *s, struct lslm_error *err);
/* Before that time nobody was told that the site is away, or it is not: for who has heard nothing since then. 0: it is not away. */
double site_away_since(struct site *s);
/* How often it has come back: who waits for it to do so compares. */
uint32_t site_returns(struct site *s);
void site_answered(struct site *s);
void site_failed(struct site *s, const struct lslm_error *why);

struct site_stats {
	char name[SITE_BYTES];
	enum breaker_state state;
	uint64_t opened, probes;
	double next_s; /* until the next probe, while OPEN */
	char why[256]; /* the last failure, while it is not CLOSED */
};

/* Of the i-th; -ENOENT behind the last one, and where `all` is NULL. */
int sites_look(struct sites *all, uint32_t i, struct site_stats *out);

#endif
