// SPDX-License-Identifier: MIT
#include "serve/watch.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

enum { EVENTS = 64, TICK_MS = 250 };

struct watch_conn {
	struct watch *watch;
	struct watch_conn *next, **at;
	uint64_t id; /* events name it: a connection may be gone when one is read */
	int fd;
	bool gone;
	double limit; /* clock_seconds() when it is cut; 0: never */
	void (*left)(void *arg);
	void *arg;
};

struct watch {
	struct watch_opts opts;
	int epoll, wake;
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock; /* of all below, and while left() runs */
	struct watch_conn *first;
	unsigned int n;
	uint64_t last_id;
	bool stop;
};

/* ---- the thread ---- */

static void depart(struct watch_conn *c)
{
	void (*left)(void *arg) = c->left;

	c->gone = true;
	c->left = NULL;
	if (left)
		left(c->arg);
}

static void on_event(struct watch *w, uint64_t id)
{
	for (struct watch_conn *c = w->first; c; c = c->next) {
		if (c->id == id) {
			depart(c);
			return;
		}
	}
}

/* The library sees the end of the connection and closes it. */
static void cut_late(struct watch *w, double now)
{
	for (struct watch_conn *c = w->first; c; c = c->next) {
		if (c->limit > 0 && now > c->limit) {
			shutdown(c->fd, SHUT_RDWR);
			c->limit = 0;
		}
	}
}

static void drain_wake(struct watch *w)
{
	uint64_t n;

	while (read(w->wake, &n, sizeof(n)) < 0 && errno == EINTR)
		;
}

static void *run(void *arg)
{
	struct epoll_event events[EVENTS];
	struct watch *w = arg;
	bool stop = false;

	while (!stop) {
		int n = epoll_wait(w->epoll, events, EVENTS, watch_count(w) ? TICK_MS : -1);

		pthread_mutex_lock(&w->lock);
		for (int i = 0; i < n; i++) {
			if (events[i].data.u64)
				on_event(w, events[i].data.u64);
			else
				drain_wake(w);
		}
		cut_late(w, clock_seconds());
		stop = w->stop;
		pthread_mutex_unlock(&w->lock);
		w->opts.sweep(w->opts.arg);
	}
	return NULL;
}

/* ---- start and stop ---- */

static int start(struct watch *w, struct lslm_error *err)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int rc;

	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->epoll < 0 || w->wake < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->wake, &ev) < 0)
		return error_sys(err, -errno, "cannot watch connections");
	rc = pthread_create(&w->thread, NULL, run, w);
	if (rc)
		return error_sys(err, -rc, "cannot watch connections");
	w->has_thread = true;
	return 0;
}

int watch_open(struct watch **out, const struct watch_opts *opts, struct lslm_error *err)
{
	struct watch *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return error_sys(err, -ENOMEM, "watch");
	w->opts = *opts;
	w->epoll = w->wake = -1;
	pthread_mutex_init(&w->lock, NULL);
	rc = start(w, err);
	if (rc) {
		watch_close(w);
		return rc;
	}
	*out = w;
	return 0;
}

void watch_wake(struct watch *w)
{
	const uint64_t one = 1;

	/* It can fail only where the thread is awake anyway. */
	while (write(w->wake, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void watch_close(struct watch *w)
{
	if (!w)
		return;
	if (w->has_thread) {
		pthread_mutex_lock(&w->lock);
		w->stop = true;
		pthread_mutex_unlock(&w->lock);
		watch_wake(w);
		pthread_join(w->thread, NULL);
	}
	if (w->epoll >= 0)
		close(w->epoll);
	if (w->wake >= 0)
		close(w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* ---- connections ---- */

/* Under the lock. */
static void set_phase(struct watch_conn *c, enum watch_phase phase)
{
	const struct watch_opts *o = &c->watch->opts;

	c->limit = 0;
	if (phase != WATCH_REPLY)
		c->limit = clock_seconds() + (phase == WATCH_BODY ? o->body_s : o->headers_s);
}

struct watch_conn *watch_add(struct watch *w, int fd)
{
	struct watch_conn *c = calloc(1, sizeof(*c));
	struct epoll_event ev = { .events = EPOLLRDHUP | EPOLLET };
	bool first;

	if (!c)
		return NULL;
	c->watch = w;
	c->fd = fd;
	pthread_mutex_lock(&w->lock);
	c->id = ev.data.u64 = ++w->last_id;
	set_phase(c, WATCH_HEADERS);
	c->next = w->first;
	c->at = &w->first;
	if (c->next)
		c->next->at = &c->next;
	w->first = c;
	first = !w->n++;
	/* What cannot be watched keeps its deadlines, and is noticed when it is written to. */
	epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &ev);
	pthread_mutex_unlock(&w->lock);
	if (first)
		watch_wake(w);
	return c;
}

void watch_remove(struct watch_conn *c)
{
	struct watch *w = c->watch;

	pthread_mutex_lock(&w->lock);
	epoll_ctl(w->epoll, EPOLL_CTL_DEL, c->fd, NULL);
	*c->at = c->next;
	if (c->next)
		c->next->at = c->at;
	w->n--;
	pthread_mutex_unlock(&w->lock);
	free(c);
}

unsigned int watch_count(struct watch *w)
{
	unsigned int n;

	pthread_mutex_lock(&w->lock);
	n = w->n;
	pthread_mutex_unlock(&w->lock);
	return n;
}

void watch_phase(struct watch_conn *c, enum watch_phase phase)
{
	pthread_mutex_lock(&c->watch->lock);
	set_phase(c, phase);
	pthread_mutex_unlock(&c->watch->lock);
}

void watch_departure(struct watch_conn *c, void (*left)(void *arg), void *arg)
{
	pthread_mutex_lock(&c->watch->lock);
	c->left = left;
	c->arg = arg;
	if (c->gone)
		depart(c);
	pthread_mutex_unlock(&c->watch->lock);
}

void watch_forget(struct watch_conn *c)
{
	pthread_mutex_lock(&c->watch->lock);
	c->left = NULL;
	pthread_mutex_unlock(&c->watch->lock);
}
