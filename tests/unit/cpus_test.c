// SPDX-License-Identifier: MIT
#include "unit/unit.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cpus.h"

static char root[64];

static int setup(void **state)
{
	strcpy(root, "/tmp/lslm-cpus-XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* A file under the root, with the directories on its way. */
static void put(const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
		*p = '\0';
		mkdir(path, 0755);
		*p = '/';
	}
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void siblings(int cpu, const char *list)
{
	char name[128];

	snprintf(name, sizeof(name), "sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
		 cpu);
	put(name, list);
}

static cpu_set_t cpus(int first, int last)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int i = first; i <= last; i++)
		CPU_SET(i, &set);
	return set;
}

static unsigned int count(int first, int last)
{
	const cpu_set_t set = cpus(first, last);

	return cpus_count(&set, root);
}

static void cpus_count__siblings_count_once(void **state)
{
	assert_int_equal(count(0, 7), 8); /* nothing known */
	for (int i = 0; i < 4; i++) {
		siblings(i, i % 2 ? "1,3\n" : "0,2\n");
		siblings(4 + i, i < 2 ? "4-5\n" : "6-7\n");
	}
	assert_int_equal(count(0, 7), 4);
	assert_int_equal(count(0, 1), 2);
	assert_int_equal(count(2, 2), 1); /* its sibling 0 is not allowed, it counts all the same */
	assert_int_equal(count(4, 5), 1);
	siblings(5, "nonsense\n");
	assert_int_equal(count(5, 5), 1);
}

static void cpus_count__quotas_of_all_groups(void **state)
{
	put("proc/self/cgroup", "0::/a/b\n");
	assert_int_equal(count(0, 7), 8);
	put("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
	assert_int_equal(count(0, 7), 8);
	put("sys/fs/cgroup/a/cpu.max", "350000 100000\n");
	assert_int_equal(count(0, 7), 3);
	put("sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
	assert_int_equal(count(0, 7), 1);
	put("sys/fs/cgroup/a/b/cpu.max", "18446744073709551615 1\n");
	assert_int_equal(count(0, 7), 3);
	put("sys/fs/cgroup/cpu.max", "200000 100000\n"); /* a container's own root */
	assert_int_equal(count(0, 7), 2);
	put("sys/fs/cgroup/cpu.max", "1 0\n");
	put("proc/self/cgroup", "1:name=systemd:/x\n");
	assert_int_equal(count(0, 7), 8);
}

static void cpus_usable__is_within_the_affinity(void **state)
{
	cpu_set_t set;

	assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
	assert_in_range(cpus_usable(), 1, CPU_COUNT(&set));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(cpus_count__siblings_count_once, setup, teardown),
		cmocka_unit_test_setup_teardown(cpus_count__quotas_of_all_groups, setup, teardown),
		cmocka_unit_test(cpus_usable__is_within_the_affinity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
