// SPDX-License-Identifier: MIT
#include "serve/tally.h"

#include <sys/mman.h>
#include <unistd.h>

#include "kv/memfd.h"

enum { COUNTS = sizeof(struct tally) / sizeof(uint64_t) };

const unsigned short tally_statuses[TALLY_STATUSES] = { 0,   200, 202, 400, 401, 403, 404, 405, 409,
							413, 429, 500, 501, 502, 503, 504, 507 };
const double tally_seconds[TALLY_BOUNDS] = { 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
					     1,	   2.5,	  5,	10,  30,   60 };
const double tally_rates[TALLY_BOUNDS] = { 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000 };

/* One thread writes to each count at a time, so nothing is lost between reading and writing. */
void tally_set(uint64_t *count, uint64_t to)
{
	__atomic_store_n(count, to, __ATOMIC_RELAXED);
}

void tally_bump(uint64_t *count, uint64_t by)
{
	tally_set(count, *count + by);
}

uint32_t tally_status(unsigned int status)
{
	uint32_t i = TALLY_STATUSES - 1;

	while (i && tally_statuses[i] != status)
		i--;
	return i;
}

void tally_observe(struct tally_histogram *h, const double bounds[TALLY_BOUNDS], double value)
{
	uint32_t i = 0;

	while (i < TALLY_BOUNDS && value > bounds[i])
		i++;
	tally_bump(&h->buckets[i], 1);
	tally_bump(&h->sum, (uint64_t)(value * TALLY_UNIT + 0.5));
}

void tally_add(struct tally *to, const struct tally *from)
{
	uint64_t *sum = (uint64_t *)to;
	const uint64_t *more = (const uint64_t *)from;

	for (uint32_t i = 0; i < COUNTS; i++)
		if (__builtin_add_overflow(sum[i], more[i], &sum[i]))
			sum[i] = UINT64_MAX;
}

void tally_raise(struct tally *to, const struct tally *from)
{
	uint64_t *most = (uint64_t *)to;
	const uint64_t *now = (const uint64_t *)from;

	for (uint32_t i = 0; i < COUNTS; i++) {
		const uint64_t is = __atomic_load_n(&now[i], __ATOMIC_RELAXED);

		most[i] = is > most[i] ? is : most[i];
	}
}

static void add_now(struct tally_now to[TALLY_MODELS], const struct tally_now from[TALLY_MODELS])
{
	for (uint32_t i = 0; i < TALLY_MODELS; i++) {
		to[i].running += __atomic_load_n(&from[i].running, __ATOMIC_RELAXED);
		to[i].queued += __atomic_load_n(&from[i].queued, __ATOMIC_RELAXED);
		to[i].places += __atomic_load_n(&from[i].places, __ATOMIC_RELAXED);
	}
}

int tally_page_create(struct tally_page **out, struct lslm_error *err)
{
	int fd = memfd_sealed("lslm-tally", sizeof(**out), 0, err), ret;

	if (fd < 0)
		return fd;
	ret = tally_page_map(out, fd, err);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

int tally_page_map(struct tally_page **out, int fd, struct lslm_error *err)
{
	size_t size;
	void *at;
	int ret = memfd_check(fd, &size, err);

	if (ret < 0)
		return ret;
	if (size != sizeof(**out))
		return error_set(err, -EBADMSG, "the tally has not the size of one");
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return error_sys(err, -errno, "the tally cannot be mapped");
	*out = at;
	return 0;
}

void tally_page_unmap(struct tally_page *page)
{
	if (page)
		munmap(page, sizeof(*page));
}

void tally_source_add(struct tally_source *s, struct tally_page *sum)
{
	if (!s->page)
		return;
	tally_raise(&s->counted, &s->page->counts);
	tally_add(&sum->counts, &s->counted);
	add_now(sum->now, s->page->now);
}

void tally_source_end(struct tally_source *s, struct tally *past)
{
	if (s->page)
		tally_raise(&s->counted, &s->page->counts);
	tally_add(past, &s->counted);
	tally_page_unmap(s->page);
	*s = (struct tally_source){ 0 };
}
