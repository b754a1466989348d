// SPDX-License-Identifier: MIT
/*
 * Buffers of the module: thin calls of include/uapi/linux/lslm.h.
 *
 * /dev/lslm is opened once per process, because the quota is counted per open, and stays open:
 * its answers (version, features) are what buffer_backend_reason() reports.
 */
#include <fcntl.h>
#include <linux/lslm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kv/buffer_backend.h"

static int device = -1;
static struct lslm_get_info module;

static const struct {
	enum buffer_feature bit;
	enum lslm_feature of;
} feature_map[] = {
	{ BUFFER_FEAT_RO_FD, LSLM_FEATURE_RO_FD },
	{ BUFFER_FEAT_HOLD, LSLM_FEATURE_HOLD },
	{ BUFFER_FEAT_PURGE, LSLM_FEATURE_PURGE },
	{ BUFFER_FEAT_SHRINKER, LSLM_FEATURE_SHRINKER },
	{ BUFFER_FEAT_QUOTA, LSLM_FEATURE_QUOTA },
	{ BUFFER_FEAT_HUGE, LSLM_FEATURE_HUGE },
	{ BUFFER_FEAT_CROSS_PROCESS_HOLD, LSLM_FEATURE_HOLD },
	{ BUFFER_FEAT_RO_STRICT, LSLM_FEATURE_RO_FD },
};

static const char *off_text(uint8_t off)
{
	switch (off) {
	case LSLM_OFF_PARAM:
		return "turned off by a parameter of the module";
	case LSLM_OFF_KERNEL:
		return "this kernel was built without what it takes";
	case LSLM_OFF_MOUNT:
		return "the module could not mount its tmpfs with huge pages";
	case LSLM_OFF_NO_BTF:
		return "the module was built without BTF";
	default:
		return "the module does not have it";
	}
}

static int call(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) < 0 ? -errno : 0;
}

static int probe(char reason[BUFFER_REASON_BYTES])
{
	int ret;

	device = open(LSLM_DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0) {
		ret = -errno;
		snprintf(reason, BUFFER_REASON_BYTES, "%s: %s%s", LSLM_DEVICE, strerror(-ret),
			 ret == -ENOENT ? " (the module is not loaded)" : "");
		return ret;
	}
	module.size = sizeof(module);
	ret = call(device, LSLM_GET_INFO, &module);
	if (ret) {
		snprintf(reason, BUFFER_REASON_BYTES, "%s: %s", LSLM_DEVICE, strerror(-ret));
		close(device);
		device = -1;
		return ret;
	}
	snprintf(reason, BUFFER_REASON_BYTES, "%s, module %u.%u.%u", LSLM_DEVICE,
		 module.out_version[0], module.out_version[1], module.out_version[2]);
	return 0;
}

static uint32_t features(void)
{
	uint32_t on = 0;

	for (size_t i = 0; i < sizeof(feature_map) / sizeof(feature_map[0]); i++)
		if (module.out_features >> feature_map[i].of & 1)
			on |= feature_map[i].bit;
	return on;
}

static const char *feature_reason(enum buffer_feature bit)
{
	for (size_t i = 0; i < sizeof(feature_map) / sizeof(feature_map[0]); i++)
		if (feature_map[i].bit == bit)
			return off_text(module.out_off[feature_map[i].of]);
	return "unknown feature";
}

static int refused(struct lslm_error *err, int ret, size_t size)
{
	switch (ret) {
	case -EDQUOT:
		return error_set(err, ret,
				 "buffer: %zu bytes are over this process's quota of %llu (module "
				 "parameter)",
				 size, (unsigned long long)module.out_quota_bytes);
	case -ENOSPC:
		return error_set(err, ret,
				 "buffer: %zu bytes are over the limit of all buffers together, "
				 "%llu (module parameter)",
				 size, (unsigned long long)module.out_limit_bytes);
	case -EFBIG:
		return error_set(err, ret,
				 "buffer: %zu bytes are more than one buffer may have, %llu "
				 "(module parameter)",
				 size, (unsigned long long)module.out_max_buffer_bytes);
	default:
		return error_sys(err, ret, "buffer: cannot create %zu bytes in the kernel", size);
	}
}

static int create(struct buffer *b, size_t size, unsigned int flags, struct lslm_error *err)
{
	struct lslm_buf_create arg = {
		.size = sizeof(arg),
		.flags = flags & BUFFER_HUGE ? LSLM_BUF_HUGE : 0,
		.bytes = size,
	};
	int ret = call(device, LSLM_BUF_CREATE, &arg);

	/* Ordinary pages then; query says why. */
	if (ret == -EOPNOTSUPP && arg.flags) {
		arg.flags = 0;
		ret = call(device, LSLM_BUF_CREATE, &arg);
	}
	if (ret)
		return refused(err, ret, size);
	b->fd = arg.out_fd;
	b->size = arg.out_bytes;
	b->writable = true;
	b->asked_huge = flags & BUFFER_HUGE;
	return buffer_map(b, err);
}

static int ask(const struct buffer *b, struct lslm_query *q)
{
	memset(q, 0, sizeof(*q));
	q->size = sizeof(*q);
	return call(b->fd, LSLM_QUERY, q);
}

static int import_kernel(struct buffer *b, struct lslm_error *err)
{
	struct lslm_query q;

	if (ask(b, &q))
		return error_set(err, -EBADF, "descriptor %d is no buffer", b->fd);
	b->size = q.out_bytes;
	b->writable = q.out_flags & LSLM_BUF_WRITABLE;
	return buffer_map(b, err);
}

static int release(struct buffer *b, struct lslm_error *err)
{
	struct lslm_release arg = { .size = sizeof(arg) };
	int ret = call(b->fd, LSLM_RELEASE, &arg);

	return ret ? error_sys(err, ret, "buffer: cannot release a hold") : 0;
}

static void forget(struct buffer *b)
{
	/* The description may live on in another process, and the holds with it. */
	while (b->nest && !release(b, NULL))
		b->nest--;
}

static int ro_fd(struct buffer *b, struct lslm_error *err)
{
	struct lslm_buf_ro_fd arg = { .size = sizeof(arg) };
	int ret = call(b->fd, LSLM_BUF_RO_FD, &arg);

	return ret ? error_sys(err, ret, "buffer: cannot make a read-only descriptor") : arg.out_fd;
}

static int query(struct buffer *b, struct buffer_info *info, struct lslm_error *err)
{
	struct lslm_query q;
	int ret = ask(b, &q);

	if (ret)
		return error_sys(err, ret, "buffer: cannot query");
	*info = (struct buffer_info){
		.backend = BUFFER_KERNEL,
		.id = q.out_id,
		.generation = q.out_generation,
		.size = q.out_bytes,
		.page_size = q.out_page_size,
		.writable = q.out_flags & LSLM_BUF_WRITABLE,
		.purgeable = q.out_flags & LSLM_BUF_PURGEABLE,
		.retained = q.out_flags & LSLM_BUF_RETAINED,
		.holds = (uint32_t)q.out_holds,
		.page_reason = "",
	};
	if (b->asked_huge && q.out_page_size != module.out_huge_page_size)
		info->page_reason = "the module found too few free 2 MiB pages";
	if (b->asked_huge && !(features() & BUFFER_FEAT_HUGE))
		info->page_reason = feature_reason(BUFFER_FEAT_HUGE);
	return 0;
}

static int hold(struct buffer *b, bool *retained, uint64_t *generation, struct lslm_error *err)
{
	struct lslm_hold arg = { .size = sizeof(arg) };
	int ret = call(b->fd, LSLM_HOLD, &arg);

	if (ret)
		return error_sys(err, ret, "buffer: cannot take a hold");
	*retained = arg.out_retained;
	*generation = arg.out_generation;
	return 0;
}

static int purgeable(struct buffer *b, struct lslm_error *err)
{
	struct lslm_purgeable arg = { .size = sizeof(arg) };
	int ret = call(b->fd, LSLM_PURGEABLE, &arg);

	return ret ? error_sys(err, ret, "buffer: cannot be made purgeable") : 0;
}

static int will_need(struct buffer *b, bool *retained, uint64_t *generation, struct lslm_error *err)
{
	struct lslm_will_need arg = { .size = sizeof(arg) };
	int ret = call(b->fd, LSLM_WILL_NEED, &arg);

	if (ret)
		return error_sys(err, ret, "buffer: cannot get its pages back");
	*retained = arg.out_retained;
	*generation = arg.out_generation;
	return 0;
}

static int purge(struct buffer *b, uint64_t *generation, struct lslm_error *err)
{
	struct lslm_purge arg = { .size = sizeof(arg) };
	int ret = call(b->fd, LSLM_PURGE, &arg);

	if (ret == -EBUSY)
		return error_set(err, ret, "buffer: it is held, and cannot be purged");
	if (ret)
		return error_sys(err, ret, "buffer: cannot be purged");
	*generation = arg.out_generation;
	return 0;
}

const struct buffer_ops buffer_kernel_ops = {
	.probe = probe,
	.features = features,
	.feature_reason = feature_reason,
	.create = create,
	.import = import_kernel,
	.forget = forget,
	.ro_fd = ro_fd,
	.query = query,
	.hold = hold,
	.release = release,
	.purgeable = purgeable,
	.will_need = will_need,
	.purge = purge,
};
