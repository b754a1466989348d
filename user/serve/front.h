/* SPDX-License-Identifier: MIT */
/*
 * The edge's HTTP front: what OpenAI's clients speak, in front of an engine.
 *
 *   POST   /v1/chat/completions      GET  /v1/models, /v1/models/NAME
 *   POST   /v1/completions           GET  /health, /ready, /metrics
 *   GET    /v1/contexts[/KEY]        what is attached, and where each block came from
 *   POST   /v1/contexts              {"source", "model"}: attach one
 *   POST   /v1/contexts/KEY/pin, /v1/contexts/KEY/unpin
 *   DELETE /v1/contexts/KEY          drop it
 *   GET    /...                      the web page (serve/page.h)
 *
 * docs/http.md has the fields and the errors. A few threads serve all connections; none waits for a token. A request ends with its
 * client: its choices are cancelled when the connection goes, whether they wait, prefill or decode.
 *
 * Without tenants there is no authentication, and the front then listens on loopback only; it does not answer web pages of other
 * origins, nor requests under a name that is not loopback's. With tenants everything but /health, /ready and the page needs a token.
 *
 * No text of a user, no token and no path that a client made up is ever passed to log().
 */
#ifndef LSLM_SERVE_FRONT_H
#define LSLM_SERVE_FRONT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/batch.h"
#include "kv/key.h"
#include "model/model.h"
#include "serve/attached.h"
#include "serve/tally.h"

struct front;

struct front_model {
	const char *name; /* as requests name it */
	const struct model *model;
	struct batch *batch;
	uint32_t n_ctx; /* positions per request, the batch's; 0: the model's */
	struct attached *contexts; /* NULL: none */
};

/*
 * What is done about contexts, by those who can (the courier, by way of the supervisor). Each is called on a worker's thread,
 * may take its time, and is told whose salt the context must have, or NULL where there are no tenants. NULL for what cannot be done: 501. After
 * an attach the context is in the model's `contexts` or will be; *key says which it is. Errors as in reply_failure().
 */
struct front_ops {
	int (*attach)(void *arg, const char *model, const struct kv_hash *salt, const char *source,
		      struct kv_hash *key, struct lslm_error *err);
	/* attached_pin() and attached_remove() are the front's part and are done afterwards. */
	int (*pin)(void *arg, const char *model, const struct kv_hash *key, bool pinned,
		   struct lslm_error *err);
	int (*drop)(void *arg, const char *model, const struct kv_hash *key,
		    struct lslm_error *err);
	void *arg;
};

struct front_opts {
	const char *listen; /* HOST:PORT, [V6]:PORT; port 0: any free one. NULL: listen_fd */
	int listen_fd; /* listens already; taken over */
	/*
	 * Gives listen_fd, called with arg when everything has been read from files and nothing has been accepted: the
	 * place for a process to be confined. NULL: listen_fd is it.
	 */
	int (*listener)(void *arg, struct lslm_error *err);
	const char *cert, *key; /* PEM files; NULL: no TLS */
	const char *tokens; /* file of tenants (serve/tenants.h); NULL: none */
	struct kv_hash salt; /* of the contexts of those who have none of their own; zero: none */
	const struct front_model *models;
	uint32_t n_models;
	/* More of /metrics, in Prometheus' form, on any thread; NULL: there is no more. For those who see what is all tenants'. */
	void (*metrics)(void *arg, FILE *to);
	struct tally *
		tally; /* where it counts (serve/tally.h), outlives it; NULL: in memory of its own */
	/* What all fronts like this one have counted, which is told in place of its own; false: that is not known. May be NULL. */
	bool (*totals)(void *arg, struct tally_page *out);
	const struct front_ops *ops; /* NULL: contexts are only listed */
	uint64_t max_body; /* bytes; 0: 4 MiB */
	uint32_t max_predict; /* tokens of an answer where a request names no number; 0: 1024 */
	double deadline_s; /* of an answer, where a request names none; 0: 600 */
	unsigned int max_connections; /* 0: 256 */
	unsigned int max_per_address; /* 0: 128 */
	unsigned int header_timeout_s, body_timeout_s; /* from begin to end; 0: 20, 60 */
	/* One line per request: who, what, status, counts. NULL: no log. Called from many threads. */
	void (*log)(void *arg, const char *line);
	void *arg;
};

/*
 * Keeps copies of what is in opts and its lists; models, batches, contexts and ops' arg outlive it. -EACCES: without tenants it
 * would listen for others than this machine.
 */
int front_start(struct front **out, const struct front_opts *opts, struct lslm_error *err);
int front_port(const struct front *f);
/* The tenants' file again. On failure the old ones stay. From any thread. */
int front_reload(struct front *f, struct lslm_error *err);
/*
 * Accept no more connections; what comes on those that are there is answered. For a listening socket that others have
 * too, and go on to accept from: once, before front_drain().
 */
void front_quiesce(struct front *f);
/* How many there are. */
uint32_t front_connections(struct front *f);
/*
 * Take no more requests (503), and wait until the answers in flight are told, for so many seconds at most. How many were left. From
 * any thread.
 */
uint32_t front_drain(struct front *f, double seconds);
/* Cuts what is left. Batches may only be destroyed afterwards. NULL is allowed. */
void front_stop(struct front *f);

#endif
