/* SPDX-License-Identifier: MIT */
/*
 * An engine process: models that answer over HTTP, and see what users type.
 *
 * Started by a supervisor, with a channel (serve/channel.h). In this order: what it inherited is closed and it
 * enters its cgroup; models are opened, each with an engine; it is confined for good (serve/confine.h); it gets the
 * listening socket and contexts, and answers. It cannot make a connection: those to the courier it is given. Contexts
 * that the courier has are attached as they come (serve/roster.h), and stay while the courier is restarted.
 *
 * Weights are mapped where there is a packed file, so that any number of engines have them once; elsewhere each packs its
 * own at start.
 */
#ifndef LSLM_SERVE_ENGINE_PROCESS_H
#define LSLM_SERVE_ENGINE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/key.h"
#include "kv/manifest.h"

enum { ENGINE_MODELS = 16 };

struct engine_process_opts {
	int channel;
	const char *cgroup; /* NULL: no guard */
	const char *user; /* that it becomes when it is root; NULL: "lslm-engine", or "nobody" */
	bool require_confinement;
	const char *const *models;
	uint32_t n_models;
	uint32_t threads; /* of each; 0: as many as processors */
	/* NULL: what the courier has verified is believed. */
	const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES];
	size_t n_trusted;
	struct kv_hash salt;
	void (*log)(void *arg, const char *line); /* from many threads; NULL: no log */
	void *arg;
};

/* Until SIGTERM. SIGTERM is blocked by the caller, before any thread is started. */
int engine_process_run(const struct engine_process_opts *opts, struct lslm_error *err);

#endif
