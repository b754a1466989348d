/* SPDX-License-Identifier: MIT */
#include "serve/guard.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "base/bpfobj.h"
#include "guard.skel.h"

static const struct {
	const char *program;
	enum bpf_attach_type type;
} hooks[] = {
	{ "lslm_guard_egress", BPF_CGROUP_INET_EGRESS },
	{ "lslm_guard_connect4", BPF_CGROUP_INET4_CONNECT },
	{ "lslm_guard_connect6", BPF_CGROUP_INET6_CONNECT },
	{ "lslm_guard_sendmsg4", BPF_CGROUP_UDP4_SENDMSG },
	{ "lslm_guard_sendmsg6", BPF_CGROUP_UDP6_SENDMSG },
	{ "lslm_guard_socket", BPF_CGROUP_INET_SOCK_CREATE },
};

enum {
	N_HOOKS = sizeof(hooks) / sizeof(hooks[0]),
};

struct guard {
	char *cgroup;
	struct bpf_object *obj;
	int links[N_HOOKS]; /* the first n_links */
	size_t n_links;
};

static int attach(struct guard *g, struct lslm_error *err)
{
	int dir, fd = 0;

	dir = open(g->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return error_sys(err, -errno, "%s: cannot open the cgroup", g->cgroup);
	for (size_t i = 0; i < N_HOOKS; i++) {
		bpfobj_quiet();
		fd = bpf_link_create(bpfobj_program(g->obj, hooks[i].program), dir, hooks[i].type,
				     NULL);
		bpfobj_loud();
		if (fd < 0)
			break;
		g->links[g->n_links++] = fd;
	}
	close(dir);
	if (fd == -EBADF)
		return error_set(err, -EINVAL, "%s: no cgroup of version 2", g->cgroup);
	if (fd == -EPERM)
		return error_set(err, fd, "%s: a cgroup above it forbids programs of its own",
				 g->cgroup);
	if (fd < 0)
		return error_sys(err, fd, "%s: cannot attach the egress guard", g->cgroup);
	return 0;
}

int guard_port(struct guard *g, uint16_t port, struct lslm_error *err)
{
	uint32_t key = port;
	uint8_t one = 1;
	int rc;

	if (!port)
		return error_set(err, -EINVAL, "%s: 0 is no port that can be guarded", g->cgroup);
	rc = bpf_map_update_elem(bpfobj_map(g->obj, "listen"), &key, &one, BPF_ANY);
	if (rc == -E2BIG)
		return error_set(err, rc, "%s: more than %d ports", g->cgroup, GUARD_PORTS);
	return rc ? error_sys(err, rc, "%s: cannot tell the guard port %u", g->cgroup, port) : 0;
}

static int load(struct guard *g, struct lslm_error *err)
{
	size_t size;
	const void *elf = guard_bpf__elf_bytes(&size);

	return bpfobj_load(&g->obj, elf, size, g->cgroup, err);
}

int guard_open(struct guard **out, const char *cgroup, const uint16_t *ports, size_t n_ports,
	       struct lslm_error *err)
{
	struct guard *g = calloc(1, sizeof(*g));
	int rc;

	*out = NULL;
	if (g)
		g->cgroup = strdup(cgroup);
	if (!g || !g->cgroup) {
		free(g);
		return error_set(err, -ENOMEM, "%s: no memory for the egress guard", cgroup);
	}
	rc = load(g, err);
	for (size_t i = 0; i < n_ports && !rc; i++)
		rc = guard_port(g, ports[i], err);
	if (!rc)
		rc = attach(g, err);
	if (rc) {
		guard_close(g);
		return rc;
	}
	*out = g;
	return 0;
}

void guard_close(struct guard *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < g->n_links; i++)
		close(g->links[i]);
	bpfobj_close(g->obj);
	free(g->cgroup);
	free(g);
}

static bool is_internet(int fd)
{
	socklen_t size = sizeof(int);
	int domain;

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) && domain != AF_UNIX &&
	       domain != AF_NETLINK;
}

static int look_for_sockets(struct lslm_error *err)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;
	int fd, found = -1;

	if (!dir)
		return error_sys(err, -errno, "/proc/self/fd: cannot list the descriptors");
	while (found < 0 && (e = readdir(dir))) {
		fd = atoi(e->d_name);
		if (e->d_name[0] != '.' && is_internet(fd))
			found = fd;
	}
	closedir(dir);
	if (found < 0)
		return 0;
	return error_set(
		err, -EBUSY,
		"descriptor %d is a network socket made outside the guarded cgroup; close it "
		"before entering",
		found);
}

int guard_enter(const char *cgroup, struct lslm_error *err)
{
	char path[4096];
	int fd, rc;

	rc = look_for_sockets(err);
	if (rc)
		return rc;
	if (snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup) >= (int)sizeof(path))
		return error_set(err, -ENAMETOOLONG, "%s: too long", cgroup);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return error_sys(err, -errno, "%s: cannot open", path);
	rc = write(fd, "0", 1) == 1 ? 0 : -errno;
	close(fd);
	return rc ? error_sys(err, rc, "%s: cannot enter the cgroup", cgroup) : 0;
}

int guard_stats(const struct guard *g, uint64_t out[GUARD_COUNTERS], struct lslm_error *err)
{
	int rc = bpfobj_sum(bpfobj_map(g->obj, "counters"), GUARD_COUNTERS, 1, out, err);

	return rc ? error_prefix(err, rc, "%s", g->cgroup) : 0;
}

const char *guard_reason_name(enum guard_reason reason)
{
	static const char *const names[GUARD_COUNTERS] = {
		[GUARD_ANSWER] = "answer", [GUARD_CONNECT] = "connect", [GUARD_SENDTO] = "sendto",
		[GUARD_SOCKET] = "socket", [GUARD_SYN] = "syn",		[GUARD_TCP] = "tcp",
		[GUARD_UDP] = "udp",	   [GUARD_OTHER] = "other",
	};

	return (unsigned int)reason < GUARD_COUNTERS ? names[reason] : "?";
}
