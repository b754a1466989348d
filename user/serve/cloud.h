/* SPDX-License-Identifier: MIT */
/*
 * The cloud: contexts computed, stored and served over HTTPS.
 *
 *   GET    /health                        alive; the only one without authentication
 *   GET    /v1/models                     what contexts can be computed with
 *   POST   /v1/contexts                   {"text", "raw", "title", "model", "map", "wait"}: compute, store, return its key
 *   GET    /v1/publishes/ID               how a POST is going that did not want to wait
 *   GET    /v1/contexts                   what is here
 *   PUT    /v1/contexts/KEY               a .lskv made elsewhere, verified before it is visible
 *   DELETE /v1/contexts/KEY
 *   POST   /v1/contexts/KEY/pin           it stays, whatever the limits say; DELETE takes that back
 *   GET    /v1/contexts/KEY/manifest      its manifest as published
 *   GET    /v1/contexts/KEY/blocks        ?level=f16&order=layer|tail&from=N: its blocks
 *   POST   /v1/sessions                   a session of placement over UDP, and its keys
 *   POST   /v1/sessions/ID/keys           the next keys
 *   DELETE /v1/sessions/ID
 *
 * docs/protocol.md specifies them. There is always TLS, on loopback too: scripts/certs makes
 * a pair in a second. There is always authentication: a bearer token, client
 * certificates, or both, in which case a client needs both.
 *
 * With a file of tenants (serve/tenants.h) each sees the contexts of its own salt only, and publishes under that.
 *
 * Each connection has a thread, because a publish takes as long as it takes. A
 * connection that is silent for idle_timeout_s is closed; one more than
 * max_connections is answered with 503. Neither text nor token is ever passed to log().
 */
#ifndef LSLM_SERVE_CLOUD_H
#define LSLM_SERVE_CLOUD_H

#include "net/sender.h"
#include "serve/contexts.h"

struct cloud;

enum { CLOUD_UDP_OFF = -1 };

struct cloud_opts {
	const char *listen; /* HOST:PORT, [V6]:PORT; port 0: any free one */
	const char *cert; /* PEM files of the server */
	const char *key;
	const char *
		client_ca; /* PEM: clients must show a certificate signed by it; NULL: none asked for */
	const char *token; /* NULL: none asked for */
	const char *tenants; /* file of them, in place of token; NULL: none */
	const char *store; /* directory, made 0700 if missing */
	uint64_t store_bytes; /* that it may take; 0: no limit */
	unsigned int ttl_s; /* contexts that were not used for so long are removed; 0: never */
	int udp_port; /* of placement, at the address of HTTPS; 0: the same number; CLOUD_UDP_OFF */
	const struct sender_opts *udp; /* its limits, the address aside; NULL: the usual ones */
	/* Whose uploads are taken; none: PUT is refused. */
	const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES];
	size_t n_trusted;
	size_t max_text; /* bytes of a POST's body; 0: 8 MiB */
	uint64_t max_upload; /* bytes of a PUT's body; 0: 16 GiB */
	unsigned int max_connections; /* 0: 64 */
	unsigned int idle_timeout_s; /* 0: 30 */
	pubqueue_fn *publish; /* NULL: POST is refused */
	const struct contexts_model
		*models; /* that it knows, the usual one first; must outlive the cloud */
	uint32_t n_models;
	const struct contexts_map *maps; /* likewise */
	uint32_t n_maps;
	struct kv_hash salt; /* of what is published where there are no tenants */
	/* One line per request: who, what, status. NULL: no log. Called from many threads. */
	void (*log)(void *arg, const char *line);
	void *arg; /* of publish and log */
};

/* Keeps its own copies of everything in opts but arg. Serves from its own threads. */
int cloud_start(struct cloud **out, const struct cloud_opts *opts, struct lslm_error *err);
/* Waits for a publish that is running; other connections are cut. */
void cloud_stop(struct cloud *c);
/*
 * Read the tenants, certificate, key and the CA of clients again; what cannot be read stays as it was. Connections that there are go on with
 * the old certificate.
 */
int cloud_reload(struct cloud *c, struct lslm_error *err);
/* The port in use. */
int cloud_port(const struct cloud *c);
/*
 * The UDP port of placement; < 0: there is none, and why. A port that cannot be had is no reason not to
 * start: blocks are served over HTTPS.
 */
int cloud_udp_port(const struct cloud *c, struct lslm_error *why);
/* How placement is going; all zero where there is none. */
void cloud_udp_stats(const struct cloud *c, struct sender_stats *out);

#endif
