// SPDX-License-Identifier: MIT
/*
 * The same cases against every backend. LSLM_TEST_BACKENDS="kernel memfd" names those that must
 * be there; without it all are tried and one that is absent is one skipped case. Inside a case, what
 * buffer_features() says is off is skipped, nothing else.
 */
#include "unit/unit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kv/buffer.h"
#include "lslm/page.h"

enum { SIZE = 3 << 16 };

static struct lslm_error err;

/* One case of one backend; `needs` 0 or the feature without which it is skipped. */
struct run {
	enum buffer_backend backend;
	unsigned int needs;
	char name[80];
};

static enum buffer_backend backend_of(void **state)
{
	return ((struct run *)*state)->backend;
}

static struct buffer *make(void **state, size_t size, unsigned int flags)
{
	struct buffer *b = NULL;

	assert_ok(buffer_create(&b, backend_of(state), size, flags, &err), &err);
	return b;
}

static struct buffer *import_ro(struct buffer *b)
{
	struct buffer *ro = NULL;
	int fd = buffer_ro_fd(b, &err);

	assert_ok(fd, &err);
	assert_ok(buffer_import(&ro, fd, &err), &err);
	return ro;
}

static void feature__is_off(void **state)
{
	const struct run *run = *state;

	print_message("# off: %s\n", buffer_feature_reason(run->backend, run->needs));
	skip();
}

static uint32_t holds_of(struct buffer *b)
{
	struct buffer_info info;

	assert_ok(buffer_query(b, &info, &err), &err);
	return info.holds;
}

static void create__is_zeroed_mapped_and_rounded(void **state)
{
	static const size_t sizes[] = { 1, 4095, 4096, 65537, SIZE };
	size_t page = lslm_page_size();

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct buffer *b = make(state, sizes[i], 0);
		uint8_t *p = buffer_data(b);

		assert_int_equal(buffer_size(b), lslm_round_up(sizes[i], page));
		for (size_t j = 0; j < buffer_size(b); j++)
			assert_int_equal(p[j], 0);
		p[buffer_size(b) - 1] = 7;
		assert_ptr_equal(buffer_ro_data(b), p);
		buffer_close(b);
	}
}

static void create__refuses_bad_arguments(void **state)
{
	struct buffer *b = NULL;

	assert_int_equal(buffer_create(&b, backend_of(state), 0, 0, &err), -EINVAL);
	assert_int_equal(buffer_create(&b, backend_of(state), SIZE_MAX, 0, &err), -EINVAL);
	assert_int_equal(buffer_create(&b, backend_of(state), SIZE_MAX / 4, 0, &err) < 0, 1);
	assert_int_equal(buffer_create(&b, backend_of(state), 1, 1 << 30, &err), -EINVAL);
	assert_null(b);
}

static void query__describes(void **state)
{
	struct buffer *b = make(state, SIZE, 0), *c = make(state, SIZE, 0);
	struct buffer *ro = import_ro(b);
	struct buffer_info info, other;

	assert_ok(buffer_query(b, &info, &err), &err);
	assert_int_equal(info.backend, backend_of(state));
	assert_int_equal(info.size, SIZE);
	assert_int_equal(info.page_size, lslm_page_size());
	assert_string_equal(info.page_reason, "");
	assert_true(info.writable);
	assert_true(info.retained);
	assert_false(info.purgeable);
	assert_int_equal(info.holds, 0);
	assert_ok(buffer_query(ro, &other, &err), &err);
	assert_false(other.writable);
	assert_int_equal(other.id, info.id);
	assert_int_equal(other.size, info.size);
	assert_int_equal(other.generation, info.generation);
	assert_ok(buffer_query(c, &other, &err), &err);
	assert_int_not_equal(other.id, info.id);
	buffer_close(ro);
	buffer_close(c);
	buffer_close(b);
}

static void resize__is_impossible(void **state)
{
	struct buffer *b = make(state, SIZE, 0);

	assert_int_equal(ftruncate(buffer_fd(b), 0), -1);
	assert_int_equal(ftruncate(buffer_fd(b), SIZE * 4), -1);
	buffer_close(b);
}

static void ro_fd__sees_and_cannot_write(void **state)
{
	struct buffer *b = make(state, SIZE, 0), *ro;
	size_t page = lslm_page_size();
	void *p;

	ro = import_ro(b);
	memcpy(buffer_data(b), "written later", 14);
	assert_string_equal(buffer_ro_data(ro), "written later");
	assert_null(buffer_data(ro));

	p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, buffer_fd(ro), 0);
	assert_ptr_equal(p, MAP_FAILED);
	assert_int_equal(errno, EACCES);
	p = mmap(NULL, page, PROT_READ, MAP_SHARED, buffer_fd(ro), 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(mprotect(p, page, PROT_READ | PROT_WRITE), -1);
	assert_int_equal(errno, EACCES);
	munmap(p, page);
	assert_int_equal(write(buffer_fd(ro), "x", 1), -1);
	assert_int_equal(madvise((void *)(uintptr_t)buffer_ro_data(ro), page, MADV_REMOVE), -1);
	assert_int_equal(fallocate(buffer_fd(ro), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				   (off_t)page),
			 -1);
	assert_string_equal(buffer_ro_data(b), "written later");

	assert_int_equal(buffer_purge(ro, NULL, &err), -EACCES);
	assert_int_equal(buffer_purgeable(ro, &err), -EACCES);
	assert_int_equal(buffer_will_need(ro, NULL, NULL, &err), -EACCES);
	buffer_close(ro);
	buffer_close(b);
}

static void ro_fd__begets_only_ro(void **state)
{
	struct buffer *b = make(state, SIZE, 0), *ro = import_ro(b);
	int fd = buffer_ro_fd(ro, &err);

	assert_ok(fd, &err);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(fd);
	buffer_close(ro);
	buffer_close(b);
}

static void ro_fd__strictly(void **state)
{
	struct buffer *b = make(state, SIZE, 0), *ro = import_ro(b);
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", buffer_fd(ro));
	fd = open(path, O_RDWR);
	assert_int_equal(fd, -1);
	buffer_close(ro);
	buffer_close(b);
}

static void import__takes_rw_with_its_rights(void **state)
{
	struct buffer *b = make(state, SIZE, 0), *other = NULL;
	int fd = dup(buffer_fd(b));

	assert_ok(buffer_import(&other, fd, &err), &err);
	assert_int_equal(buffer_size(other), SIZE);
	memcpy(buffer_data(other), "second mapping", 15);
	assert_string_equal(buffer_ro_data(b), "second mapping");
	buffer_close(b);
	assert_string_equal(buffer_ro_data(other), "second mapping");
	buffer_close(other);
}

static void import__refuses_what_is_no_buffer(void **state)
{
	struct buffer *b = NULL;
	int zero = open("/dev/zero", O_RDWR), plain = memfd_create("x", MFD_ALLOW_SEALING);
	int sealed = memfd_create("y", MFD_ALLOW_SEALING), pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(ftruncate(plain, SIZE), 0);
	assert_int_equal(ftruncate(sealed, SIZE), 0);
	assert_int_equal(fcntl(sealed, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), 0);
	assert_int_equal(buffer_import(&b, zero, &err), -EBADF);
	assert_int_equal(buffer_import(&b, pair[0], &err), -EBADF);
	assert_int_equal(buffer_import(&b, plain, &err), -EBADF);
	assert_int_equal(buffer_import(&b, sealed, &err), -EBADF);
	assert_int_equal(buffer_import(&b, 12345, &err), -EBADF);
	assert_null(b);
	/* Ownership did not move. */
	assert_int_equal(close(zero) | close(plain) | close(sealed), 0);
	assert_int_equal(close(pair[0]) | close(pair[1]), 0);
}

static void hold__nests_and_counts(void **state)
{
	struct buffer *b = make(state, SIZE, 0), *ro = import_ro(b), *third = import_ro(b);
	uint64_t generation = 0;
	bool retained = false;

	assert_ok(buffer_hold(ro, &retained, &generation, &err), &err);
	assert_true(retained);
	assert_true(generation > 0);
	assert_int_equal(holds_of(b), 1);
	assert_int_equal(holds_of(ro), 1);
	assert_ok(buffer_hold(ro, NULL, NULL, &err), &err);
	assert_ok(buffer_hold(third, NULL, NULL, &err), &err);
	assert_ok(buffer_hold(b, NULL, NULL, &err), &err);
	assert_int_equal(holds_of(b), 4);
	assert_ok(buffer_release(b, &err), &err);
	assert_ok(buffer_release(ro, &err), &err);
	assert_int_equal(holds_of(third), 2);
	buffer_close(third);
	assert_int_equal(holds_of(b), 1);
	assert_ok(buffer_release(ro, &err), &err);
	assert_int_equal(holds_of(b), 0);
	assert_int_equal(buffer_release(ro, &err), -ENOENT);
	buffer_close(ro);
	buffer_close(b);
}

static void purge__drops_contents_and_bumps(void **state)
{
	struct buffer *b = make(state, SIZE, 0), *ro = import_ro(b);
	uint64_t before, purged = 0, after = 0;
	bool retained = true;

	memset(buffer_data(b), 0xa5, SIZE);
	assert_ok(buffer_hold(ro, NULL, &before, &err), &err);
	assert_ok(buffer_release(ro, &err), &err);
	assert_ok(buffer_purge(b, &purged, &err), &err);
	assert_true(purged > before);
	for (size_t i = 0; i < SIZE; i++)
		assert_int_equal(((const uint8_t *)buffer_ro_data(ro))[i], 0);
	assert_ok(buffer_hold(ro, &retained, &after, &err), &err);
	assert_false(retained);
	assert_int_equal(after, purged);
	assert_ok(buffer_release(ro, &err), &err);

	retained = true;
	assert_ok(buffer_will_need(b, &retained, &after, &err), &err);
	assert_false(retained);
	assert_int_equal(after, purged);
	assert_ok(buffer_will_need(b, &retained, NULL, &err), &err);
	assert_true(retained);
	buffer_close(ro);
	buffer_close(b);
}

static void purge__is_busy_under_any_hold(void **state)
{
	struct buffer *b = make(state, SIZE, 0), *ro = import_ro(b);
	uint64_t before = 0, after = 0;

	memcpy(buffer_data(b), "kept", 5);
	assert_ok(buffer_hold(ro, NULL, &before, &err), &err);
	assert_int_equal(buffer_purge(b, NULL, &err), -EBUSY);
	assert_ok(buffer_hold(b, NULL, NULL, &err), &err);
	assert_ok(buffer_release(ro, &err), &err);
	assert_int_equal(buffer_purge(b, NULL, &err), -EBUSY);
	assert_string_equal(buffer_ro_data(ro), "kept");
	assert_ok(buffer_release(b, &err), &err);
	assert_ok(buffer_purge(b, &after, &err), &err);
	assert_true(after > before);
	buffer_close(ro);
	buffer_close(b);
}

static void purgeable__keeps_until_purged(void **state)
{
	struct buffer *b = make(state, SIZE, 0);
	struct buffer_info info;
	bool retained = false;

	memcpy(buffer_data(b), "kept", 5);
	assert_ok(buffer_purgeable(b, &err), &err);
	assert_ok(buffer_query(b, &info, &err), &err);
	assert_true(info.purgeable);
	/* Held, so that pressure on the machine cannot purge it in between. */
	assert_ok(buffer_hold(b, &retained, NULL, &err), &err);
	if (retained)
		assert_string_equal(buffer_ro_data(b), "kept");
	assert_ok(buffer_will_need(b, &retained, NULL, &err), &err);
	assert_ok(buffer_query(b, &info, &err), &err);
	assert_false(info.purgeable);
	assert_true(info.retained);
	assert_ok(buffer_release(b, &err), &err);
	buffer_close(b);
}

static void huge__comes_or_says_why(void **state)
{
	struct buffer *b = make(state, LSLM_HUGE_PAGE + 1, BUFFER_HUGE), *ro = import_ro(b);
	struct buffer_info info;

	assert_int_equal(buffer_size(b), 2 * LSLM_HUGE_PAGE);
	memset(buffer_data(b), 0x5a, buffer_size(b));
	assert_ok(buffer_query(b, &info, &err), &err);
	if (info.page_size == LSLM_HUGE_PAGE)
		assert_string_equal(info.page_reason, "");
	else
		assert_true(strlen(info.page_reason) > 0);
	assert_int_equal((uintptr_t)buffer_ro_data(ro) % LSLM_HUGE_PAGE, 0);
	assert_int_equal(((const uint8_t *)buffer_ro_data(ro))[LSLM_HUGE_PAGE], 0x5a);

	assert_ok(buffer_purge(b, NULL, &err), &err);
	assert_int_equal(((const uint8_t *)buffer_ro_data(ro))[LSLM_HUGE_PAGE], 0);
	assert_ok(buffer_will_need(b, NULL, NULL, &err), &err);
	assert_int_equal(((const uint8_t *)buffer_ro_data(ro))[0], 0);
	buffer_close(ro);
	buffer_close(b);
}

static void huge__comes(void **state)
{
	struct buffer *b = make(state, LSLM_HUGE_PAGE, BUFFER_HUGE);
	struct buffer_info info;

	assert_ok(buffer_query(b, &info, &err), &err);
	assert_int_equal(info.page_size, LSLM_HUGE_PAGE);
	buffer_close(b);
}

static void feature_reasons__for_exactly_the_off_bits(void **state)
{
	enum buffer_backend backend = backend_of(state);

	for (unsigned int bit = BUFFER_FEAT_RO_FD; bit <= BUFFER_FEAT_RO_STRICT; bit <<= 1)
		assert_int_equal(!*buffer_feature_reason(backend, bit),
				 !!(buffer_features(backend) & bit));
}

/* A second process: receives one descriptor, then obeys one letter at a time. */
struct peer {
	pid_t pid;
	int sock;
};

static void send_fd(int sock, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { "f", 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	assert_int_equal(sendmsg(sock, &msg, 0), 1);
}

static int receive_fd(int sock)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *c;
	int fd = -1;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static char obey(struct buffer *b, char order)
{
	switch (order) {
	case 'h':
		return buffer_hold(b, NULL, NULL, NULL) ? 'n' : 'y';
	case 'r':
		return buffer_release(b, NULL) ? 'n' : 'y';
	case 'w':
		return buffer_data(b) ? 'y' : 'n';
	case 'm':
		return mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, buffer_fd(b), 0) == MAP_FAILED &&
				       errno == EACCES ?
			       'n' :
			       'y';
	default:
		return *(const char *)buffer_ro_data(b) == order ? 'y' : 'n';
	}
}

static struct peer start_peer(struct buffer *b)
{
	struct peer peer;
	int pair[2], fd;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	peer.pid = fork();
	assert_true(peer.pid >= 0);
	if (!peer.pid) {
		struct buffer *mine;
		char order;

		/* Not the inherited descriptor and mapping: only what comes over the socket. */
		buffer_close(b);
		close(pair[0]);
		if (buffer_import(&mine, receive_fd(pair[1]), NULL))
			_exit(3);
		while (read(pair[1], &order, 1) == 1) {
			char answer = obey(mine, order);

			if (write(pair[1], &answer, 1) != 1)
				break;
		}
		_exit(0);
	}
	close(pair[1]);
	peer.sock = pair[0];
	fd = buffer_ro_fd(b, &err);
	assert_ok(fd, &err);
	send_fd(peer.sock, fd);
	close(fd);
	return peer;
}

static char ask(const struct peer *peer, char order)
{
	char answer = 0;

	assert_int_equal(write(peer->sock, &order, 1), 1);
	assert_int_equal(read(peer->sock, &answer, 1), 1);
	return answer;
}

static void end_peer(const struct peer *peer)
{
	int status;

	kill(peer->pid, SIGKILL);
	assert_int_equal(waitpid(peer->pid, &status, 0), peer->pid);
	close(peer->sock);
}

static void second_process__reads_and_holds(void **state)
{
	struct buffer *b = make(state, SIZE, 0);
	struct peer peer;
	char *p = buffer_data(b);

	*p = 'A';
	peer = start_peer(b);
	assert_int_equal(ask(&peer, 'A'), 'y');
	*p = 'B';
	assert_int_equal(ask(&peer, 'B'), 'y');
	assert_int_equal(ask(&peer, 'w'), 'n');
	assert_int_equal(ask(&peer, 'm'), 'n');

	assert_int_equal(ask(&peer, 'h'), 'y');
	assert_int_equal(holds_of(b), 1);
	assert_int_equal(buffer_purge(b, NULL, &err), -EBUSY);
	assert_int_equal(ask(&peer, 'h'), 'y');
	assert_int_equal(ask(&peer, 'r'), 'y');
	assert_int_equal(buffer_purge(b, NULL, &err), -EBUSY);
	assert_int_equal(ask(&peer, 'r'), 'y');
	assert_int_equal(ask(&peer, 'r'), 'n');
	assert_ok(buffer_purge(b, NULL, &err), &err);
	assert_int_equal(ask(&peer, '\0'), 'y');
	end_peer(&peer);
	buffer_close(b);
}

static void second_process__killed_ends_its_hold(void **state)
{
	struct buffer *b = make(state, SIZE, 0);
	struct peer peer;

	peer = start_peer(b);
	assert_int_equal(ask(&peer, 'h'), 'y');
	assert_int_equal(buffer_purge(b, NULL, &err), -EBUSY);
	end_peer(&peer);
	assert_ok(buffer_purge(b, NULL, &err), &err);
	assert_int_equal(holds_of(b), 0);
	buffer_close(b);
}

static void mapping__outlives_the_maker(void **state)
{
	struct buffer *b = make(state, SIZE, 0), *ro = import_ro(b);

	memcpy(buffer_data(b), "still here", 11);
	buffer_close(b);
	assert_string_equal(buffer_ro_data(ro), "still here");
	assert_ok(buffer_hold(ro, NULL, NULL, &err), &err);
	assert_int_equal(holds_of(ro), 1);
	buffer_close(ro);
}

static void backend__is_there(void **state)
{
	enum buffer_backend backend = backend_of(state);
	const char *must = getenv("LSLM_TEST_BACKENDS");
	struct buffer *b = NULL;

	if (!buffer_features(backend)) {
		const char *reason = buffer_feature_reason(backend, BUFFER_FEAT_RO_FD);

		/* Named and absent is an error, and never another backend. */
		assert_int_equal(buffer_create(&b, backend, SIZE, 0, &err), -ENODEV);
		assert_non_null(strstr(err.text, reason));
		if (must && strstr(must, buffer_backend_name(backend)))
			fail_msg("%s: %s", buffer_backend_name(backend), reason);
		print_message("# %s: %s\n", buffer_backend_name(backend), reason);
		skip();
	}
	b = make(state, SIZE, 0);
	buffer_close(b);
}

static void auto__is_the_reported_backend(void **state)
{
	struct buffer *b = NULL;
	struct buffer_info info;

	assert_ok(buffer_create(&b, BUFFER_AUTO, SIZE, 0, &err), &err);
	assert_ok(buffer_query(b, &info, &err), &err);
	assert_int_equal(info.backend, buffer_backend_active());
	assert_ptr_equal(strstr(buffer_backend_reason(), buffer_backend_name(info.backend)),
			 buffer_backend_reason());
	buffer_close(b);
}

static const struct {
	const char *name;
	CMUnitTestFunction run;
	unsigned int needs;
} cases[] = {
#define CASE(f, needs)       \
	{                    \
#f, f, needs \
	}
	CASE(create__is_zeroed_mapped_and_rounded, 0),
	CASE(create__refuses_bad_arguments, 0),
	CASE(query__describes, BUFFER_FEAT_RO_FD),
	CASE(resize__is_impossible, 0),
	CASE(ro_fd__sees_and_cannot_write, BUFFER_FEAT_RO_FD),
	CASE(ro_fd__begets_only_ro, BUFFER_FEAT_RO_FD),
	CASE(ro_fd__strictly, BUFFER_FEAT_RO_STRICT),
	CASE(import__takes_rw_with_its_rights, 0),
	CASE(import__refuses_what_is_no_buffer, 0),
	CASE(hold__nests_and_counts, BUFFER_FEAT_HOLD),
	CASE(purge__drops_contents_and_bumps, BUFFER_FEAT_PURGE),
	CASE(purge__is_busy_under_any_hold, BUFFER_FEAT_PURGE),
	CASE(purgeable__keeps_until_purged, BUFFER_FEAT_PURGE),
	CASE(huge__comes_or_says_why, 0),
	CASE(huge__comes, BUFFER_FEAT_HUGE),
	CASE(feature_reasons__for_exactly_the_off_bits, 0),
	CASE(second_process__reads_and_holds, BUFFER_FEAT_CROSS_PROCESS_HOLD),
	CASE(second_process__killed_ends_its_hold, BUFFER_FEAT_CROSS_PROCESS_HOLD),
	CASE(mapping__outlives_the_maker, 0),
#undef CASE
};

enum { RUNS = 2 * (ARRAY_LEN(cases) + 1) };

int main(void)
{
	static const enum buffer_backend backends[] = { BUFFER_KERNEL, BUFFER_MEMFD };
	static struct run runs[RUNS];
	struct CMUnitTest tests[RUNS + 1];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(backends); i++) {
		const char *backend = buffer_backend_name(backends[i]);
		uint32_t features = buffer_features(backends[i]);

		runs[n] = (struct run){ .backend = backends[i] };
		snprintf(runs[n].name, sizeof(runs[n].name), "%s backend__is_there", backend);
		tests[n].test_func = backend__is_there;
		n++;
		for (size_t j = 0; features && j < ARRAY_LEN(cases); j++, n++) {
			bool on = (features & cases[j].needs) == cases[j].needs;

			runs[n] = (struct run){ .backend = backends[i], .needs = cases[j].needs };
			snprintf(runs[n].name, sizeof(runs[n].name), "%s %s", backend,
				 cases[j].name);
			tests[n].test_func = on ? cases[j].run : feature__is_off;
		}
	}
	for (size_t i = 0; i < n; i++)
		tests[i] = (struct CMUnitTest){ runs[i].name, tests[i].test_func, NULL, NULL,
						&runs[i] };
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(auto__is_the_reported_backend);
	return _cmocka_run_group_tests("buffer", tests, n, NULL, NULL);
}
