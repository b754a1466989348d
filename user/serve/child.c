// SPDX-License-Identifier: MIT
#include "serve/child.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/channel.h"

/* In the child. What goes wrong here goes by its exit code. */
_Noreturn static void become(char *const argv[], int channel, pid_t parent)
{
	sigset_t none;
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null >= 0)
		dup2(null, STDIN_FILENO);
	/* Without close-on-exec, which dup2() does not pass on unless it has nothing to do. */
	if (channel == CHANNEL_FD)
		fcntl(channel, F_SETFD, 0);
	else if (dup2(channel, CHANNEL_FD) < 0)
		_exit(127);
	syscall(SYS_close_range, CHANNEL_FD + 1, ~0u, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != parent)
		_exit(127);
	setenv("OPENBLAS_NUM_THREADS", "1", 1);
	execv("/proc/self/exe", argv);
	_exit(127);
}

int child_start(struct child *c, char *const argv[], struct lslm_error *err)
{
	const pid_t self = getpid();
	int pair[2], ret;

	ret = channel_pair(pair, err);
	if (ret)
		return ret;
	c->pid = fork();
	if (!c->pid)
		become(argv, pair[1], self);
	close(pair[1]);
	if (c->pid < 0) {
		ret = error_sys(err, -errno, "cannot make a process");
		close(pair[0]);
		c->pid = 0;
		return ret;
	}
	c->channel = pair[0];
	c->started = clock_seconds();
	c->ready = false;
	return 0;
}

void child_signal(const struct child *c, int sig)
{
	if (c->pid)
		kill(c->pid, sig);
}

static void forget(struct child *c)
{
	child_hang_up(c);
	c->pid = 0;
}

bool child_ended(struct child *c, struct lslm_error *why)
{
	int status;
	pid_t pid;

	if (!c->pid)
		return false;
	do {
		pid = waitpid(c->pid, &status, WNOHANG);
	} while (pid < 0 && errno == EINTR);
	if (!pid)
		return false;
	if (pid > 0 && WIFSIGNALED(status))
		error_set(why, -EINTR, "signal %d", WTERMSIG(status));
	else
		error_set(why, -ECHILD, "exit code %d", pid > 0 ? WEXITSTATUS(status) : -1);
	forget(c);
	return true;
}

void child_kill(struct child *c)
{
	if (!c->pid)
		return;
	kill(c->pid, SIGKILL);
	while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
		;
	forget(c);
}

void child_hang_up(struct child *c)
{
	if (c->channel >= 0)
		close(c->channel);
	c->channel = -1;
}
