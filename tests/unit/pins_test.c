// SPDX-License-Identifier: MIT
/* Pins that a stripe store remembers, many at once, on their way from a courier to its supervisor's board. */
#include "unit/unit.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "serve/changes.h"
#include "serve/errands.h"

enum { MANY = 600, MORE = BOARD_CHOICES + 76 };

static char dir[64];
static struct stripe_store *store;

struct rig {
	struct board *board, *seen; /* the supervisor's, the courier's */
	struct holdings *holdings;
	struct errands *errands;
	struct custody *custody;
	struct shelf *shelf;
	int pair[2];
	pthread_t supervisor;
	atomic_bool told, end;
	int lines;
	char line[256];
};

static struct kv_hash hash_of(uint32_t n)
{
	return kv_digest(&n, sizeof(n));
}

static void count_line(void *arg, const char *line)
{
	struct rig *r = arg;

	r->lines++;
	snprintf(r->line, sizeof(r->line), "%s", line);
}

/* It is busy until nothing more can be said to it, or all was. */
static void *supervise(void *arg)
{
	struct rig *r = arg;
	struct pollfd full = { .fd = r->pair[1], .events = POLLOUT };
	struct pollfd p = { .fd = r->pair[0], .events = POLLIN };
	struct channel_message m;
	int fds[CHANNEL_FDS], n;
	pid_t engine;

	while (!atomic_load(&r->told) && poll(&full, 1, 0) == 1)
		usleep(1000);
	while (poll(&p, 1, 10) > 0 || !atomic_load(&r->end))
		if (p.revents && !channel_receive(r->pair[0], &m, fds, &n))
			errands_answer(r->errands, &m, r->pair[0], &engine);
	return NULL;
}

static void begin(struct rig *r)
{
	const struct shelf_opts shelf = { .max = 1 };
	struct lslm_error err = { 0 };
	int fd;

	memset(r, 0, sizeof(*r));
	assert_ok(board_create(&r->board, &err), &err);
	assert_ok(holdings_create(&r->holdings, &err), &err);
	assert_ok(errands_create(&r->errands, r->board, r->holdings, NULL, NULL, &err), &err);
	assert_ok(channel_pair(r->pair, &err), &err);
	fd = board_ro_fd(r->board, &err);
	assert_int_equal(holdings_offer(r->holdings, r->pair[0], fd), 0);
	close(fd);
	assert_ok(custody_open(&r->custody, r->pair[1], &r->seen, &err), &err);
	assert_ok(shelf_open(&r->shelf, &shelf, &err), &err);
	assert_int_equal(pthread_create(&r->supervisor, NULL, supervise, r), 0);
}

/* A courier's start. */
static struct changes *start(struct rig *r)
{
	const struct changes_opts o = {
		.channel = r->pair[1],
		.custody = r->custody,
		.board = r->seen,
		.shelf = r->shelf,
		.store = store,
		.log = count_line,
		.arg = r,
	};
	struct lslm_error err = { 0 };
	struct changes *c;

	assert_ok(changes_start(&c, &o, &err), &err);
	atomic_store(&r->told, true);
	return c;
}

static void end(struct rig *r)
{
	shelf_close(r->shelf);
	custody_close(r->custody);
	close(r->pair[0]);
	close(r->pair[1]);
	errands_destroy(r->errands);
	holdings_destroy(r->holdings);
	board_close(r->seen);
	board_close(r->board);
}

/* As the store writes the first one, without looking through all others and without waiting for the disk each time. */
static void pin_up_to(uint32_t n)
{
	const struct kv_hash first = hash_of(0);
	char hex[KV_HASH_TEXT], path[256];
	struct lslm_error err = { 0 };
	uint8_t *file, *key;
	size_t size;

	assert_ok(stripe_store_pin(store, &first, 1, &err), &err);
	kv_hash_format(&first, hex);
	snprintf(path, sizeof(path), "%s/%s/pinned", dir, hex);
	assert_ok(file_read(path, 4096, (char **)&file, &size, &err), &err);
	key = memmem(file, size, first.b, sizeof(first.b));
	assert_non_null(key);
	for (uint32_t i = 1; i < n; i++) {
		const struct kv_hash next = hash_of(i);
		FILE *f;

		memcpy(key, next.b, sizeof(next.b));
		kv_hash_format(&next, hex);
		snprintf(path, sizeof(path), "%s/%s", dir, hex);
		assert_true(!mkdir(path, 0700) || errno == EEXIST);
		strcat(path, "/pinned");
		f = fopen(path, "w");
		assert_non_null(f);
		assert_int_equal(fwrite(file, 1, size, f), size);
		assert_int_equal(fclose(f), 0);
	}
	free(file);
}

static uint32_t count_pinned(const struct rig *r)
{
	struct board_choice c;
	uint32_t n = 0;

	for (uint32_t i = 0; !board_list(r->board, i, &c); i++)
		n += c.flags == BOARD_PINNED;
	return n;
}

/* So many are on the board, and all still in the store. */
static void check(struct rig *r, uint32_t remembered, uint32_t all)
{
	struct kv_hash one;
	struct changes *c;

	begin(r);
	c = start(r);
	atomic_store(&r->end, true);
	pthread_join(r->supervisor, NULL);
	assert_int_equal(count_pinned(r), remembered);
	changes_stop(c);
	assert_int_equal(stripe_store_pins(store, &one, 1), all);
	end(r);
}

static void pins__several_hundred(void **state)
{
	struct rig r;

	pin_up_to(MANY);
	check(&r, MANY, MANY);
	assert_int_equal(r.lines, 0);
}

static void pins__more_than_can_be_remembered(void **state)
{
	struct rig r;

	pin_up_to(MORE);
	check(&r, BOARD_CHOICES, MORE);
	assert_int_equal(r.lines, 1);
	assert_non_null(strstr(r.line, "1100 contexts are pinned in the store, 1024 of which"));
}

static int open_all(void **state)
{
	const struct stripe_store_opts o = { .dir = dir, .max_bytes = 1 << 20 };
	struct lslm_error err;

	/* In memory where that can be: it is a thousand directories. */
	strcpy(dir, "/dev/shm/lslm-pins-XXXXXX");
	if (!mkdtemp(dir) && !mkdtemp(strcpy(dir, "/tmp/lslm-pins-XXXXXX")))
		return -1;
	return stripe_store_open(&store, &o, &err);
}

static int close_all(void **state)
{
	stripe_store_close(store);
	return remove_tree(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pins__several_hundred),
		cmocka_unit_test(pins__more_than_can_be_remembered),
	};

	return cmocka_run_group_tests_name("pins", tests, open_all, close_all);
}
