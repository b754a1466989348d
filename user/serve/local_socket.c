// SPDX-License-Identifier: MIT
#include "serve/local_socket.h"

#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"

static const char lock_suffix[] = ".lock";
static const char new_suffix[] = ".new";

struct local_socket {
	int fd;
	int lock;
	char *path;
	struct stat made; /* the socket's file; st_ino 0: it has no name yet */
};

/* The holder's number, for the one who is refused. */
static int refuse(struct local_socket *s, struct lslm_error *err)
{
	char text[16] = "";

	if (pread(s->lock, text, sizeof(text) - 1, 0) < 0)
		text[0] = 0;
	text[strspn(text, "0123456789")] = 0;
	return error_set(err, -EADDRINUSE,
			 "%s: another lslm edge serves it (process %s); stop that one first",
			 s->path, *text ? text : "unknown");
}

static int take_lock(struct local_socket *s, struct lslm_error *err)
{
	char *name;
	int ret = 0;

	if (asprintf(&name, "%s%s", s->path, lock_suffix) < 0)
		return error_sys(err, -ENOMEM, "%s", s->path);
	s->lock = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	if (s->lock < 0)
		ret = error_sys(err, -errno, "%s: cannot open", name);
	else if (flock(s->lock, LOCK_EX | LOCK_NB))
		ret = errno == EWOULDBLOCK ? refuse(s, err) :
					     error_sys(err, -errno, "%s: cannot lock", name);
	else if (ftruncate(s->lock, 0) || dprintf(s->lock, "%d\n", getpid()) < 0)
		ret = error_sys(err, -errno, "%s: cannot write", name);
	free(name);
	return ret;
}

static int find_group(const char *group, gid_t *gid, struct lslm_error *err)
{
	const struct group *g = getgrnam(group);
	unsigned long n;
	char *end;

	if (g) {
		*gid = g->gr_gid;
		return 0;
	}
	errno = 0;
	n = strtoul(group, &end, 10);
	if (errno || !*group || *end || n >= UINT32_MAX)
		return error_set(err, -EINVAL, "%s: there is no such group", group);
	*gid = (gid_t)n;
	return 0;
}

/* Under another name first, which a killed one may have left. */
static int give_name(struct local_socket *s, const char *group, struct lslm_error *err)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	gid_t gid = 0;
	int ret;

	if (group) {
		ret = find_group(group, &gid, err);
		if (ret < 0)
			return ret;
	}
	snprintf(at.sun_path, sizeof(at.sun_path), "%s%s", s->path, new_suffix);
	unlink(at.sun_path);
	/* A socket's name gets its mode from here. */
	if (fchmod(s->fd, 0600) || bind(s->fd, (struct sockaddr *)&at, sizeof(at)))
		return error_sys(err, -errno, "%s: cannot make a socket there", s->path);
	if (group && (chown(at.sun_path, (uid_t)-1, gid) || chmod(at.sun_path, 0660)))
		ret = error_sys(err, -errno, "%s: cannot give it to group %s", s->path, group);
	else if (listen(s->fd, SOMAXCONN) || lstat(at.sun_path, &s->made) ||
		 rename(at.sun_path, s->path))
		ret = error_sys(err, -errno, "%s: cannot make a socket there", s->path);
	else
		return 0;
	s->made.st_ino = 0;
	unlink(at.sun_path);
	return ret;
}

static int check_place(struct local_socket *s, struct lslm_error *err)
{
	const size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - sizeof(new_suffix);
	struct stat st;

	if (strlen(s->path) > max)
		return error_set(err, -ENAMETOOLONG,
				 "%s: longer than a socket's name can be (%zu bytes)", s->path,
				 max);
	if (!lstat(s->path, &st) && !S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST, "%s: is there and is no socket", s->path);
	return 0;
}

int local_socket_open(struct local_socket **out, const char *path, const char *group,
		      struct lslm_error *err)
{
	struct local_socket *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return error_sys(err, -ENOMEM, "%s", path);
	s->lock = -1;
	s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	s->path = strdup(path);
	if (s->fd < 0 || !s->path)
		ret = error_sys(err, s->path ? -errno : -ENOMEM, "%s: cannot make a socket", path);
	else
		ret = check_place(s, err);
	if (!ret)
		ret = file_make_parent(path, 0755, err);
	if (!ret)
		ret = take_lock(s, err);
	if (!ret)
		ret = give_name(s, group, err);
	if (ret < 0) {
		local_socket_close(s);
		return ret;
	}
	*out = s;
	return 0;
}

int local_socket_fd(const struct local_socket *s)
{
	return s->fd;
}

int local_socket_accept(const struct local_socket *s, struct ucred *peer)
{
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), ret;
	socklen_t size = sizeof(*peer);

	if (fd < 0)
		return -errno;
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &size))
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

void local_socket_close(struct local_socket *s)
{
	struct stat st;

	if (!s)
		return;
	if (s->made.st_ino && !lstat(s->path, &st) && st.st_ino == s->made.st_ino &&
	    st.st_dev == s->made.st_dev)
		unlink(s->path);
	if (s->fd >= 0)
		close(s->fd);
	/* The lock's file stays: taking its name away would let two have a lock. */
	if (s->lock >= 0)
		close(s->lock);
	free(s->path);
	free(s);
}
