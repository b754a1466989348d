// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"

const char *const load_names[] = { "auto", "read", "map", "pack", NULL };
const char *const backend_names[] = { "auto", "kernel", "memfd", NULL };
const char *const transport_names[] = { "https", "auto", "udp", NULL };

char *default_socket(void)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");
	char *path;

	/* Root's own directory is no place to look for a service. */
	if (!geteuid() || !dir || dir[0] != '/')
		return strdup("/run/lslm/courier");
	return asprintf(&path, "%s/lslm/courier", dir) < 0 ? NULL : path;
}

void progress_show(const char *what, uint64_t done, uint64_t total, const char *unit)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%s %llu/%llu %s (%llu %%) ", what, (unsigned long long)done,
			(unsigned long long)total, unit,
			(unsigned long long)(total ? done * 100 / total : 100));
}

void progress_end(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}
