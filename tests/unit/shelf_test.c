// SPDX-License-Identifier: MIT
/* The shelf of an edge: contexts that come, wait or fail each for itself, and so many at the most. */
#include "edge_rig.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "serve/shelf.h"

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

/* Does as serve/errands.h would. */
static void choose_dropped(struct board *b, const struct kv_hash *key)
{
	assert_int_equal(board_choose(b, key, BOARD_PINNED, BOARD_DROPPED), 0);
}

static const struct shelf_whose anybody = { .all = true }, of_none,
				of_another = { .salt = { { 1 } } };

static void shelf__lets_go_of_what_was_dropped(void **state)
{
	struct shelf_opts opts = { .courier = plain_opts().courier, .first_wait_ms = 5, .max = 2 };
	const unsigned int before = count_fds();
	struct lslm_error err = { 0 };
	struct shelf_context x;
	struct shelf_found f;
	struct board *board;
	struct shelf *s;
	struct kv_hash key;
	unsigned int fds;

	assert_ok(board_create(&board, &err), &err);
	opts.board = board;
	assert_ok(shelf_open(&s, &opts, &err), &err);
	fds = count_fds();
	assert_ok(shelf_add(s, files[0], &err), &err);
	wait_state(s, 0, COURIER_COMPLETE, 0);
	assert_false(shelf_has_dropped(s, &key));
	choose_dropped(board, &keys[0]);
	assert_true(shelf_has_dropped(s, &key));
	assert_true(kv_hash_equal(&key, &keys[0]));
	assert_int_equal(shelf_drop(s, &key), 0);
	assert_int_equal(shelf_drop(s, &key), -ENOENT);
	assert_int_equal(shelf_count(s), 0);
	assert_int_equal(shelf_look(s, 0, &x), -ENOENT);
	assert_true(shelf_is_past(s, 0) && !shelf_is_past(s, 1));
	wait_for_fds(fds);
	/* It is not had again by being named, which of a file is seen once it is read, but by being asked for. */
	assert_ok(shelf_add(s, files[0], &err), &err);
	for (int i = 0; i < DEADLINE_TICKS && shelf_count(s); i++)
		tick();
	assert_int_equal(shelf_count(s), 0);
	assert_int_equal(shelf_find(s, "no such", &anybody, &f), -ENOENT);
	/* To another salt it never was there. */
	assert_int_equal(shelf_find(s, files[0], &of_another, &f), -ENOENT);
	assert_int_equal(shelf_find(s, files[0], &of_none, &f), 0);
	assert_true(kv_hash_equal(&f.key, &keys[0]) && !f.there);
	assert_string_equal(f.source, files[0]);
	assert_ok(shelf_ask(s, f.source, &err), &err);
	wait_state(s, 1, COURIER_COMPLETE, 0);
	assert_int_equal(shelf_look(s, 0, &x), 0);
	assert_int_equal(x.number, 2);
	assert_false(shelf_has_dropped(s, &key));
	choose_dropped(board, &keys[0]);
	assert_true(shelf_has_dropped(s, &key));
	shelf_close(s);
	board_close(board);
	wait_for_fds(before);
}

static void shelf__makes_room(void **state)
{
	struct shelf_opts opts = { .courier = plain_opts().courier, .first_wait_ms = 5, .max = 2 };
	struct lslm_error err = { 0 };
	struct board *board;
	struct shelf *s;
	struct kv_hash key;

	assert_ok(board_create(&board, &err), &err);
	opts.board = board;
	assert_ok(shelf_open(&s, &opts, &err), &err);
	assert_ok(shelf_add(s, files[0], &err), &err);
	wait_state(s, 0, COURIER_COMPLETE, 0);
	assert_int_equal(shelf_make_room(s, &anybody, &key), 0);
	assert_ok(shelf_add(s, files[2], &err), &err);
	wait_state(s, 1, COURIER_COMPLETE, 0);
	assert_int_equal(shelf_add(s, "one more", &err), -ENOSPC);
	/* The oldest is pinned. */
	assert_int_equal(board_choose(board, &keys[0], 0, BOARD_PINNED), 0);
	assert_int_equal(shelf_make_room(s, &of_another, &key), -ENOSPC);
	assert_int_equal(shelf_make_room(s, &of_none, &key), 1);
	assert_true(kv_hash_equal(&key, &keys[2]));
	assert_int_equal(shelf_count(s), 1);
	assert_ok(shelf_add(s, files[2], &err), &err);
	wait_state(s, 2, COURIER_COMPLETE, 0);
	shelf_end_of_start(s);
	assert_int_equal(shelf_make_room(s, &anybody, &key), -ENOSPC);
	assert_int_equal(shelf_count(s), 2);
	shelf_close(s);
	board_close(board);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shelf__one_does_not_stop_the_others),
		cmocka_unit_test(shelf__has_so_many_places),
		cmocka_unit_test(shelf__lets_go_of_what_was_dropped),
		cmocka_unit_test(shelf__makes_room),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("shelf", tests, setup, teardown);
}
