// SPDX-License-Identifier: MIT
#include "serve/channel.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
	char room[CMSG_SPACE(CHANNEL_FDS * sizeof(int))];
	struct cmsghdr align;
};

int channel_pair(int pair[2], struct lslm_error *err)
{
	if (!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return 0;
	return error_sys(err, -errno, "no socket pair");
}

int channel_send(int channel, struct channel_message *m, const int *fds, int n)
{
	union control control = { { 0 } };
	struct iovec iov = { m, sizeof(*m) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t sent;

	m->size = sizeof(*m);
	if (n) {
		const size_t size = (size_t)n * sizeof(int);

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(size);
		CMSG_FIRSTHDR(&msg)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&msg)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&msg)->cmsg_len = CMSG_LEN(size);
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, size);
	}
	do {
		sent = sendmsg(channel, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

void channel_close_fds(const int *fds, int n)
{
	for (int i = 0; i < n; i++)
		close(fds[i]);
}

static int take_fds(struct msghdr *msg, int fds[CHANNEL_FDS])
{
	int n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), (size_t)n * sizeof(int));
	}
	return n;
}

int channel_receive(int channel, struct channel_message *m, int fds[CHANNEL_FDS], int *n)
{
	union control control;
	/* cppcheck-suppress ctuuninitvar ; it is where the message comes to stand */
	struct iovec iov = { m, sizeof(*m) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		/* CMSG_SPACE() rounds up, and one more might find room. */
		.msg_controllen = CMSG_LEN(CHANNEL_FDS * sizeof(int)),
	};
	ssize_t got;

	*n = 0;
	do {
		got = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	*n = take_fds(&msg, fds);
	if (got == sizeof(*m) && m->size == sizeof(*m) && m->op && m->op < CHANNEL_OPS &&
	    m->code <= 0 && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		m->text[sizeof(m->text) - 1] = 0;
		error_flatten(m->text);
		return 0;
	}
	channel_close_fds(fds, *n);
	*n = 0;
	return got ? -EPROTO : -EPIPE;
}
