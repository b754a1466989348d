/* SPDX-License-Identifier: MIT */
/*
 * A child of the supervisor: this program, executed anew, with a channel at CHANNEL_FD.
 *
 * It dies with the supervisor. It inherits standard output and error, and nothing else: standard input is
 * /dev/null. OpenBLAS starts no threads in it: nobody there computes with them.
 */
#ifndef LSLM_SERVE_CHILD_H
#define LSLM_SERVE_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct child {
	pid_t pid; /* 0: there is none */
	int channel; /* -1: there is none any more */
	double started; /* clock_seconds() */
	bool ready; /* it has said so */
};

/* argv ends with NULL. */
int child_start(struct child *c, char *const argv[], struct lslm_error *err);
void child_signal(const struct child *c, int sig);
/*
 * Has it ended? Then *why says how ("exit code 1", "signal 9"), and there is none any more. Does
 * not wait.
 */
bool child_ended(struct child *c, struct lslm_error *why);
/* Kill it, and wait. */
void child_kill(struct child *c);
void child_hang_up(struct child *c); /* close the channel */

#endif
