/* SPDX-License-Identifier: MIT */
#include "net/steer.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <linux/lslm.h>

#include "base/bpfobj.h"
#include "steer_place.skel.h"
#include "steer_plain.skel.h"

#define PROGRAM_XDP "lslm_steer_xdp"
#define PROGRAM_TC  "lslm_steer_tc"

enum {
	FILTER_HANDLE = 1,
	FILTER_PRIORITY = 199,
	/* Since Linux 6.6; Debian 12's header is older. */
	ATTACH_TCX_INGRESS = 46,
};

struct steer {
	char ifname[IF_NAMESIZE];
	int ifindex;
	int lock; /* a bound socket: see take_lock() */
	int link; /* -1: none */
	bool filter; /* a clsact filter is ours */
	bool placing;
	struct bpf_object *obj;
	const char *hook;
	char why_slower[400]; /* reasons, each beginning with "; " */
	char text[512];
};

/* ---- what is asked for ---- */

static const struct {
	const char *name;
	enum steer_mode mode;
} modes[] = {
	{ "auto", STEER_AUTO }, { "xdp", STEER_XDP },	    { "xdpgeneric", STEER_GENERIC },
	{ "tc", STEER_TC },	{ "clsact", STEER_CLSACT },
};

int steer_parse(const char *text, char ifname[IF_NAMESIZE], enum steer_mode *mode,
		struct lslm_error *err)
{
	size_t n = strcspn(text, ",");

	if (!n || n >= IF_NAMESIZE)
		return error_set(err, -EINVAL, "%s: no name of a network interface", text);
	memcpy(ifname, text, n);
	ifname[n] = '\0';
	*mode = STEER_AUTO;
	if (!text[n])
		return 0;
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (!strcmp(text + n + 1, modes[i].name)) {
			*mode = modes[i].mode;
			return 0;
		}
	}
	return error_set(err, -EINVAL,
			 "%s: use auto, xdp, xdpgeneric, tc or clsact after the comma", text);
}

__attribute__((format(printf, 2, 3))) static void slower(struct steer *s, const char *fmt, ...)
{
	size_t n = strlen(s->why_slower);
	va_list args;

	n += (size_t)snprintf(s->why_slower + n, sizeof(s->why_slower) - n, "; ");
	if (n >= sizeof(s->why_slower))
		return;
	va_start(args, fmt);
	vsnprintf(s->why_slower + n, sizeof(s->why_slower) - n, fmt, args);
	va_end(args);
}

/* A second failure's line must not lose the first's, which is what the user asked for. */
static void slower_by_error(struct steer *s, const struct lslm_error *e)
{
	size_t n = strlen(s->ifname);

	/* The line begins with the interface, as the description does. */
	slower(s, "%s",
	       strncmp(e->text, s->ifname, n) || e->text[n] != ':' ? e->text : e->text + n + 2);
}

/* ---- the interface ---- */

static int look_up(struct steer *s, const char *ifname, struct lslm_error *err)
{
	struct ifreq req = { 0 };
	int fd, rc;

	if (strlen(ifname) >= sizeof(s->ifname))
		return error_set(err, -ENODEV, "%s: no such network interface", ifname);
	strcpy(s->ifname, ifname);
	s->ifindex = (int)if_nametoindex(ifname);
	if (!s->ifindex)
		return error_set(err, -ENODEV, "%s: no such network interface", ifname);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_sys(err, -errno, "%s: cannot ask about it", ifname);
	strcpy(req.ifr_name, ifname);
	rc = ioctl(fd, SIOCGIFHWADDR, &req) ? -errno : 0;
	close(fd);
	if (rc)
		return error_sys(err, rc, "%s: cannot ask about it", ifname);
	if (req.ifr_hwaddr.sa_family != ARPHRD_ETHER && req.ifr_hwaddr.sa_family != ARPHRD_LOOPBACK)
		return error_set(err, -EOPNOTSUPP,
				 "%s: only Ethernet can be steered; steer the interface below it",
				 ifname);
	return 0;
}

/*
 * A name in the abstract socket space stands for "this interface is steered": it is of one network
 * namespace, as interfaces are, and ends with its owner however that dies. Whoever has it knows
 * that a filter of ours which is still there is nobody's any more.
 */
static int take_lock(struct steer *s, struct lslm_error *err)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int n, rc;

	s->lock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s->lock < 0)
		return error_sys(err, -errno, "%s: cannot make a socket", s->ifname);
	n = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "lslm/steer/%d", s->ifindex);
	rc = bind(s->lock, (struct sockaddr *)&name,
		  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n));
	if (!rc)
		return 0;
	if (errno == EADDRINUSE)
		return error_set(err, -EBUSY, "%s: another lslm steers it; stop that one first",
				 s->ifname);
	return error_sys(err, -errno, "%s: cannot mark it as steered", s->ifname);
}

/* ---- the programs ---- */

/* NULL when BPF programs can call the module, else why not. */
static const char *why_no_module(void)
{
	const uint64_t need = 1ULL << LSLM_FEATURE_PLACE_XDP | 1ULL << LSLM_FEATURE_PLACE_TC;
	struct lslm_get_info info = { .size = sizeof(info) };
	int fd, rc, code;

	fd = open(LSLM_DEVICE, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENXIO ? "the module is not loaded" :
							   "/dev/lslm cannot be opened";
	rc = ioctl(fd, LSLM_GET_INFO, &info);
	code = errno;
	close(fd);
	if (rc)
		return code == E2BIG ? "the module is older than this program" :
				       "/dev/lslm does not answer";
	if (access("/sys/kernel/btf/lslm", R_OK))
		return "the module has no BTF";
	if ((info.out_features & need) != need)
		return "the module's placing by XDP and TC is off";
	return NULL;
}

static int load_place(struct bpf_object **obj, const char *what, struct lslm_error *err)
{
	size_t size;
	const void *elf = steer_place_bpf__elf_bytes(&size);

	return bpfobj_load(obj, elf, size, what, err);
}

static int load_plain(struct bpf_object **obj, const char *what, struct lslm_error *err)
{
	size_t size;
	const void *elf = steer_plain_bpf__elf_bytes(&size);

	return bpfobj_load(obj, elf, size, what, err);
}

static int load(struct steer *s, struct lslm_error *err)
{
	const char *why = why_no_module();
	struct lslm_error e;
	int rc;

	rc = bpfobj_may_load(s->ifname, err);
	if (rc)
		return rc;
	if (!why) {
		s->placing = !load_place(&s->obj, s->ifname, &e);
		if (s->placing)
			return 0;
		slower_by_error(s, &e);
	} else {
		slower(s, "%s", why);
	}
	return load_plain(&s->obj, s->ifname, err);
}

static int set_config(struct steer *s, const struct steer_config *c, struct lslm_error *err)
{
	uint32_t zero = 0;
	int rc = bpf_map_update_elem(bpfobj_map(s->obj, "config"), &zero, c, BPF_ANY);

	return rc ? error_sys(err, rc, "%s: cannot configure the programs", s->ifname) : 0;
}

static int get_config(const struct steer *s, struct steer_config *c, struct lslm_error *err)
{
	uint32_t zero = 0;
	int rc = bpf_map_lookup_elem(bpfobj_map(s->obj, "config"), &zero, c);

	return rc ? error_sys(err, rc, "%s: cannot read the configuration", s->ifname) : 0;
}

static int set_up(struct steer *s, struct lslm_error *err)
{
	struct steer_config c = { 0 };

	if (getrandom(&c.seed, sizeof(c.seed), 0) != (ssize_t)sizeof(c.seed))
		return error_sys(err, -EIO, "%s: no random numbers", s->ifname);
	return set_config(s, &c, err);
}

/* ---- attaching ---- */

/* The name of a program by its id; "?" when it cannot be asked. */
static void program_name(uint32_t id, char name[BPF_OBJ_NAME_LEN])
{
	struct bpf_prog_info info = { 0 };
	uint32_t size = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);

	strcpy(name, "?");
	if (fd < 0)
		return;
	if (!bpf_obj_get_info_by_fd(fd, &info, &size) && info.name[0])
		snprintf(name, BPF_OBJ_NAME_LEN, "%s", info.name);
	close(fd);
}

static int xdp_taken(const struct steer *s, struct lslm_error *err)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, q);
	char name[BPF_OBJ_NAME_LEN];
	uint32_t id = 0;

	bpfobj_quiet();
	if (!bpf_xdp_query(s->ifindex, 0, &q))
		id = q.prog_id ? q.prog_id : q.drv_prog_id ? q.drv_prog_id : q.skb_prog_id;
	bpfobj_loud();
	program_name(id, name);
	return error_set(err, -EBUSY,
			 "%s: has another XDP program, %s (id %u); remove that, or steer by tc",
			 s->ifname, name, id);
}

static int xdp_refused(const struct steer *s, int rc, bool native, struct lslm_error *err)
{
	const char *how = native ? "XDP in the driver" : "generic XDP";

	switch (rc) {
	case -EBUSY:
	case -EEXIST:
		return xdp_taken(s, err);
	case -ENODEV:
		return error_set(err, rc, "%s: the interface is gone", s->ifname);
	case -EOPNOTSUPP:
		return error_set(err, rc, "%s: its driver has no XDP", s->ifname);
	case -ERANGE:
	case -EMSGSIZE:
		return error_set(err, rc,
				 "%s: its MTU is too large for %s; lower it, or steer by tc",
				 s->ifname, how);
	default:
		return error_sys(err, rc, "%s: cannot attach %s", s->ifname, how);
	}
}

static int attach_xdp(struct steer *s, bool native, struct lslm_error *err)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts,
		    .flags = native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);
	int fd;

	bpfobj_quiet();
	fd = bpf_link_create(bpfobj_program(s->obj, PROGRAM_XDP), s->ifindex, BPF_XDP, &opts);
	bpfobj_loud();
	if (fd < 0)
		return xdp_refused(s, fd, native, err);
	s->link = fd;
	s->hook = native ? "XDP in the driver" : "generic XDP";
	return 0;
}

static int attach_tcx(struct steer *s, struct lslm_error *err)
{
	int fd;

	bpfobj_quiet();
	fd = bpf_link_create(bpfobj_program(s->obj, PROGRAM_TC), s->ifindex,
			     (enum bpf_attach_type)ATTACH_TCX_INGRESS, NULL);
	bpfobj_loud();
	if (fd == -EINVAL)
		return error_set(err, -EOPNOTSUPP, "%s: this kernel has no TC links", s->ifname);
	if (fd < 0)
		return error_sys(err, fd, "%s: cannot attach to TC", s->ifname);
	s->link = fd;
	s->hook = "TC";
	return 0;
}

/* 0, or -EBUSY when somebody else's filter has our place. *flags: to replace our own stale one. */
static int look_for_filter(const struct steer *s, const struct bpf_tc_hook *hook, uint32_t *flags,
			   struct lslm_error *err)
{
	LIBBPF_OPTS(bpf_tc_opts, there, .handle = FILTER_HANDLE, .priority = FILTER_PRIORITY);
	char name[BPF_OBJ_NAME_LEN];

	*flags = 0;
	if (bpf_tc_query(hook, &there))
		return 0;
	program_name(there.prog_id, name);
	if (strcmp(name, PROGRAM_TC))
		return error_set(
			err, -EBUSY,
			"%s: the TC filter with priority %d is somebody else's (%s); remove it "
			"or steer by xdp",
			s->ifname, FILTER_PRIORITY, name);
	*flags = BPF_TC_F_REPLACE;
	return 0;
}

static int attach_clsact(struct steer *s, struct lslm_error *err)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = s->ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = FILTER_HANDLE, .priority = FILTER_PRIORITY);
	int rc;

	bpfobj_quiet();
	rc = bpf_tc_hook_create(&hook);
	if (rc && rc != -EEXIST) {
		bpfobj_loud();
		return error_sys(err, rc, "%s: cannot add the clsact qdisc", s->ifname);
	}
	rc = look_for_filter(s, &hook, &opts.flags, err);
	if (rc) {
		bpfobj_loud();
		return rc;
	}
	opts.prog_fd = bpfobj_program(s->obj, PROGRAM_TC);
	rc = bpf_tc_attach(&hook, &opts);
	bpfobj_loud();
	if (rc)
		return error_sys(err, rc, "%s: cannot add a filter to clsact", s->ifname);
	s->filter = true;
	s->hook = "TC (clsact)";
	return 0;
}

static void detach(struct steer *s)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = s->ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = FILTER_HANDLE, .priority = FILTER_PRIORITY);

	if (s->link >= 0)
		close(s->link);
	if (!s->filter)
		return;
	bpfobj_quiet();
	bpf_tc_detach(&hook, &opts);
	bpfobj_loud();
}

static int attach_tc(struct steer *s, struct lslm_error *err)
{
	struct lslm_error e;

	if (!attach_tcx(s, &e))
		return 0;
	if (e.code == -EOPNOTSUPP)
		return attach_clsact(s, err);
	*(err ? err : &e) = e;
	return e.code;
}

/* In the driver, else generic: said, unless the reason is that it is somebody else's. */
static int attach_some_xdp(struct steer *s, struct lslm_error *err)
{
	struct lslm_error e;

	if (!attach_xdp(s, true, &e))
		return 0;
	if (e.code != -EBUSY && e.code != -ENODEV) {
		slower_by_error(s, &e);
		return attach_xdp(s, false, err);
	}
	*(err ? err : &e) = e;
	return e.code;
}

static int attach_best(struct steer *s, struct lslm_error *err)
{
	struct lslm_error e;

	if (!attach_xdp(s, true, &e))
		return 0;
	slower_by_error(s, &e);
	if (!attach_tc(s, &e))
		return 0;
	slower_by_error(s, &e);
	return attach_xdp(s, false, err);
}

static int attach(struct steer *s, enum steer_mode mode, struct lslm_error *err)
{
	switch (mode) {
	case STEER_XDP:
		return attach_some_xdp(s, err);
	case STEER_GENERIC:
		return attach_xdp(s, false, err);
	case STEER_TC:
		return attach_tc(s, err);
	case STEER_CLSACT:
		return attach_clsact(s, err);
	default:
		return attach_best(s, err);
	}
}

/* ---- life ---- */

static struct steer *new_steer(struct lslm_error *err)
{
	struct steer *s = calloc(1, sizeof(*s));

	if (!s) {
		error_set(err, -ENOMEM, "no memory for steering");
		return NULL;
	}
	s->link = -1;
	s->lock = -1;
	return s;
}

int steer_open(struct steer **out, const char *ifname, enum steer_mode mode, struct lslm_error *err)
{
	struct steer *s = new_steer(err);
	int rc;

	*out = NULL;
	if (!s)
		return -ENOMEM;
	rc = look_up(s, ifname, err);
	if (!rc)
		rc = bpfobj_may_load(s->ifname, err);
	if (!rc)
		rc = take_lock(s, err);
	if (!rc)
		rc = load(s, err);
	if (!rc)
		rc = set_up(s, err);
	if (!rc)
		rc = attach(s, mode, err);
	if (rc) {
		steer_close(s);
		return rc;
	}
	snprintf(s->text, sizeof(s->text), "%s: %s, %s%s", s->ifname, s->hook,
		 s->placing ? "placed by the module" : "on to the socket", s->why_slower);
	*out = s;
	return 0;
}

int steer_load(struct steer **out, bool place, struct lslm_error *err)
{
	struct steer *s = new_steer(err);
	int rc;

	*out = NULL;
	if (!s)
		return -ENOMEM;
	strcpy(s->ifname, "steering");
	s->placing = place;
	rc = place ? load_place(&s->obj, s->ifname, err) : load_plain(&s->obj, s->ifname, err);
	if (!rc)
		rc = set_up(s, err);
	if (rc) {
		steer_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void steer_close(struct steer *s)
{
	if (!s)
		return;
	detach(s);
	bpfobj_close(s->obj);
	if (s->lock >= 0)
		close(s->lock);
	free(s);
}

const char *steer_describe(const struct steer *s)
{
	return s->text;
}

bool steer_is_placing(const struct steer *s)
{
	return s->placing;
}

int steer_program(const struct steer *s, bool xdp)
{
	return bpfobj_program(s->obj, xdp ? PROGRAM_XDP : PROGRAM_TC);
}

/* ---- what the programs are told ---- */

static int parse_address(const char *text, struct steer_address *a, struct lslm_error *err)
{
	struct in_addr four;

	memset(a, 0, sizeof(*a));
	if (inet_pton(AF_INET6, text, a) == 1)
		return 0;
	if (inet_pton(AF_INET, text, &four) != 1)
		return error_set(err, -EINVAL, "%s: no IPv4 or IPv6 address", text);
	a->word[2] = htonl(0xffff);
	a->word[3] = four.s_addr;
	return 0;
}

static int check_limit(uint64_t rate, uint64_t burst, struct lslm_error *err)
{
	if (rate > STEER_RATE_MAX || burst > STEER_BURST_MAX)
		return error_set(err, -ERANGE,
				 "a limit of %llu bytes/s, %llu at once: at most %llu and %llu",
				 (unsigned long long)rate, (unsigned long long)burst,
				 STEER_RATE_MAX, STEER_BURST_MAX);
	return 0;
}

static int update(struct steer *s, const char *map, const void *key, const void *value,
		  struct lslm_error *err)
{
	int rc = bpf_map_update_elem(bpfobj_map(s->obj, map), key, value, BPF_ANY);

	if (rc == -E2BIG)
		return error_set(err, rc, "%s: the table of %s is full", s->ifname, map);
	return rc ? error_sys(err, rc, "%s: cannot write to the table of %s", s->ifname, map) : 0;
}

static int forget(struct steer *s, const char *map, const void *key, struct lslm_error *err)
{
	int rc = bpf_map_delete_elem(bpfobj_map(s->obj, map), key);

	return rc ? error_sys(err, rc, "%s: cannot delete from the table of %s", s->ifname, map) :
		    0;
}

int steer_port(struct steer *s, uint16_t port, uint32_t session, uint32_t largest,
	       const char *address, struct lslm_error *err)
{
	struct steer_port p = { .session = session, .largest = largest };
	uint16_t key = htons(port);
	int rc;

	rc = address ? parse_address(address, &p.address, err) : 0;
	return rc ? rc : update(s, "ports", &key, &p, err);
}

int steer_port_remove(struct steer *s, uint16_t port, struct lslm_error *err)
{
	uint16_t key = htons(port);

	return forget(s, "ports", &key, err);
}

int steer_limit(struct steer *s, uint64_t rate, uint64_t burst, struct lslm_error *err)
{
	struct steer_config c;
	int rc;

	rc = check_limit(rate, burst, err);
	if (!rc)
		rc = get_config(s, &c, err);
	if (rc)
		return rc;
	c.rate = rate;
	c.burst = burst;
	return set_config(s, &c, err);
}

int steer_peer(struct steer *s, const char *address, uint64_t rate, uint64_t burst,
	       struct lslm_error *err)
{
	struct steer_bucket b = { .rate = rate, .burst = burst };
	struct steer_address a;
	struct steer_config c;
	int rc;

	rc = parse_address(address, &a, err);
	if (!rc)
		rc = check_limit(rate, burst, err);
	if (!rc)
		rc = update(s, "peers", &a, &b, err);
	if (!rc)
		rc = get_config(s, &c, err);
	if (rc || c.listed)
		return rc;
	c.listed = 1;
	return set_config(s, &c, err);
}

int steer_peer_remove(struct steer *s, const char *address, struct lslm_error *err)
{
	struct steer_address a;
	int rc;

	rc = parse_address(address, &a, err);
	return rc ? rc : forget(s, "peers", &a, err);
}

int steer_urgent(struct steer *s, uint32_t session, uint32_t slot, uint32_t generation,
		 struct lslm_error *err)
{
	struct steer_range range = { .session = session, .slot = slot };

	return update(s, "urgent", &range, &generation, err);
}

int steer_calm(struct steer *s, uint32_t session, uint32_t slot, struct lslm_error *err)
{
	struct steer_range range = { .session = session, .slot = slot };
	int rc = bpf_map_delete_elem(bpfobj_map(s->obj, "urgent"), &range);

	return rc && rc != -ENOENT ?
		       error_sys(err, rc, "%s: cannot delete from the table of urgent", s->ifname) :
		       0;
}

/* ---- what they tell ---- */

int steer_stats(const struct steer *s, struct steer_counter out[STEER_COUNTERS],
		struct lslm_error *err)
{
	const size_t words = sizeof(out[0]) / sizeof(uint64_t);
	uint64_t sum[STEER_COUNTERS * (sizeof(struct steer_counter) / sizeof(uint64_t))];
	int rc;

	rc = bpfobj_sum(bpfobj_map(s->obj, "counters"), STEER_COUNTERS, words, sum, err);
	if (rc)
		return error_prefix(err, rc, "%s", s->ifname);
	for (size_t i = 0; i < STEER_COUNTERS; i++) {
		out[i].frames = sum[i * words];
		out[i].bytes = sum[i * words + 1];
	}
	return 0;
}

const char *steer_verdict_name(enum steer_verdict v)
{
	static const char *const names[STEER_COUNTERS] = {
		[STEER_OTHER] = "other",       [STEER_FRAGMENT] = "fragment",
		[STEER_NOT_DATA] = "not_data", [STEER_SESSION] = "session",
		[STEER_PEER] = "peer",	       [STEER_LIMIT] = "limit",
		[STEER_SOCKET] = "socket",     [STEER_PLACED] = "placed",
		[STEER_PIECES] = "pieces",     [STEER_NO_SESSION] = "no_session",
		[STEER_REFUSED] = "refused",   [STEER_EXEMPT] = "exempt",
	};

	return (unsigned int)v < STEER_COUNTERS ? names[v] : "?";
}
