// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <poll.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <unistd.h>

#include "serve/watch.h"

static void sweep(void *arg)
{
}

static void post(void *arg)
{
	sem_post(arg);
}

struct lab {
	struct watch *watch;
	struct watch_conn *conn;
	int here, there;
	sem_t left;
};

static void set_up(struct lab *lab, unsigned int headers_s)
{
	const struct watch_opts opts = { headers_s, 60, sweep, NULL };
	struct lslm_error err;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	lab->here = pair[0];
	lab->there = pair[1];
	sem_init(&lab->left, 0, 0);
	assert_ok(watch_open(&lab->watch, &opts, &err), &err);
	lab->conn = watch_add(lab->watch, lab->here);
	assert_non_null(lab->conn);
}

static void tear_down(struct lab *lab)
{
	watch_remove(lab->conn);
	assert_int_equal(watch_count(lab->watch), 0);
	watch_close(lab->watch);
	close(lab->here);
	sem_destroy(&lab->left);
}

static void watch__a_client_leaves(void **state)
{
	struct lab lab;

	set_up(&lab, 60);
	watch_phase(lab.conn, WATCH_REPLY);
	watch_departure(lab.conn, post, &lab.left);
	assert_int_equal(sem_trywait(&lab.left), -1);
	close(lab.there);
	assert_int_equal(sem_wait(&lab.left), 0);
	tear_down(&lab);
}

/* It left before anybody asked; and one that was forgotten tells nothing. */
static void watch__had_left(void **state)
{
	struct lab lab;

	set_up(&lab, 60);
	watch_departure(lab.conn, post, &lab.left);
	close(lab.there);
	assert_int_equal(sem_wait(&lab.left), 0);
	watch_departure(lab.conn, post, &lab.left);
	assert_int_equal(sem_trywait(&lab.left), 0);
	watch_forget(lab.conn);
	tear_down(&lab);
	assert_int_equal(sem_trywait(&lab.left), -1);
}

static void watch__a_slow_one_is_cut(void **state)
{
	struct lab lab;
	char c;

	set_up(&lab, 1);
	assert_int_equal(read(lab.there, &c, 1), 0);
	close(lab.there);
	tear_down(&lab);
}

/* Waits as long as the other test's limit and more; it would be cut if the phase did not count. */
static void watch__a_reply_has_no_limit(void **state)
{
	struct pollfd fd = { .events = POLLIN };
	struct lab lab;

	set_up(&lab, 1);
	watch_phase(lab.conn, WATCH_REPLY);
	fd.fd = lab.there;
	assert_int_equal(poll(&fd, 1, 2000), 0);
	close(lab.there);
	tear_down(&lab);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(watch__a_client_leaves),
		cmocka_unit_test(watch__had_left),
		cmocka_unit_test(watch__a_slow_one_is_cut),
		cmocka_unit_test(watch__a_reply_has_no_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
