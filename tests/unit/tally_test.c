// SPDX-License-Identifier: MIT
/* Counts in memory that processes share: they add up, and nobody takes any of them back. */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kv/memfd.h"
#include "serve/serving.h"
#include "serve/tally.h"
#include "serve/visit.h"
#include "unit/unit.h"

static void tally__finds_buckets(void **state)
{
	struct tally_histogram h = { 0 };

	tally_observe(&h, tally_seconds, 0);
	tally_observe(&h, tally_seconds, 0.01);
	tally_observe(&h, tally_seconds, 0.0101);
	tally_observe(&h, tally_seconds, 60);
	tally_observe(&h, tally_seconds, 1000);
	assert_int_equal(h.buckets[0], 2);
	assert_int_equal(h.buckets[1], 1);
	assert_int_equal(h.buckets[TALLY_BOUNDS - 1], 1);
	assert_int_equal(h.buckets[TALLY_BOUNDS], 1);
	assert_int_equal(h.sum, 1060020100);
	for (int i = 1; i < TALLY_BOUNDS; i++)
		assert_true(tally_seconds[i] > tally_seconds[i - 1] &&
			    tally_rates[i] > tally_rates[i - 1]);
}

static void tally__knows_statuses(void **state)
{
	assert_int_equal(tally_status(0), 0);
	assert_int_equal(tally_status(299), 0);
	assert_int_equal(tally_statuses[tally_status(200)], 200);
	assert_int_equal(tally_statuses[tally_status(507)], 507);
	for (uint32_t i = 0; i < TALLY_STATUSES; i++)
		assert_int_equal(tally_status(tally_statuses[i]), i);
}

/* A page that another process writes, which is then killed: what it had counted stays. */
static void tally__outlives_its_process(void **state)
{
	struct tally_page *ours, *theirs;
	struct lslm_error err = { 0 };
	int fd = tally_page_create(&ours, &err), status;
	pid_t pid;

	assert_ok(fd, &err);
	pid = fork();
	if (!pid) {
		if (tally_page_map(&theirs, fd, NULL))
			_exit(1);
		for (int i = 0; i < 1000; i++)
			tally_bump(&theirs->counts.models[15].generated, 3);
		tally_set(&theirs->now[15].running, 7);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(ours->counts.models[15].generated, 3000);
	assert_int_equal(ours->now[15].running, 7);
	/* Whoever has the descriptor cannot take the memory away. */
	assert_int_equal(ftruncate(fd, 0), -1);
	close(fd);
	tally_page_unmap(ours);
	tally_page_unmap(NULL);
}

static void tally__maps_nothing_else(void **state)
{
	struct tally_page *page;
	struct lslm_error err = { 0 };
	int fd = memfd_sealed("other", sizeof(*page) + 8, 0, &err);

	assert_ok(fd, &err);
	assert_int_equal(tally_page_map(&page, fd, &err), -EBADMSG);
	close(fd);
	fd = memfd_create("unsealed", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, sizeof(*page)), 0);
	assert_int_equal(tally_page_map(&page, fd, &err), -EBADF);
	close(fd);
}

static void tally__never_falls(void **state)
{
	static struct tally counted, page, sum;

	page.requests[0][0] = 5;
	page.models[15].rate.sum = 9;
	tally_raise(&counted, &page);
	page.requests[0][0] = 2;
	page.models[15].rate.sum = 10;
	tally_raise(&counted, &page);
	assert_int_equal(counted.requests[0][0], 5);
	assert_int_equal(counted.models[15].rate.sum, 10);
	tally_add(&sum, &counted);
	tally_add(&sum, &counted);
	assert_int_equal(sum.requests[0][0], 10);
	assert_int_equal(sum.models[15].rate.sum, 20);
	/* Nor by what an engine that was taken over says to have counted. */
	page.requests[0][0] = UINT64_MAX - 7;
	tally_add(&sum, &page);
	assert_int_equal(sum.requests[0][0], UINT64_MAX);
}

/* One process after the other at the same place: the sum of both. */
static void tally__sums_up_who_ends(void **state)
{
	static struct tally_source source;
	static struct tally_page sum;
	static struct tally past;
	struct lslm_error err = { 0 };

	tally_source_add(&source, &sum);
	tally_source_end(&source, &past);
	for (uint32_t i = 1; i <= 2; i++) {
		const int fd = tally_page_create(&source.page, &err);

		assert_ok(fd, &err);
		close(fd);
		tally_bump(&source.page->counts.requests[1][1], 3);
		tally_set(&source.page->now[2].queued, 4);
		sum = (struct tally_page){ .counts = past };
		tally_source_add(&source, &sum);
		assert_int_equal(sum.counts.requests[1][1], 3 * i);
		assert_int_equal(sum.now[2].queued, 4);
		/* After it was looked at last. */
		tally_set(&source.page->counts.requests[2][2], i);
		tally_source_end(&source, &past);
		assert_null(source.page);
		assert_int_equal(past.requests[1][1], 3 * i);
	}
	assert_int_equal(past.requests[2][2], 3);
}

/* All statuses of the two routes that answer, by what became of the request, and of all models. */
static void serving__sums_up(void **state)
{
	static struct tally_page p;
	struct courier_serving s = { 0 };

	for (uint32_t i = 0; i < TALLY_STATUSES; i++) {
		p.counts.requests[ROUTE_CHAT][i] = 1;
		p.counts.requests[ROUTE_COMPLETIONS][i] = 10;
		p.counts.requests[ROUTE_METRICS][i] = 1000;
	}
	for (int i = 0; i < TALLY_MODELS; i += 15) {
		struct tally_model *m = &p.counts.models[i];

		m->ends[1] = 2;
		m->prompt = 3;
		m->cached = 4;
		m->generated = 5;
		tally_observe(&m->ttft, tally_seconds, 0.5);
		tally_observe(&m->rate, tally_rates, 1e6);
		p.now[i] = (struct tally_now){ 1, 2, 8 };
	}
	serving_fill(&p, &s);
	/* 200, 202; 429, 503; 500, 501, 502, 504, 507; 400 to 413. */
	assert_int_equal(s.answered, 22);
	assert_int_equal(s.refused, 22);
	assert_int_equal(s.failed, 55);
	assert_int_equal(s.wrong, 77);
	assert_int_equal(s.cut, 11);
	assert_int_equal(s.answered + s.refused + s.failed + s.wrong + s.cut, 11 * TALLY_STATUSES);
	assert_int_equal(s.ends[1], 4);
	assert_int_equal(s.prompt, 6);
	assert_int_equal(s.cached, 8);
	assert_int_equal(s.generated, 10);
	assert_int_equal(s.running, 2);
	assert_int_equal(s.queued, 4);
	assert_int_equal(s.places, 16);
	assert_int_equal(s.ttft.buckets[5], 2);
	assert_true(s.ttft.bounds[5] == 0.5 && s.ttft.sum == 1);
	assert_int_equal(s.rate.buckets[TALLY_BOUNDS], 2);
	assert_true(s.rate.bounds[TALLY_BOUNDS] == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tally__finds_buckets),
		cmocka_unit_test(tally__knows_statuses),
		cmocka_unit_test(tally__outlives_its_process),
		cmocka_unit_test(tally__maps_nothing_else),
		cmocka_unit_test(tally__never_falls),
		cmocka_unit_test(tally__sums_up_who_ends),
		cmocka_unit_test(serving__sums_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
