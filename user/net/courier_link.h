/* SPDX-License-Identifier: MIT */
/*
 * A link to a courier that may be restarted: one connection, shared by all contexts of an engine, and made anew
 * after it has gone.
 *
 * Who makes connections is the owner's matter: a confined engine cannot, and is given one by its supervisor. One thread,
 * the owner's, asks the courier and may wait for its answers; courier_link_look() is to be called about once a second.
 * Those that answer users never wait, however long the courier is silent: they are told what was last seen, and their
 * hints are passed on as soon as nobody else uses the connection.
 *
 * A restarted courier numbers its contexts anew, so contexts are named by their keys here.
 */
#ifndef LSLM_NET_COURIER_LINK_H
#define LSLM_NET_COURIER_LINK_H

#include "net/courier_client.h"

struct courier_link;

enum {
	LINK_PAUSE_MS = 200, /* between two attempts to have a connection */
	LINK_CONTEXTS = 64, /* a courier has no more */
};

struct courier_link_opts {
	/* A new connected socket, the link's from then on; or -errno. */
	int (*connect)(void *arg, struct lslm_error *err);
	void *arg;
	int timeout_ms; /* as in courier_client_open() */
};

int courier_link_open(struct courier_link **out, const struct courier_link_opts *opts,
		      struct lslm_error *err);
/* Nobody uses it any more. NULL is allowed. */
void courier_link_close(struct courier_link *l);

/* ---- of one thread, which may wait ---- */

/* How often a connection was made: who sees it grow looks whether all is as it was. */
uint32_t courier_link_turn(const struct courier_link *l);
/* As the calls of the client; -ENOTCONN: there is no courier now. */
int courier_link_list(struct courier_link *l, uint32_t index, struct courier_entry *out,
		      struct lslm_error *err);
/* -ENXIO: the courier has no such context, at least not yet. */
int courier_link_attach(struct courier_link *l, const struct kv_hash *key, enum order_kind order,
			struct courier_attached *out, int fds[COURIER_WIRE_FDS],
			struct lslm_error *err);
/* See how it is with the contexts that were attached, for courier_link_status(). */
void courier_link_look(struct courier_link *l);
/* It was dropped; who still has it attached is told -ENXIO from now on. */
void courier_link_forget(struct courier_link *l, const struct kv_hash *key);

/* ---- of any thread ---- */

void courier_link_head(struct courier_link *l, const struct kv_hash *key, uint32_t stripes);
/*
 * As last seen. -ENXIO: it was not attached by this link; -ENOTCONN: the courier did not answer when it was last looked at,
 * and *out is of before.
 */
int courier_link_status(struct courier_link *l, const struct kv_hash *key,
			struct courier_status *out, struct lslm_error *err);

#endif
