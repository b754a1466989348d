/* SPDX-License-Identifier: MIT */
/*
 * The cell: the cgroup that engines live in, its egress guard, and the socket that they answer at.
 *
 * The kernel judges what a socket sends by the cgroup in which it was made, so the listening socket is made
 * by a child process inside, once, and every engine gets a duplicate: one that dies loses no
 * connection that waits to be accepted, and its successor answers at the same port.
 *
 * Where there can be no cgroup or no BPF (in a container, without root) there is only the socket, and
 * cell_guarded() says why.
 */
#ifndef LSLM_SERVE_CELL_H
#define LSLM_SERVE_CELL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "bpf/guard.h"

struct cell;

/* Errors as listener_open(). The caller has no other thread: it forks. */
int cell_open(struct cell **out, const char *listen, struct lslm_error *err);
/* The processes in it have ended. NULL is allowed. */
void cell_close(struct cell *c);

bool cell_guarded(const struct cell *c, struct lslm_error *why);
/* As guard_stats(); all 0 where there is no guard. */
void cell_guard_stats(const struct cell *c, uint64_t out[GUARD_COUNTERS]);
/* For guard_enter(); NULL where there is no guard. */
const char *cell_cgroup(const struct cell *c);
int cell_listener(const struct cell *c); /* the cell's */
int cell_port(const struct cell *c);

#endif
