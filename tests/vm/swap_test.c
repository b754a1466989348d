// SPDX-License-Identifier: MIT
/*
 * Buffers and swap: what is not bound leaves memory like any shared memory, what is bound stays, and
 * what comes back is what went. Run as root with the module loaded and with swap.
 */
#include <sched.h>

#include "session.h"

enum { PAGES = 64, BOUND = 5, BOUND_PAGES = 2 };

static int dev;
static size_t page;

/* Pages that were just made wait on lists of their processor before they can be taken: one is used. */
static void stay_on_one_processor(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		bail("sched_setaffinity");
}

/* Pages that are in memory once all have been asked to leave it, which one request need not do. */
static long stays(int buffer, uint8_t *p, long want)
{
	uint64_t left = 0;

	for (int i = 0; i < 1000; i++) {
		if (madvise(p, PAGES * page, MADV_PAGEOUT))
			return -errno;
		left = buf_query(buffer).out_resident_bytes / page;
		if (left == (uint64_t)want)
			break;
		usleep(10000);
	}
	return left;
}

static bool is_pattern(const uint8_t *p, uint32_t seed)
{
	uint8_t *want = malloc(PAGES * page);
	bool same;

	fill_pattern(want, PAGES * page, seed);
	same = !memcmp(p, want, PAGES * page);
	free(want);
	return same;
}

static void test_unbound(int buffer, uint8_t *p)
{
	fill_pattern(p, PAGES * page, 1);
	is(stays(buffer, p, 0), 0, "all of a buffer can be swapped out");
	ok(is_pattern(p, 1), "and comes back as it was");
	is(buf_query(buffer).out_resident_bytes, PAGES * page, "into memory");
}

/* A small limit for what may be locked would mean nothing if one page of it kept all the others. */
static void test_bound(int buffer, uint8_t *p)
{
	struct session s = session_open(dev, AF_INET, 1, 64);
	const uint8_t byte = p[(BOUND + 1) * page];
	uint8_t data[512];
	int64_t g;

	is(stays(buffer, p, 0), 0, "swapped out again");
	g = region_bind(s.fd, 0, buffer, BOUND * page, sizeof(data), 1, BOUND_PAGES * page);
	ok(g > 0, "a part is bound");
	is(buf_query(buffer).out_resident_bytes, BOUND_PAGES * page, "and is in memory");
	ok(is_pattern(p, 1), "all of it is as it was");
	is(stays(buffer, p, BOUND_PAGES), BOUND_PAGES, "the part stays, the rest can go");
	fill_pattern(data, sizeof(data), 2);
	ok(send_chunk(&s, 0, g, 0, data, sizeof(data)), "a datagram");
	ok(!memcmp(p + BOUND * page, data, sizeof(data)), "is in its place");
	is(region_unbind(s.fd, 0), 0, "unbound");
	/* Only what is mapped is asked to leave. */
	ok(p[BOUND * page] == data[0] && p[(BOUND + 1) * page] == byte, "it is still there");
	is(stays(buffer, p, 0), 0, "that part can go too");
	ok(!memcmp(p + BOUND * page, data, sizeof(data)), "and comes back with what was placed");
	session_close(&s);
}

int main(void)
{
	uint8_t *p;
	int buffer;

	page = sysconf(_SC_PAGESIZE);
	stay_on_one_processor();
	dev = dev_open();
	buffer = buf_create(dev, PAGES * page, 0);
	p = buf_map(buffer, PAGES * page, PROT_READ | PROT_WRITE);
	if (!p)
		bail("a buffer");
	test_unbound(buffer, p);
	test_bound(buffer, p);
	return tap_done();
}
