/* SPDX-License-Identifier: MIT */
/*
 * Confinement of an engine process, in two steps.
 *
 * confine_begin() comes first of all, while the process is still whoever started it: what it inherited is
 * closed, it leaves no core dumps and cannot be looked into, and it enters its cgroup, whose guard
 * (serve/guard.h) lets only answers out. Then the process opens its models. confine_finish() comes before
 * the first byte of a user: another user and no capabilities, and only the calls of serve/syscalls.h,
 * for every thread.
 *
 * After that there is no way to reach anybody but on connections that clients have opened, by the
 * calls that are left as by the guard, of which either would be enough: one judges what is asked
 * for, the other what is sent.
 *
 * What cannot be had on this machine is off, with a line that says why.
 */
#ifndef LSLM_SERVE_CONFINE_H
#define LSLM_SERVE_CONFINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

enum confine_part {
	CONFINE_DUMPS, /* no core dumps, not to be looked into by processes of the same user */
	CONFINE_GUARD, /* in a cgroup with an egress guard */
	CONFINE_USER, /* a user of its own, no capabilities */
	CONFINE_CALLS, /* the filter of calls */
	CONFINE_PARTS
};

struct confine_report {
	uint32_t on; /* bits of confine_part */
	uint32_t closed; /* inherited descriptors */
	uint32_t closed_sockets; /* of those: sockets of networks, and rings */
	struct lslm_error why[CONFINE_PARTS]; /* of those that are off; code 0: not asked for */
};

/*
 * keep: the highest descriptor that stays, all above it are closed. cgroup: NULL for none, which is a
 * guard that is off without a line. -EBUSY: a descriptor that stays is a socket of a network.
 */
int confine_begin(struct confine_report *report, int keep, const char *cgroup,
		  struct lslm_error *err);

/*
 * uid 0: the user stays. notifier: as in syscalls_limit(); -1 afterwards where calls are not limited. -EBUSY: a
 * descriptor or a mapping is a socket of a network or a ring of io_uring, which the filter would not see the use of.
 */
int confine_finish(struct confine_report *report, uid_t uid, gid_t gid, int *notifier,
		   struct lslm_error *err);

/* "dumps", "guard", ... */
const char *confine_part_name(enum confine_part part);
/* A user's numbers by its name. -ENOENT: there is no such user; -EINVAL: it is root. */
int confine_find_user(const char *name, uid_t *uid, gid_t *gid, struct lslm_error *err);

#endif
