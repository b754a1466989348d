// SPDX-License-Identifier: MIT
/* When REPORTs go, and how much is in them: by clocks and bytes that are only said to be. */
#include "unit.h"

#include "net/cadence.h"

#define MS 1000000ULL

/* So many seconds in which so many bytes come each, in datagrams; a REPORT has the size that is asked for. */
struct run {
	uint32_t reports;
	double bytes; /* of REPORTs, with what is around them */
	uint64_t longest_ns, shortest_ns; /* between two of them */
	uint64_t least_listed; /* once the rate is known */
};

static struct run run(double rate, uint64_t rtt_ns, double seconds, size_t least)
{
	struct cadence c;
	struct run got = { .shortest_ns = UINT64_MAX, .least_listed = UINT64_MAX };
	uint64_t begin = 1000 * MS, last = 0, end = begin + (uint64_t)(seconds * 1e9);
	double come = 0;

	cadence_init(&c);
	for (uint64_t now = begin; now < end; now += MS / 2) {
		struct cadence_list list;
		size_t size;

		for (come += rate * 0.0005; come >= 1500; come -= 1500)
			cadence_came(&c, 1500);
		if (!cadence_due(&c, rtt_ns, now))
			continue;
		list = cadence_list(&c, rtt_ns, now);
		size = list.size > least ? list.size : least;
		cadence_sent(&c, size, list.bytes, rtt_ns, now);
		if (now < begin + 1000 * MS)
			continue;
		if (last) {
			got.longest_ns = now - last > got.longest_ns ? now - last : got.longest_ns;
			got.shortest_ns = now - last < got.shortest_ns ? now - last :
									 got.shortest_ns;
		}
		last = now;
		got.reports++;
		got.bytes += (double)(size + CADENCE_AROUND);
		if (list.bytes < got.least_listed)
			got.least_listed = list.bytes;
	}
	return got;
}

/* From 250 kbit/s to 100 Mbit/s REPORTs are a sixteenth of what comes, where they can be that small. */
static void cadence__keeps_its_share(void **state)
{
	static const double mbits[] = { 0.25, 0.5, 1, 3, 10, 100 };

	for (size_t i = 0; i < ARRAY_LEN(mbits); i++) {
		double rate = mbits[i] * 125e3;
		struct run got = run(rate, 20 * MS, 11, 96);

		print_message(
			"# %g Mbit/s: %u REPORTs in 10 s, %.3f of what came, %.1f to %.1f ms\n",
			mbits[i], got.reports, got.bytes / (rate * 10),
			(double)got.shortest_ns / MS, (double)got.longest_ns / MS);
		assert_true(got.bytes <= rate * 10 / CADENCE_SHARE * 1.1);
		assert_true(got.shortest_ns >= 5 * MS && got.longest_ns <= 150 * MS);
		/* Twice what may be under way before the next is in force. */
		assert_true((double)got.least_listed > 2 * rate * 0.05);
	}
}

/* Nothing of that slows down a fast link, and a long way needs fewer. */
static void cadence__follows_the_round_trip(void **state)
{
	assert_int_equal(run(12.5e6, 4 * MS, 2, 1184).longest_ns, 5 * MS);
	assert_int_equal(run(12.5e6, 80 * MS, 2, 1184).longest_ns, 20 * MS);
	assert_int_equal(run(12.5e6, 2000 * MS, 4, 1184).longest_ns, 50 * MS);
}

/* Nothing comes: it may be the REPORT that was lost. But they have no time to lose in a queue. */
static void cadence__goes_on_in_silence(void **state)
{
	struct run got = run(0, 20 * MS, 11, 96);

	assert_true(got.reports >= 60 && got.reports <= 70);
	assert_true(got.longest_ns <= 155 * MS);
}

/* One that was too large is paid for, but not with seconds. */
static void cadence__bears_a_large_one(void **state)
{
	struct run got = run(125e3, 20 * MS, 11, 1184);

	assert_true(got.longest_ns <= 155 * MS);
}

/* A short list: all that was wanted. */
static void cadence__goes_on_when_a_list_ends(void **state)
{
	struct cadence c;

	cadence_init(&c);
	for (int i = 0; i < 3; i++)
		cadence_sent(&c, 1184, 3000, 0, 5 * MS);
	cadence_came(&c, 1499);
	assert_false(cadence_due(&c, 0, 10 * MS));
	cadence_came(&c, 1);
	assert_false(cadence_due(&c, 0, 14 * MS));
	assert_true(cadence_due(&c, 0, 15 * MS));
}

/* The first has room, one that follows must be paid for, and a path that has changed is told at once. */
static void cadence__hurries(void **state)
{
	struct cadence c;

	cadence_init(&c);
	assert_true(cadence_due(&c, 0, 5 * MS));
	cadence_sent(&c, 1184, 30000, 0, 5 * MS);
	assert_false(cadence_due(&c, 0, 9 * MS));
	assert_int_equal(cadence_next(&c), 10 * MS);
	cadence_hurry(&c);
	assert_true(cadence_due(&c, 0, 9 * MS));
	for (int i = 0; i < 3; i++)
		cadence_sent(&c, 1184, 30000, 0, 9 * MS);
	assert_false(cadence_due(&c, 0, 20 * MS));
	cadence_came(&c, 6000);
	assert_true(cadence_due(&c, 0, cadence_next(&c)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cadence__keeps_its_share),
		cmocka_unit_test(cadence__follows_the_round_trip),
		cmocka_unit_test(cadence__goes_on_in_silence),
		cmocka_unit_test(cadence__bears_a_large_one),
		cmocka_unit_test(cadence__goes_on_when_a_list_ends),
		cmocka_unit_test(cadence__hurries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
