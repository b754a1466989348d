// SPDX-License-Identifier: MIT
#include "base/residency.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lslm/page.h"

/* From Linux 6.7, linux/fs.h; the C libraries' headers of many distributions are older. */
struct pagemap_scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t inverted, mask, any_of, returned;
};

struct pagemap_region {
	uint64_t start, end, categories;
};

#define PAGEMAP_SCAN_IOCTL _IOWR('f', 16, struct pagemap_scan)
enum { PAGE_HUGE = 1 << 6 };

double residency_cached(const void *map, size_t size)
{
	enum { LARGE = 64 << 20, WINDOW = 8 << 20, LOOK = 1 << 20, PAGES = LOOK / 4096 };
	const size_t step = size < LARGE ? LOOK : WINDOW;
	unsigned char there[PAGES];
	size_t looked = 0, found = 0;

	for (size_t at = 0; at < size; at += step) {
		const size_t left = size - at, n = left < LOOK ? left : LOOK;
		const size_t pages = (n + lslm_page_size() - 1) / lslm_page_size();

		if (mincore((char *)map + at, n, there))
			return 0;
		for (size_t i = 0; i < pages; i++)
			found += there[i] & 1;
		looked += pages;
	}
	return looked ? (double)found / (double)looked : 1;
}

bool residency_huge(const void *at)
{
	const uint64_t start = (uintptr_t)at & ~((uintptr_t)LSLM_HUGE_PAGE - 1);
	struct pagemap_region region = { 0 };
	struct pagemap_scan scan = {
		.size = sizeof(scan),
		.start = start,
		.end = start + LSLM_HUGE_PAGE,
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.mask = PAGE_HUGE,
		.returned = PAGE_HUGE,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int n;

	if (fd < 0)
		return false;
	n = ioctl(fd, PAGEMAP_SCAN_IOCTL, &scan);
	close(fd);
	return n == 1 && region.start == start && region.end == scan.end;
}
