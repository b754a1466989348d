/* SPDX-License-Identifier: MIT */
/*
 * The connections of a server, watched from the side: who has left, and who takes too long to say what they want.
 *
 * While an answer is computed nothing is read from or written to its client, so the HTTP library does not notice that the client is
 * gone. And its timeout is about silence: a client that sends a byte now and then holds a connection for ever. One thread
 * looks after both, for all connections. A client that shuts down its sending side has left, too.
 */
#ifndef LSLM_SERVE_WATCH_H
#define LSLM_SERVE_WATCH_H

#include <stdbool.h>

#include "base/error.h"

struct watch;
struct watch_conn;

enum watch_phase {
	WATCH_HEADERS, /* from the connection's beginning, or the last reply's end, to the end of the headers */
	WATCH_BODY,
	WATCH_REPLY, /* no limit */
};

struct watch_opts {
	unsigned int headers_s, body_s; /* limits */
	/* On the watch's thread, after watch_wake() and now and then. */
	void (*sweep)(void *arg);
	void *arg;
};

int watch_open(struct watch **out, const struct watch_opts *opts, struct lslm_error *err);
/* There are no connections left. NULL is allowed. */
void watch_close(struct watch *w);
void watch_wake(struct watch *w);

/* NULL: no memory. fd stays the caller's, and open until watch_remove(). */
struct watch_conn *watch_add(struct watch *w, int fd);
void watch_remove(struct watch_conn *c);
unsigned int watch_count(struct watch *w);

void watch_phase(struct watch_conn *c, enum watch_phase phase);

/*
 * left(arg) is called once, on the watch's thread, when the client has left; at once, on this one, if it has already. It must
 * not call the watch. After watch_forget() it does not run and will not.
 */
void watch_departure(struct watch_conn *c, void (*left)(void *arg), void *arg);
void watch_forget(struct watch_conn *c);

#endif
