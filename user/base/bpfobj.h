/* SPDX-License-Identifier: MIT */
/*
 * BPF objects that are linked into the program: loading them, and saying in one line why not.
 *
 * libbpf explains failures on standard error; a library must not. While one of these calls
 * runs, its messages are caught instead (of the whole process: libbpf knows only one
 * receiver), and the first becomes part of the line.
 */
#ifndef LSLM_BASE_BPFOBJ_H
#define LSLM_BASE_BPFOBJ_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct bpf_object;

/*
 * Open and load an object from its file's contents, every program of it. `what` begins the error
 * line, e.g. "eth0" or "steering".
 *
 *   -EPERM  a capability is missing; the line names it. CAP_BPF and CAP_NET_ADMIN are needed
 *   others  the kernel refuses: too old, or the programs ask for what is not there
 */
int bpfobj_load(struct bpf_object **out, const void *elf, size_t size, const char *what,
		struct lslm_error *err);

/* NULL: nothing happens. */
void bpfobj_close(struct bpf_object *obj);

/* Descriptors, owned by the object; the name must be one that it has. */
int bpfobj_map(const struct bpf_object *obj, const char *name);
int bpfobj_program(const struct bpf_object *obj, const char *name);

/* A per-CPU array of n rows of `words` u64 each, summed over the CPUs into sum[n * words]. */
int bpfobj_sum(int map, size_t n, size_t words, uint64_t *sum, struct lslm_error *err);

/* 0, or error_set(-EPERM) with the capabilities that this thread lacks. */
int bpfobj_may_load(const char *what, struct lslm_error *err);

/*
 * For a run of other libbpf calls: catch its messages until bpfobj_loud(), which
 * returns the first (valid until the next call in this thread; "" when there was none).
 * Only one thread at a time is in between; others wait.
 */
void bpfobj_quiet(void);
const char *bpfobj_loud(void);

#endif
