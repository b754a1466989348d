// SPDX-License-Identifier: MIT
/* What a client of the courier does with one that does not keep to the protocol. */
#include "edge_rig.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>

#include "serve/local_socket.h"

/* Answers a hello rightly and everything else as told, once. */
struct impostor {
	const union courier_message *answer;
	size_t size;
	int n_fds;
	int listener;
};

static void send_with_fds(int fd, const struct impostor *x)
{
	union {
		char room[CMSG_SPACE(16 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { (void *)x->answer, x->size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int one = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (x->n_fds) {
		memset(&control, 0, sizeof(control));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN((size_t)x->n_fds * sizeof(int));
		for (int i = 0; i < x->n_fds; i++)
			memcpy(CMSG_DATA(&control.align) + (size_t)i * sizeof(int), &one,
			       sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE((size_t)x->n_fds * sizeof(int));
	}
	if (x->size || x->n_fds)
		sendmsg(fd, &msg, MSG_NOSIGNAL);
	close(one);
}

static void *impose(void *arg)
{
	struct impostor *x = arg;
	struct courier_hello hello = { .head = { .size = sizeof(hello),
						 .version = COURIER_WIRE_VERSION,
						 .op = COURIER_HELLO } };
	struct courier_request r;
	int fd = accept(x->listener, NULL, NULL);

	if (recv(fd, &r, sizeof(r), 0) == sizeof(r))
		send(fd, &hello, sizeof(hello), MSG_NOSIGNAL);
	if (recv(fd, &r, sizeof(r), 0) == sizeof(r))
		send_with_fds(fd, x);
	/* Until the client has gone: what it makes of it is its own affair. */
	while (x->size && recv(fd, &r, sizeof(r), 0) > 0)
		;
	close(fd);
	return NULL;
}

static union courier_message answer_of(uint16_t op, uint32_t size)
{
	union courier_message m;

	memset(&m, 0, sizeof(m));
	m.head.size = size;
	m.head.version = COURIER_WIRE_VERSION;
	m.head.op = op;
	return m;
}

/* What the client makes of such an answer to `op`. */
static int ask_impostor(uint16_t op, const union courier_message *m, size_t size, int n_fds,
			struct lslm_error *err)
{
	struct local_socket *s;
	struct impostor x = { m, size, n_fds, -1 };
	struct courier_attached a;
	struct courier_client *c;
	struct courier_status st;
	struct courier_entry e;
	struct courier_stat stat;
	int fds[COURIER_WIRE_FDS], ret;
	pthread_t thread;

	assert_ok(local_socket_open(&s, sock, NULL, err), err);
	x.listener = local_socket_fd(s);
	fcntl(x.listener, F_SETFL, 0);
	assert_int_equal(pthread_create(&thread, NULL, impose, &x), 0);
	assert_ok(courier_client_open(&c, sock, 300, err), err);
	switch (op) {
	case COURIER_LIST:
		ret = courier_client_list(c, 0, &e, err);
		break;
	case COURIER_ATTACH:
		ret = courier_client_attach(c, 0, ORDER_TAIL, &a, fds, err);
		for (int i = 0; !ret && i < COURIER_WIRE_FDS; i++)
			close(fds[i]);
		break;
	case COURIER_STATUS:
		ret = courier_client_status(c, 0, &st, err);
		break;
	default:
		ret = courier_client_stat(c, &stat, err);
	}
	if (ret == -EPROTO) {
		assert_true(courier_client_is_over(c, NULL));
		assert_int_equal(courier_client_stat(c, &stat, NULL), -EPIPE);
	}
	courier_client_close(c);
	pthread_join(thread, NULL);
	local_socket_close(s);
	return ret;
}

static void client__checks_answers(void **state)
{
	enum {
		ENTRY = sizeof(struct courier_entry),
		ATTACHED = sizeof(struct courier_attached),
		STATUS = sizeof(struct courier_status),
		STAT = sizeof(struct courier_stat),
		REFUSAL = sizeof(struct courier_refusal)
	};
	struct lslm_error err = { 0 };
	union courier_message m;
	struct {
		uint16_t op, as;
		uint32_t said, size;
		int code, n_fds, want;
		uint32_t enum_value; /* of state, or n_stripes */
	} cases[] = {
		{ COURIER_LIST, COURIER_LIST, ENTRY, ENTRY, 0, 0, 0, 0 },
		{ COURIER_LIST, COURIER_LIST, ENTRY, ENTRY, 0, 0, -EPROTO, COURIER_STATES },
		{ COURIER_LIST, COURIER_LIST, ENTRY, ENTRY, 0, 0, -EPROTO, UINT32_MAX },
		{ COURIER_LIST, COURIER_LIST, ENTRY, ENTRY, 0, 1, -EPROTO, 0 },
		{ COURIER_LIST, COURIER_STATUS, ENTRY, ENTRY, 0, 0, -EPROTO, 0 },
		{ COURIER_LIST, COURIER_LIST, ENTRY - 1, ENTRY, 0, 0, -EPROTO, 0 },
		{ COURIER_LIST, COURIER_LIST, ENTRY - 1, ENTRY - 1, 0, 0, -EPROTO, 0 },
		{ COURIER_LIST, COURIER_LIST, STAT, STAT, 0, 0, -EPROTO, 0 },
		{ COURIER_LIST, COURIER_LIST, ENTRY, 8, 0, 0, -EPROTO, 0 },
		{ COURIER_LIST, COURIER_LIST, ENTRY, 8000, 0, 0, -EPROTO, 0 },
		{ COURIER_LIST, COURIER_LIST, ENTRY, ENTRY, 1, 0, -EPROTO, 0 },
		{ COURIER_LIST, COURIER_LIST, REFUSAL, REFUSAL, -EXDEV, 0, -EXDEV, 0 },
		{ COURIER_LIST, COURIER_LIST, REFUSAL, REFUSAL, -EXDEV, 2, -EPROTO, 0 },
		{ COURIER_LIST, COURIER_LIST, ENTRY, ENTRY, -EXDEV, 0, -EPROTO, 0 },
		{ COURIER_STATUS, COURIER_STATUS, STATUS, STATUS, 0, 0, 0, 0 },
		{ COURIER_STATUS, COURIER_STATUS, STATUS, STATUS, 0, 0, -EPROTO, 9 },
		{ COURIER_STATUS, COURIER_STATUS, STATUS, STATUS, 0, 3, -EPROTO, 0 },
		{ COURIER_STAT, COURIER_STAT, STAT, STAT, 0, 0, 0, 0 },
		{ COURIER_STAT, COURIER_STAT, STAT, STAT, 0, 1, -EPROTO, 0 },
		{ COURIER_ATTACH, COURIER_ATTACH, ATTACHED, ATTACHED, 0, 1, 0, 0 },
		{ COURIER_ATTACH, COURIER_ATTACH, ATTACHED, ATTACHED, 0, 3, 0, 5 },
		{ COURIER_ATTACH, COURIER_ATTACH, ATTACHED, ATTACHED, 0, 0, -EPROTO, 5 },
		{ COURIER_ATTACH, COURIER_ATTACH, ATTACHED, ATTACHED, 0, 2, -EPROTO, 5 },
		{ COURIER_ATTACH, COURIER_ATTACH, ATTACHED, ATTACHED, 0, 4, -EPROTO, 5 },
		{ COURIER_ATTACH, COURIER_ATTACH, ATTACHED, ATTACHED, 0, 16, -EPROTO, 5 },
		{ COURIER_ATTACH, COURIER_ATTACH, ATTACHED, ATTACHED, 0, 3, -EPROTO, 0 },
		{ COURIER_LIST, COURIER_LIST, ENTRY, 0, 0, 0, -ECONNRESET, 0 },
		{ COURIER_LIST, COURIER_LIST, ENTRY, 0, 0, 2, -ECONNRESET, 0 },
	};
	static uint8_t large[8192];
	const unsigned int before = count_fds();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		m = answer_of(cases[i].as, cases[i].said);
		m.head.code = cases[i].code;
		if (cases[i].code)
			memset(m.refusal.why, 'x', sizeof(m.refusal.why));
		else if (cases[i].op == COURIER_LIST)
			m.entry.state = cases[i].enum_value;
		else if (cases[i].op == COURIER_STATUS)
			m.status.state = cases[i].enum_value;
		else if (cases[i].op == COURIER_ATTACH)
			m.attached.n_stripes = cases[i].enum_value;
		memcpy(large, &m, sizeof(m));
		int ret = ask_impostor(cases[i].op, (void *)large, cases[i].size, cases[i].n_fds,
				       &err);
		if (ret != cases[i].want)
			fail_msg("case %zu: %d instead of %d", i, ret, cases[i].want);
	}
	assert_int_equal(count_fds(), before);
}

/* Texts that do not end, and that would steer a terminal. */
static void client__cleans_texts(void **state)
{
	union courier_message m = answer_of(COURIER_LIST, sizeof(struct courier_entry));
	struct lslm_error err = { 0 };
	struct courier_client *c;
	struct courier_entry e;
	struct local_socket *s;
	struct impostor x = { &m, sizeof(m.entry), 0, -1 };
	pthread_t thread;

	memset(m.entry.title, '\033', sizeof(m.entry.title));
	memset(m.entry.why, 'y', sizeof(m.entry.why));
	memcpy(m.entry.why, "a\n\xc2\x9by\xff\xc3z\xc3\xa9", 10);
	/* Cut within a character. */
	m.entry.why[sizeof(m.entry.why) - 2] = '\xe2';
	assert_ok(local_socket_open(&s, sock, NULL, &err), &err);
	x.listener = local_socket_fd(s);
	fcntl(x.listener, F_SETFL, 0);
	assert_int_equal(pthread_create(&thread, NULL, impose, &x), 0);
	assert_ok(courier_client_open(&c, sock, 0, &err), &err);
	assert_ok(courier_client_list(c, 0, &e, &err), &err);
	assert_int_equal(strlen(e.title), sizeof(e.title) - 1);
	assert_int_equal(strspn(e.title, "?"), sizeof(e.title) - 1);
	assert_int_equal(strlen(e.why), sizeof(e.why) - 2);
	assert_int_equal(strncmp(e.why, "a???y??z\xc3\xa9y", 11), 0);
	courier_client_close(c);
	pthread_join(thread, NULL);
	local_socket_close(s);
}

/* Connected and silent: an answer has its time, and then the connection is over. */
static void client__does_not_wait_for_ever(void **state)
{
	struct lslm_error err = { 0 };
	struct courier_client *c;
	struct local_socket *s;

	assert_ok(local_socket_open(&s, sock, NULL, &err), &err);
	assert_int_equal(courier_client_open(&c, sock, 100, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "does not answer"));
	local_socket_close(s);
	assert_int_equal(courier_client_open(&c, sock, 100, &err), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(client__checks_answers),
		cmocka_unit_test(client__cleans_texts),
		cmocka_unit_test(client__does_not_wait_for_ever),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("courier client", tests, setup, teardown);
}
