/* SPDX-License-Identifier: MIT */
/*
 * The peer service: a gateway serves the blocks that it has to other gateways.
 *
 *   GET /health                      alive; the only one without authentication
 *   GET /v1/contexts/KEY/manifest    its manifest as published
 *   GET /v1/contexts/KEY/held        a byte per stripe: 1 + level at which all of it is here; 0: it is not
 *   GET /v1/contexts/KEY/blocks      ?level=f16&order=layer|tail&from=N&count=M, of what is here
 *
 * To who asks it is a cloud (serve/cloud.h) that has a part of each context: TLS always, a bearer token, a client certificate or
 * both. There is no list: who cannot name a context's key learns nothing. Served is what was published, was checked
 * against its digest here, and lies in the courier's buffers; nothing that an engine has computed is there.
 *
 * Each connection has a thread; one more than PEER_SERVICE_CONNECTIONS is answered with 503.
 */
#ifndef LSLM_SERVE_PEER_SERVICE_H
#define LSLM_SERVE_PEER_SERVICE_H

#include "serve/shelf.h"

struct peer_service;

enum { PEER_SERVICE_CONNECTIONS = 64 };

struct peer_service_opts {
	const char *listen; /* HOST:PORT, [V6]:PORT; port 0: any free one */
	const char *cert; /* PEM files of the server */
	const char *key;
	const char *
		client_ca; /* PEM: peers must show a certificate signed by it; NULL: none asked for */
	const char *token; /* NULL: none asked for */
	/* File of tenants in place of token, each of whom sees the contexts of its salt only; NULL: none. */
	const char *tenants;
};

/* Keeps what it needs of opts. The shelf outlives it. Serves from its own threads. */
int peer_service_start(struct peer_service **out, const struct peer_service_opts *opts,
		       struct shelf *shelf, struct lslm_error *err);
/* Whether that would take the files that opts names: 0, or what peer_service_start() would say. */
int peer_service_check(const struct peer_service_opts *opts, struct lslm_error *err);
/* NULL is allowed. */
void peer_service_stop(struct peer_service *p);
int peer_service_port(const struct peer_service *p);

#endif
