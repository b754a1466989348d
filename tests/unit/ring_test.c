// SPDX-License-Identifier: MIT
#include "unit.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ring.h"

enum { SIZE = 1 << 20, PIECE = 4096 };

static uint8_t value(size_t i)
{
	return (uint8_t)(i * 131 + (i >> 12));
}

/* A file of SIZE known bytes, already unlinked. */
static int make_file(void)
{
	char path[] = "/tmp/lslm-ring-XXXXXX";
	uint8_t *data = malloc(SIZE);
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	for (size_t i = 0; i < SIZE; i++)
		data[i] = value(i);
	assert_int_equal(write(fd, data, SIZE), SIZE);
	free(data);
	return fd;
}

/* Skips where the machine allows no io_uring at all. */
static struct ring *open_or_skip(unsigned int depth)
{
	struct lslm_error err = { 0 };
	struct ring *r;
	int ret = ring_open(&r, depth, &err);

	if (ret == -ENOSYS || ret == -EPERM) {
		print_message("# SKIP %s\n", err.text);
		skip();
	}
	assert_ok(ret, &err);
	return r;
}

static void read_all(struct ring *r, int fd, uint8_t *dst)
{
	struct lslm_error err = { 0 };
	struct ring_done done;
	size_t next = 0, got = 0;

	while (got < SIZE / PIECE) {
		while (next < SIZE / PIECE &&
		       !ring_read(r, fd, dst + next * PIECE, PIECE, next * PIECE, next))
			next++;
		assert_ok(ring_wait(r, &done, &err), &err);
		assert_true(done.tag < SIZE / PIECE);
		assert_int_equal(done.res, PIECE);
		got++;
	}
	assert_int_equal(ring_pending(r), 0);
	for (size_t i = 0; i < SIZE; i++)
		if (dst[i] != value(i))
			fail_msg("byte %zu differs", i);
}

static void ring_read__many_in_flight(void **state)
{
	struct ring *r = open_or_skip(8);
	uint8_t *dst = calloc(1, SIZE);
	int fd = make_file();

	read_all(r, fd, dst);
	ring_close(r);
	close(fd);
	free(dst);
}

static void ring_read__limits(void **state)
{
	struct ring *r = open_or_skip(2);
	struct lslm_error err = { 0 };
	struct ring_done done;
	uint8_t dst[3][16];
	int fd = make_file();

	assert_int_equal(ring_wait(r, &done, &err), -EINVAL);
	assert_int_equal(ring_read(r, fd, dst[0], 0, 0, 0), -EINVAL);
	assert_int_equal(ring_read(r, fd, dst[0], ((size_t)1 << 30) + 1, 0, 0), -EINVAL);
	assert_int_equal(ring_read(r, fd, dst[0], 16, 0, 10), 0);
	assert_int_equal(ring_read(r, fd, dst[1], 16, SIZE, 11), 0);
	assert_int_equal(ring_read(r, fd, dst[2], 16, 0, 12), -EAGAIN);
	assert_int_equal(ring_pending(r), 2);
	for (int i = 0; i < 2; i++) {
		assert_ok(ring_wait(r, &done, &err), &err);
		assert_int_equal(done.res, done.tag == 10 ? 16 : 0);
	}
	/* A bad descriptor is the completion's error, not the ring's. */
	assert_int_equal(ring_read(r, -1, dst[0], 16, 0, 13), 0);
	assert_ok(ring_wait(r, &done, &err), &err);
	assert_int_equal(done.res, -EBADF);
	ring_close(r);
	close(fd);
}

static void ring_open__depth(void **state)
{
	struct lslm_error err = { 0 };
	struct ring *r;

	assert_int_equal(ring_open(&r, 0, &err), -EINVAL);
	assert_int_equal(ring_open(&r, 4097, &err), -EINVAL);
	r = open_or_skip(4096);
	ring_close(r);
}

/* Let io_uring_setup() fail with this errno in this process from now on. */
static int forbid(int code)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned int)code),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { ARRAY_LEN(f), f };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

/* The line that ring_open() gives where setup fails with this errno; in a process of its own. */
static int open_forbidden(int code, const char *want)
{
	struct lslm_error err = { 0 };
	struct ring *r;

	if (forbid(code))
		return 77;
	if (ring_open(&r, 4, &err) != -code)
		return 1;
	return !strstr(err.text, want);
}

static int in_child(int (*fn)(int, const char *), int arg, const char *want)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(fn(arg, want));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void ring_open__says_what_to_do(void **state)
{
	static const struct {
		int code;
		const char *want;
	} cases[] = {
		{ ENOSYS, "no io_uring" },
		{ EPERM, "io_uring_disabled" },
		{ ENOMEM, "ulimit -l" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int ret = in_child(open_forbidden, cases[i].code, cases[i].want);

		if (ret == 77) {
			print_message("# SKIP no seccomp filters here\n");
			skip();
		}
		assert_int_equal(ret, 0);
	}
}

/* What was pinned is read into, whatever is mapped there by then: so nothing was pinned anew. */
static void ring_register__pins_once(void **state)
{
	struct ring *r = open_or_skip(8);
	const int fd = make_file(), memory = memfd_create("ring", 0);
	struct lslm_error err = { 0 };
	uint8_t *at, *was;

	assert_int_equal(ftruncate(memory, SIZE), 0);
	at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	was = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	assert_true(at != MAP_FAILED && was != MAP_FAILED);
	assert_ok(ring_register(r, at, SIZE, &err), &err);
	assert_true(mmap(at, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			 -1, 0) == at);
	assert_int_equal(ring_read(r, fd, at, PIECE, PIECE, 0), 0);
	assert_ok(ring_wait(r, &(struct ring_done){ 0 }, &err), &err);
	assert_int_equal(was[1], value(PIECE + 1));
	assert_int_equal(at[1], 0);
	/* Elsewhere they go as without. */
	read_all(r, fd, was);
	munmap(at, SIZE);
	munmap(was, SIZE);
	close(memory);
	close(fd);
	ring_close(r);
}

/* More than a registration takes, of few pages. Where that many cannot be pinned reads go on as without. */
static void ring_register__in_pieces(void **state)
{
	const size_t piece = (size_t)1 << 30, all = piece + SIZE;
	struct ring *r = open_or_skip(8);
	const int fd = make_file(), memory = memfd_create("ring", 0);
	const size_t places[] = { 0, piece - PIECE, piece - PIECE / 2, piece, all - PIECE };
	struct lslm_error err = { 0 };
	struct ring_done done;
	uint8_t *at;

	assert_int_equal(ftruncate(memory, SIZE), 0);
	at = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(at != MAP_FAILED);
	for (size_t i = 0; i < all; i += SIZE)
		assert_true(mmap(at + i, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
				 memory, 0) == at + i);
	ring_register(r, at, all, NULL);
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		assert_int_equal(ring_read(r, fd, at + places[i], PIECE, PIECE * i, i), 0);
		assert_ok(ring_wait(r, &done, &err), &err);
		assert_int_equal(done.res, PIECE);
		for (size_t k = 0; k < PIECE; k++)
			assert_int_equal(at[places[i] + k], value(PIECE * i + k));
	}
	munmap(at, all);
	close(memory);
	close(fd);
	ring_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ring_open__depth),
		cmocka_unit_test(ring_open__says_what_to_do),
		cmocka_unit_test(ring_read__many_in_flight),
		cmocka_unit_test(ring_read__limits),
		cmocka_unit_test(ring_register__pins_once),
		cmocka_unit_test(ring_register__in_pieces),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
