// SPDX-License-Identifier: MIT
#include "serve/confine.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "serve/guard.h"
#include "serve/syscalls.h"

static const char *const part_names[CONFINE_PARTS] = {
	[CONFINE_DUMPS] = "dumps",
	[CONFINE_GUARD] = "guard",
	[CONFINE_USER] = "user",
	[CONFINE_CALLS] = "calls",
};

const char *confine_part_name(enum confine_part part)
{
	return (unsigned int)part < CONFINE_PARTS ? part_names[part] : "?";
}

/* ---- descriptors ---- */

static bool is_ring(const char *target)
{
	return !strcmp(target, "anon_inode:[io_uring]");
}

/* A way out that a filter of calls does not see: it judges by the number of a call, not by the descriptor. */
static bool leads_out(int fd)
{
	char path[64], target[64] = "";
	socklen_t size = sizeof(int);
	int domain;

	if (!getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size))
		return domain != AF_UNIX;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return readlink(path, target, sizeof(target) - 1) > 0 && is_ring(target);
}

/* Of the process's descriptors above this one; also counts them where that is wanted. */
static int find_way_out(int above, uint32_t *n, uint32_t *out, struct lslm_error *err)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;
	int fd, found = -1;

	if (!dir)
		return error_sys(err, -errno, "/proc/self/fd: cannot list the descriptors");
	while ((e = readdir(dir))) {
		fd = e->d_name[0] == '.' ? -1 : atoi(e->d_name);
		if (fd <= above || fd == dirfd(dir))
			continue;
		if (n)
			++*n;
		if (!leads_out(fd))
			continue;
		found = fd;
		if (out)
			++*out;
	}
	closedir(dir);
	return found < 0 ? -ENOENT : found;
}

/* A ring may be in use without a descriptor: by its mapping, and a thread of the kernel that looks at it. */
static int look_for_mapped_rings(struct lslm_error *err)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	bool found = false;

	if (!maps)
		return error_sys(err, -errno, "/proc/self/maps: cannot list the mappings");
	while (!found && fgets(line, sizeof(line), maps))
		found = strstr(line, "anon_inode:[io_uring]");
	fclose(maps);
	return found ? error_set(err, -EBUSY, "a ring of io_uring is mapped into this process") : 0;
}

static int close_inherited(struct confine_report *r, int keep, struct lslm_error *err)
{
	int fd = find_way_out(keep, &r->closed, &r->closed_sockets, err);

	if (fd < 0 && fd != -ENOENT)
		return fd;
	if (syscall(SYS_close_range, (unsigned int)keep + 1, ~0u, 0))
		return error_sys(err, -errno, "inherited descriptors cannot be closed");
	fd = find_way_out(-1, NULL, NULL, err);
	if (fd >= 0)
		return error_set(err, -EBUSY, "descriptor %d is a socket of a network or a ring",
				 fd);
	return fd == -ENOENT ? 0 : fd;
}

/* ---- begin ---- */

static void off(struct confine_report *r, enum confine_part part, const struct lslm_error *why)
{
	r->why[part] = *why;
}

static void no_dumps(struct confine_report *r)
{
	const struct rlimit none = { 0, 0 };
	struct lslm_error why;

	if (!prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) && !setrlimit(RLIMIT_CORE, &none)) {
		r->on |= 1u << CONFINE_DUMPS;
		return;
	}
	error_sys(&why, -errno, "core dumps cannot be switched off");
	off(r, CONFINE_DUMPS, &why);
}

/* Whoever is not root has none to lose, but for those that a file or a service manager gave. This thread's. */
static int drop_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &head, none) ? -errno : 0;
}

int confine_begin(struct confine_report *report, int keep, const char *cgroup,
		  struct lslm_error *err)
{
	struct lslm_error why;
	int ret;

	memset(report, 0, sizeof(*report));
	ret = close_inherited(report, keep, err);
	if (ret)
		return ret;
	no_dumps(report);
	if (cgroup && guard_enter(cgroup, &why))
		off(report, CONFINE_GUARD, &why);
	else if (cgroup)
		report->on |= 1u << CONFINE_GUARD;
	/* Before there are other threads, which have what this one has. Root's go with its user. */
	if (geteuid() && (ret = drop_capabilities()))
		return error_sys(err, ret, "capabilities cannot be dropped");
	return 0;
}

/* ---- finish ---- */

int confine_find_user(const char *name, uid_t *uid, gid_t *gid, struct lslm_error *err)
{
	const struct passwd *p = getpwnam(name);

	if (!p)
		return error_set(err, -ENOENT, "%s: there is no such user", name);
	if (!p->pw_uid || !p->pw_gid)
		return error_set(err, -EINVAL, "%s: engines must not run as root", name);
	*uid = p->pw_uid;
	*gid = p->pw_gid;
	return 0;
}

/*
 * The C library changes the user of every thread, which takes their capabilities too; capset() is this
 * thread's alone. The change undoes what was said about dumps and the parent's death.
 */
static int change_user(uid_t uid, gid_t gid)
{
	int death = 0;

	prctl(PR_GET_PDEATHSIG, &death, 0, 0, 0);
	if (uid && (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid)))
		return -errno;
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || prctl(PR_SET_PDEATHSIG, death, 0, 0, 0))
		return -errno;
	return drop_capabilities();
}

/* Does a thread have any left? One that was there before confine_begin() may, where the user stays. */
static int look_for_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct has[_LINUX_CAPABILITY_U32S_3];
	DIR *dir = opendir("/proc/self/task");
	struct dirent *e;
	int ret = dir ? 0 : -errno;

	while (dir && (e = readdir(dir))) {
		head.pid = atoi(e->d_name);
		if (head.pid <= 0)
			continue;
		memset(has, 0, sizeof(has));
		/* -ESRCH: it has ended. */
		if (syscall(SYS_capget, &head, has) && errno != ESRCH)
			ret = -errno;
		for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
			if (has[i].permitted | has[i].effective)
				ret = -EPERM;
	}
	if (dir)
		closedir(dir);
	return ret;
}

static void own_user(struct confine_report *r, uid_t uid, gid_t gid)
{
	struct lslm_error why;
	int ret = change_user(uid, gid);

	if (!ret && geteuid())
		ret = look_for_capabilities();
	if (!ret && geteuid()) {
		r->on |= 1u << CONFINE_USER;
		return;
	}
	if (ret)
		error_sys(&why, ret, "cannot become user %u without capabilities", uid);
	else
		error_set(&why, -EPERM, "it runs as root");
	off(r, CONFINE_USER, &why);
}

int confine_finish(struct confine_report *report, uid_t uid, gid_t gid, int *notifier,
		   struct lslm_error *err)
{
	struct lslm_error why;
	int ret;

	ret = find_way_out(-1, NULL, NULL, err);
	if (ret >= 0)
		return error_set(err, -EBUSY, "descriptor %d is a socket of a network or a ring",
				 ret);
	if (ret != -ENOENT)
		return ret;
	ret = look_for_mapped_rings(err);
	if (ret)
		return ret;
	own_user(report, uid, gid);
	if (notifier)
		*notifier = -1;
	if (syscalls_limit(notifier, &why))
		off(report, CONFINE_CALLS, &why);
	else
		report->on |= 1u << CONFINE_CALLS;
	return 0;
}
