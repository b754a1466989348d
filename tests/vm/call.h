/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What call.bpf.c and kfunc_test.c share. */
#ifndef TESTS_VM_CALL_H
#define TESTS_VM_CALL_H

#include <linux/lslm.h>

struct call {
	__u32 session;
	__u32 offset;
	struct lslm_place place;
	__u32 small; /* pass 4 as the size of place, not 8 */
	__s32 answer;
};

#endif
