/* SPDX-License-Identifier: MIT */
#include "base/bpfobj.h"

#include <linux/capability.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

static pthread_mutex_t quiet_lock = PTHREAD_MUTEX_INITIALIZER;
static libbpf_print_fn_t loud; /* of the rest of the process; under quiet_lock */
static _Thread_local char said[256];

static int catch_message(enum libbpf_print_level level, const char *fmt, va_list args)
{
	size_t n;

	if (level != LIBBPF_WARN || said[0])
		return 0;
	vsnprintf(said, sizeof(said), fmt, args);
	n = strcspn(said, "\n");
	said[n] = '\0';
	return 0;
}

void bpfobj_quiet(void)
{
	pthread_mutex_lock(&quiet_lock);
	said[0] = '\0';
	loud = libbpf_set_print(catch_message);
}

const char *bpfobj_loud(void)
{
	libbpf_set_print(loud);
	pthread_mutex_unlock(&quiet_lock);
	/* Every message of libbpf's begins so. */
	return strncmp(said, "libbpf: ", 8) ? said : said + 8;
}

static uint64_t capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (syscall(SYS_capget, &head, data))
		return 0;
	return data[0].effective | (uint64_t)data[1].effective << 32;
}

int bpfobj_may_load(const char *what, struct lslm_error *err)
{
	uint64_t have = capabilities();
	bool admin = have >> CAP_SYS_ADMIN & 1;
	bool bpf = admin || have >> CAP_BPF & 1;
	bool net = have >> CAP_NET_ADMIN & 1;

	if (bpf && net)
		return 0;
	return error_set(err, -EPERM,
			 "%s: loading BPF programs needs %s%s%s; run as root or grant it", what,
			 bpf ? "" : "CAP_BPF", bpf || net ? "" : " and ",
			 net ? "" : "CAP_NET_ADMIN");
}

static int refused(int rc, const char *what, const char *message, struct lslm_error *err)
{
	if (rc == -EPERM)
		return error_set(err, rc,
				 "%s: the kernel refuses BPF programs in spite of the capabilities "
				 "(a user namespace, or lockdown)",
				 what);
	if (!message[0])
		return error_sys(err, rc, "%s: cannot load the BPF programs", what);
	return error_sys(err, rc, "%s: cannot load the BPF programs: %s", what, message);
}

int bpfobj_load(struct bpf_object **out, const void *elf, size_t size, const char *what,
		struct lslm_error *err)
{
	struct bpf_object *obj;
	const char *message;
	int rc;

	*out = NULL;
	rc = bpfobj_may_load(what, err);
	if (rc)
		return rc;
	bpfobj_quiet();
	obj = bpf_object__open_mem(elf, size, NULL);
	rc = obj ? bpf_object__load(obj) : -errno;
	message = bpfobj_loud();
	if (rc) {
		bpf_object__close(obj);
		return refused(rc, what, message, err);
	}
	*out = obj;
	return 0;
}

void bpfobj_close(struct bpf_object *obj)
{
	bpf_object__close(obj);
}

int bpfobj_map(const struct bpf_object *obj, const char *name)
{
	return bpf_object__find_map_fd_by_name(obj, name);
}

int bpfobj_program(const struct bpf_object *obj, const char *name)
{
	return bpf_program__fd(bpf_object__find_program_by_name(obj, name));
}

int bpfobj_sum(int map, size_t n, size_t words, uint64_t *sum, struct lslm_error *err)
{
	int rc = 0, cpus = libbpf_num_possible_cpus();
	uint64_t *each;

	if (cpus < 0)
		return error_sys(err, cpus, "cannot tell the number of CPUs");
	each = calloc((size_t)cpus * words, sizeof(*each));
	if (!each)
		return error_set(err, -ENOMEM, "no memory for BPF counters");
	memset(sum, 0, n * words * sizeof(*sum));
	for (uint32_t row = 0; row < n && !rc; row++) {
		rc = bpf_map_lookup_elem(map, &row, each);
		for (size_t i = 0; i < (size_t)cpus * words && !rc; i++)
			sum[row * words + i % words] += each[i];
	}
	free(each);
	return rc ? error_sys(err, rc, "cannot read BPF counters") : 0;
}
