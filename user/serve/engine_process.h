/* SPDX-License-Identifier: MIT */
/*
 * An engine process: models that answer over HTTP, and see what users type.
 *
 * Started by a supervisor, with a channel (serve/channel.h). In this order: what it inherited is closed and it
 * enters its cgroup; models are opened, each with an engine and a batch; certificate and tokens are read; it is confined
 * for good (serve/confine.h), attaches contexts, and only then accepts its first connection. It cannot make one: those
 * to the courier it is given. Contexts are attached as the courier has them (serve/roster.h), and stay
 * while it is restarted.
 *
 * Weights are the courier's, which reads them once for all engines, or mapped where there is a packed file, so that any
 * number of engines have them once; elsewhere each packs its own at start. An engine is ready when all that it
 * shares has arrived; it computes before. When that cannot be loaded it ends.
 */
#ifndef LSLM_SERVE_ENGINE_PROCESS_H
#define LSLM_SERVE_ENGINE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/matrices.h"
#include "kv/key.h"
#include "kv/manifest.h"

enum { ENGINE_MODELS = 16 };

struct engine_process_opts {
	int channel;
	const char *courier; /* socket of the one that may have read their weights; NULL: none */
	enum matrices_load load; /* READ, AUTO: ask it, then map; MAP; PACK */
	const char *cgroup; /* NULL: no guard */
	const char *user; /* that it becomes when it is root; NULL: "lslm-engine", or "nobody" */
	bool require_confinement;
	const char *const *models;
	uint32_t n_models;
	uint32_t threads; /* of each; 0: as many as processors */
	uint32_t n_ctx; /* positions per request; 0: as trained */
	uint64_t kv_bytes; /* of private KV, all models together; 0: what is free, by 4 and by `engines` */
	bool no_reuse; /* of private KV by later requests */
	bool attend_apart; /* see struct attention */
	uint32_t engines; /* processes like this one that share the machine */
	const char *cert, *key, *tokens; /* of the front, see struct front_opts */
	uint32_t drain_s; /* after SIGTERM, for answers that have begun */
	/* NULL: what the courier has verified is believed. */
	const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES];
	size_t n_trusted;
	struct kv_hash salt; /* of those who have none of their own */
	void (*log)(void *arg, const char *line); /* from many threads; NULL: no log */
	void *arg;
};

/* Until SIGTERM. SIGTERM is blocked by the caller, before any thread is started. */
int engine_process_run(const struct engine_process_opts *opts, struct lslm_error *err);

#endif
