/* SPDX-License-Identifier: MIT */
/*
 * A process that is confined as an engine is, and then tries to get out; for tests.
 *
 * confine_tool ACT [CGROUP [USER]]
 *
 * A parent plays the supervisor: it counts what the filter refuses. The child begins, does what ACT says beforehand,
 * is confined and tries; it prints what became of each try ("socket=EPERM"), the parent a line
 * "refused NAME ..." at the end. "report on=... closed=... sockets=..." comes first.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "serve/channel.h"
#include "serve/confine.h"
#include "serve/syscalls.h"

enum { MAX_REFUSALS = 64 };

/* To and from the thread that was there before main(): descriptors would be closed. */
static sem_t early_work, early_done;
static int early_code;

static void tell(const char *what, long ret)
{
	if (ret >= 0)
		printf("%s=ok\n", what);
	else
		printf("%s=%s\n", what, strerrorname_np(errno));
	fflush(stdout);
}

/* ---- a thread from before main() ---- */

static void *early(void *arg)
{
	while (sem_wait(&early_work))
		;
	early_code = socket(AF_INET, SOCK_STREAM, 0) < 0 ? errno : 0;
	sem_post(&early_done);
	return NULL;
}

/* Like a library that is loaded along. In the child only, or the fork would leave the thread behind. */
__attribute__((constructor)) static void before_main(void)
{
	pthread_t thread;

	if (!getenv("CONFINE_EARLY"))
		return;
	sem_init(&early_work, 0, 0);
	sem_init(&early_done, 0, 0);
	pthread_create(&thread, NULL, early, NULL);
}

static void act_thread(void)
{
	sem_post(&early_work);
	while (sem_wait(&early_done))
		;
	errno = early_code;
	tell("thread_socket", early_code ? -1 : 0);
}

/* ---- what is tried ---- */

static void act_socket(void)
{
	const struct sockaddr_in to = { .sin_family = AF_INET,
					.sin_port = htons(9),
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int pair[2];

	tell("socket", socket(AF_INET, SOCK_STREAM, 0));
	tell("udp", socket(AF_INET6, SOCK_DGRAM, 0));
	tell("unix", socket(AF_UNIX, SOCK_STREAM, 0));
	tell("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
	tell("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	tell("connect", connect(CHANNEL_FD, (const struct sockaddr *)&to, sizeof(to)));
	tell("bind", bind(CHANNEL_FD, (const struct sockaddr *)&to, sizeof(to)));
}

static void act_ring(void)
{
	struct io_uring_params params = { 0 };

	tell("setup", syscall(SYS_io_uring_setup, 8, &params));
	tell("enter", syscall(SYS_io_uring_enter, 0, 1, 0, 0, NULL, 0));
	tell("register", syscall(SYS_io_uring_register, 0, 0, NULL, 0));
}

static void act_others(void)
{
	char *const argv[] = { (char *)"true", NULL };
	struct stat st;
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	tell("open", open("/etc/passwd", O_RDONLY));
	tell("create", open("/tmp/lslm-confine-test", O_WRONLY | O_CREAT, 0600));
	tell("stat", syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", &st, 0));
	tell("lookup", syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", &st, AT_EMPTY_PATH));
	tell("owner", fcntl(CHANNEL_FD, F_SETOWN, getppid()));
	tell("signal", fcntl(CHANNEL_FD, F_SETSIG, SIGKILL));
	tell("execve", execv("/bin/true", argv));
	tell("fork", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
	tell("ptrace", ptrace(PTRACE_ATTACH, getppid(), 0, 0));
	tell("kill", kill(getppid(), SIGTERM));
	tell("tgkill", syscall(SYS_tgkill, getppid(), getppid(), SIGTERM));
	tell("unshare", unshare(CLONE_NEWUSER));
	tell("executable", mprotect(page, 4096, PROT_READ | PROT_EXEC));
	tell("dumpable", prctl(PR_SET_DUMPABLE, 1));
	tell("ioctl", syscall(SYS_ioctl, 1, 0x5412 /* TIOCSTI */, "x"));
	tell("bpf", syscall(SYS_bpf, 0, NULL, 0));
}

static void *nothing(void *arg)
{
	return arg;
}

/* What an engine does must go on. */
static void act_allowed(void)
{
	struct flock lock = { .l_type = F_RDLCK, .l_len = 1 };
	struct rlimit limit;
	struct stat st;
	pthread_t thread;
	int fd;

	tell("thread", -(errno = pthread_create(&thread, NULL, nothing, NULL)));
	pthread_join(thread, NULL);
	fd = memfd_create("x", 0);
	tell("memfd", fd);
	tell("truncate", ftruncate(fd, 4096));
	tell("fstat", file_stat(fd, &st));
	tell("flags", fcntl(fd, F_GETFL));
	tell("lock", fcntl(fd, F_OFD_SETLKW, &lock));
	tell("map", mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
	tell("limits", getrlimit(RLIMIT_NOFILE, &limit));
	tell("dumpable", prctl(PR_SET_NAME, "confined"));
	free(malloc(64 << 20));
}

/* Something outside looks at the process. */
static void act_wait(void)
{
	char byte;

	printf("waiting %d\n", getpid());
	fflush(stdout);
	(void)!read(STDIN_FILENO, &byte, 1);
}

static void act_inherited(void)
{
	/* 20 was a connection, 21 a ring: the test's, before this was started. */
	tell("write", write(20, "secret", 6));
	tell("submit", write(21, "x", 1));
}

/* ---- a thread from between the two steps ---- */

static void *later(void *arg)
{
	while (sem_wait(&early_work))
		;
	sem_post(&early_done);
	return arg;
}

/* Which one has most is said by the directory of threads, which the parent can read. */
static void start_later(void)
{
	pthread_t thread;

	sem_init(&early_work, 0, 0);
	sem_init(&early_done, 0, 0);
	pthread_create(&thread, NULL, later, NULL);
}

static const struct {
	const char *name;
	void (*act)(void);
} acts[] = {
	{ "socket", act_socket },   { "ring", act_ring },     { "others", act_others },
	{ "allowed", act_allowed }, { "thread", act_thread }, { "inherited", act_inherited },
	{ "wait", act_wait },	    { "threads", act_wait },
};

/* ---- before ---- */

/* Ways out that are made between the two steps, as a library might. */
static void prepare(const char *act)
{
	struct io_uring_params params = { 0 };
	int fd;

	if (!strcmp(act, "threads"))
		start_later();
	if (!strcmp(act, "late-socket"))
		(void)!socket(AF_INET, SOCK_STREAM, 0);
	if (strcmp(act, "late-ring") && strcmp(act, "mapped-ring"))
		return;
	fd = (int)syscall(SYS_io_uring_setup, 8, &params);
	if (fd < 0 || strcmp(act, "mapped-ring"))
		return;
	(void)!mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	close(fd);
}

static int fail(const struct lslm_error *err)
{
	fprintf(stderr, "lslm: %s\n", err->text);
	return 1;
}

static void tell_report(const struct confine_report *r)
{
	printf("report on=");
	for (int i = 0; i < CONFINE_PARTS; i++)
		if (r->on >> i & 1)
			printf("%s,", confine_part_name(i));
	printf(" closed=%u sockets=%u\n", r->closed, r->closed_sockets);
	for (int i = 0; i < CONFINE_PARTS; i++)
		if (r->why[i].code)
			printf("off %s: %s\n", confine_part_name(i), r->why[i].text);
	fflush(stdout);
}

static int confined(const char *act, const char *cgroup, const char *user)
{
	struct channel_message m = { .op = CHANNEL_NOTIFIER };
	struct confine_report report;
	struct lslm_error err;
	uid_t uid = 0;
	gid_t gid = 0;
	/* Standard output would ask what kind of file it is, by a call that is counted. */
	static char line[BUFSIZ];
	int notifier;

	setvbuf(stdout, line, _IOLBF, sizeof(line));
	if (confine_begin(&report, CHANNEL_FD, cgroup, &err))
		return fail(&err);
	prepare(act);
	if (user && confine_find_user(user, &uid, &gid, &err))
		return fail(&err);
	if (confine_finish(&report, uid, gid, &notifier, &err))
		return fail(&err);
	if (notifier >= 0 && channel_send(CHANNEL_FD, &m, &notifier, 1))
		return 1;
	close(notifier);
	tell_report(&report);
	for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
		if (!strcmp(acts[i].name, act))
			acts[i].act();
	return 0;
}

/* ---- the supervisor's part ---- */

static void count(int notifier)
{
	struct syscalls_refusal all[MAX_REFUSALS];
	struct pollfd p = { .fd = notifier, .events = POLLIN };
	int n = 0;

	while (n < MAX_REFUSALS && poll(&p, 1, -1) > 0 && (p.revents & POLLIN))
		n += !syscalls_refuse(notifier, &all[n]);
	printf("refused");
	for (int i = 0; i < n; i++)
		printf(" %s", all[i].name);
	puts("");
}

int main(int argc, char **argv)
{
	struct channel_message m;
	int pair[2], fds[CHANNEL_FDS], n, status;
	struct lslm_error err;
	pid_t pid;

	if (argc < 2)
		return 2;
	/* The child is this program once more, so that it has a before-main of its own. */
	if (getenv("CONFINE_CHILD"))
		return confined(argv[1], argc > 2 && *argv[2] ? argv[2] : NULL,
				argc > 3 ? argv[3] : NULL);
	if (channel_pair(pair, &err))
		return fail(&err);
	pid = fork();
	if (!pid) {
		dup2(pair[1], CHANNEL_FD);
		setenv("CONFINE_CHILD", "1", 1);
		if (!strcmp(argv[1], "thread"))
			setenv("CONFINE_EARLY", "1", 1);
		execv("/proc/self/exe", argv);
		_exit(127);
	}
	close(pair[1]);
	if (!channel_receive(pair[0], &m, fds, &n) && n == 1)
		count(fds[0]);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
