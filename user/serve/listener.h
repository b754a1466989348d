/* SPDX-License-Identifier: MIT */
/*
 * Listening sockets from what a user writes: HOST:PORT or [V6]:PORT.
 *
 * The host may be a name, an address, or empty for all IPv4 addresses; port 0 takes
 * any free one. The socket is close-on-exec and already listens.
 */
#ifndef LSLM_SERVE_LISTENER_H
#define LSLM_SERVE_LISTENER_H

#include "base/error.h"

/* >= 0: the descriptor, owned by the caller. */
int listener_open(const char *address, struct lslm_error *err);
int listener_port(int fd);

#endif
