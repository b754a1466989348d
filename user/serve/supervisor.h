/* SPDX-License-Identifier: MIT */
/*
 * The supervisor: starts a courier and engines, keeps them alive, and outlives them.
 *
 *              +-- courier    network, keys, writable buffers; no text of a user
 *   supervisor +-- engine 1   text of users; read-only descriptors, the listening socket's connections
 *              +-- engine 2 ...
 *
 * It holds what must survive a child: the cell (cgroup, guard, listening socket), and duplicates of the
 * courier's buffers and control pages. It reads neither text nor KV, and opens no connection but to its own
 * courier. Children are this very program, executed anew, so that an engine has nothing of another's memory.
 *
 *   - Whoever dies is started again, after RESTART_FIRST_MS, then twice as long each time up to RESTART_LAST_MS; ten
 *     seconds of life start that over. One that dies before it was ever ready ends it all: its line says why.
 *   - Children die with the supervisor (PR_SET_PDEATHSIG).
 *   - Engines keep answering while there is no courier. The next one goes on from what was verified.
 *   - SIGTERM, SIGINT: engines take no more connections, end what they have begun, at most drain_s seconds; then
 *     the courier ends, then this.
 *   - SIGHUP: the courier is replaced, then each engine by a new one that is ready first. So all that is read from
 *     files is read anew, and no request is lost.
 */
#ifndef LSLM_SERVE_SUPERVISOR_H
#define LSLM_SERVE_SUPERVISOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { SUPERVISOR_ENGINES = 64 };

struct supervisor_opts {
	const char *listen; /* where engines answer */
	const char *courier_socket;
	uint32_t engines;
	/*
	 * What children are started with, as argv, NULL at the end: courier_argv says that there is a channel; to engine_argv the
	 * cgroup is added, with --cgroup, where there is one.
	 */
	char *const *courier_argv, *const *engine_argv;
	bool require_confinement; /* an engine with a part of it off is an error */
	uint32_t drain_s;
	/* One line per event; NULL: no log. */
	void (*log)(void *arg, const char *line);
	/* Once: the first engine answers at this port, and the courier's socket is served. */
	void (*ready)(void *arg, int port);
	/* Before a reload: could children read what they are to read anew? Else they all stay as they are. NULL: not looked at. */
	int (*check)(void *arg, struct lslm_error *err);
	void *arg;
};

/*
 * Until a signal, or until a child cannot be started. The caller has no other thread, and SIGCHLD, SIGTERM, SIGINT,
 * SIGHUP are its own to block, which happens here.
 */
int supervisor_run(const struct supervisor_opts *opts, struct lslm_error *err);

#endif
