/* SPDX-License-Identifier: MIT */
/* What every unit test includes: cmocka wants these headers before its own. */
#ifndef LSLM_TESTS_UNIT_H
#define LSLM_TESTS_UNIT_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Fails with the line the callee wrote, which is what one wants to read. */
#define assert_ok(call, err)                                                        \
	do {                                                                        \
		int assert_ok_code = (call);                                        \
		if (assert_ok_code < 0)                                             \
			fail_msg("%s: %d: %s", #call, assert_ok_code, (err)->text); \
	} while (0)

/* A directory of a test's own, with all in it; 0, or what rm said. */
static inline int remove_tree(const char *dir)
{
	char command[4096 + 16];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

#endif
