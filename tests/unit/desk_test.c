// SPDX-License-Identifier: MIT
/* What the edge's desk does with clients that do not keep to the protocol. */
#include "edge_rig.h"

#include <sys/socket.h>
#include <sys/un.h>

static int raw_connection(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	const struct timeval limit = { .tv_sec = 60 };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(at.sun_path, sock);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static struct courier_request request(uint16_t op, uint32_t index, uint32_t value)
{
	return (struct courier_request){ .size = sizeof(struct courier_request),
					 .version = COURIER_WIRE_VERSION,
					 .op = op,
					 .index = index,
					 .value = value };
}

/* 0: cut off; else the answer's size. */
static ssize_t exchange(int fd, const void *data, size_t size, union courier_message *m)
{
	ssize_t n;

	if (send(fd, data, size, MSG_NOSIGNAL) < 0)
		return 0;
	n = recv(fd, m, sizeof(*m), 0);
	assert_true(n >= 0 || errno == ECONNRESET);
	return n < 0 ? 0 : n;
}

static void greet(int fd)
{
	const struct courier_request r = request(COURIER_HELLO, 0, 0);
	union courier_message m;

	assert_int_equal(exchange(fd, &r, sizeof(r), &m), sizeof(m.hello));
	assert_int_equal(m.head.size, sizeof(m.hello));
	assert_int_equal(m.head.code, 0);
	assert_int_equal(m.hello.pid, getpid());
}

static void desk__cuts_off_who_sends_no_request(void **state)
{
	const struct {
		bool greeted;
		struct courier_request r;
		size_t size;
	} cases[] = {
		{ true, request(COURIER_LIST, 0, 0), 15 },
		{ true, request(COURIER_LIST, 0, 0), 1 },
		{ true, request(COURIER_LIST, 0, 0), 17 },
		{ true, request(COURIER_LIST, 0, 0), 4000 },
		{ true, { .size = 15, .version = COURIER_WIRE_VERSION, .op = COURIER_LIST }, 16 },
		{ true,
		  { .size = UINT32_MAX, .version = COURIER_WIRE_VERSION, .op = COURIER_LIST },
		  16 },
		{ true, request(0, 0, 0), 16 },
		{ true, request(COURIER_OPS, 0, 0), 16 },
		{ true, request(UINT16_MAX, 0, 0), 16 },
		{ true, request(COURIER_HELLO, 0, 0), 16 },
		{ true, request(COURIER_LIST, 0, 1), 16 },
		{ true, request(COURIER_STATUS, 0, 1), 16 },
		{ true, request(COURIER_STAT, 1, 0), 16 },
		{ true, request(COURIER_WEIGHTS, 0, 1), 16 },
		{ true, request(COURIER_CLOUD, 0, 1), 16 },
		{ true, request(COURIER_SERVING, 1, 0), 16 },
		{ true, request(COURIER_SERVING, 0, 1), 16 },
		{ false, request(COURIER_WEIGHTS, 0, 0), 16 },
		{ true, request(COURIER_ATTACH, 0, ORDER_TAIL + 1), 16 },
		{ true, request(COURIER_ATTACH, 0, UINT32_MAX), 16 },
		{ true, request(COURIER_HEAD, 0, 8), 16 },
		{ true, request(COURIER_HEAD, 0, UINT32_MAX), 16 },
		{ true, request(COURIER_HEAD, N, 0), 16 },
		{ true, request(COURIER_HEAD, UINT32_MAX, 0), 16 },
		{ false, request(COURIER_LIST, 0, 0), 16 },
		{ false, request(COURIER_ATTACH, 0, 0), 16 },
		{ false, request(COURIER_HEAD, 0, 0), 16 },
		{ false, request(COURIER_HELLO, 0, 1), 16 },
		{ false, request(COURIER_HELLO, 1, 0), 16 },
	};
	struct edge *e = start_complete();
	struct courier_client *c = client();
	struct courier_status s;
	struct lslm_error err = { 0 };
	union courier_message m;
	uint8_t bytes[4096];
	unsigned int fds;

	fds = count_fds();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int fd = raw_connection();

		if (cases[i].greeted)
			greet(fd);
		memset(bytes, 0xee, sizeof(bytes));
		memcpy(bytes, &cases[i].r, sizeof(cases[i].r));
		if (exchange(fd, bytes, cases[i].size, &m))
			fail_msg("case %zu is answered", i);
		close(fd);
	}
	/* The others have noticed nothing, and nothing is left of it. */
	assert_ok(courier_client_status(c, 0, &s, &err), &err);
	wait_for_fds(fds);
	courier_client_close(c);
	edge_stop(e);
}

static void desk__refuses_what_it_does_not_have(void **state)
{
	const struct {
		struct courier_request r;
		int code;
	} cases[] = {
		{ request(COURIER_LIST, N, 0), -ENOENT },
		{ request(COURIER_LIST, UINT32_MAX, 0), -ENOENT },
		{ request(COURIER_STATUS, 64, 0), -ENOENT },
		{ request(COURIER_ATTACH, N, 0), -ENOENT },
		{ request(COURIER_ATTACH, INT32_MAX, 1), -ENOENT },
		{ request(COURIER_WEIGHTS, 0, 0), -ENOENT },
		{ request(COURIER_CLOUD, 0, 0), -ENOENT },
		{ request(COURIER_CLOUD, UINT32_MAX, 0), -ENOENT },
		{ request(COURIER_SERVING, 0, 0), -ENOENT },
		{ request(COURIER_WEIGHTS, UINT32_MAX, 0), -ENOENT },
		{ { .size = 16, .version = COURIER_WIRE_VERSION - 1, .op = COURIER_LIST },
		  -EPROTONOSUPPORT },
		{ { .size = 16, .version = 0, .op = 77 }, -EPROTONOSUPPORT },
	};
	struct edge *e = start_complete();
	union courier_message m;
	int fd = raw_connection();

	greet(fd);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(exchange(fd, &cases[i].r, 16, &m), sizeof(m.refusal));
		assert_int_equal(m.head.code, cases[i].code);
		assert_int_equal(m.head.op, cases[i].r.op);
		assert_true(memchr(m.refusal.why, 0, sizeof(m.refusal.why)) && *m.refusal.why);
	}
	close(fd);
	edge_stop(e);
}

/* A descriptor that comes along is nobody's, and closed. */
static void desk__takes_no_descriptors(void **state)
{
	const struct courier_request r = request(COURIER_STAT, 0, 0);
	struct edge *e = start_complete();
	union {
		char room[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { (void *)&r, sizeof(r) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	union courier_message m;
	unsigned int before;
	int fd = raw_connection(), pipe_ends[2];

	greet(fd);
	assert_int_equal(pipe(pipe_ends), 0);
	memset(&control, 0, sizeof(control));
	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(8 * sizeof(int));
	for (int i = 0; i < 8; i++)
		memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &pipe_ends[1], sizeof(int));
	before = count_fds();
	for (int i = 0; i < 100; i++) {
		assert_int_equal(sendmsg(fd, &msg, 0), sizeof(r));
		assert_int_equal(recv(fd, &m, sizeof(m), 0), sizeof(m.stat));
	}
	assert_int_equal(count_fds(), before);
	close(pipe_ends[1]);
	/* Nobody holds its other end any more. */
	assert_int_equal(read(pipe_ends[0], &m, 1), 0);
	close(pipe_ends[0]);
	close(fd);
	edge_stop(e);
}

/* One that asks and asks and never listens is cut off, and the others are served meanwhile. */
static void desk__does_not_wait_for_who_does_not_listen(void **state)
{
	const struct courier_request r = request(COURIER_ATTACH, 0, ORDER_TAIL);
	struct edge *e = start_complete();
	struct courier_client *c = client();
	struct lslm_error err = { 0 };
	struct courier_status s;
	unsigned int before;
	int fd;

	before = count_fds();
	fd = raw_connection();
	greet(fd);
	for (int i = 0; i < 100000 && send(fd, &r, sizeof(r), MSG_NOSIGNAL) > 0; i++)
		if (i % 64 == 0)
			assert_ok(courier_client_status(c, 0, &s, &err), &err);
	assert_int_equal(send(fd, &r, sizeof(r), MSG_NOSIGNAL), -1);
	assert_ok(courier_client_status(c, 0, &s, &err), &err);
	close(fd);
	/* What was on its way to it is closed too. */
	wait_for_fds(before);
	courier_client_close(c);
	edge_stop(e);
}

static void desk__more_clients_than_places(void **state)
{
	struct edge *e = start_complete();
	struct courier_client *c;
	int fds[70];

	/* Those beyond wait in the queue until one goes. */
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		fds[i] = raw_connection();
	for (size_t i = 0; i < 64; i++)
		greet(fds[i]);
	for (size_t i = 0; i < ARRAY_LEN(fds) - 64; i++)
		close(fds[i]);
	for (size_t i = 64; i < ARRAY_LEN(fds); i++)
		greet(fds[i]);
	for (size_t i = ARRAY_LEN(fds) - 64; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
	c = client();
	courier_client_close(c);
	edge_stop(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(desk__cuts_off_who_sends_no_request),
		cmocka_unit_test(desk__refuses_what_it_does_not_have),
		cmocka_unit_test(desk__takes_no_descriptors),
		cmocka_unit_test(desk__does_not_wait_for_who_does_not_listen),
		cmocka_unit_test(desk__more_clients_than_places),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("desk", tests, setup, teardown);
}
