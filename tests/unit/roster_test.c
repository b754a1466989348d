// SPDX-License-Identifier: MIT
/* The roster: when an engine has been told which contexts there are. What it attaches: tests/net/supervisor.test. */
#include "edge_rig.h"

#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "net/courier_link.h"
#include "serve/roster.h"

static int connect_to(void *arg, struct lslm_error *err)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(at.sun_path, sock);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

static void count_told(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

/* Of a process without engines: each context is of another model. */
static void is_told(int untold_ms, int settle_ms, bool by_then)
{
	const struct courier_link_opts link = { .connect = connect_to };
	atomic_int told = 0;
	struct roster_opts o = {
		.untold_ms = untold_ms,
		.settle_ms = settle_ms,
		.told = count_told,
		.arg = &told,
	};
	struct lslm_error err = { 0 };
	struct courier_link *l;
	struct roster *r;

	assert_ok(courier_link_open(&l, &link, &err), &err);
	o.link = l;
	assert_ok(roster_start(&r, &o, &err), &err);
	assert_int_equal(atomic_load(&told), by_then && settle_ms);
	for (int i = 0; i < DEADLINE_TICKS && by_then && !atomic_load(&told); i++)
		tick();
	assert_int_equal(atomic_load(&told), by_then);
	roster_stop(r);
	assert_int_equal(atomic_load(&told), by_then);
	courier_link_close(l);
}

static void roster__is_told_of_all(void **state)
{
	struct edge *e = start_complete();

	is_told(600000, 600000, true);
	edge_stop(e);
}

/* And of nothing more after a while, though the cloud never says what it has. */
static void roster__does_not_wait_for_ever(void **state)
{
	int fd;
	struct edge *e = start_beside_silence(&fd);

	is_told(600000, 200, false);
	is_told(1, 0, true);
	edge_stop(e);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(roster__is_told_of_all),
		cmocka_unit_test(roster__does_not_wait_for_ever),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
