// SPDX-License-Identifier: MIT
/* Buffers of the module: thin calls of include/uapi/linux/lslm.h. */
#include <stdio.h>
#include <string.h>

#include "base/device.h"
#include "kv/buffer_backend.h"

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

static int probe(char reason[BUFFER_REASON_BYTES])
{
	int device = device_get();

	snprintf(reason, BUFFER_REASON_BYTES, "%s", device_reason());
	return device < 0 ? device : 0;
}

static uint32_t features(void)
{
	uint32_t on = 0;

	for (size_t i = 0; i < sizeof(feature_map) / sizeof(feature_map[0]); i++)
		if (device_info()->out_features >> feature_map[i].of & 1)
			on |= feature_map[i].bit;
	return on;
}

static const char *feature_reason(enum buffer_feature bit)
{
	for (size_t i = 0; i < sizeof(feature_map) / sizeof(feature_map[0]); i++)
		if (feature_map[i].bit == bit)
			return device_off_reason(feature_map[i].of);
	return "unknown feature";
}

static int refused(struct lslm_error *err, int ret, size_t size)
{
	switch (ret) {
	case -EDQUOT:
		return error_set(err, ret,
				 "buffer: %zu bytes are over this process's quota of %llu (module "
				 "parameter)",
				 size, (unsigned long long)device_info()->out_quota_bytes);
	case -ENOSPC:
		return error_set(err, ret,
				 "buffer: %zu bytes are over the limit of all buffers together, "
				 "%llu (module parameter)",
				 size, (unsigned long long)device_info()->out_limit_bytes);
	case -EFBIG:
		return error_set(err, ret,
				 "buffer: %zu bytes are more than one buffer may have, %llu "
				 "(module parameter)",
				 size, (unsigned long long)device_info()->out_max_buffer_bytes);
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
	int ret = device_call(device_get(), LSLM_BUF_CREATE, &arg);

	/* Ordinary pages then; query says why. */
	if (ret == -EOPNOTSUPP && arg.flags) {
		arg.flags = 0;
		ret = device_call(device_get(), LSLM_BUF_CREATE, &arg);
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
	return device_call(b->fd, LSLM_QUERY, q);
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
	int ret = device_call(b->fd, LSLM_RELEASE, &arg);

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
	int ret = device_call(b->fd, LSLM_BUF_RO_FD, &arg);

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
	if (b->asked_huge && q.out_page_size != device_info()->out_huge_page_size)
		info->page_reason = "the module found too few free 2 MiB pages";
	if (b->asked_huge && !(features() & BUFFER_FEAT_HUGE))
		info->page_reason = feature_reason(BUFFER_FEAT_HUGE);
	return 0;
}

static int hold(struct buffer *b, bool *retained, uint64_t *generation, struct lslm_error *err)
{
	struct lslm_hold arg = { .size = sizeof(arg) };
	int ret = device_call(b->fd, LSLM_HOLD, &arg);

	if (ret)
		return error_sys(err, ret, "buffer: cannot take a hold");
	*retained = arg.out_retained;
	*generation = arg.out_generation;
	return 0;
}

static int purgeable(struct buffer *b, struct lslm_error *err)
{
	struct lslm_purgeable arg = { .size = sizeof(arg) };
	int ret = device_call(b->fd, LSLM_PURGEABLE, &arg);

	return ret ? error_sys(err, ret, "buffer: cannot be made purgeable") : 0;
}

static int will_need(struct buffer *b, bool *retained, uint64_t *generation, struct lslm_error *err)
{
	struct lslm_will_need arg = { .size = sizeof(arg) };
	int ret = device_call(b->fd, LSLM_WILL_NEED, &arg);

	if (ret)
		return error_sys(err, ret, "buffer: cannot get its pages back");
	*retained = arg.out_retained;
	*generation = arg.out_generation;
	return 0;
}

static int purge(struct buffer *b, uint64_t *generation, struct lslm_error *err)
{
	struct lslm_purge arg = { .size = sizeof(arg) };
	int ret = device_call(b->fd, LSLM_PURGE, &arg);

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
