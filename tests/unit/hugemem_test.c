// SPDX-License-Identifier: MIT
/* Memory in 2 MiB pages, from whoever may give it. */
#include "unit.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kv/buffer.h"
#include "kv/hugemem.h"
#include "lslm/page.h"

enum { SIZE = (5 << 20) + 4096, WHOLE = 6 << 20 };

/* Of the mapping that holds this address, bytes behind a page table entry of 2 MiB. */
static size_t mapped_huge(const void *at)
{
	const char *const names[] = { "ShmemPmdMapped:", "AnonHugePages:", "Private_Hugetlb:" };
	FILE *f = fopen("/proc/self/smaps", "r");
	bool inside = false;
	size_t kib, bytes = 0;
	char line[512];
	unsigned long from, to;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = from <= (unsigned long)at && (unsigned long)at < to;
		for (size_t i = 0; inside && i < ARRAY_LEN(names); i++)
			if (!strncmp(line, names[i], strlen(names[i])) &&
			    sscanf(line + strlen(names[i]), "%zu", &kib) == 1)
				bytes += kib << 10;
	}
	fclose(f);
	return bytes;
}

static unsigned long free_in_pool(void)
{
	FILE *f = fopen("/proc/meminfo", "r");
	unsigned long n = 0;
	char line[128];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "HugePages_Free: %lu", &n) == 1)
			break;
	fclose(f);
	return n;
}

/* Aligned, zero, writable to the last byte, in large pages; who gave it. */
static const char *use(struct hugemem *m)
{
	struct lslm_error err = { 0 };
	uint8_t *p;

	assert_ok(hugemem_create(m, SIZE, &err), &err);
	assert_int_equal(m->size, SIZE);
	p = m->data;
	assert_int_equal((uintptr_t)p % LSLM_HUGE_PAGE, 0);
	/* Written first: before Linux 6.13 what was read before it was written is in small pages. */
	for (size_t i = 0; i < SIZE; i += LSLM_HUGE_PAGE)
		p[i] = 1;
	for (size_t i = 4096; i < SIZE; i += 4096)
		assert_int_equal(p[i], i % LSLM_HUGE_PAGE ? 0 : 1);
	p[SIZE - 1] = 2;
	assert_int_equal(mapped_huge(p), WHOLE);
	return m->kind;
}

static bool module_is_there(void)
{
	return buffer_backend_active() == BUFFER_KERNEL;
}

static void root_gets_the_best(void **state)
{
	struct hugemem m;

	if (geteuid())
		skip();
	assert_string_equal(use(&m), module_is_there() ? "module" : "tmpfs");
	if (module_is_there())
		assert_string_equal(m.why, "");
	else
		assert_string_equal(m.why, "module: not loaded");
	hugemem_free(&m);
	assert_null(m.data);
	hugemem_free(&m);
}

/* In a process of its own, which gives up what root has. */
static void others_get_what_is_left(void **state)
{
	const char *want = free_in_pool() >= WHOLE / LSLM_HUGE_PAGE ? "hugetlb" : "anonymous";
	struct hugemem m;
	int status;
	pid_t child;

	/* Its device is root's, so that nobody else gets its buffers; but opened it stays. */
	if (module_is_there())
		skip();
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		if (!geteuid() && setresuid(65534, 65534, 65534))
			_exit(2);
		if (strcmp(use(&m), want) || !strstr(m.why, "tmpfs: Operation not permitted"))
			_exit(3);
		if (!strstr(m.why, "hugetlb: pool too small") == !strcmp(want, "anonymous"))
			_exit(4);
		hugemem_free(&m);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void too_much_is_an_error(void **state)
{
	struct lslm_error err = { 0 };
	struct hugemem m;

	assert_int_equal(hugemem_create(&m, (size_t)1 << 62, &err), -ENOMEM);
	assert_non_null(strstr(err.text, "out of memory"));
	hugemem_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(root_gets_the_best),
		cmocka_unit_test(others_get_what_is_left),
		cmocka_unit_test(too_much_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
