// SPDX-License-Identifier: MIT
/*
 * A call whose answer cannot be written has changed nothing, whenever the memory for it goes away:
 * another thread keeps making it read-only and writable again while the calls are made. Run as
 * root with the module loaded and nobody else using it.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "things.h"

enum { CALLS_MAX = 5000000 };

/* The same page twice: what is passed to the module, and what is read and written here. */
static void *argument, *mine;
static struct things things;

struct operation {
	const char *name;
	unsigned long cmd;
	uint32_t size;
	const int *fd;
	void (*prepare)(void); /* fills *mine, which is zeroed, but for size */
	void (*undo)(void); /* a success has happened */
	int wanted; /* so many of each outcome; the quicker a call is, the more it takes to hit */
};

static void nothing(void)
{
}

static void release_hold(void)
{
	buf_release(things.spare);
}

static void lose_spare(void)
{
	if (buf_purge(things.spare, NULL) || buf_purgeable(things.spare))
		bail("LSLM_PURGE");
}

static void fill_create(void)
{
	((struct lslm_buf_create *)mine)->bytes = things.page;
}

static void close_created(void)
{
	close(((struct lslm_buf_create *)mine)->out_fd);
}

static void close_ro(void)
{
	close(((struct lslm_buf_ro_fd *)mine)->out_fd);
}

static void fill_session(void)
{
	struct lslm_session_create *arg = mine;

	arg->socket = things.other_socket;
	arg->slots = 1;
	arg->ring_entries = 64;
}

static void close_session(void)
{
	close(((struct lslm_session_create *)mine)->out_fd);
}

static void fill_bind(void)
{
	static uint32_t unit = 1000;
	struct lslm_region_bind *arg = mine;

	arg->slot = 1;
	arg->buffer = things.buffer;
	arg->chunk = THINGS_CHUNK;
	arg->n_units = 1;
	arg->units = (uintptr_t)&unit;
}

static void take_generation(void)
{
	things.generation = ((struct lslm_region_bind *)mine)->out_generation;
}

static atomic_bool stop;

static void *flip(void *unused)
{
	while (!stop) {
		mprotect(argument, things.page, PROT_READ);
		mprotect(argument, things.page, PROT_READ | PROT_WRITE);
	}
	return unused;
}

/* One call; false: it failed and something has changed, or succeeded and nothing has. */
static bool one_call(const struct operation *op, int counts[2])
{
	struct state before, after;
	int ret;

	memset(mine, 0, things.page);
	*(uint32_t *)mine = op->size;
	op->prepare();
	before = state_of(&things);
	ret = call(*op->fd, op->cmd, argument);
	after = state_of(&things);
	if (ret && ret != -EFAULT)
		return is(ret, -EFAULT, "%s: the error", op->name);
	counts[!ret]++;
	if (!ret)
		op->undo();
	return !ret != !memcmp(&before, &after, sizeof(before));
}

static void test_operation(const struct operation *op)
{
	int counts[2] = { 0 }, bad = 0, calls = 0;
	pthread_t thread;

	stop = false;
	if (pthread_create(&thread, NULL, flip, NULL))
		bail("a thread");
	while ((counts[0] < op->wanted || counts[1] < op->wanted) && calls++ < CALLS_MAX)
		bad += !one_call(op, counts);
	stop = true;
	pthread_join(thread, NULL);
	is(bad, 0, "%s: changes nothing, or answers", op->name);
	ok(counts[0] >= op->wanted && counts[1] >= op->wanted, "%s: both have happened", op->name);
	printf("# %s: %d failed, %d succeeded\n", op->name, counts[0], counts[1]);
}

/* A buffer whose pages the answer goes to is in use: it must not be torn from under it. */
static void test_in_the_buffer(void)
{
	void *p = buf_map(things.spare, THINGS_PAGES * things.page, PROT_READ | PROT_WRITE);
	struct lslm_purge *arg = p;
	struct lslm_hold *hold = p;
	uint64_t generation;

	if (buf_will_need(things.spare, NULL, &generation))
		bail("LSLM_WILL_NEED");
	*hold = (struct lslm_hold){ .size = sizeof(*hold) };
	is(call(things.spare, LSLM_HOLD, hold), 0, "a hold answers into the buffer");
	ok(hold->out_generation == generation && hold->out_retained, "which has the answer");
	buf_release(things.spare);
	*arg = (struct lslm_purge){ .size = sizeof(*arg) };
	is(call(things.spare, LSLM_PURGE, arg), -EBUSY, "a purge cannot answer into the buffer");
	is(buf_query(things.spare).out_generation, generation, "and has not happened");
	munmap(p, THINGS_PAGES * things.page);
}

/* The structure lies in two pages, of which either can be written or not. */
static void test_across_pages(void)
{
	char *p = mmap(NULL, 2 * things.page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);
	struct lslm_query want = buf_query(things.spare), *at = NULL;
	struct state before = state_of(&things), after;
	struct lslm_hold *hold;

	for (size_t first = 8; first < sizeof(want); first += 8) {
		at = (void *)(p + things.page - first);
		*at = (struct lslm_query){ .size = sizeof(want) };
		if (call(things.spare, LSLM_QUERY, at) || memcmp(at, &want, sizeof(want)))
			break;
		at = NULL;
	}
	ok(!at, "an answer in two pages, divided anywhere");
	hold = (void *)(p + things.page - 8);
	*hold = (struct lslm_hold){ .size = sizeof(*hold) };
	mprotect(p + things.page, things.page, PROT_READ);
	is(call(things.spare, LSLM_HOLD, hold), -EFAULT, "the second cannot be written");
	mprotect(p + things.page, things.page, PROT_READ | PROT_WRITE);
	mprotect(p, things.page, PROT_READ);
	is(call(things.spare, LSLM_HOLD, hold), -EFAULT, "the first cannot be written");
	after = state_of(&things);
	ok(!memcmp(&before, &after, sizeof(before)), "neither changes anything");
	munmap(p, 2 * things.page);
}

static void map_argument(void)
{
	int fd = memfd_create("argument", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)things.page))
		bail("memfd_create");
	argument = mmap(NULL, things.page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	mine = mmap(NULL, things.page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (argument == MAP_FAILED || mine == MAP_FAILED)
		bail("mmap");
	close(fd);
}

int main(void)
{
	static const struct operation operations[] = {
		{ "HOLD", LSLM_HOLD, sizeof(struct lslm_hold), &things.spare, nothing, release_hold,
		  3000 },
		{ "PURGE", LSLM_PURGE, sizeof(struct lslm_purge), &things.spare, nothing, nothing,
		  3000 },
		{ "WILL_NEED", LSLM_WILL_NEED, sizeof(struct lslm_will_need), &things.spare,
		  lose_spare, nothing, 300 },
		{ "BUF_CREATE", LSLM_BUF_CREATE, sizeof(struct lslm_buf_create), &things.dev,
		  fill_create, close_created, 300 },
		{ "BUF_RO_FD", LSLM_BUF_RO_FD, sizeof(struct lslm_buf_ro_fd), &things.spare,
		  nothing, close_ro, 1000 },
		{ "SESSION_CREATE", LSLM_SESSION_CREATE, sizeof(struct lslm_session_create),
		  &things.dev, fill_session, close_session, 300 },
		{ "REGION_BIND", LSLM_REGION_BIND, sizeof(struct lslm_region_bind), &things.session,
		  fill_bind, take_generation, 1000 },
	};

	things = things_make();
	map_argument();
	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		test_operation(&operations[i]);
	test_in_the_buffer();
	test_across_pages();
	things_end(&things);
	return tap_done();
}
