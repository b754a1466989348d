/* SPDX-License-Identifier: MIT */
/*
 * The calls that an engine may make, once it is about to see what users type: a seccomp filter over all of its
 * threads, those that were started before main() included.
 *
 * What is not on the list is refused with EPERM. On it is what computing, answering accepted connections and asking the
 * courier take; not on it are, above all, the ways to somebody else: socket(), socketpair(), connect(), bind(), all of
 * io_uring, open() and stat() of any name (a name that is looked up may itself be sent to a file server), execve(),
 * ptrace(), bpf(). Some are on it for some arguments only: new threads but no new
 * processes, no memory that can be executed, no TCP fast open (data in a SYN), signals to this process alone, also of
 * those that fcntl() could have sent, of ioctl() those of lslm buffers.
 *
 * A filter cannot count. So each refused call is told to a *notifier*, a descriptor that the
 * process hands to its supervisor, which counts, answers EPERM, and cannot be talked out of it by the process. While
 * nobody listens there such a call waits; once the last notifier is closed it is refused with ENOSYS.
 *
 * The filter stays for good. x86-64 and arm64; calls of another architecture's numbers (32 bits, x32) are the
 * process's end, or refused.
 */
#ifndef LSLM_SERVE_SYSCALLS_H
#define LSLM_SERVE_SYSCALLS_H

#include <sys/types.h>

#include "base/error.h"

/*
 * From now on, for every thread. notifier: NULL for refusals that nobody counts; else the descriptor, the
 * caller's. Sets no_new_privs. -EINVAL, -ENOSYS: this kernel or machine has no such filters; -EBUSY: a
 * thread has a filter of its own, or there is a notifier already.
 */
int syscalls_limit(int *notifier, struct lslm_error *err);

struct syscalls_refusal {
	pid_t thread;
	int number;
	char name[32]; /* "socket", or "call 123" */
};

/*
 * The supervisor's side, when the notifier can be read: refuse one call. 0 and what it was, -ENOENT when
 * its thread is gone by now, -EPIPE when the last process is.
 */
int syscalls_refuse(int notifier, struct syscalls_refusal *out);

#endif
