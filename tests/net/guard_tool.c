/* SPDX-License-Identifier: MIT */
/*
 * The egress guard by hand, for tests.
 *
 * guard_tool CGROUP PORT...           guard it: prints "ready"; a line on standard input is
 *                                     answered with NAME=COUNT ...; ends with standard input
 * guard_tool enter CGROUP COMMAND...  enter it and run the command
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "serve/guard.h"

static int fail(const struct lslm_error *err)
{
	fprintf(stderr, "lslm: %s\n", err->text);
	return 1;
}

static int enter(char **argv)
{
	struct lslm_error err;

	if (guard_enter(argv[0], &err))
		return fail(&err);
	execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 127;
}

static int report(const struct guard *g, struct lslm_error *err)
{
	uint64_t c[GUARD_COUNTERS];
	int rc = guard_stats(g, c, err);

	for (int i = 0; i < GUARD_COUNTERS && !rc; i++) {
		if (c[i])
			printf("%s=%llu ", guard_reason_name(i), (unsigned long long)c[i]);
	}
	puts("");
	return rc;
}

int main(int argc, char **argv)
{
	uint16_t ports[GUARD_PORTS + 1];
	struct lslm_error err;
	struct guard *g;
	size_t n = 0;
	int c, rc = 0;

	if (argc >= 4 && !strcmp(argv[1], "enter"))
		return enter(argv + 2);
	if (argc < 2 || argc > GUARD_PORTS + 3) {
		fprintf(stderr, "usage: guard_tool CGROUP PORT... | enter CGROUP COMMAND...\n");
		return 2;
	}
	for (int i = 2; i < argc; i++)
		ports[n++] = (uint16_t)atoi(argv[i]);
	if (guard_open(&g, argv[1], ports, n, &err))
		return fail(&err);
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (!rc && (c = getchar()) != EOF) {
		if (c == '\n')
			rc = report(g, &err);
	}
	guard_close(g);
	return rc ? fail(&err) : 0;
}
