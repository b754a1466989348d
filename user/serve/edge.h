/* SPDX-License-Identifier: MIT */
/*
 * The edge's courier: contexts that are kept on this gateway, for engines in other processes.
 *
 * It owns what is secret or writable: connections, keys, buffers, control pages, the stripe store, the
 * programs that steer. Engines get read-only descriptors through its socket (serve/desk.h). It
 * brings the contexts whether or not an engine waits for them (serve/shelf.h).
 */
#ifndef LSLM_SERVE_EDGE_H
#define LSLM_SERVE_EDGE_H

#include <stdbool.h>

#include "engine/matrices.h"
#include "net/courier.h"
#include "net/peers.h"
#include "serve/peer_service.h"

struct edge;

struct edge_opts {
	const char *socket; /* for engines */
	const char *group; /* that may use it too; NULL: none */
	/* https://HOST[:PORT]: every context that it offers, now and later; NULL: only those that are named. */
	const char *cloud;
	bool asked_only; /* of those an admin chooses; until then they are only listed */
	uint32_t max_contexts; /* 0: SHELF_CONTEXTS */
	/* File of tenants (serve/tenants.h), for the salts of which there are tokens; NULL: none. */
	const char *tenants;
	const char *const *contexts; /* .lskv files and URLs */
	uint32_t n_contexts;
	/* Models whose weights are read here, once for all engines; see serve/weights_share.h. */
	const char *const *models;
	uint32_t n_models;
	enum matrices_load load; /* READ or AUTO; else nothing is read here */
	/* How they are fetched; source, order, offline, store, steer, allow, peers, sites and stop are set here. */
	struct courier_opts courier;
	const struct stripe_store_opts *store; /* NULL: none */
	const char *steer; /* as steer_parse() takes it; NULL: none */
	/* Of every sender, bytes per second and at once; burst 0: no limit. Senders are clouds with a session. */
	uint64_t steer_rate, steer_burst;
	/* Other gateways that contexts may come from too: NULL: none; log and arg are set here. */
	const struct peers_opts *peers;
	/* What is here is served to them; NULL: it is not. */
	const struct peer_service_opts *peer_service;
	/* To the supervisor that has started this process (serve/channel.h); 0: there is none. */
	int channel;
	/* One line per event. NULL: no log. From many threads. */
	void (*log)(void *arg, const char *line);
	void *arg;
};

/*
 * Serves from its own threads. Everything in opts outlives it. Steering that cannot be had is told to the log and by
 * `lslm stat`, and is no error; a store that cannot be used is one.
 */
int edge_start(struct edge **out, const struct edge_opts *opts, struct lslm_error *err);
/*
 * Whether edge_start() would take what it reads from files and what was read from them: contexts, tenants, certificates. Nothing is
 * started, and nobody is asked. An error's line names the file, or the context.
 */
int edge_check(const struct edge_opts *opts, struct lslm_error *err);
/* NULL is allowed. */
void edge_stop(struct edge *e);

#endif
