// SPDX-License-Identifier: MIT
/*
 * The edge's courier and its clients, in one process so that descriptors can be counted, and each side
 * against somebody who does not keep to the protocol. Real processes: tests/net/edge.test.
 */
#include "unit.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/courier_client.h"
#include "net/delivery.h"
#include "serve/edge.h"
#include "serve/local_socket.h"
#include "serve/shelf.h"
#include "synthetic.h"

static const struct synthetic shapes[] = {
	{ .n_layer = 3, .n_head_kv = 2, .head_dim = 64, .n_tokens = 64 * 7 + 5, .seed = 1 },
	{ .n_layer = 2, .n_head_kv = 1, .head_dim = 8, .n_tokens = 64 * 3, .seed = 2 },
	{ .n_layer = 2, .n_head_kv = 1, .head_dim = 8, .n_tokens = 63, .seed = 3 },
};
enum { N = ARRAY_LEN(shapes), DEADLINE_TICKS = 1000 };

static char dir[] = "/tmp/lslm-edge-XXXXXX";
static char sock[64], files[N][64];
static const char *names[N];
static struct kv_hash keys[N];
static uint8_t trusted[1][MANIFEST_PUBKEY_BYTES];

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(sock, sizeof(sock), "%s/run/courier", dir);
	setenv("XDG_CACHE_HOME", dir, 1);
	synthetic_pubkey(&shapes[0], trusted[0]);
	for (int i = 0; i < N; i++) {
		snprintf(files[i], sizeof(files[i]), "%s/%d.lskv", dir, i);
		names[i] = files[i];
		if (synthetic_write(&shapes[i], files[i], &keys[i], NULL))
			return -1;
	}
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void tick(void)
{
	usleep(10000);
}

static unsigned int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void wait_for_fds(unsigned int n)
{
	for (int i = 0; i < DEADLINE_TICKS && count_fds() != n; i++)
		tick();
	assert_int_equal(count_fds(), n);
}

static struct edge_opts plain_opts(void)
{
	return (struct edge_opts){
		.socket = sock,
		.contexts = names,
		.n_contexts = N,
		.courier = { .trusted = (const void *)trusted,
			     .n_trusted = 1,
			     .backend = BUFFER_MEMFD },
	};
}

static struct edge *start(void)
{
	const struct edge_opts opts = plain_opts();
	struct lslm_error err = { 0 };
	struct edge *e;

	assert_ok(edge_start(&e, &opts, &err), &err);
	return e;
}

static struct courier_client *client(void)
{
	struct lslm_error err = { 0 };
	struct courier_client *c;

	assert_ok(courier_client_open(&c, sock, 0, &err), &err);
	return c;
}

static void wait_complete(struct courier_client *c, uint32_t index)
{
	struct lslm_error err = { 0 };
	struct courier_status s;

	for (int i = 0; i < DEADLINE_TICKS; i++) {
		assert_ok(courier_client_status(c, index, &s, &err), &err);
		if (s.state == COURIER_COMPLETE)
			return;
		tick();
	}
	fail_msg("context %u is not complete: %s", index, s.why);
}

/* With all contexts there: nothing opens or closes a descriptor any more by itself. */
static struct edge *start_complete(void)
{
	struct edge *e = start();
	struct courier_client *c = client();
	struct courier_stat stat;
	struct lslm_error err = { 0 };

	for (uint32_t i = 0; i < N; i++)
		wait_complete(c, i);
	courier_client_close(c);
	c = client();
	do {
		assert_ok(courier_client_stat(c, &stat, &err), &err);
	} while (stat.clients > 1);
	courier_client_close(c);
	return e;
}

/* ---- what an engine gets ---- */

static void edge__lists_and_counts(void **state)
{
	struct edge *e = start();
	struct courier_client *c = client();
	struct lslm_error err = { 0 };
	struct courier_status s;
	struct courier_entry x;
	struct courier_stat stat;

	for (uint32_t i = 0; i < N; i++) {
		wait_complete(c, i);
		assert_ok(courier_client_list(c, i, &x, &err), &err);
		assert_int_equal(x.state, COURIER_COMPLETE);
		assert_int_equal(x.n_tokens, shapes[i].n_tokens);
		assert_memory_equal(x.key, keys[i].b, KV_HASH_BYTES);
		assert_string_equal(x.title, "synthetic");
		assert_ok(courier_client_status(c, i, &s, &err), &err);
		assert_int_equal(s.blocks_total, shapes[i].n_tokens / 64 * shapes[i].n_layer);
		assert_int_equal(s.blocks_ready, s.blocks_total);
		assert_int_equal(s.blocks_from[CONTROL_FROM_FILE], s.blocks_total);
		assert_int_equal(strncmp(s.path, "file", 4), 0);
		assert_string_equal(s.backend, i == 2 ? "" : "memfd");
	}
	assert_int_equal(courier_client_list(c, N, &x, &err), -ENOENT);
	assert_int_equal(courier_client_list(c, UINT32_MAX, &x, &err), -ENOENT);
	assert_int_equal(courier_client_status(c, N, &s, &err), -ENOENT);
	assert_ok(courier_client_stat(c, &stat, &err), &err);
	assert_int_equal(stat.pid, getpid());
	assert_int_equal(stat.n_contexts, N);
	assert_int_equal(stat.clients, 1);
	assert_int_equal(stat.has_store, 0);
	assert_non_null(strstr(stat.store, "off"));
	assert_non_null(strstr(stat.steer, "not asked for"));
	assert_non_null(strstr(stat.buffers, "memfd"));
	courier_client_head(c, 0, 3);
	courier_client_head(c, 0, 2);
	assert_ok(courier_client_status(c, 0, &s, &err), &err);
	assert_int_equal(s.computed, 3);
	courier_client_close(c);
	edge_stop(e);
}

/* Whoever has a descriptor of it cannot change the manifest, not even through /proc as root. */
static void check_constant(int fd, size_t size)
{
	char path[64];
	struct stat st;
	int rw;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, size);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	rw = open(path, O_RDWR);
	if (rw < 0)
		return;
	assert_int_equal(pwrite(rw, "x", 1, 0), -1);
	assert_ptr_equal(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, rw, 0), MAP_FAILED);
	close(rw);
}

static void edge__attaches_with_read_only_descriptors(void **state)
{
	struct edge *e = start();
	struct courier_client *c = client();
	struct lslm_error err = { 0 };
	struct courier_attached a;
	struct courier_status s;
	struct control *control;
	struct buffer *b;
	uint8_t want[32768];
	int fds[COURIER_WIRE_FDS];

	wait_complete(c, 0);
	wait_complete(c, 2);
	assert_ok(courier_client_attach(c, 0, ORDER_TAIL, &a, fds, &err), &err);
	assert_int_equal(a.n_stripes, 7);
	check_constant(fds[0], a.manifest_bytes);
	for (int i = 0; i < COURIER_WIRE_FDS; i++) {
		assert_int_equal(fcntl(fds[i], F_GETFL) & O_ACCMODE, O_RDONLY);
		assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
	}
	assert_ok(buffer_import(&b, fds[1], &err), &err);
	assert_ok(control_import(&control, fds[2], &err), &err);
	assert_null(buffer_data(b));
	assert_true(buffer_size(b) >= a.buffer_bytes);
	assert_int_equal(control_tail(control), 0);
	assert_int_equal(a.buffer_bytes, 7 * 3 * sizeof(want));
	for (uint32_t i = 0; i < 7; i++) {
		uint8_t *stripe = malloc(3 * sizeof(want));

		synthetic_stripe(&shapes[0], i, stripe);
		assert_memory_equal((const uint8_t *)buffer_ro_data(b) + i * 3 * sizeof(want),
				    stripe, 3 * sizeof(want));
		free(stripe);
	}
	close(fds[0]);
	assert_ok(courier_client_status(c, 0, &s, &err), &err);
	assert_int_equal(s.engines, 1);
	/* Nothing to receive: its manifest is all. */
	assert_ok(courier_client_attach(c, 2, ORDER_LAYER, &a, fds, &err), &err);
	assert_int_equal(a.n_stripes, 0);
	check_constant(fds[0], a.manifest_bytes);
	assert_int_equal(fds[1], -1);
	assert_int_equal(fds[2], -1);
	close(fds[0]);
	/* The courier's end leaves what is here. */
	edge_stop(e);
	assert_true(courier_client_is_over(c, &err));
	assert_int_equal(err.code, -ECONNRESET);
	assert_int_equal(courier_client_status(c, 0, &s, &err), -EPIPE);
	assert_int_equal(control_tail(control), 0);
	control_close(control);
	buffer_close(b);
	courier_client_close(c);
}

static int open_named(const char *name, struct lslm_error *err)
{
	const struct delivery_remote_opts o = { .socket = sock,
						.context = name,
						.timeout_ms = 10000 };
	struct delivery *d;
	int ret = delivery_open_remote(&d, &o, err);

	if (ret)
		return ret;
	ret = (int)d->manifest->n_tokens;
	d->ops->close(d);
	return ret;
}

static void delivery__finds_by_key_and_title(void **state)
{
	uint8_t other[1][MANIFEST_PUBKEY_BYTES] = { { 7 } };
	struct delivery_remote_opts o = { .socket = sock,
					  .trusted = (const void *)other,
					  .n_trusted = 1 };
	struct lslm_error err = { 0 };
	struct edge *e = start();
	struct delivery *d;
	char hex[KV_HASH_TEXT];

	for (int i = 0; i < N; i++) {
		kv_hash_format(&keys[i], hex);
		assert_int_equal(open_named(hex, &err), (int)shapes[i].n_tokens);
		hex[12] = 0;
		assert_int_equal(open_named(hex, &err), (int)shapes[i].n_tokens);
		for (char *p = hex; *p; p++)
			*p = (char)toupper(*p);
		assert_int_equal(open_named(hex, &err), (int)shapes[i].n_tokens);
	}
	assert_int_equal(open_named("synthetic", &err), -ENOTUNIQ);
	assert_int_equal(open_named(NULL, &err), -ENOTUNIQ);
	assert_int_equal(open_named("", &err), -ENOTUNIQ);
	assert_int_equal(open_named("synth", &err), -ENXIO);
	hex[0] = hex[0] == '0' ? '1' : '0';
	assert_int_equal(open_named(hex, &err), -ENXIO);
	assert_non_null(strstr(err.text, sock));
	/* Another publisher than those that this engine believes. */
	o.context = hex;
	kv_hash_format(&keys[0], hex);
	assert_int_equal(delivery_open_remote(&d, &o, &err), -EKEYREJECTED);
	o.trusted = (const void *)trusted;
	assert_ok(delivery_open_remote(&d, &o, &err), &err);
	d->ops->close(d);
	edge_stop(e);
	assert_int_equal(open_named(hex, &err), -ENOENT);
}

/* ---- hostile clients ---- */

static int raw_connection(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	const struct timeval limit = { .tv_sec = 20 };
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

/* ---- hostile couriers ---- */

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

/* ---- the socket ---- */

static void socket__is_this_users_alone(void **state)
{
	struct lslm_error err = { 0 };
	struct local_socket *s;
	struct stat st;
	char group[16];

	umask(0);
	assert_ok(local_socket_open(&s, sock, NULL, &err), &err);
	assert_int_equal(lstat(sock, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0600);
	local_socket_close(s);
	assert_int_equal(lstat(sock, &st), -1);
	snprintf(group, sizeof(group), "%d", getgid());
	assert_ok(local_socket_open(&s, sock, group, &err), &err);
	assert_int_equal(lstat(sock, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	local_socket_close(s);
	assert_int_equal(local_socket_open(&s, sock, "no such group", &err), -EINVAL);
	umask(022);
}

static void socket__one_serves_it(void **state)
{
	char path[200], want[32], other[80];
	struct lslm_error err = { 0 };
	struct edge_opts opts = plain_opts();
	struct local_socket *s;
	struct edge *e = start(), *second;
	FILE *f;

	assert_int_equal(edge_start(&second, &opts, &err), -EADDRINUSE);
	snprintf(want, sizeof(want), "process %d", getpid());
	assert_non_null(strstr(err.text, want));
	edge_stop(e);
	/* What is no socket is somebody's file. */
	snprintf(other, sizeof(other), "%s/file", dir);
	f = fopen(other, "w");
	fputs("mine", f);
	fclose(f);
	assert_int_equal(local_socket_open(&s, other, NULL, &err), -EEXIST);
	assert_int_equal(unlink(other), 0);
	memset(path, 'x', sizeof(path));
	memcpy(path, dir, strlen(dir));
	path[strlen(dir)] = '/';
	path[150] = 0;
	assert_int_equal(local_socket_open(&s, path, NULL, &err), -ENAMETOOLONG);
}

/* A killed one leaves its socket; the next one takes its place. */
static void socket__of_a_killed_one_is_replaced(void **state)
{
	struct courier_client *c;
	struct lslm_error err = { 0 };
	int ready[2], status;
	struct edge *e;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		const struct edge_opts opts = plain_opts();

		if (edge_start(&e, &opts, NULL) || write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	c = client();
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(courier_client_is_over(c, &err));
	assert_non_null(strstr(err.text, "gone away"));
	courier_client_close(c);
	assert_int_equal(access(sock, F_OK), 0);
	assert_int_equal(courier_client_open(&c, sock, 0, &err), -ECONNREFUSED);
	e = start();
	c = client();
	courier_client_close(c);
	edge_stop(e);
}

/* ---- the shelf ---- */

static void wait_state(struct shelf *s, uint32_t i, enum courier_state want, int code)
{
	struct shelf_context x;

	for (int tries = 0; tries < DEADLINE_TICKS; tries++) {
		assert_int_equal(shelf_look(s, i, &x), 0);
		if (x.state == want && (!code || x.why.code == code))
			return;
		tick();
	}
	fail_msg("context %u is in state %d: %s", i, x.state, x.why.code ? x.why.text : "-");
}

static void flip_last_byte(const char *path)
{
	int fd = open(path, O_RDWR);
	struct stat st;
	uint8_t byte;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(pread(fd, &byte, 1, st.st_size - 1), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, st.st_size - 1), 1);
	close(fd);
}

/* One that is missing, one that is damaged and one that is right go their own ways. */
static void shelf__one_does_not_stop_the_others(void **state)
{
	const struct shelf_opts opts = { .courier = plain_opts().courier, .first_wait_ms = 5 };
	char late[80], url[160];
	struct lslm_error err = { 0 };
	struct shelf_context x;
	struct kv_hash key;
	struct shelf *s;

	snprintf(late, sizeof(late), "%s/late.lskv", dir);
	/* Nobody listens at port 1. */
	snprintf(url, sizeof(url), "https://127.0.0.1:1/v1/contexts/%064d", 7);
	flip_last_byte(files[1]);
	assert_ok(shelf_open(&s, &opts, &err), &err);
	assert_ok(shelf_add(s, late, &err), &err);
	assert_ok(shelf_add(s, files[1], &err), &err);
	assert_ok(shelf_add(s, url, &err), &err);
	assert_ok(shelf_add(s, files[0], &err), &err);
	assert_int_equal(shelf_add(s, files[0], &err), -EEXIST);
	assert_int_equal(shelf_add(s, url, &err), -EEXIST);
	assert_int_equal(shelf_add(s, "https://127.0.0.1/what", &err), -EINVAL);
	assert_int_equal(shelf_count(s), 4);
	wait_state(s, 0, COURIER_WAITING, -ENOENT);
	wait_state(s, 1, COURIER_FAILING, -EBADMSG);
	wait_state(s, 2, COURIER_WAITING, -ECONNREFUSED);
	wait_state(s, 3, COURIER_COMPLETE, 0);
	/* A URL tells the key before anything has come. */
	assert_int_equal(shelf_look(s, 2, &x), 0);
	assert_true(x.has_key && !x.courier);
	assert_int_equal(shelf_look(s, 4, &x), -ENOENT);
	assert_ok(synthetic_write(&shapes[2], late, &key, &err), &err);
	wait_state(s, 0, COURIER_COMPLETE, 0);
	shelf_close(s);
	flip_last_byte(files[1]);
	assert_int_equal(unlink(late), 0);
}

static void shelf__has_so_many_places(void **state)
{
	const struct shelf_opts opts = { .courier = plain_opts().courier };
	struct lslm_error err = { 0 };
	struct shelf *s;
	char name[80];

	assert_ok(shelf_open(&s, &opts, &err), &err);
	for (int i = 0; i < SHELF_CONTEXTS; i++) {
		snprintf(name, sizeof(name), "%s/none-%d", dir, i);
		assert_ok(shelf_add(s, name, &err), &err);
	}
	assert_int_equal(shelf_add(s, "one more", &err), -ENOSPC);
	shelf_close(s);
}

/* Stopped at any moment, nothing is left. */
static void edge__stops_at_any_time(void **state)
{
	const unsigned int before = count_fds();
	struct edge *e;

	for (unsigned int i = 0; i < 30; i++) {
		e = start();
		usleep(i * 100);
		edge_stop(e);
	}
	assert_int_equal(count_fds(), before);
}

static void edge__without_steering(void **state)
{
	struct edge_opts opts = plain_opts();
	struct lslm_error err = { 0 };
	struct courier_client *c;
	struct courier_stat stat;
	struct edge *e;

	opts.steer = "no-such-if";
	assert_ok(edge_start(&e, &opts, &err), &err);
	c = client();
	assert_ok(courier_client_stat(c, &stat, &err), &err);
	assert_int_equal(stat.has_steer, 0);
	assert_non_null(strstr(stat.steer, "off: no-such-if: no such network interface"));
	courier_client_close(c);
	edge_stop(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(edge__lists_and_counts),
		cmocka_unit_test(edge__attaches_with_read_only_descriptors),
		cmocka_unit_test(delivery__finds_by_key_and_title),
		cmocka_unit_test(desk__cuts_off_who_sends_no_request),
		cmocka_unit_test(desk__refuses_what_it_does_not_have),
		cmocka_unit_test(desk__takes_no_descriptors),
		cmocka_unit_test(desk__does_not_wait_for_who_does_not_listen),
		cmocka_unit_test(desk__more_clients_than_places),
		cmocka_unit_test(client__checks_answers),
		cmocka_unit_test(client__cleans_texts),
		cmocka_unit_test(client__does_not_wait_for_ever),
		cmocka_unit_test(socket__is_this_users_alone),
		cmocka_unit_test(socket__one_serves_it),
		cmocka_unit_test(socket__of_a_killed_one_is_replaced),
		cmocka_unit_test(shelf__one_does_not_stop_the_others),
		cmocka_unit_test(shelf__has_so_many_places),
		cmocka_unit_test(edge__stops_at_any_time),
		cmocka_unit_test(edge__without_steering),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("edge", tests, setup, teardown);
}
