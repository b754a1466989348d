// SPDX-License-Identifier: MIT
#include "serve/cell.h"

#include <dirent.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "serve/channel.h"
#include "serve/guard.h"
#include "serve/listener.h"

static const char prefix[] = "lslm-engines-";

struct cell {
	char *cgroup; /* NULL: none */
	struct guard *guard;
	int listener;
	struct lslm_error why; /* there is no guard */
};

/* ---- the cgroup ---- */

/* Where version 2 is mounted, malloc'd; NULL: nowhere. */
static char *find_mount(void)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	char *dir = NULL;

	while (mounts && !dir && (m = getmntent(mounts)))
		if (!strcmp(m->mnt_type, "cgroup2"))
			dir = strdup(m->mnt_dir);
	if (mounts)
		endmntent(mounts);
	return dir;
}

/* This process's own, below the mount; "" where it cannot be told. */
static void find_own(char *path, size_t size)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[4096];

	path[0] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "0::", 3) && strcmp(line, "0::/"))
			snprintf(path, size, "%s", line + 3);
	}
	if (f)
		fclose(f);
}

/* Of supervisors that were killed. One in which somebody lives cannot be removed. */
static void clear_old(const char *parent)
{
	DIR *d = opendir(parent);
	struct dirent *e;
	char path[4096];
	int pid;

	while (d && (e = readdir(d))) {
		if (strncmp(e->d_name, prefix, strlen(prefix)))
			continue;
		pid = atoi(e->d_name + strlen(prefix));
		if (pid <= 0 || !kill(pid, 0) || errno != ESRCH)
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", parent, e->d_name) < (int)sizeof(path))
			rmdir(path);
	}
	if (d)
		closedir(d);
}

static int make_cgroup(struct cell *c, struct lslm_error *err)
{
	char own[4096], *mount = find_mount(), *parent = NULL;
	int ret = 0;

	if (!mount)
		return error_set(err, -ENOENT, "no cgroup of version 2 is mounted");
	find_own(own, sizeof(own));
	if (asprintf(&parent, "%s%s", mount, own) < 0)
		parent = NULL;
	if (parent)
		clear_old(parent);
	if (!parent || asprintf(&c->cgroup, "%s/%s%d", parent, prefix, getpid()) < 0) {
		c->cgroup = NULL;
		ret = error_sys(err, -ENOMEM, "cgroup");
	} else if (mkdir(c->cgroup, 0755) && errno != EEXIST) {
		ret = error_sys(err, -errno, "%s: cannot make a cgroup", c->cgroup);
		free(c->cgroup);
		c->cgroup = NULL;
	}
	free(parent);
	free(mount);
	return ret;
}

static int make_guard(struct cell *c, struct lslm_error *err)
{
	int ret = make_cgroup(c, err);

	return ret ? ret : guard_open(&c->guard, c->cgroup, NULL, 0, err);
}

static void drop_guard(struct cell *c)
{
	guard_close(c->guard);
	c->guard = NULL;
	if (c->cgroup)
		rmdir(c->cgroup);
	free(c->cgroup);
	c->cgroup = NULL;
}

/* ---- the socket ---- */

/* In the child: its whole life. The message carries the socket, or the line that says why there is none. */
static void make_inside(const char *cgroup, const char *listen, int channel)
{
	struct channel_message m = { .op = CHANNEL_LISTENER };
	struct lslm_error why;
	int fd = guard_enter(cgroup, &why);

	if (!fd)
		fd = listener_open(listen, &why);
	if (fd < 0) {
		m.code = fd;
		snprintf(m.text, sizeof(m.text), "%s", why.text);
	}
	_exit(channel_send(channel, &m, &fd, fd >= 0) ? 1 : 0);
}

static int take_listener(int channel, struct lslm_error *err)
{
	struct channel_message m;
	int fds[CHANNEL_FDS], n = 0;
	int ret = channel_receive(channel, &m, fds, &n);

	if (!ret && (m.op != CHANNEL_LISTENER || n != (m.code ? 0 : 1))) {
		channel_close_fds(fds, n);
		ret = -EPROTO;
	}
	if (ret)
		return error_sys(err, ret, "the listening socket");
	return m.code ? error_set(err, m.code, "%s", m.text) : fds[0];
}

static int listen_inside(const struct cell *c, const char *listen, struct lslm_error *err)
{
	int pair[2], ret, status;
	pid_t pid;

	ret = channel_pair(pair, err);
	if (ret)
		return ret;
	pid = fork();
	if (!pid)
		make_inside(c->cgroup, listen, pair[1]);
	ret = pid < 0 ? error_sys(err, -errno, "cannot make a process") : 0;
	close(pair[1]);
	if (!ret)
		ret = take_listener(pair[0], err);
	close(pair[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return ret;
}

static int make_listener(struct cell *c, const char *listen, struct lslm_error *err)
{
	int port;

	c->listener = c->guard ? listen_inside(c, listen, err) : listener_open(listen, err);
	if (c->listener < 0)
		return c->listener;
	port = listener_port(c->listener);
	if (port < 0)
		return error_sys(err, port, "%s", listen);
	return c->guard ? guard_port(c->guard, (uint16_t)port, err) : 0;
}

/* ---- the cell ---- */

int cell_open(struct cell **out, const char *listen, struct lslm_error *err)
{
	struct cell *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return error_sys(err, -ENOMEM, "cell");
	c->listener = -1;
	if (make_guard(c, &c->why))
		drop_guard(c);
	ret = make_listener(c, listen, err);
	if (ret) {
		cell_close(c);
		return ret;
	}
	*out = c;
	return 0;
}

void cell_close(struct cell *c)
{
	if (!c)
		return;
	if (c->listener >= 0)
		close(c->listener);
	drop_guard(c);
	free(c);
}

void cell_guard_stats(const struct cell *c, uint64_t out[GUARD_COUNTERS])
{
	if (!c->guard || guard_stats(c->guard, out, NULL))
		memset(out, 0, GUARD_COUNTERS * sizeof(*out));
}

bool cell_guarded(const struct cell *c, struct lslm_error *why)
{
	if (!c->guard && why)
		*why = c->why;
	return c->guard;
}

const char *cell_cgroup(const struct cell *c)
{
	return c->cgroup;
}

int cell_listener(const struct cell *c)
{
	return c->listener;
}

int cell_port(const struct cell *c)
{
	return listener_port(c->listener);
}
