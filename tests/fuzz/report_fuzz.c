// SPDX-License-Identifier: MIT
/*
 * What an edge may say, hostile: HELLO and REPORT. What is accepted can be walked through to its
 * last range, keeps the promises of net/report.h, and written again gives the same bytes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void copy_want(struct report_writer *w, const struct report_want *want)
{
	struct lslm_range *ranges = calloc(want->n_ranges, sizeof(*ranges));
	uint64_t end = 0;

	for (uint32_t i = 0; i < want->n_ranges; i++) {
		ranges[i] = report_range(want, i);
		if (ranges[i].first < end || !ranges[i].count)
			abort();
		end = (uint64_t)ranges[i].first + ranges[i].count;
	}
	if (!end || end > LSLM_REGION_CHUNKS_MAX ||
	    report_add(w, want, ranges, want->n_ranges) != want->n_ranges)
		abort();
	free(ranges);
}

static void check_report(const uint8_t *data, size_t size)
{
	struct report_writer w;
	struct report_want want;
	struct report r;
	uint8_t *again;
	uint32_t n = 0;
	size_t at = 0;

	if (report_parse(&r, data, size) < 0)
		return;
	again = malloc(size);
	report_begin(&w, again, size, &r);
	for (; report_next(&r, &at, &want); n++)
		copy_want(&w, &want);
	/* When nothing has come, the time of its arrival means nothing. */
	memcpy(again + 8, data + 8, r.received ? 0 : 8);
	if (n != r.n_wants || report_end(&w) != size || memcmp(again, data, size))
		abort();
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Its own allocation, so that a read past the end is seen. */
	uint8_t *copy = malloc(size ? size : 1);
	uint32_t largest;

	memcpy(copy, data, size);
	hello_parse(&largest, copy, size);
	check_report(copy, size);
	free(copy);
	return 0;
}
