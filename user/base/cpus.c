// SPDX-License-Identifier: MIT
#include "base/cpus.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The first line of a file, without its newline. */
static bool read_line(const char *path, char *line, int size)
{
	FILE *f = fopen(path, "re");
	bool ok;

	if (!f)
		return false;
	ok = fgets(line, size, f) != NULL;
	fclose(f);
	line[ok ? strcspn(line, "\n") : 0] = '\0';
	return ok;
}

/* The lowest hardware thread of cpu's core; cpu itself where nothing is known. */
static int first_sibling(const char *root, int cpu)
{
	char path[512], line[256];
	int first;

	snprintf(path, sizeof(path),
		 "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", root, cpu);
	if (!read_line(path, line, sizeof(line)) || sscanf(line, "%d", &first) != 1 || first < 0 ||
	    first >= CPU_SETSIZE)
		return cpu;
	return first;
}

static unsigned int cores(const cpu_set_t *set, const char *root)
{
	cpu_set_t seen;

	CPU_ZERO(&seen);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, set))
			CPU_SET(first_sibling(root, cpu), &seen);
	return (unsigned int)CPU_COUNT(&seen);
}

/* Whole processors that a cpu.max of "quota period" leaves; many for "max" or no such file. */
static unsigned int quota(const char *root, const char *group)
{
	unsigned long long allowed, period;
	char path[1024], line[64];

	snprintf(path, sizeof(path), "%s/sys/fs/cgroup%s/cpu.max", root, group);
	if (!read_line(path, line, sizeof(line)) ||
	    sscanf(line, "%llu %llu", &allowed, &period) != 2 || period == 0 ||
	    allowed / period >= CPU_SETSIZE)
		return CPU_SETSIZE;
	return (unsigned int)(allowed / period);
}

/* Over this process's group of the second version and all above it. */
static unsigned int quotas(const char *root)
{
	char path[512], line[512], *slash;
	unsigned int least = quota(root, ""), here;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	if (!read_line(path, line, sizeof(line)) || strncmp(line, "0::/", 4))
		return least;
	while ((slash = strrchr(line + 3, '/')) != NULL) {
		here = quota(root, line + 3);
		least = here < least ? here : least;
		*slash = '\0';
	}
	return least;
}

unsigned int cpus_count(const cpu_set_t *set, const char *root)
{
	const unsigned int n = cores(set, root), most = quotas(root);
	const unsigned int usable = n < most ? n : most;

	return usable ? usable : 1;
}

unsigned int cpus_usable(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	return cpus_count(&set, "");
}
