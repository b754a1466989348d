// SPDX-License-Identifier: MIT
/* What is sent next, against a list that remembers every transmission. */
#include "unit.h"

#include <string.h>

#include "net/sendqueue.h"

#define MS 1000000ULL

enum { SLOTS = 3, CHUNKS = 9000 };

static struct sendqueue q;
static struct congestion c;
/* Counter plus one of the last transmission; 0: none. */
static uint64_t last[SLOTS][CHUNKS];
static uint64_t random_state;

/* Keys that put everything into one bucket, into few, and anywhere. */
static const uint64_t keys[][4] = {
	{ 0, 0, 0, 1ULL << 42 },
	{ 5, 1ULL << 40, 3, 1ULL << 40 },
	{ 0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0xd6e8feb86659fd93 },
};

static uint32_t draw(uint32_t below)
{
	random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)((random_state >> 33) % below);
}

static void begin(const uint64_t key[4])
{
	sendqueue_init(&q, key);
	congestion_init(&c);
	memset(last, 0, sizeof(last));
	random_state = 7;
}

/* A REPORT whose wants are slots in this order; ranges follow from the seed. */
static size_t make_report(uint8_t *payload, const uint32_t *slots, uint32_t n, uint64_t highest,
			  uint64_t received, uint64_t now)
{
	struct report r = { .highest = received ? highest : REPORT_NONE,
			    .highest_ns = now,
			    .now_ns = now,
			    .received = received,
			    .credit = UINT32_MAX,
			    .chunk = 256 };
	struct report_writer w;

	report_begin(&w, payload, SENDQUEUE_REPORT, &r);
	for (uint32_t i = 0; i < n; i++) {
		struct report_want want = { .slot = slots[i], .generation = 2, .stripe = 9 };
		struct lslm_range ranges[20];
		uint32_t at = 0, k;

		for (k = 0; k < 20; k++) {
			ranges[k].first = at + draw(200);
			ranges[k].count = 1 + draw(200);
			at = ranges[k].first + ranges[k].count;
		}
		assert_int_equal(report_add(&w, &want, ranges, 20), 20);
	}
	return report_end(&w);
}

/* Each chunk of the REPORT that was never sent or got lost comes, in order, and no other. */
static uint32_t check_pass(const uint8_t *payload, size_t size, uint32_t most, uint64_t now)
{
	struct report_want want;
	struct report r;
	size_t at = 0;
	uint32_t sent = 0;

	assert_int_equal(report_parse(&r, payload, size), 0);
	while (report_next(&r, &at, &want)) {
		for (uint32_t i = 0; i < want.n_ranges; i++) {
			struct lslm_range range = report_range(&want, i);

			for (uint32_t n = range.first; n < range.first + range.count; n++) {
				uint64_t *l = &last[want.slot][n];
				struct sendqueue_chunk chunk;

				if (*l && !congestion_lost(&c, *l - 1))
					continue;
				if (sent == most)
					return sent;
				assert_true(sendqueue_next(&q, &c, &chunk));
				assert_int_equal(chunk.slot, want.slot);
				assert_int_equal(chunk.number, n);
				assert_int_equal(chunk.generation, 2);
				assert_int_equal(chunk.stripe, 9);
				/* What is forgotten was sent long ago. */
				assert_true(chunk.again == !!*l ||
					    (*l && c.next - *l >= SENDQUEUE_RING - 1));
				sendqueue_sent(&q, &chunk, c.next);
				*l = c.next + 1;
				congestion_sent(&c, now);
				sent++;
			}
		}
	}
	if (sent < most) {
		struct sendqueue_chunk chunk;

		assert_false(sendqueue_next(&q, &c, &chunk));
	}
	return sent;
}

static void sendqueue__agrees_with_a_list(void **state)
{
	uint8_t payload[SENDQUEUE_REPORT];

	for (size_t k = 0; k < ARRAY_LEN(keys); k++) {
		uint64_t now = 1000 * MS, all = 0;

		begin(keys[k]);
		for (int round = 0; round < 200; round++, now += 5 * MS) {
			const uint32_t slots[] = { draw(SLOTS), (draw(2) + 1) };
			/* Behind by a window that is sometimes long; a tenth is lost. */
			uint64_t behind = draw(10) ? draw(400) : draw(8000);
			uint64_t highest = c.next > behind ? c.next - 1 - behind : 0;
			uint64_t received = c.next ? highest + 1 - highest / 10 : 0;
			size_t size;

			if (c.highest != REPORT_NONE && highest < c.highest)
				highest = c.highest;
			if (received < c.received)
				received = c.received;
			size = make_report(payload, slots, slots[0] == slots[1] ? 1 : 2, highest,
					   received, now);
			assert_int_equal(sendqueue_report(&q, payload, size), 0);
			assert_int_equal(congestion_report(&c, sendqueue_newest(&q), now), 0);
			all += check_pass(payload, size, draw(3) ? draw(300) : UINT32_MAX, now);
		}
		print_message("# %lu transmissions\n", all);
		assert_true(all > 2 * SENDQUEUE_RING);
	}
}

/* The same 400 chunks as often as a REPORT can list them. */
static void sendqueue__greedy_edge(void **state)
{
	struct report r = { .highest = REPORT_NONE, .credit = UINT32_MAX, .chunk = 256 };
	struct report_want want = { .slot = 1, .generation = 2, .stripe = 9 };
	struct lslm_range all = { 0, 400 };
	uint8_t payload[SENDQUEUE_REPORT];
	struct sendqueue_chunk chunk;
	struct report_writer w;
	uint32_t sent;

	begin(keys[2]);
	report_begin(&w, payload, sizeof(payload), &r);
	while (report_add(&w, &want, &all, 1))
		;
	assert_int_equal(sendqueue_report(&q, payload, report_end(&w)), 0);
	assert_int_equal(congestion_report(&c, sendqueue_newest(&q), MS), 0);
	for (sent = 0; sendqueue_next(&q, &c, &chunk); sent++) {
		sendqueue_sent(&q, &chunk, c.next);
		congestion_sent(&c, MS);
	}
	assert_int_equal(sent, 400);
	/* 56 * 400 were listed. */
	assert_int_equal(q.skipped, SENDQUEUE_RING + 1);
}

static void sendqueue_report__refuses(void **state)
{
	static const uint32_t slots[] = { 1 };
	uint8_t payload[SENDQUEUE_REPORT + 1] = { 0 };
	struct sendqueue_chunk chunk;
	size_t size;

	begin(keys[2]);
	assert_false(sendqueue_next(&q, &c, &chunk));
	size = make_report(payload, slots, 1, 0, 0, MS);
	assert_int_equal(sendqueue_report(&q, payload, size), 0);
	assert_int_equal(sendqueue_report(&q, payload, size - 1), -EINVAL);
	assert_int_equal(sendqueue_report(&q, payload, sizeof(payload)), -EINVAL);
	assert_int_equal(sendqueue_newest(&q)->n_wants, 1);
	assert_true(sendqueue_next(&q, &c, &chunk));
	assert_int_equal(chunk.slot, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sendqueue__agrees_with_a_list),
		cmocka_unit_test(sendqueue__greedy_edge),
		cmocka_unit_test(sendqueue_report__refuses),
	};

	return cmocka_run_group_tests_name("sendqueue", tests, NULL, NULL);
}
