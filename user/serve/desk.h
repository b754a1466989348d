/* SPDX-License-Identifier: MIT */
/*
 * The desk: where engines ask the courier, net/courier_wire.h spoken by the one who answers.
 *
 * One thread serves all connections; no answer waits for anything. A client that sends what is no request,
 * or does not take its answers, is cut off and costs the others nothing. Clients beyond
 * DESK_CLIENTS wait in the socket's queue.
 */
#ifndef LSLM_SERVE_DESK_H
#define LSLM_SERVE_DESK_H

#include "serve/shelf.h"

struct desk;
struct sites;
struct steer;
struct weights_share;

enum { DESK_CLIENTS = 64 };

struct desk_opts {
	const char *socket;
	const char *group; /* NULL: none, the socket is this user's alone */
	struct shelf *shelf;
	struct stripe_store *store; /* NULL: none */
	const struct board *board; /* with the engines' figures; NULL: there is no supervisor */
	struct sites *sites; /* the clouds that are asked; NULL: none */
	const char *store_text; /* where it is, or why there is none */
	const struct steer *steer; /* NULL: none */
	const char *steer_text; /* why there is none; not looked at otherwise */
	struct weights_share *const *weights; /* [n_weights], of models; none is NULL */
	uint32_t n_weights;
	/* Who came, what was wrong. NULL: no log. */
	void (*log)(void *arg, const char *line);
	void *arg;
};

/* Everything in opts outlives the desk. Errors as local_socket_open(). */
int desk_open(struct desk **out, const struct desk_opts *opts, struct lslm_error *err);
/* NULL is allowed. */
void desk_close(struct desk *d);

#endif
