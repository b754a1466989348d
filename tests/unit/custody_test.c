// SPDX-License-Identifier: MIT
#include "serve/custody.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "serve/channel.h"
#include "serve/holdings.h"
#include "serve/shelf.h"
#include "unit.h"

static struct kv_hash hash_of(uint8_t n)
{
	return kv_digest(&n, 1);
}

static int n_open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* A courier of this process, with what was held; both ends are its. */
static struct custody *begin(struct holdings *h, int pair[2])
{
	struct lslm_error err = { 0 };
	struct board *board, *read;
	struct custody *c;
	int fd;

	assert_ok(channel_pair(pair, &err), &err);
	assert_ok(board_create(&board, &err), &err);
	fd = board_ro_fd(board, &err);
	assert_int_equal(holdings_offer(h, pair[0], fd), 0);
	assert_ok(custody_open(&c, pair[1], &read, &err), &err);
	board_close(read);
	board_close(board);
	close(fd);
	return c;
}

/* The first courier, with nothing held. */
static struct custody *begin_anew(struct holdings **h, int pair[2])
{
	struct lslm_error err = { 0 };

	assert_ok(holdings_create(h, &err), &err);
	return begin(*h, pair);
}

static void end(struct custody *c, int pair[2])
{
	custody_close(c);
	close(pair[0]);
	close(pair[1]);
}

static void keep(struct custody *c, struct holdings *h, int channel, uint8_t key, uint8_t digest)
{
	const struct courier_custody *ops = custody_ops(c);
	const struct kv_hash k = hash_of(key), d = hash_of(digest);
	struct channel_message m;
	int fds[CHANNEL_FDS], n;

	ops->deposit(ops->arg, &k, &d, STDIN_FILENO, STDOUT_FILENO);
	assert_int_equal(channel_receive(channel, &m, fds, &n), 0);
	assert_int_equal(holdings_take(h, &m, fds, n), 0);
}

static bool reclaims(struct custody *c, uint8_t key, uint8_t digest)
{
	const struct courier_custody *ops = custody_ops(c);
	const struct kv_hash k = hash_of(key), d = hash_of(digest);
	int buffer, control;
	int ret = ops->reclaim(ops->arg, &k, &d, &buffer, &control);

	if (ret) {
		assert_int_equal(ret, -ENOENT);
		return false;
	}
	close(buffer);
	close(control);
	return true;
}

static void custody_reclaim__finds_what_was_deposited(void **state)
{
	const int before = n_open_fds();
	struct holdings *h;
	struct custody *c;
	int pair[2];

	c = begin_anew(&h, pair);
	assert_false(reclaims(c, 1, 1));
	keep(c, h, pair[0], 1, 1);
	keep(c, h, pair[0], 2, 2);
	/* The same context, published once more. */
	keep(c, h, pair[0], 2, 3);
	assert_int_equal(holdings_count(h), 2);
	end(c, pair);

	holdings_settle(h, 1);
	c = begin(h, pair);
	assert_false(reclaims(c, 1, 2));
	assert_true(reclaims(c, 1, 1));
	/* Handed out once. */
	assert_false(reclaims(c, 1, 1));
	assert_false(reclaims(c, 2, 2));
	assert_true(reclaims(c, 2, 3));
	end(c, pair);
	holdings_destroy(h);
	assert_int_equal(n_open_fds(), before);
}

static void holdings_settle__drops_what_nobody_wants(void **state)
{
	struct holdings *h;
	struct custody *c;
	int pair[2];

	c = begin_anew(&h, pair);
	keep(c, h, pair[0], 1, 1);
	end(c, pair);
	holdings_settle(h, 100);
	assert_int_equal(holdings_count(h), 1);
	/* One that did not live long may not have come to it; one that did has no use for it. */
	holdings_settle(h, 59);
	assert_int_equal(holdings_count(h), 1);
	holdings_settle(h, 60);
	assert_int_equal(holdings_count(h), 0);
	holdings_destroy(h);
}

static void holdings_take__is_bounded(void **state)
{
	const int before = n_open_fds();
	struct holdings *h;
	struct custody *c;
	int pair[2];

	c = begin_anew(&h, pair);
	for (int i = 0; i < SHELF_CONTEXTS + 3; i++)
		keep(c, h, pair[0], (uint8_t)i, 0);
	assert_int_equal(holdings_count(h), SHELF_CONTEXTS);
	end(c, pair);
	c = begin(h, pair);
	/* The oldest went. */
	assert_false(reclaims(c, 2, 0));
	assert_true(reclaims(c, 3, 0));
	end(c, pair);
	holdings_destroy(h);
	assert_int_equal(n_open_fds(), before);
}

struct reader {
	int channel;
	enum channel_op last;
};

/* A supervisor that reads on, after a while, up to the word that is waited for. */
static void *read_on(void *arg)
{
	struct reader *r = arg;
	struct channel_message m = { 0 };
	int fds[CHANNEL_FDS], n;

	usleep(50000);
	while (m.op != r->last && !channel_receive(r->channel, &m, fds, &n))
		channel_close_fds(fds, n);
	r->last = m.op;
	return NULL;
}

/* The channel is full, of words about pins say, and is read from then on. */
static pthread_t fill(struct custody *c, struct reader *r)
{
	struct channel_message m = { .op = CHANNEL_CHANGED };
	pthread_t thread;

	while (!custody_say(c, &m))
		;
	assert_int_equal(pthread_create(&thread, NULL, read_on, r), 0);
	return thread;
}

static void custody_ready__waits_for_a_busy_supervisor(void **state)
{
	struct lslm_error err = { 0 };
	struct holdings *h;
	struct custody *c;
	struct reader r;
	pthread_t reader;
	int pair[2], ret;

	c = begin_anew(&h, pair);
	r = (struct reader){ pair[0], CHANNEL_READY };
	reader = fill(c, &r);
	ret = custody_ready(c, &err);
	/* Otherwise nothing more would come, and the reader would wait. */
	if (ret)
		shutdown(pair[1], SHUT_RDWR);
	pthread_join(reader, NULL);
	assert_ok(ret, &err);
	assert_int_equal(r.last, CHANNEL_READY);
	end(c, pair);
	holdings_destroy(h);
}

static void custody_deposit__is_not_lost(void **state)
{
	const struct kv_hash key = hash_of(1), digest = hash_of(2);
	const struct courier_custody *ops;
	struct holdings *h;
	struct custody *c;
	struct reader r;
	pthread_t reader;
	int pair[2];

	c = begin_anew(&h, pair);
	ops = custody_ops(c);
	r = (struct reader){ pair[0], CHANNEL_KEEP };
	reader = fill(c, &r);
	ops->deposit(ops->arg, &key, &digest, STDIN_FILENO, STDOUT_FILENO);
	shutdown(pair[1], SHUT_WR);
	pthread_join(reader, NULL);
	assert_int_equal(r.last, CHANNEL_KEEP);
	end(c, pair);
	holdings_destroy(h);
}

static void holdings_take__refuses_other_messages(void **state)
{
	const int before = n_open_fds();
	struct channel_message m = { .op = CHANNEL_READY };
	struct lslm_error err = { 0 };
	struct holdings *h;
	int fds[CHANNEL_FDS] = { dup(STDIN_FILENO), dup(STDIN_FILENO) };

	assert_ok(holdings_create(&h, &err), &err);
	assert_int_equal(holdings_take(h, &m, fds, CHANNEL_FDS), -EPROTO);
	m.op = CHANNEL_KEEP;
	fds[0] = dup(STDIN_FILENO);
	assert_int_equal(holdings_take(h, &m, fds, 1), -EPROTO);
	assert_int_equal(holdings_count(h), 0);
	holdings_destroy(h);
	assert_int_equal(n_open_fds(), before);
}

/* An engine that was taken over may send anything. */
static void channel_receive__believes_nothing(void **state)
{
	const int before = n_open_fds();
	struct channel_message m = { .op = CHANNEL_CONNECT }, got;
	struct lslm_error err = { 0 };
	int pair[2], fds[CHANNEL_FDS], n;
	char bytes[sizeof(m) + 8] = { 0 };

	assert_ok(channel_pair(pair, &err), &err);
	memset(m.text, 'x', sizeof(m.text));
	assert_int_equal(channel_send(pair[0], &m, NULL, 0), 0);
	assert_int_equal(channel_receive(pair[1], &got, fds, &n), 0);
	assert_int_equal(strlen(got.text), sizeof(got.text) - 1);

	m.op = CHANNEL_OPS;
	assert_int_equal(channel_send(pair[0], &m, (int[]){ 0, 0 }, 2), 0);
	assert_int_equal(channel_receive(pair[1], &got, fds, &n), -EPROTO);
	m.op = CHANNEL_CONNECT;
	m.code = 1;
	assert_int_equal(channel_send(pair[0], &m, NULL, 0), 0);
	assert_int_equal(channel_receive(pair[1], &got, fds, &n), -EPROTO);
	assert_int_equal(send(pair[0], bytes, sizeof(m) - 1, 0), sizeof(m) - 1);
	assert_int_equal(channel_receive(pair[1], &got, fds, &n), -EPROTO);
	assert_int_equal(send(pair[0], bytes, sizeof(bytes), 0), sizeof(bytes));
	assert_int_equal(channel_receive(pair[1], &got, fds, &n), -EPROTO);
	close(pair[0]);
	assert_int_equal(channel_receive(pair[1], &got, fds, &n), -EPIPE);
	close(pair[1]);
	assert_int_equal(n_open_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(custody_reclaim__finds_what_was_deposited),
		cmocka_unit_test(holdings_settle__drops_what_nobody_wants),
		cmocka_unit_test(holdings_take__is_bounded),
		cmocka_unit_test(custody_ready__waits_for_a_busy_supervisor),
		cmocka_unit_test(custody_deposit__is_not_lost),
		cmocka_unit_test(holdings_take__refuses_other_messages),
		cmocka_unit_test(channel_receive__believes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
