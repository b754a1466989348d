// SPDX-License-Identifier: MIT
#include "serve/syscalls.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "linux/lslm.h"

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

/* Whatever the arguments are. The kernel knows these to be so and skips the filter for them. */
static const int allowed[] = {
	/* memory */
	SYS_munmap,
	SYS_mremap,
	SYS_brk,
	SYS_madvise,
	SYS_mincore,
	SYS_memfd_create,
	SYS_ftruncate,
	SYS_fchmod,
	SYS_mlock,
	SYS_mbind,
	/* threads, time, signals */
	SYS_futex,
	SYS_set_robust_list,
	SYS_rseq,
	SYS_membarrier,
	SYS_sched_yield,
	SYS_sched_getaffinity,
	SYS_sched_setaffinity,
	SYS_getcpu,
	SYS_gettid,
	SYS_getpid,
	SYS_getppid,
	SYS_getuid,
	SYS_geteuid,
	SYS_getgid,
	SYS_getegid,
	SYS_exit,
	SYS_exit_group,
	SYS_restart_syscall,
	SYS_nanosleep,
	SYS_clock_nanosleep,
	SYS_clock_gettime,
	SYS_clock_getres,
	SYS_gettimeofday,
	SYS_rt_sigaction,
	SYS_rt_sigprocmask,
	SYS_rt_sigreturn,
	SYS_rt_sigtimedwait,
	SYS_sigaltstack,
	SYS_getrandom,
	SYS_getrusage,
	SYS_sysinfo,
	SYS_uname,
	/* descriptors that are there */
	SYS_read,
	SYS_write,
	SYS_readv,
	SYS_writev,
	SYS_pread64,
	SYS_pwrite64,
	SYS_lseek,
	SYS_fstat, /* and not newfstatat(): even names that are only looked up may lead over a network */
	SYS_fstatfs,
	SYS_close,
	SYS_eventfd2,
	SYS_pipe2,
	SYS_ppoll,
	SYS_pselect6,
	SYS_epoll_create1,
	SYS_epoll_ctl,
	SYS_epoll_pwait,
	/* accepted connections */
	SYS_accept,
	SYS_accept4,
	SYS_recvfrom,
	SYS_recvmsg,
	SYS_shutdown,
	SYS_getsockname,
	SYS_getpeername,
	SYS_getsockopt,
	SYS_setsockopt,
#ifdef __x86_64__
	/* That arm64 has no more. */
	SYS_poll,
	SYS_select,
	SYS_epoll_wait,
	SYS_epoll_create,
	SYS_time,
	SYS_pipe,
	SYS_eventfd,
#endif
};

enum {
	N_ALLOWED = sizeof(allowed) / sizeof(allowed[0]),
	ROOM = 2 * N_ALLOWED + 128,
};

struct program {
	struct sock_filter code[ROOM];
	unsigned short n;
	uint32_t otherwise; /* what becomes of calls that are refused */
};

/* Of the low half of an argument; little-endian, as both architectures are. */
static uint32_t argument(int i)
{
	return (uint32_t)(offsetof(struct seccomp_data, args) + 8 * (size_t)i);
}

static void put(struct program *p, uint16_t code, uint32_t k, uint8_t yes, uint8_t no)
{
	p->code[p->n++] = (struct sock_filter){ code, yes, no, k };
}

static void load(struct program *p, uint32_t offset)
{
	put(p, BPF_LD | BPF_W | BPF_ABS, offset, 0, 0);
}

static void end(struct program *p, uint32_t action)
{
	put(p, BPF_RET | BPF_K, action, 0, 0);
}

static void allow(struct program *p, int number)
{
	put(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1);
	end(p, SECCOMP_RET_ALLOW);
}

/* Only where none of these bits is set in the argument. */
static void allow_without(struct program *p, int number, int arg, uint32_t bits)
{
	put(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 4);
	load(p, argument(arg));
	put(p, BPF_JMP | BPF_JSET | BPF_K, bits, 1, 0);
	end(p, SECCOMP_RET_ALLOW);
	end(p, p->otherwise);
}

/* Only where all of them are. */
static void allow_with(struct program *p, int number, int arg, uint32_t bits)
{
	put(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 5);
	load(p, argument(arg));
	put(p, BPF_ALU | BPF_AND | BPF_K, bits, 0, 0);
	put(p, BPF_JMP | BPF_JEQ | BPF_K, bits, 0, 1);
	end(p, SECCOMP_RET_ALLOW);
	end(p, p->otherwise);
}

/* Only where the argument, masked, is one of these. */
static void allow_if(struct program *p, int number, int arg, uint32_t mask, const uint32_t *values,
		     int n)
{
	put(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, (uint8_t)(3 + 2 * n));
	load(p, argument(arg));
	put(p, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
	for (int i = 0; i < n; i++) {
		put(p, BPF_JMP | BPF_JEQ | BPF_K, values[i], 0, 1);
		end(p, SECCOMP_RET_ALLOW);
	}
	end(p, p->otherwise);
}

/* Only where a 64-bit argument is 0. */
static void allow_null(struct program *p, int number, int arg)
{
	put(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 6);
	load(p, argument(arg));
	put(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3);
	load(p, argument(arg) + 4);
	put(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1);
	end(p, SECCOMP_RET_ALLOW);
	end(p, p->otherwise);
}

static void refuse_with(struct program *p, int number, int code)
{
	put(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1);
	end(p, SECCOMP_RET_ERRNO | (uint32_t)code);
}

static void some_arguments(struct program *p)
{
	const uint32_t self = (uint32_t)getpid();
	const uint32_t names[] = { PR_SET_NAME, PR_SET_VMA };
	/* Not whom a descriptor's readiness signals, and with which signal: that could be any process of this user. */
	const uint32_t fcntls[] = { F_DUPFD,	 F_DUPFD_CLOEXEC, F_GETFD,     F_SETFD,
				    F_GETFL,	 F_SETFL,	  F_ADD_SEALS, F_GET_SEALS,
				    F_OFD_GETLK, F_OFD_SETLK,	  F_OFD_SETLKW };
	/* Of buffers: the number's other half is the command. */
	const uint32_t ioctls[] = { LSLM_HOLD, LSLM_RELEASE, LSLM_QUERY, FIONREAD, FIONBIO };

	allow_without(p, SYS_mmap, 2, PROT_EXEC);
	allow_without(p, SYS_mprotect, 2, PROT_EXEC);
	/* A thread. clone3() hides its flags in memory; without it C libraries call clone(). */
	allow_with(p, SYS_clone, 0, CLONE_THREAD | CLONE_VM | CLONE_SIGHAND);
	refuse_with(p, SYS_clone3, ENOSYS);
	allow_if(p, SYS_tgkill, 0, UINT32_MAX, &self, 1);
	allow_if(p, SYS_prctl, 0, UINT32_MAX, names, 2);
	allow_if(p, SYS_fcntl, 1, UINT32_MAX, fcntls, sizeof(fcntls) / sizeof(fcntls[0]));
	allow_if(p, SYS_ioctl, 1, UINT32_MAX, ioctls, 5);
	/* Asking for limits, not setting any. */
	allow_null(p, SYS_prlimit64, 2);
	allow_without(p, SYS_sendto, 3, MSG_FASTOPEN);
	allow_without(p, SYS_sendmsg, 2, MSG_FASTOPEN);
}

#ifdef ARCHITECTURE
static void write_program(struct program *p)
{
	load(p, offsetof(struct seccomp_data, arch));
	put(p, BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
	end(p, SECCOMP_RET_KILL_PROCESS);
	load(p, offsetof(struct seccomp_data, nr));
	for (int i = 0; i < N_ALLOWED; i++)
		allow(p, allowed[i]);
	some_arguments(p);
	/* Numbers of x32 have a bit that none of the above has. */
	end(p, p->otherwise);
}

static int install(struct program *p, bool notified)
{
	const struct sock_fprog prog = { .len = p->n, .filter = p->code };
	unsigned int flags = SECCOMP_FILTER_FLAG_TSYNC;

	if (notified)
		flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}

int syscalls_limit(int *notifier, struct lslm_error *err)
{
	struct program p = { .otherwise = notifier ? SECCOMP_RET_USER_NOTIF :
						     SECCOMP_RET_ERRNO | EPERM };
	int fd;

	write_program(&p);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return error_sys(err, -errno, "no_new_privs");
	fd = install(&p, notifier);
	if (fd < 0)
		fd = errno == ESRCH ? -EBUSY : -errno;
	if (fd < 0)
		return error_sys(err, fd, "seccomp: calls cannot be limited");
	/* Without a notifier, a number above 0 is a thread that could not be reached. */
	if (!notifier && fd)
		return error_set(err, -EBUSY, "seccomp: thread %d has a filter of its own", fd);
	if (notifier)
		*notifier = fd;
	return 0;
}
#else
int syscalls_limit(int *notifier, struct lslm_error *err)
{
	return error_set(err, -ENOSYS, "seccomp: no list of calls for this architecture");
}
#endif

static const struct {
	int number;
	const char *name;
} names[] = {
	{ SYS_socket, "socket" },
	{ SYS_socketpair, "socketpair" },
	{ SYS_connect, "connect" },
	{ SYS_bind, "bind" },
	{ SYS_listen, "listen" },
	{ SYS_sendto, "sendto" },
	{ SYS_sendmsg, "sendmsg" },
	{ SYS_sendmmsg, "sendmmsg" },
	{ SYS_io_uring_setup, "io_uring_setup" },
	{ SYS_io_uring_enter, "io_uring_enter" },
	{ SYS_io_uring_register, "io_uring_register" },
	{ SYS_openat, "openat" },
	{ SYS_newfstatat, "newfstatat" },
	{ SYS_fcntl, "fcntl" },
	{ SYS_execve, "execve" },
	{ SYS_clone, "clone" },
	{ SYS_ptrace, "ptrace" },
	{ SYS_process_vm_writev, "process_vm_writev" },
	{ SYS_bpf, "bpf" },
	{ SYS_ioctl, "ioctl" },
	{ SYS_prctl, "prctl" },
	{ SYS_mmap, "mmap" },
	{ SYS_mprotect, "mprotect" },
	{ SYS_tgkill, "tgkill" },
	{ SYS_kill, "kill" },
	{ SYS_pidfd_getfd, "pidfd_getfd" },
	{ SYS_unshare, "unshare" },
	{ SYS_setns, "setns" },
};

static void set_name(struct syscalls_refusal *r)
{
	snprintf(r->name, sizeof(r->name), "call %d", r->number);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].number == r->number)
			snprintf(r->name, sizeof(r->name), "%s", names[i].name);
}

int syscalls_refuse(int notifier, struct syscalls_refusal *out)
{
	struct seccomp_notif_resp answer = { .error = -EPERM };
	struct seccomp_notif asked = { 0 };

	if (ioctl(notifier, SECCOMP_IOCTL_NOTIF_RECV, &asked))
		return errno == ENOENT || errno == EINTR ? -ENOENT : -EPIPE;
	out->thread = (pid_t)asked.pid;
	out->number = asked.data.nr;
	set_name(out);
	answer.id = asked.id;
	/* A thread that was killed meanwhile needs no answer. It has asked, all the same. */
	ioctl(notifier, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	return 0;
}
