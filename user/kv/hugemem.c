// SPDX-License-Identifier: MIT
#include "kv/hugemem.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "kv/buffer.h"
#include "lslm/page.h"

#define MAP_HUGE_2_MIB (21 << 26)

static bool from_module(struct hugemem *m)
{
	struct lslm_error err = { 0 };

	if (buffer_backend_active() != BUFFER_KERNEL ||
	    buffer_create(&m->buffer, BUFFER_KERNEL, m->size, BUFFER_HUGE, &err)) {
		m->buffer = NULL;
		snprintf(m->why, sizeof(m->why), "module: %.100s; ",
			 err.code ? err.text : "not loaded");
		return false;
	}
	m->kind = "module";
	m->data = buffer_data(m->buffer);
	return true;
}

/* Without MAP_NORESERVE the pool must hold all of it now, so that no page fault can fail later. */
static bool from_pool(struct hugemem *m)
{
	const size_t bytes = lslm_round_up(m->size, LSLM_HUGE_PAGE);
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2_MIB, -1, 0);
	size_t at;

	if (p == MAP_FAILED) {
		at = strlen(m->why);
		snprintf(m->why + at, sizeof(m->why) - at, "hugetlb: pool too small");
		return false;
	}
	m->kind = "hugetlb";
	m->data = m->map = p;
	m->map_bytes = bytes;
	return true;
}

static bool from_anywhere(struct hugemem *m)
{
	const size_t bytes = lslm_round_up(m->size, LSLM_HUGE_PAGE) + LSLM_HUGE_PAGE;
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return false;
	m->kind = "anonymous";
	m->map = p;
	m->map_bytes = bytes;
	m->data = (void *)lslm_round_up((uintptr_t)p, LSLM_HUGE_PAGE);
	madvise(m->data, bytes - LSLM_HUGE_PAGE, MADV_HUGEPAGE);
	return true;
}

int hugemem_create(struct hugemem *m, size_t size, struct lslm_error *err)
{
	*m = (struct hugemem){ .size = size };
	if (!from_module(m) && !from_pool(m) && !from_anywhere(m))
		return error_set(err, -ENOMEM, "%zu MiB of memory: out of memory", size >> 20);
	madvise(m->data, size, MADV_DONTDUMP);
	return 0;
}

void hugemem_free(struct hugemem *m)
{
	if (m->buffer)
		buffer_close(m->buffer);
	else if (m->map)
		munmap(m->map, m->map_bytes);
	*m = (struct hugemem){ 0 };
}
