// SPDX-License-Identifier: MIT
#include "net/intake.h"

#include <assert.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
	BUFFERS = 32, /* of the ring; a power of two */
	BATCH = 32, /* of one recvmmsg() */
	CONTROL_BYTES = CMSG_SPACE(sizeof(int)),
	ROOM = 1 << 16,
	/* An odd number of cache lines apart, or all headers would fight for the same sets. */
	STRIDE = ROOM + 5 * 64,
	GROUP = 0,
	/*
	 * A wake-up costs more than what is done with one datagram. Where they come faster than this, they are
	 * let come together; the delay that congestion control looks at is in milliseconds.
	 */
	PAUSE_NS = 1000000,
};

static_assert(sizeof(struct io_uring_recvmsg_out) + CONTROL_BYTES + INTAKE_LARGEST <= STRIDE,
	      "a buffer holds whatever may come");

enum tag {
	TAG_RECEIVE = 1,
	TAG_WAKE,
	TAG_CANCEL,
};

struct intake {
	int socket;
	int wake;
	bool gro; /* switched on here */
	char path[160];
	uint8_t *memory;
	size_t memory_bytes;
	uint64_t came_ns; /* when something did, last */
	bool pause;

	/* io_uring. */
	bool ring_on;
	struct io_uring ring;
	struct io_uring_buf_ring *buffers;
	size_t buffers_bytes;
	struct msghdr shape; /* of what every buffer receives */
	bool receiving, waking; /* armed */

	/* recvmmsg(). */
	struct mmsghdr messages[BATCH];
	struct iovec pieces[BATCH];
	uint8_t controls[BATCH][CONTROL_BYTES] __attribute__((aligned(8)));
};

/* ---- common to both ---- */

bool intake_is_passing(int code)
{
	switch (code) {
	case -EAGAIN:
	case -EINTR:
	case -ENOBUFS:
	case -ENOMEM:
	case -ECANCELED:
	case -ECONNREFUSED:
	case -ECONNRESET:
	case -EHOSTDOWN:
	case -EHOSTUNREACH:
	case -EMSGSIZE:
	case -ENETDOWN:
	case -ENETUNREACH:
	case -ENONET:
	case -ENOPROTOOPT:
	case -EOPNOTSUPP:
	case -EPROTO:
	case -EACCES:
		return true;
	default:
		return false;
	}
}

/* Datagrams of `segment` bytes, the last may be shorter; a segment of 0 is one datagram. */
static void hand_out(uint8_t *data, uint32_t size, uint32_t segment, uint64_t now_ns,
		     intake_fn take, void *arg)
{
	uint32_t n;

	if (!segment || segment >= size) {
		take(arg, data, size, now_ns);
		return;
	}
	for (; size; data += n, size -= n) {
		n = size < segment ? size : segment;
		take(arg, data, n, now_ns);
	}
}

static uint32_t segment_of(const struct cmsghdr *c)
{
	int segment = 0;

	if (c && c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO &&
	    c->cmsg_len >= CMSG_LEN(sizeof(segment)))
		memcpy(&segment, CMSG_DATA(c), sizeof(segment));
	return segment > 0 ? (uint32_t)segment : 0;
}

static void clear_wake(struct intake *in)
{
	uint64_t n;

	(void)!read(in->wake, &n, sizeof(n));
}

/* So many buffers were filled. All of them: there is more, and no time to lose. */
static void pace(struct intake *in, uint32_t filled, uint32_t most, uint64_t now_ns)
{
	if (!filled)
		return;
	in->pause = filled < most && now_ns - in->came_ns < 2ULL * PAUSE_NS * filled / 3;
	in->came_ns = now_ns;
}

/* Returns what is left of the time. */
static uint64_t pause_for_more(struct intake *in, uint64_t timeout_ns)
{
	const struct timespec ts = { .tv_nsec = PAUSE_NS };

	if (!in->pause || timeout_ns < PAUSE_NS)
		return timeout_ns;
	in->pause = false;
	clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
	return timeout_ns - PAUSE_NS;
}

static int dead(int code, struct lslm_error *err)
{
	return error_sys(err, code, "session: its socket cannot receive");
}

/* ---- io_uring ---- */

static uint8_t *buffer_at(const struct intake *in, uint32_t i)
{
	return in->memory + (size_t)i * STRIDE;
}

static int provide(struct intake *in)
{
	struct io_uring_buf_reg reg = { .ring_entries = BUFFERS, .bgid = GROUP };
	size_t bytes = BUFFERS * sizeof(struct io_uring_buf);
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return -errno;
	in->buffers = at;
	in->buffers_bytes = bytes;
	io_uring_buf_ring_init(in->buffers);
	for (int i = 0; i < BUFFERS; i++)
		io_uring_buf_ring_add(in->buffers, buffer_at(in, i), STRIDE, i,
				      io_uring_buf_ring_mask(BUFFERS), i);
	io_uring_buf_ring_advance(in->buffers, BUFFERS);
	reg.ring_addr = (uintptr_t)at;
	return io_uring_register_buf_ring(&in->ring, &reg, 0);
}

static void ring_stop(struct intake *in)
{
	io_uring_queue_exit(&in->ring);
	if (in->buffers)
		munmap(in->buffers, in->buffers_bytes);
	in->buffers = NULL;
	in->ring_on = in->receiving = in->waking = false;
}

/*
 * DEFER_TASKRUN (Linux 6.1, and so everything else that is used here): the kernel receives into
 * our buffers only while the thread that made the ring waits in ring_wait(). Nothing interrupts
 * it elsewhere, and once it does not wait the buffers are ours. Completions are at most one for
 * each buffer, and a few, so their queue never overflows.
 */
static int ring_start(struct intake *in)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			 IORING_SETUP_CQSIZE,
		.cq_entries = 2 * BUFFERS,
	};
	int ret = io_uring_queue_init_params(8, &in->ring, &params);

	if (ret < 0)
		return ret;
	in->shape.msg_controllen = CONTROL_BYTES;
	in->ring_on = true;
	ret = provide(in);
	if (ret)
		ring_stop(in);
	return ret;
}

/* Never full: what is queued is submitted before more is. */
static void arm(struct intake *in)
{
	struct io_uring_sqe *sqe;

	if (!in->receiving) {
		sqe = io_uring_get_sqe(&in->ring);
		io_uring_prep_recvmsg_multishot(sqe, in->socket, &in->shape, 0);
		sqe->flags |= IOSQE_BUFFER_SELECT;
		sqe->buf_group = GROUP;
		io_uring_sqe_set_data64(sqe, TAG_RECEIVE);
	}
	if (!in->waking) {
		sqe = io_uring_get_sqe(&in->ring);
		io_uring_prep_poll_add(sqe, in->wake, POLLIN);
		io_uring_sqe_set_data64(sqe, TAG_WAKE);
	}
	in->receiving = in->waking = true;
}

static void open_buffer(struct intake *in, const struct io_uring_cqe *cqe, uint64_t now_ns,
			intake_fn take, void *arg)
{
	uint8_t *data = buffer_at(in, cqe->flags >> IORING_CQE_BUFFER_SHIFT);
	struct io_uring_recvmsg_out *o = io_uring_recvmsg_validate(data, cqe->res, &in->shape);
	uint32_t size;

	if (!o)
		return;
	size = io_uring_recvmsg_payload_length(o, cqe->res, &in->shape);
	hand_out(io_uring_recvmsg_payload(o, &in->shape), size,
		 segment_of(io_uring_recvmsg_cmsg_firsthdr(o, &in->shape)), now_ns, take, arg);
}

/* take may be NULL: what has come is thrown away. Returns why no more can come, or 0. */
static int reap(struct intake *in, intake_fn take, void *arg)
{
	uint64_t now_ns = clock_ns();
	struct io_uring_cqe *cqe;
	unsigned int head, seen = 0;
	int ret = 0, given = 0;

	io_uring_for_each_cqe(&in->ring, head, cqe)
	{
		seen++;
		if (cqe->user_data == TAG_WAKE) {
			in->waking = false;
			clear_wake(in);
		} else if (cqe->user_data == TAG_RECEIVE) {
			if (!(cqe->flags & IORING_CQE_F_MORE))
				in->receiving = false;
			if (cqe->res < 0 && !intake_is_passing(cqe->res))
				ret = cqe->res;
			if (!(cqe->flags & IORING_CQE_F_BUFFER))
				continue;
			if (take && cqe->res >= 0)
				open_buffer(in, cqe, now_ns, take, arg);
			given++;
			io_uring_buf_ring_add(in->buffers,
					      buffer_at(in, cqe->flags >> IORING_CQE_BUFFER_SHIFT),
					      STRIDE, cqe->flags >> IORING_CQE_BUFFER_SHIFT,
					      io_uring_buf_ring_mask(BUFFERS), given - 1);
		}
	}
	pace(in, (uint32_t)given, BUFFERS, now_ns);
	io_uring_buf_ring_advance(in->buffers, given);
	io_uring_cq_advance(&in->ring, seen);
	return ret;
}

/* Take back what was armed, or the socket stays open until the kernel has cleared the ring away. */
static void disarm(struct intake *in)
{
	static const enum tag tags[] = { TAG_RECEIVE, TAG_WAKE };
	struct __kernel_timespec tick = { .tv_nsec = 10000000 };
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	int ret = 0;

	/* Another thread than the ring's can only leave it to the kernel: -EEXIST. */
	while ((in->receiving || in->waking) && ret != -EEXIST) {
		for (int i = 0; i < 2 && io_uring_sq_space_left(&in->ring); i++) {
			sqe = io_uring_get_sqe(&in->ring);
			io_uring_prep_cancel64(sqe, tags[i], 0);
			io_uring_sqe_set_data64(sqe, TAG_CANCEL);
		}
		ret = io_uring_submit_and_wait_timeout(&in->ring, &cqe, 1, &tick, NULL);
		reap(in, NULL, NULL);
	}
}

static int ring_enter(struct intake *in, uint64_t timeout_ns)
{
	struct __kernel_timespec ts = {
		.tv_sec = (long long)(timeout_ns / 1000000000),
		.tv_nsec = (long long)(timeout_ns % 1000000000),
	};
	struct io_uring_cqe *cqe;

	if (!in->receiving || !in->waking)
		arm(in);
	if (!timeout_ns)
		return io_uring_submit_and_get_events(&in->ring);
	return io_uring_submit_and_wait_timeout(&in->ring, &cqe, 1, &ts, NULL);
}

static int ring_wait(struct intake *in, uint64_t timeout_ns, intake_fn take, void *arg,
		     struct lslm_error *err)
{
	int ret = ring_enter(in, timeout_ns);

	/* The ring is another thread's: make one of our own. */
	if (ret == -EEXIST) {
		ring_stop(in);
		ret = ring_start(in);
		if (!ret)
			ret = ring_enter(in, timeout_ns);
	}
	if (ret < 0 && ret != -ETIME && ret != -EINTR && ret != -EAGAIN && ret != -EBUSY)
		return error_sys(err, ret, "session: io_uring");
	ret = reap(in, take, arg);
	return ret ? dead(ret, err) : 0;
}

/* ---- recvmmsg ---- */

static void messages_start(struct intake *in)
{
	for (int i = 0; i < BATCH; i++) {
		in->pieces[i] = (struct iovec){ in->memory + (size_t)i * STRIDE, ROOM };
		in->messages[i].msg_hdr = (struct msghdr){
			.msg_iov = &in->pieces[i],
			.msg_iovlen = 1,
			.msg_control = in->controls[i],
		};
	}
}

static int messages_wait(struct intake *in, uint64_t timeout_ns, intake_fn take, void *arg,
			 struct lslm_error *err)
{
	struct pollfd fds[] = { { in->socket, POLLIN, 0 }, { in->wake, POLLIN, 0 } };
	struct timespec ts = {
		.tv_sec = (time_t)(timeout_ns / 1000000000),
		.tv_nsec = (long)(timeout_ns % 1000000000),
	};
	uint64_t now_ns;
	int n;

	n = ppoll(fds, 2, &ts, NULL);
	if (n < 0)
		return errno == EINTR ? 0 : error_sys(err, -errno, "session: poll");
	if (fds[1].revents)
		clear_wake(in);
	if (!fds[0].revents)
		return 0;
	for (int i = 0; i < BATCH; i++)
		in->messages[i].msg_hdr.msg_controllen = CONTROL_BYTES;
	n = recvmmsg(in->socket, in->messages, BATCH, MSG_DONTWAIT, NULL);
	if (n < 0)
		return intake_is_passing(-errno) ? 0 : dead(-errno, err);
	now_ns = clock_ns();
	pace(in, (uint32_t)n, BATCH, now_ns);
	for (int i = 0; i < n; i++)
		hand_out(in->pieces[i].iov_base, in->messages[i].msg_len,
			 segment_of(CMSG_FIRSTHDR(&in->messages[i].msg_hdr)), now_ns, take, arg);
	return 0;
}

/* ---- the intake ---- */

static void switch_gro(struct intake *in, int on)
{
	in->gro = !setsockopt(in->socket, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) && on;
}

int intake_open(struct intake **out, int socket, struct lslm_error *err)
{
	struct intake *in = calloc(1, sizeof(*in));
	void *at;
	int ret;

	if (!in)
		return error_set(err, -ENOMEM, "session: out of memory");
	in->socket = socket;
	/* Untouched pages cost nothing: datagrams of usual size use one or two of each buffer. */
	in->memory_bytes = (size_t)BUFFERS * STRIDE;
	at = mmap(NULL, in->memory_bytes, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	in->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (at == MAP_FAILED || in->wake < 0) {
		ret = error_sys(err, -errno, "session: no memory or descriptor to receive with");
		if (at != MAP_FAILED)
			munmap(at, in->memory_bytes);
		if (in->wake >= 0)
			close(in->wake);
		free(in);
		return ret;
	}
	in->memory = at;
	switch_gro(in, 1);
	ret = ring_start(in);
	if (ret)
		messages_start(in);
	snprintf(in->path, sizeof(in->path), ret ? "recvmmsg (io_uring: %s)" : "io_uring",
		 strerror(-ret));
	*out = in;
	return 0;
}

void intake_close(struct intake *in)
{
	if (!in)
		return;
	if (in->ring_on) {
		disarm(in);
		ring_stop(in);
	}
	if (in->gro)
		switch_gro(in, 0);
	munmap(in->memory, in->memory_bytes);
	close(in->wake);
	free(in);
}

const char *intake_path(const struct intake *in)
{
	return in->path;
}

int intake_wait(struct intake *in, uint64_t timeout_ns, intake_fn take, void *arg,
		struct lslm_error *err)
{
	timeout_ns = pause_for_more(in, timeout_ns);
	return in->ring_on ? ring_wait(in, timeout_ns, take, arg, err) :
			     messages_wait(in, timeout_ns, take, arg, err);
}

void intake_wake(struct intake *in)
{
	uint64_t one = 1;
	int keep = errno;

	(void)!write(in->wake, &one, sizeof(one));
	errno = keep;
}
