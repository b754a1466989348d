// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kv/control.h"

static struct lslm_error err;

static struct control *make(uint32_t n_stripes, uint32_t n_layer)
{
	struct control *c = NULL;

	assert_ok(control_create(&c, n_stripes, n_layer, &err), &err);
	return c;
}

static struct control *import_ro(struct control *c)
{
	struct control *ro = NULL;
	int fd = control_ro_fd(c, &err);

	assert_ok(fd, &err);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_ok(control_import(&ro, fd, &err), &err);
	return ro;
}

static void create__refuses_impossible_sizes(void **state)
{
	static const struct {
		uint32_t n_stripes, n_layer;
	} bad[] = { { 0, 1 }, { 1, 0 }, { 0, 0 }, { UINT32_MAX, UINT32_MAX } };
	struct control *c = NULL;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_true(control_create(&c, bad[i].n_stripes, bad[i].n_layer, &err) < 0);
	assert_null(c);
}

static void blocks__are_independent(void **state)
{
	struct control *c = make(5, 3), *ro = import_ro(c);

	assert_int_equal(control_n_stripes(ro), 5);
	assert_int_equal(control_n_layer(ro), 3);
	for (uint32_t l = 0; l < 3; l++) {
		for (uint32_t s = 0; s < 5; s++) {
			assert_int_equal(control_get(ro, s, l), CONTROL_WANTED);
			control_set(c, s, l, (s + l) % 3, (s * l) % 4, (s + 2 * l) % KV_LEVELS);
		}
	}
	for (uint32_t l = 0; l < 3; l++) {
		for (uint32_t s = 0; s < 5; s++) {
			assert_int_equal(control_get(ro, s, l), (s + l) % 3);
			assert_int_equal(control_get_source(ro, s, l), (s * l) % 4);
			assert_int_equal(control_get_level(ro, s, l), (s + 2 * l) % KV_LEVELS);
		}
	}
	control_close(ro);
	control_close(c);
}

static void reader__cannot_write_the_page(void **state)
{
	struct control *c = make(2, 2);
	int fd = control_ro_fd(c, &err);

	assert_ok(fd, &err);
	assert_ptr_equal(mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(errno, EACCES);
	close(fd);
	control_close(c);
}

static void import__refuses_other_files(void **state)
{
	struct control *c = NULL;
	int zero = open("/dev/zero", O_RDWR);
	int fd = memfd_create("x", MFD_ALLOW_SEALING);
	char page[4096] = { 0 };

	assert_int_equal(control_import(&c, zero, &err), -EBADF);
	assert_int_equal(control_import(&c, fd, &err), -EBADF);
	assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), 0);
	assert_int_equal(control_import(&c, fd, &err), -EBADF);
	assert_null(c);
	assert_int_equal(close(fd) | close(zero), 0);
}

/* A geometry that does not fit the file must be refused: the reader indexes by it. */
static void import__refuses_a_lying_geometry(void **state)
{
	static const struct {
		uint32_t n_stripes, n_layer;
		int ok;
	} said[] = { { 4, 4, 1 }, { 5, 4, 0 }, { 4, 5, 0 },
		     { 3, 4, 0 }, { 0, 4, 0 }, { ~0u, ~0u, 0 } };

	for (size_t i = 0; i < ARRAY_LEN(said); i++) {
		struct control *c = make(4, 4), *ro = NULL;
		int fd = control_ro_fd(c, &err), rw;
		char path[64];
		uint32_t *words;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		fchmod(fd, 0600);
		rw = open(path, O_RDWR);
		words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, rw, 0);
		assert_ptr_not_equal(words, MAP_FAILED);
		assert_int_equal(words[2], 4);
		words[2] = said[i].n_stripes;
		words[3] = said[i].n_layer;
		assert_int_equal(control_import(&ro, fd, &err), said[i].ok ? 0 : -EBADF);
		if (said[i].ok)
			control_close(ro);
		else
			close(fd);
		munmap(words, 4096);
		close(rw);
		control_close(c);
	}
}

static void wait_layer__answers_at_once_when_it_can(void **state)
{
	struct control *c = make(2, 2), *ro = import_ro(c);

	assert_int_equal(control_wait_layer(ro, 0, 0), -ETIMEDOUT);
	control_set(c, 0, 0, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
	control_set(c, 1, 1, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
	assert_int_equal(control_wait_layer(ro, 0, 20), -ETIMEDOUT);
	control_set(c, 1, 0, CONTROL_READY, CONTROL_FROM_FILE, KV_LEVEL_F16);
	assert_int_equal(control_wait_layer(ro, 0, 0), 0);
	assert_int_equal(control_wait_layer(ro, 0, -1), 0);
	control_set(c, 0, 1, CONTROL_FAILED, CONTROL_FROM_NONE, KV_LEVEL_F16);
	assert_int_equal(control_wait_layer(ro, 1, -1), -EIO);
	control_close(ro);
	control_close(c);
}

static void fail__turns_only_wanted_ones(void **state)
{
	struct control *c = make(3, 1), *ro = import_ro(c);

	control_set(c, 0, 0, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
	control_set(c, 1, 0, CONTROL_WANTED, CONTROL_FROM_FILE, KV_LEVEL_F16);
	control_fail(c);
	assert_int_equal(control_get(ro, 0, 0), CONTROL_READY);
	assert_int_equal(control_get(ro, 1, 0), CONTROL_FAILED);
	assert_int_equal(control_get_source(ro, 1, 0), CONTROL_FROM_FILE);
	assert_int_equal(control_get(ro, 2, 0), CONTROL_FAILED);
	assert_int_equal(control_wait_layer(ro, 0, -1), -EIO);
	control_close(ro);
	control_close(c);
}

/* The waiter is another process with a read-only mapping, as an engine is. */
static pid_t start_waiter(struct control *c, uint32_t layer)
{
	int fd = control_ro_fd(c, &err);
	pid_t pid = fork();

	if (!pid) {
		struct control *mine;
		int ret;

		control_close(c);
		if (control_import(&mine, fd, NULL))
			_exit(99);
		ret = control_wait_layer(mine, layer, 60000);
		control_close(mine);
		_exit(-ret);
	}
	close(fd);
	assert_true(pid > 0);
	return pid;
}

static int end_waiter(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void nap(long ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

static void wait_layer__wakes_in_another_process(void **state)
{
	struct control *c = make(64, 2);
	pid_t first = start_waiter(c, 0), second = start_waiter(c, 1);

	for (uint32_t s = 0; s < 64; s++) {
		nap(s % 16 ? 0 : 20);
		control_set(c, s, 0, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
	}
	assert_int_equal(end_waiter(first), 0);
	control_set(c, 0, 1, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
	nap(20);
	control_fail(c);
	assert_int_equal(end_waiter(second), EIO);
	control_close(c);
}

static void set_stripe(struct control *c, uint32_t stripe)
{
	for (uint32_t l = 0; l < control_n_layer(c); l++)
		control_set(c, stripe, l, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
}

static void tail__is_the_ready_suffix(void **state)
{
	struct control *c = make(6, 3), *ro = import_ro(c);

	assert_int_equal(control_tail(ro), 6);
	set_stripe(c, 3);
	assert_true(control_stripe_ready(ro, 3));
	assert_false(control_stripe_ready(ro, 4));
	assert_int_equal(control_tail(ro), 6);
	control_set(c, 5, 2, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
	control_set(c, 5, 0, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
	assert_int_equal(control_tail(ro), 6);
	control_set(c, 5, 1, CONTROL_READY, CONTROL_FROM_FILE, KV_LEVEL_F16);
	assert_int_equal(control_tail(ro), 5);
	/* What came before its turn counts when the gap closes. */
	set_stripe(c, 4);
	assert_int_equal(control_tail(ro), 3);
	control_set(c, 1, 0, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
	control_fail(c);
	assert_int_equal(control_tail(ro), 3);
	assert_int_equal(control_wait_tail(ro, 3, 0), 0);
	assert_int_equal(control_wait_tail(ro, 2, -1), -EIO);
	control_close(ro);
	control_close(c);
}

static void wait_tail__answers_at_once_when_it_can(void **state)
{
	struct control *c = make(4, 2), *ro = import_ro(c);

	assert_int_equal(control_wait_tail(ro, 4, 0), 0);
	assert_int_equal(control_wait_tail(ro, 3, 0), -ETIMEDOUT);
	/* A failure below what is waited for is of no interest. */
	control_set(c, 0, 1, CONTROL_FAILED, CONTROL_FROM_NONE, KV_LEVEL_F16);
	assert_int_equal(control_wait_tail(ro, 1, 20), -ETIMEDOUT);
	assert_int_equal(control_wait_tail(ro, 0, -1), -EIO);
	for (uint32_t s = 1; s < 4; s++)
		set_stripe(c, s);
	assert_int_equal(control_wait_tail(ro, 1, -1), 0);
	control_close(ro);
	control_close(c);
}

struct race {
	struct control *c;
	uint64_t *bytes;
	uint32_t rounds;
	uint32_t layer;
};

static void *courier(void *arg)
{
	struct race *race = arg;

	for (uint32_t s = 0; s < race->rounds; s++) {
		race->bytes[s] = s * 0x9e3779b97f4a7c15ULL + 1;
		control_set(race->c, s, 0, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
	}
	return NULL;
}

/* Each of two threads brings one of the layers of every stripe, from the last. */
static void *half_courier(void *arg)
{
	struct race *race = arg;

	for (uint32_t s = race->rounds; s--;) {
		race->bytes[2 * s + race->layer] = s * 0x9e3779b97f4a7c15ULL + race->layer;
		control_set(race->c, s, race->layer, CONTROL_READY, CONTROL_FROM_CLOUD,
			    KV_LEVEL_F16);
	}
	return NULL;
}

static void tail__comes_after_the_bytes(void **state)
{
	struct race race[2] = { { .rounds = 3000 } };
	pthread_t thread[2];
	struct control *ro;

	race[0].c = make(race[0].rounds, 2);
	race[0].bytes = calloc(race[0].rounds, 2 * sizeof(*race[0].bytes));
	race[1] = race[0];
	race[1].layer = 1;
	ro = import_ro(race[0].c);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, half_courier, &race[i]), 0);
	for (uint32_t s = race[0].rounds; s--;) {
		/* Now and then asleep, now and then looking. */
		if (s % 7)
			assert_int_equal(control_wait_tail(ro, s, 60000), 0);
		else
			while (!control_stripe_ready(ro, s))
				;
		for (uint32_t l = 0; l < 2; l++)
			assert_true(race[0].bytes[2 * s + l] == s * 0x9e3779b97f4a7c15ULL + l);
	}
	assert_int_equal(control_tail(ro), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	free(race[0].bytes);
	control_close(ro);
	control_close(race[0].c);
}

static void ready__comes_after_the_bytes(void **state)
{
	struct race race = { .rounds = 20000 };
	struct control *ro;
	pthread_t thread;

	race.c = make(race.rounds, 1);
	race.bytes = calloc(race.rounds, sizeof(*race.bytes));
	ro = import_ro(race.c);
	assert_int_equal(pthread_create(&thread, NULL, courier, &race), 0);
	for (uint32_t s = 0; s < race.rounds; s++) {
		while (control_get(ro, s, 0) != CONTROL_READY)
			;
		assert_true(race.bytes[s] == s * 0x9e3779b97f4a7c15ULL + 1);
	}
	assert_int_equal(control_wait_layer(ro, 0, -1), 0);
	pthread_join(thread, NULL);
	free(race.bytes);
	control_close(ro);
	control_close(race.c);
}

static void retry__turns_only_failed_ones(void **state)
{
	struct control *c = make(3, 2), *ro = import_ro(c);

	control_set(c, 1, 0, CONTROL_READY, CONTROL_FROM_DISK, KV_LEVEL_F16);
	control_fail(c);
	control_set(c, 2, 1, CONTROL_WANTED, CONTROL_FROM_NONE, KV_LEVEL_F16);
	control_retry(c);
	for (uint32_t l = 0; l < 2; l++)
		for (uint32_t s = 0; s < 3; s++)
			assert_int_equal(control_get(ro, s, l),
					 s == 1 && !l ? CONTROL_READY : CONTROL_WANTED);
	assert_int_equal(control_get_source(ro, 1, 0), CONTROL_FROM_DISK);
	control_close(ro);
	control_close(c);
}

struct watcher {
	struct control *ro;
	int ret;
};

static void *wait_for_the_layer(void *arg)
{
	struct watcher *w = arg;

	w->ret = control_wait_layer(w->ro, 0, -1);
	return NULL;
}

static void *wait_for_the_tail(void *arg)
{
	struct watcher *w = arg;

	w->ret = control_wait_tail(w->ro, 1, -1);
	return NULL;
}

/* A writer that is killed says nothing, and still nobody waits for it. */
static void watch__ends_waits_for_a_writer_that_is_gone(void **state)
{
	static void *(*const waits[])(void *) = { wait_for_the_layer, wait_for_the_tail };
	struct watcher w;
	pthread_t thread;
	struct control *c;
	int ends[2];

	for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
		c = make(4, 1);
		w.ro = import_ro(c);
		control_watch(w.ro, ends[0]);
		control_set(c, 3, 0, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
		/* A deadline is still one, and silence is none. */
		assert_int_equal(control_wait_layer(w.ro, 0, 20), -ETIMEDOUT);
		assert_int_equal(control_wait_tail(w.ro, 1, 600), -ETIMEDOUT);
		assert_int_equal(pthread_create(&thread, NULL, waits[i], &w), 0);
		close(ends[1]);
		pthread_join(thread, NULL);
		assert_int_equal(w.ret, -EIO);
		/* What is there stays usable. */
		assert_int_equal(control_wait_tail(w.ro, 3, -1), 0);
		for (uint32_t s = 0; s < 3; s++)
			control_set(c, s, 0, CONTROL_READY, CONTROL_FROM_CLOUD, KV_LEVEL_F16);
		assert_int_equal(control_wait_layer(w.ro, 0, -1), 0);
		close(ends[0]);
		control_close(w.ro);
		control_close(c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(create__refuses_impossible_sizes),
		cmocka_unit_test(blocks__are_independent),
		cmocka_unit_test(reader__cannot_write_the_page),
		cmocka_unit_test(import__refuses_other_files),
		cmocka_unit_test(import__refuses_a_lying_geometry),
		cmocka_unit_test(wait_layer__answers_at_once_when_it_can),
		cmocka_unit_test(fail__turns_only_wanted_ones),
		cmocka_unit_test(wait_layer__wakes_in_another_process),
		cmocka_unit_test(ready__comes_after_the_bytes),
		cmocka_unit_test(tail__is_the_ready_suffix),
		cmocka_unit_test(wait_tail__answers_at_once_when_it_can),
		cmocka_unit_test(tail__comes_after_the_bytes),
		cmocka_unit_test(retry__turns_only_failed_ones),
		cmocka_unit_test(watch__ends_waits_for_a_writer_that_is_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
