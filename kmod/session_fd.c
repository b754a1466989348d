// SPDX-License-Identifier: GPL-2.0-only

#include <linux/anon_inodes.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "ioctl.h"
#include "ring.h"
#include "session.h"
#include "session_fd.h"

enum { MAX_RANGES = 1024 };

static int call_key(struct lslm_call *call)
{
	return lslm_session_set_key(call->file->private_data, (void *)call->arg);
}

static int call_bind(struct lslm_call *call)
{
	return lslm_session_bind(call->file->private_data, (void *)call->arg);
}

static int call_unbind(struct lslm_call *call)
{
	struct lslm_region_unbind *arg = (void *)call->arg;

	return lslm_session_unbind(call->file->private_data, arg->slot);
}

static int call_missing(struct lslm_call *call)
{
	struct lslm_region_missing *arg = (void *)call->arg;
	struct lslm_range *ranges;
	int ret;

	if (!arg->max_ranges || arg->max_ranges > MAX_RANGES)
		return -EINVAL;
	ranges = kmalloc_array(arg->max_ranges, sizeof(*ranges), GFP_KERNEL);
	if (!ranges)
		return -ENOMEM;
	ret = lslm_session_missing(call->file->private_data, arg, ranges);
	if (!ret &&
	    copy_to_user(u64_to_user_ptr(arg->ranges), ranges, arg->out_ranges * sizeof(*ranges)))
		ret = -EFAULT;
	kfree(ranges);
	return ret;
}

static int call_stats(struct lslm_call *call)
{
	struct lslm_session *session = call->file->private_data;
	struct lslm_session_stats *arg = (void *)call->arg;
	struct lslm_session_state state;

	BUILD_BUG_ON(sizeof(state.drops) > sizeof(arg->out_drops));
	lslm_session_state(session, &state);
	arg->size = call->filled;
	arg->out_session = session->number;
	arg->out_regions = state.n_regions;
	arg->out_received = state.received;
	arg->out_placed = state.placed_packets;
	arg->out_placed_bytes = state.placed_bytes;
	arg->out_units = state.units_done;
	arg->out_overflows = state.overflows;
	arg->out_by_encap = state.via[LSLM_VIA_ENCAP];
	arg->out_by_tc = state.via[LSLM_VIA_TC];
	arg->out_by_xdp = state.via[LSLM_VIA_XDP];
	arg->out_passed = state.passed;
	memset(arg->out_drops, 0, sizeof(arg->out_drops));
	memcpy(arg->out_drops, state.drops, sizeof(state.drops));
	return 0;
}

#define SESSION_ROW(_cmd) (LSLM_CMD_##_cmd - LSLM_CMD_SESSION_KEY)

static const struct lslm_ioctl session_ioctls[] = {
	[SESSION_ROW(SESSION_KEY)] =
		LSLM_IOCTL(call_key, lslm_session_key, __reserved, .silent = true,
			   .reserved = offsetof(struct lslm_session_key, __reserved)),
	[SESSION_ROW(REGION_BIND)] = LSLM_IOCTL(call_bind, lslm_region_bind, out_chunks),
	[SESSION_ROW(REGION_UNBIND)] =
		LSLM_IOCTL(call_unbind, lslm_region_unbind, __reserved, .silent = true,
			   .reserved = offsetof(struct lslm_region_unbind, __reserved)),
	[SESSION_ROW(REGION_MISSING)] = LSLM_IOCTL(call_missing, lslm_region_missing, out_missing),
	[SESSION_ROW(SESSION_STATS)] = LSLM_IOCTL(call_stats, lslm_session_stats, out_drops),
};

static long session_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return lslm_ioctl_dispatch(file, session_ioctls, LSLM_CMD_SESSION_KEY,
				   ARRAY_SIZE(session_ioctls), cmd, arg);
}

static int session_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct lslm_session *session = file->private_data;

	return lslm_ring_mmap(session->ring, vma);
}

static __poll_t session_poll(struct file *file, poll_table *wait)
{
	struct lslm_session *session = file->private_data;

	poll_wait(file, &session->ring->wait, wait);
	/* Pairs with wq_has_sleeper(); poll_wait() has it only on newer kernels. */
	smp_mb();
	return lslm_ring_ready(session->ring) ? EPOLLIN | EPOLLRDNORM : 0;
}

static void session_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct lslm_session *session = file->private_data;
	struct lslm_session_state state;
	enum lslm_drop i;

	lslm_session_state(session, &state);
	seq_printf(m, "lslm-session:\t%u\n", session->number);
	seq_printf(m, "lslm-netns:\t%u\n", session->netns);
	seq_printf(m, "lslm-regions:\t%u\n", state.n_regions);
	seq_printf(m, "lslm-received:\t%llu\n", state.received);
	seq_printf(m, "lslm-placed:\t%llu\n", state.placed_packets);
	seq_printf(m, "lslm-placed-bytes:\t%llu\n", state.placed_bytes);
	seq_printf(m, "lslm-units:\t%llu\n", state.units_done);
	seq_printf(m, "lslm-overflows:\t%llu\n", state.overflows);
	seq_printf(m, "lslm-by-encap:\t%llu\n", state.via[LSLM_VIA_ENCAP]);
	seq_printf(m, "lslm-by-tc:\t%llu\n", state.via[LSLM_VIA_TC]);
	seq_printf(m, "lslm-by-xdp:\t%llu\n", state.via[LSLM_VIA_XDP]);
	seq_printf(m, "lslm-passed:\t%llu\n", state.passed);
	for (i = LSLM_DROP_NONE + 1; i < LSLM_DROP_COUNT; i++)
		seq_printf(m, "lslm-drop-%s:\t%llu\n", lslm_drop_name(i), state.drops[i]);
}

static int session_release(struct inode *inode, struct file *file)
{
	lslm_session_destroy(file->private_data);
	return 0;
}

static const struct file_operations session_fops = {
	.owner = THIS_MODULE,
	.release = session_release,
	.unlocked_ioctl = session_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = session_mmap,
	.poll = session_poll,
	.show_fdinfo = session_show_fdinfo,
};

struct file *lslm_session_file(struct lslm_session *session)
{
	struct file *file = anon_inode_getfile("[lslm-session]", &session_fops, session, O_RDWR);

	if (IS_ERR(file))
		lslm_session_destroy(session);
	return file;
}
