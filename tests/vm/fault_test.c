// SPDX-License-Identifier: MIT
/*
 * Every call of the module with its first allocation (or copy from or to user space) failing, then
 * its second, and so on until none is left to fail. A call that fails has changed nothing.
 *
 * It takes a kernel with fault injection (scripts/vm/debug-kernel): /proc/thread-self/fail-nth.
 * Run as root with the module loaded and nobody else using it.
 */
#include "things.h"

enum { NTH_MAX = 4096 };

struct operation {
	const char *name;
	void (*prepare)(const struct things *t); /* NULL: nothing */
	int (*run)(const struct things *t); /* >= 0 or a negative errno */
	void (*undo)(const struct things *t, int ret); /* what a success made; NULL: nothing */
	bool allocates;
};

static int nth_fd;

/* What an operation has left can hit the call that takes it back; it is gone then, and the next one works. */
static void set_nth(unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	if (pwrite(nth_fd, text, len, 0) != len && pwrite(nth_fd, text, len, 0) != len)
		bail("fail-nth");
}

/* 0 when the fault has been injected. */
static unsigned int get_nth(void)
{
	char text[16] = { 0 };

	if (pread(nth_fd, text, sizeof(text) - 1, 0) >= 0)
		return strtoul(text, NULL, 10);
	if (errno != EFAULT)
		bail("fail-nth");
	return 1; /* here, and not before */
}

/* ---- operations ---- */

static int open_device(const struct things *t)
{
	int fd = open(LSLM_DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int create_buffer(const struct things *t)
{
	return buf_create(t->dev, THINGS_PAGES * t->page, 0);
}

static int create_huge(const struct things *t)
{
	return buf_create(t->dev, 2 << 20, LSLM_BUF_HUGE);
}

static int make_ro(const struct things *t)
{
	return buf_ro(t->buffer);
}

static void close_fd(const struct things *t, int ret)
{
	close(ret);
}

static int hold(const struct things *t)
{
	return buf_hold(t->buffer, NULL, NULL);
}

static void release(const struct things *t, int ret)
{
	buf_release(t->buffer);
}

static int map_buffer(const struct things *t)
{
	void *p = mmap(NULL, THINGS_PAGES * t->page, PROT_READ | PROT_WRITE, MAP_SHARED, t->buffer,
		       0);

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, THINGS_PAGES * t->page);
	return 0;
}

static int purge_buffer(const struct things *t)
{
	return buf_purge(t->spare, NULL);
}

static void purge_before(const struct things *t)
{
	if (buf_purge(t->spare, NULL))
		bail("LSLM_PURGE");
}

static void need_before(const struct things *t)
{
	if (buf_will_need(t->spare, NULL, NULL))
		bail("LSLM_WILL_NEED");
}

static int need_buffer(const struct things *t)
{
	return buf_will_need(t->spare, NULL, NULL);
}

static int query_buffer(const struct things *t)
{
	struct lslm_query arg = { .size = sizeof(arg) };

	return call(t->buffer, LSLM_QUERY, &arg);
}

static int create_session(const struct things *t)
{
	return session_create(t->dev, t->other_socket, THINGS_SLOTS, THINGS_ENTRIES, NULL);
}

static int set_key(const struct things *t)
{
	static const uint8_t secret[32] = { 1, 2, 3 };

	return session_key(t->session, 1, LSLM_CIPHER_CHACHA20POLY1305, secret, 1000, 60);
}

static int map_ring(const struct things *t)
{
	const size_t bytes = t->page + THINGS_ENTRIES * sizeof(struct lslm_done);
	void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, t->session, t->page);

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, bytes);
	return 0;
}

static int bind_region(const struct things *t)
{
	int64_t ret = region_bind(t->session, 2, t->buffer, 0, THINGS_CHUNK, THINGS_UNITS, t->page);

	return ret < 0 ? (int)ret : 0;
}

static void unbind_region(const struct things *t, int ret)
{
	region_unbind(t->session, 2);
}

static void bind_before(const struct things *t)
{
	if (bind_region(t))
		bail("LSLM_REGION_BIND");
}

static int unbind_bound(const struct things *t)
{
	return region_unbind(t->session, 2);
}

static int list_missing(const struct things *t)
{
	struct lslm_range ranges[8];

	return region_missing(t->session, 1, t->generation, 0, ranges, 8, NULL);
}

static int read_stats(const struct things *t)
{
	struct lslm_session_stats arg = { .size = sizeof(arg) };

	return call(t->session, LSLM_SESSION_STATS, &arg);
}

/* ---- the test ---- */

/* false: no fault was left to inject. */
static bool with_nth(const struct things *t, const struct operation *op, unsigned int n,
		     unsigned int *failed)
{
	struct state before, after;
	unsigned int left;
	int ret;

	if (op->prepare)
		op->prepare(t);
	before = state_of(t);
	set_nth(n);
	ret = op->run(t);
	left = get_nth();
	set_nth(0);
	if (ret >= 0) {
		if (op->undo)
			op->undo(t, ret);
		return !left;
	}
	++*failed;
	if (ret != -ENOMEM && ret != -EFAULT)
		is(ret, -ENOMEM, "%s: error with fault %u", op->name, n);
	after = state_of(t);
	if (memcmp(&before, &after, sizeof(before)))
		ok(false, "%s: nothing has changed after fault %u", op->name, n);
	return !left;
}

static void test_operation(const struct things *t, const struct operation *op)
{
	unsigned int n = 1, failed = 0;

	while (n < NTH_MAX && with_nth(t, op, n, &failed))
		n++;
	ok(n < NTH_MAX, "%s: ends without faults after %u of them", op->name, n - 1);
	if (op->allocates)
		ok(failed > 0, "%s: some of them made it fail", op->name);
	printf("# %s: %u faults, %u failures\n", op->name, n - 1, failed);
}

/* ---- what it takes ---- */

static void set_up_faults(void)
{
	static const char *const settings[][2] = {
		{ "failslab/ignore-gfp-wait", "N" },
		{ "fail_page_alloc/ignore-gfp-wait", "N" },
		{ "fail_page_alloc/ignore-gfp-highmem", "N" },
		{ "fail_page_alloc/min-order", "0" },
		{ "failslab/verbose", "0" },
		{ "fail_page_alloc/verbose", "0" },
		{ "fail_usercopy/verbose", "0" },
	};
	char path[80];

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s", settings[i][0]);
		write_text(path, settings[i][1]);
	}
	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth_fd < 0)
		bail("/proc/thread-self/fail-nth");
}

int main(void)
{
	static const struct operation operations[] = {
		{ "open", NULL, open_device, close_fd, true },
		{ "BUF_CREATE", NULL, create_buffer, close_fd, true },
		{ "BUF_CREATE with huge pages", NULL, create_huge, close_fd, true },
		{ "BUF_RO_FD", NULL, make_ro, close_fd, true },
		{ "HOLD", NULL, hold, release, false },
		{ "mmap of a buffer", NULL, map_buffer, NULL, true },
		{ "QUERY", NULL, query_buffer, NULL, false },
		{ "PURGE", need_before, purge_buffer, NULL, false },
		{ "WILL_NEED", purge_before, need_buffer, NULL, true },
		{ "SESSION_CREATE", NULL, create_session, close_fd, true },
		{ "SESSION_KEY", NULL, set_key, NULL, false },
		{ "mmap of a ring", NULL, map_ring, NULL, true },
		{ "REGION_BIND", NULL, bind_region, unbind_region, true },
		{ "REGION_UNBIND", bind_before, unbind_bound, NULL, false },
		{ "REGION_MISSING", NULL, list_missing, NULL, false },
		{ "SESSION_STATS", NULL, read_stats, NULL, false },
	};
	struct things t;

	set_up_faults();
	t = things_make();
	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		test_operation(&t, &operations[i]);
	things_end(&t);
	return tap_done();
}
