// SPDX-License-Identifier: MIT
/* What admins choose: the board that processes read, and the way of a wish from an engine to the courier and back. */
#include "serve/errands.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "unit.h"

static struct kv_hash hash_of(uint32_t n)
{
	return kv_digest(&n, sizeof(n));
}

struct rig {
	struct board *board, *reader;
	struct holdings *holdings;
	struct errands *errands;
	struct errand_count count;
	int courier[2]; /* the supervisor's end, the courier's */
};

static void begin(struct rig *r)
{
	struct lslm_error err = { 0 };
	int fd;

	memset(r, 0, sizeof(*r));
	assert_ok(board_create(&r->board, &err), &err);
	fd = board_ro_fd(r->board, &err);
	assert_true(fd >= 0);
	assert_ok(board_open(&r->reader, fd, &err), &err);
	assert_ok(holdings_create(&r->holdings, &err), &err);
	assert_ok(errands_create(&r->errands, r->board, r->holdings, NULL, NULL, &err), &err);
	assert_ok(channel_pair(r->courier, &err), &err);
}

static void end(struct rig *r)
{
	close(r->courier[0]);
	close(r->courier[1]);
	errands_destroy(r->errands);
	holdings_destroy(r->holdings);
	board_close(r->reader);
	board_close(r->board);
}

static struct board_choice choice(const struct rig *r, uint32_t n)
{
	const struct kv_hash key = hash_of(n);
	struct board_choice c;

	board_choice(r->reader, &key, &c);
	return c;
}

/* The answer's code; 1: it comes later. */
static int take(struct rig *r, pid_t engine, uint32_t verb, uint32_t n, const char *text)
{
	struct channel_message m = { .op = CHANNEL_CHANGE, .value = verb, .key = hash_of(n) };
	int ret;

	snprintf(m.text, sizeof(m.text), "%s", text);
	ret = errands_take(r->errands, engine, &r->count, &m, r->courier[0]);
	if (ret <= 0)
		return ret ? ret : 1;
	assert_int_equal(m.op, CHANNEL_CHANGED);
	assert_int_equal(m.value, verb);
	return m.code;
}

static struct channel_message hear(struct rig *r);

/* A pin's way to the courier and back: the answer's code. */
static int pin(struct rig *r, pid_t engine, uint32_t n)
{
	struct channel_message m;
	pid_t waits = 0;
	int ret = take(r, engine, CHANNEL_PIN, n, "");

	if (ret <= 0)
		return ret;
	m = hear(r);
	assert_int_equal(m.value, CHANNEL_PIN);
	m.op = CHANNEL_CHANGED;
	assert_int_equal(errands_answer(r->errands, &m, r->courier[0], &waits), 1);
	assert_int_equal(waits, engine);
	return m.code;
}

static struct channel_message hear(struct rig *r)
{
	struct channel_message m;
	int fds[CHANNEL_FDS], n;

	assert_int_equal(channel_receive(r->courier[1], &m, fds, &n), 0);
	assert_int_equal(n, 0);
	return m;
}

static void errands__settle_on_the_board(void **state)
{
	struct channel_message m;
	struct kv_hash key;
	struct rig r;

	begin(&r);
	assert_int_equal(choice(&r, 1).flags, 0);
	assert_int_equal(pin(&r, 7, 1), 0);
	assert_int_equal(choice(&r, 1).flags, BOARD_PINNED);
	assert_int_equal(take(&r, 7, CHANNEL_UNPIN, 1, ""), 0);
	assert_int_equal(hear(&r).value, CHANNEL_UNPIN);
	assert_int_equal(pin(&r, 7, 2), 0);
	assert_int_equal(take(&r, 7, CHANNEL_DROP, 2, ""), 0);
	assert_int_equal(choice(&r, 1).flags, 0);
	/* A drop ends a pin, is counted, and is told. */
	assert_int_equal(choice(&r, 2).flags, BOARD_DROPPED);
	assert_int_equal(choice(&r, 2).drops, 1);
	m = hear(&r);
	assert_int_equal(m.value, CHANNEL_DROP);
	key = hash_of(2);
	assert_true(kv_hash_equal(&m.key, &key));
	assert_int_equal(take(&r, 7, CHANNEL_DROP, 2, ""), 0);
	assert_int_equal(choice(&r, 2).drops, 2);
	end(&r);
}

static void errands__wait_for_the_courier(void **state)
{
	struct channel_message m, answer;
	pid_t engine = 0;
	struct rig r;

	begin(&r);
	assert_int_equal(take(&r, 7, CHANNEL_DROP, 5, ""), 0);
	assert_int_equal(hear(&r).value, CHANNEL_DROP);
	assert_int_equal(take(&r, 7, CHANNEL_ATTACH, 0, "a title\xff"), 1);
	/* One at a time. */
	assert_int_equal(take(&r, 7, CHANNEL_PIN, 1, ""), -EPROTO);
	assert_int_equal(take(&r, 8, CHANNEL_ATTACH, 0, "b"), 1);
	assert_true(errands_next(r.errands) > 0);
	m = hear(&r);
	assert_string_equal(m.text, "a title?");
	answer = (struct channel_message){ .op = CHANNEL_CHANGED,
					   .value = CHANNEL_ATTACH,
					   .serial = m.serial,
					   .flags = CHANNEL_OF_CLOUD | CHANNEL_MADE_ROOM,
					   .key = hash_of(5),
					   .digest = hash_of(6) };
	assert_int_equal(errands_answer(r.errands, &answer, r.courier[0], &engine), 1);
	assert_int_equal(engine, 7);
	assert_int_equal(answer.code, 0);
	assert_int_equal(choice(&r, 5).flags, BOARD_ATTACHED);
	assert_int_equal(choice(&r, 5).drops, 1);
	assert_int_equal(choice(&r, 6).flags, BOARD_DROPPED);
	/* Nobody waits for it any more. */
	assert_int_equal(errands_answer(r.errands, &answer, r.courier[0], &engine), 0);
	assert_int_equal(errands_overdue(r.errands, false, &m, &engine), 0);
	assert_int_equal(errands_overdue(r.errands, true, &m, &engine), 1);
	assert_int_equal(engine, 8);
	assert_int_equal(m.code, -ENOTCONN);
	assert_int_equal(errands_overdue(r.errands, true, &m, &engine), 0);
	assert_true(errands_next(r.errands) <= 0);
	end(&r);
}

/* A courier whose store has no room for it refuses a pin; where there is no courier it is only on the board. */
static void errands__pins_are_the_couriers(void **state)
{
	struct channel_message m,
		told = { .op = CHANNEL_CHANGED, .value = CHANNEL_PIN, .key = hash_of(3) };
	pid_t engine = 0;
	struct rig r;

	begin(&r);
	assert_int_equal(take(&r, 7, CHANNEL_PIN, 1, ""), 1);
	assert_int_equal(choice(&r, 1).flags, 0);
	m = hear(&r);
	m.op = CHANNEL_CHANGED;
	m.code = -EDQUOT;
	assert_int_equal(errands_answer(r.errands, &m, r.courier[0], &engine), 1);
	assert_int_equal(m.code, -EDQUOT);
	assert_int_equal(choice(&r, 1).flags, 0);
	/* Its store has one of before. */
	assert_int_equal(errands_answer(r.errands, &told, r.courier[0], &engine), 0);
	assert_int_equal(choice(&r, 3).flags, BOARD_PINNED);
	/* Somebody else has dropped it meanwhile. */
	assert_int_equal(take(&r, 7, CHANNEL_PIN, 2, ""), 1);
	m = hear(&r);
	m.op = CHANNEL_CHANGED;
	assert_int_equal(take(&r, 8, CHANNEL_DROP, 2, ""), 0);
	assert_int_equal(errands_answer(r.errands, &m, r.courier[0], &engine), 1);
	assert_int_equal(engine, 7);
	assert_int_equal(m.code, -ENOENT);
	assert_int_equal(choice(&r, 2).flags, BOARD_DROPPED);
	assert_int_equal(hear(&r).value, CHANNEL_DROP);
	m = (struct channel_message){ .op = CHANNEL_CHANGE,
				      .value = CHANNEL_PIN,
				      .key = hash_of(4) };
	assert_int_equal(errands_take(r.errands, 7, &r.count, &m, -1), 1);
	assert_int_equal(m.code, 0);
	assert_int_equal(choice(&r, 4).flags, BOARD_PINNED);
	end(&r);
}

/* What an engine that was taken over may do. */
static void errands__are_bounded(void **state)
{
	struct channel_message m = { .op = CHANNEL_CHANGED, .value = CHANNEL_UNPIN };
	struct kv_hash key;
	pid_t engine;
	struct rig r;
	uint32_t i;
	int ret = 0;

	begin(&r);
	assert_int_equal(take(&r, 7, 0, 1, ""), -EPROTO);
	assert_int_equal(take(&r, 7, CHANNEL_VERBS, 1, ""), -EPROTO);
	assert_int_equal(errands_answer(r.errands, &m, r.courier[0], &engine), -EPROTO);
	for (i = 0; i < ERRANDS_MAX; i++)
		assert_int_equal(pin(&r, 7, i), 0);
	assert_int_equal(pin(&r, 7, 0), -EAGAIN);
	for (i = 0; i < BOARD_CHOICES; i++) {
		key = hash_of(i);
		assert_int_equal(board_choose(r.board, &key, 0, BOARD_PINNED), 0);
	}
	r.count.n = 0;
	assert_int_equal(pin(&r, 7, BOARD_CHOICES), -ENOSPC);
	/* What the courier has set aside for it is given back. */
	m = hear(&r);
	assert_int_equal(m.value, CHANNEL_UNPIN);
	key = hash_of(BOARD_CHOICES);
	assert_true(kv_hash_equal(&m.key, &key));
	assert_int_equal(take(&r, 7, CHANNEL_UNPIN, BOARD_CHOICES - 1, ""), 0);
	/* A courier that reads nothing, and none. */
	for (i = 0; i < BOARD_CHOICES - 1 && !ret; i++) {
		r.count.n = 0;
		ret = take(&r, 7, CHANNEL_UNPIN, i, "");
		assert_int_equal(choice(&r, i).flags, ret ? BOARD_PINNED : 0);
	}
	assert_int_equal(ret, -EAGAIN);
	r.count.n = 0;
	close(r.courier[1]);
	assert_int_equal(take(&r, 7, CHANNEL_ATTACH, 0, "b"), -ENOTCONN);
	r.courier[1] = dup(STDIN_FILENO);
	end(&r);
}

static void *write_on(void *arg)
{
	struct rig *r = arg;
	const struct kv_hash key = hash_of(1);

	for (int i = 0; i < 20000; i++)
		board_choose(r->board, &key, BOARD_DROPPED | BOARD_PINNED,
			     i & 1 ? BOARD_PINNED : BOARD_DROPPED);
	return NULL;
}

/* A row is seen whole: odd drops mean that it is dropped, and one of the two is always so. */
static void board__is_read_whole(void **state)
{
	struct board_choice c = { 0 };
	pthread_t writer;
	struct rig r;

	begin(&r);
	assert_int_equal(pthread_create(&writer, NULL, write_on, &r), 0);
	while (c.drops < 10000 || !(c.flags & BOARD_PINNED)) {
		c = choice(&r, 1);
		if (c.drops)
			assert_true(c.flags == BOARD_DROPPED || c.flags == BOARD_PINNED);
	}
	pthread_join(writer, NULL);
	assert_int_equal(board_list(r.reader, 0, &c), 0);
	assert_int_equal(c.drops, 10000);
	assert_int_equal(board_list(r.reader, 1, &c), -ENOENT);
	end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errands__settle_on_the_board),
		cmocka_unit_test(errands__wait_for_the_courier),
		cmocka_unit_test(errands__pins_are_the_couriers),
		cmocka_unit_test(errands__are_bounded),
		cmocka_unit_test(board__is_read_whole),
	};

	return cmocka_run_group_tests_name("errands", tests, NULL, NULL);
}
