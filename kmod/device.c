// SPDX-License-Identifier: GPL-2.0-only

#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/huge_mm.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#include "buffer.h"
#include "buffer_fd.h"
#include "client.h"
#include "device.h"
#include "feature.h"
#include "ioctl.h"
#include "session.h"
#include "session_fd.h"
#include "stats.h"
#include "version.h"

static void fill_features(struct lslm_get_info *arg)
{
	enum lslm_feature i;

	arg->out_features = 0;
	memset(arg->out_off, 0, sizeof(arg->out_off));
	for (i = 0; i < LSLM_FEATURE_COUNT; i++) {
		if (lslm_feature_on(i))
			arg->out_features |= BIT_ULL(i);
		else
			arg->out_off[i] = lslm_feature_off(i);
	}
	arg->out_huge_page_size = 0;
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	if (lslm_feature_on(LSLM_FEATURE_HUGE))
		arg->out_huge_page_size = HPAGE_PMD_SIZE;
#endif
}

static int call_get_info(struct lslm_call *call)
{
	struct lslm_get_info *arg = (void *)call->arg;
	struct lslm_limits limits;
	struct lslm_usage usage;

	lslm_limits_get(&limits);
	lslm_usage_get(call->file->private_data, &usage);
	arg->size = call->filled;
	fill_features(arg);
	arg->out_version[0] = LSLM_VERSION_MAJOR;
	arg->out_version[1] = LSLM_VERSION_MINOR;
	arg->out_version[2] = LSLM_VERSION_PATCH;
	arg->out_max_buffers = limits.max_buffers;
	arg->out_max_buffer_bytes = limits.max_buffer_bytes;
	arg->out_limit_bytes = limits.limit_bytes;
	arg->out_quota_bytes = limits.quota_bytes;
	arg->out_used_bytes = usage.bytes;
	arg->out_quota_used_bytes = usage.client_bytes;
	arg->out_used_buffers = usage.buffers;
	arg->out_max_holds = LSLM_MAX_HOLDS;
	arg->out_page_size = PAGE_SIZE;
	return 0;
}

static int call_get_stats(struct lslm_call *call)
{
	struct lslm_get_stats *arg = (void *)call->arg;

	arg->size = call->filled;
	lslm_stats_get(arg);
	return 0;
}

static int call_buf_create(struct lslm_call *call)
{
	struct lslm_buf_create *arg = (void *)call->arg;
	struct lslm_buffer *buffer;
	struct file *file;
	u64 bytes;
	int ret;

	if ((arg->flags & LSLM_BUF_HUGE) && !lslm_feature_on(LSLM_FEATURE_HUGE))
		return -EOPNOTSUPP;
	if (!arg->bytes)
		return -EINVAL;
	/* Rounding must not wrap, and more than a file can have is beyond every limit. */
	bytes = PAGE_ALIGN(min_t(u64, arg->bytes, MAX_LFS_FILESIZE));

	ret = lslm_buffer_create(call->file->private_data, bytes, arg->flags, &buffer);
	if (ret)
		return ret;
	arg->out_bytes = buffer->bytes;
	arg->out_id = buffer->id;
	file = lslm_buffer_file(buffer, true);
	/* The file has its own reference. Without it this ends the buffer. */
	fput(buffer->backing.file);
	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = lslm_call_return_file(call, file);
	if (ret < 0)
		return ret;
	arg->out_fd = ret;
	return 0;
}

static int call_session_create(struct lslm_call *call)
{
	struct lslm_session_create *arg = (void *)call->arg;
	struct lslm_session *session;
	struct file *file;
	int ret;

	ret = lslm_session_create(arg, &session);
	if (ret)
		return ret;
	arg->out_session = session->number;
	file = lslm_session_file(session);
	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = lslm_call_return_file(call, file);
	if (ret < 0)
		return ret;
	arg->out_fd = ret;
	return 0;
}

static const struct lslm_ioctl device_ioctls[] = {
	[LSLM_CMD_GET_INFO] = LSLM_IOCTL(call_get_info, lslm_get_info, out_huge_page_size),
	[LSLM_CMD_GET_STATS] = LSLM_IOCTL(call_get_stats, lslm_get_stats, out_purged_bytes),
	[LSLM_CMD_BUF_CREATE] = LSLM_IOCTL(call_buf_create, lslm_buf_create, __reserved,
					   .reserved = offsetof(struct lslm_buf_create, __reserved),
					   .valid_flags = LSLM_BUF_CREATE_VALID),
	[LSLM_CMD_SESSION_CREATE] =
		LSLM_IOCTL(call_session_create, lslm_session_create, __reserved,
			   .reserved = offsetof(struct lslm_session_create, __reserved)),
};

static long device_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return lslm_ioctl_dispatch(file, device_ioctls, LSLM_CMD_GET_INFO,
				   ARRAY_SIZE(device_ioctls), cmd, arg);
}

static int device_open(struct inode *inode, struct file *file)
{
	struct lslm_client *client = lslm_client_create();

	if (!client)
		return -ENOMEM;
	file->private_data = client;
	return nonseekable_open(inode, file);
}

static int device_release(struct inode *inode, struct file *file)
{
	lslm_client_put(file->private_data);
	return 0;
}

static void device_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct lslm_limits limits;
	struct lslm_usage usage;

	lslm_limits_get(&limits);
	lslm_usage_get(file->private_data, &usage);
	seq_printf(m, "lslm-quota-bytes:\t%llu\n", limits.quota_bytes);
	seq_printf(m, "lslm-used-bytes:\t%llu\n", usage.client_bytes);
}

static const struct file_operations device_fops = {
	.owner = THIS_MODULE,
	.open = device_open,
	.release = device_release,
	.unlocked_ioctl = device_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.show_fdinfo = device_show_fdinfo,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "lslm",
	.fops = &device_fops,
	.mode = 0660,
};

int __init lslm_device_init(void)
{
	return misc_register(&device);
}

void lslm_device_exit(void)
{
	misc_deregister(&device);
}
