// SPDX-License-Identifier: MIT
#include "net/courier_client.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/utf8.h"
#include "net/breaker.h"

enum { CLIENT_TIMEOUT_MS = 5000 };

struct courier_client {
	int fd;
	char *path;
	struct lslm_error over; /* why nothing can be asked any more; code 0: it can */
};

/* An answer as received: the descriptors in it are ours to close. */
struct received {
	union courier_message m;
	int fds[COURIER_WIRE_FDS];
	int n_fds;
};

static void close_fds(struct received *r)
{
	for (int i = 0; i < r->n_fds; i++)
		close(r->fds[i]);
	r->n_fds = 0;
}

static int end_connection(struct courier_client *c, int code, struct lslm_error *err)
{
	/* Waiters of the control page look at the socket too. */
	shutdown(c->fd, SHUT_RDWR);
	return error_set(err, code, "%s", c->over.text);
}

static int no_courier(struct courier_client *c, struct lslm_error *err)
{
	error_set(&c->over, -EPROTO, "%s: what answers there is no courier of this version of lslm",
		  c->path);
	return end_connection(c, -EPROTO, err);
}

static int is_gone(struct courier_client *c, struct lslm_error *err)
{
	error_set(&c->over, -ECONNRESET, "%s: the courier has gone away; is lslm edge running?",
		  c->path);
	return end_connection(c, -ECONNRESET, err);
}

static int failed_call(struct courier_client *c, int code, struct lslm_error *err)
{
	if (code == -EPIPE || code == -ECONNRESET)
		return is_gone(c, err);
	if (code == -EAGAIN) {
		code = -ETIMEDOUT;
		error_set(&c->over, code, "%s: the courier does not answer", c->path);
	} else {
		error_sys(&c->over, code, "%s", c->path);
	}
	return end_connection(c, code, err);
}

static size_t answer_size(uint16_t op)
{
	static const size_t sizes[COURIER_OPS] = {
		[COURIER_HELLO] = sizeof(struct courier_hello),
		[COURIER_LIST] = sizeof(struct courier_entry),
		[COURIER_ATTACH] = sizeof(struct courier_attached),
		[COURIER_STATUS] = sizeof(struct courier_status),
		[COURIER_STAT] = sizeof(struct courier_stat),
		[COURIER_WEIGHTS] = sizeof(struct courier_weights),
		[COURIER_CLOUD] = sizeof(struct courier_cloud),
		[COURIER_SERVING] = sizeof(struct courier_serving),
	};

	return sizes[op];
}

static void clean(char *text, size_t size)
{
	text[size - 1] = 0;
	utf8_clean(text);
	error_flatten(text);
}

/* Enums are known, texts end. */
static bool check_contents(union courier_message *m)
{
	switch (m->head.op) {
	case COURIER_LIST:
		clean(m->entry.title, sizeof(m->entry.title));
		clean(m->entry.why, sizeof(m->entry.why));
		return m->entry.state < COURIER_STATES;
	case COURIER_STATUS:
		clean(m->status.path, sizeof(m->status.path));
		clean(m->status.backend, sizeof(m->status.backend));
		clean(m->status.why, sizeof(m->status.why));
		clean(m->status.udp.backend, sizeof(m->status.udp.backend));
		clean(m->status.udp.reason, sizeof(m->status.udp.reason));
		return m->status.state < COURIER_STATES;
	case COURIER_CLOUD:
		clean(m->cloud.name, sizeof(m->cloud.name));
		clean(m->cloud.why, sizeof(m->cloud.why));
		return m->cloud.state < BREAKER_STATES;
	case COURIER_STAT:
		clean(m->stat.store, sizeof(m->stat.store));
		clean(m->stat.steer, sizeof(m->stat.steer));
		clean(m->stat.buffers, sizeof(m->stat.buffers));
		return true;
	default:
		return true;
	}
}

static bool check_answer(struct received *r, size_t size, uint16_t op)
{
	const struct courier_answer *head = &r->m.head;

	if (size < sizeof(*head) || head->size != size || head->version != COURIER_WIRE_VERSION ||
	    head->op != op || head->code > 0)
		return false;
	if (!head->code)
		return size == answer_size(op) && check_contents(&r->m);
	clean(r->m.refusal.why, sizeof(r->m.refusal.why));
	return size == sizeof(r->m.refusal) && !r->n_fds;
}

static void take_fds(struct received *r, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		r->n_fds = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(r->fds, CMSG_DATA(c), r->n_fds * sizeof(int));
	}
}

/* There is room for COURIER_WIRE_FDS descriptors; the kernel closes those beyond, and says so. */
static int receive(struct courier_client *c, struct received *r, uint16_t op,
		   struct lslm_error *err)
{
	union {
		char room[CMSG_SPACE(COURIER_WIRE_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { &r->m, sizeof(r->m) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		/* CMSG_SPACE() rounds up, and one more would find room. */
		.msg_controllen = CMSG_LEN(COURIER_WIRE_FDS * sizeof(int)),
	};
	ssize_t n;

	do {
		n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return failed_call(c, -errno, err);
	take_fds(r, &msg);
	if (!n) {
		/* Its end, or an empty message, which may come with descriptors. */
		close_fds(r);
		return is_gone(c, err);
	}
	if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || !check_answer(r, (size_t)n, op)) {
		close_fds(r);
		return no_courier(c, err);
	}
	if (r->m.head.code)
		return error_set(err, r->m.head.code, "%s: %s", c->path, r->m.refusal.why);
	return 0;
}

static int send_request(struct courier_client *c, const struct courier_request *req, int flags)
{
	ssize_t n;

	do {
		n = send(c->fd, req, sizeof(*req), MSG_NOSIGNAL | flags);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static int ask(struct courier_client *c, enum courier_op op, uint32_t index, uint32_t value,
	       struct received *r, struct lslm_error *err)
{
	const struct courier_request req = {
		.size = sizeof(req),
		.version = COURIER_WIRE_VERSION,
		.op = (uint16_t)op,
		.index = index,
		.value = value,
	};
	int ret;

	r->n_fds = 0;
	if (c->over.code)
		return error_set(err, -EPIPE, "%s", c->over.text);
	ret = send_request(c, &req, 0);
	return ret < 0 ? failed_call(c, ret, err) : receive(c, r, (uint16_t)op, err);
}

/* For answers that come without descriptors. */
static int ask_plain(struct courier_client *c, enum courier_op op, uint32_t index,
		     struct received *r, struct lslm_error *err)
{
	int ret = ask(c, op, index, 0, r, err);

	if (ret < 0 || !r->n_fds)
		return ret;
	close_fds(r);
	return no_courier(c, err);
}

int courier_client_list(struct courier_client *c, uint32_t index, struct courier_entry *out,
			struct lslm_error *err)
{
	struct received r;
	int ret = ask_plain(c, COURIER_LIST, index, &r, err);

	if (ret)
		return ret;
	/* Whoever goes on behind it must come to an end. */
	if (r.m.entry.index < index || r.m.entry.index == UINT32_MAX)
		return no_courier(c, err);
	*out = r.m.entry;
	return 0;
}

int courier_client_status(struct courier_client *c, uint32_t index, struct courier_status *out,
			  struct lslm_error *err)
{
	struct received r;
	int ret = ask_plain(c, COURIER_STATUS, index, &r, err);

	if (!ret)
		*out = r.m.status;
	return ret;
}

int courier_client_stat(struct courier_client *c, struct courier_stat *out, struct lslm_error *err)
{
	struct received r;
	int ret = ask_plain(c, COURIER_STAT, 0, &r, err);

	if (!ret)
		*out = r.m.stat;
	return ret;
}

int courier_client_cloud(struct courier_client *c, uint32_t index, struct courier_cloud *out,
			 struct lslm_error *err)
{
	struct received r;
	int ret = ask_plain(c, COURIER_CLOUD, index, &r, err);

	if (!ret)
		*out = r.m.cloud;
	return ret;
}

int courier_client_serving(struct courier_client *c, struct courier_serving *out,
			   struct lslm_error *err)
{
	struct received r;
	int ret = ask_plain(c, COURIER_SERVING, 0, &r, err);

	if (!ret)
		*out = r.m.serving;
	return ret;
}

int courier_client_attach(struct courier_client *c, uint32_t index, enum order_kind order,
			  struct courier_attached *out, int fds[COURIER_WIRE_FDS],
			  struct lslm_error *err)
{
	struct received r;
	int ret = ask(c, COURIER_ATTACH, index, order, &r, err);

	if (ret < 0)
		return ret;
	if (r.n_fds != (r.m.attached.n_stripes ? COURIER_WIRE_FDS : 1)) {
		close_fds(&r);
		return no_courier(c, err);
	}
	*out = r.m.attached;
	for (int i = 0; i < COURIER_WIRE_FDS; i++)
		fds[i] = i < r.n_fds ? r.fds[i] : -1;
	return 0;
}

int courier_client_weights(struct courier_client *c, uint32_t index, struct courier_weights *out,
			   int fds[COURIER_WIRE_WEIGHTS_FDS], struct lslm_error *err)
{
	struct received r;
	int ret = ask(c, COURIER_WEIGHTS, index, 0, &r, err);

	if (ret < 0)
		return ret;
	if (r.n_fds != COURIER_WIRE_WEIGHTS_FDS) {
		close_fds(&r);
		return no_courier(c, err);
	}
	*out = r.m.weights;
	memcpy(fds, r.fds, COURIER_WIRE_WEIGHTS_FDS * sizeof(int));
	return 0;
}

void courier_client_head(struct courier_client *c, uint32_t index, uint32_t stripes)
{
	const struct courier_request req = {
		.size = sizeof(req),
		.version = COURIER_WIRE_VERSION,
		.op = COURIER_HEAD,
		.index = index,
		.value = stripes,
	};

	/* A hint: one that cannot be given now is not given. */
	if (!c->over.code)
		send_request(c, &req, MSG_DONTWAIT);
}

int courier_client_fd(const struct courier_client *c)
{
	return c->fd;
}

bool courier_client_is_over(struct courier_client *c, struct lslm_error *why)
{
	struct pollfd p = { .fd = c->fd, .events = POLLRDHUP };

	if (!c->over.code && poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR)))
		is_gone(c, NULL);
	if (c->over.code && why)
		*why = c->over;
	return c->over.code;
}

static int connect_to(struct courier_client *c, const char *path, struct lslm_error *err)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(at.sun_path))
		return error_set(err, -ENAMETOOLONG,
				 "%s: longer than a socket's name can be (%zu bytes)", path,
				 sizeof(at.sun_path) - 1);
	strcpy(at.sun_path, path);
	c->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return error_sys(err, -errno, "%s", path);
	if (!connect(c->fd, (struct sockaddr *)&at, sizeof(at)))
		return 0;
	if (errno == ENOENT || errno == ECONNREFUSED)
		return error_set(err, -errno, "%s: no courier serves it; is lslm edge running?",
				 path);
	return error_sys(err, -errno, "%s: cannot reach the courier", path);
}

static struct courier_client *fresh(const char *path)
{
	struct courier_client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fd = -1;
	c->path = strdup(path);
	if (c->path)
		return c;
	free(c);
	return NULL;
}

static int greet(struct courier_client *c, int timeout_ms, struct lslm_error *err)
{
	const int ms = timeout_ms ? timeout_ms : CLIENT_TIMEOUT_MS;
	const struct timeval limit = { ms / 1000, ms % 1000 * 1000L };
	struct received r;

	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return ask_plain(c, COURIER_HELLO, 0, &r, err);
}

int courier_client_open(struct courier_client **out, const char *path, int timeout_ms,
			struct lslm_error *err)
{
	struct courier_client *c = fresh(path);
	int ret;

	if (!c)
		return error_sys(err, -ENOMEM, "courier");
	ret = connect_to(c, path, err);
	if (!ret)
		ret = greet(c, timeout_ms, err);
	if (ret < 0) {
		courier_client_close(c);
		return ret;
	}
	*out = c;
	return 0;
}

int courier_client_take(struct courier_client **out, int fd, const char *name, int timeout_ms,
			struct lslm_error *err)
{
	struct courier_client *c = fresh(name);
	int ret;

	if (!c) {
		close(fd);
		return error_sys(err, -ENOMEM, "courier");
	}
	c->fd = fd;
	ret = greet(c, timeout_ms, err);
	if (ret < 0) {
		courier_client_close(c);
		return ret;
	}
	*out = c;
	return 0;
}

void courier_client_close(struct courier_client *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	free(c->path);
	free(c);
}
