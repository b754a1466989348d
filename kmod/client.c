// SPDX-License-Identifier: GPL-2.0-only

#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "client.h"
#include "stats.h"

static ulong limit_mb;
module_param(limit_mb, ulong, 0644);
MODULE_PARM_DESC(limit_mb, "MiB of all buffers together (0: half of the memory)");

static ulong quota_mb;
module_param(quota_mb, ulong, 0644);
MODULE_PARM_DESC(quota_mb, "MiB of the buffers made through one open of /dev/lslm (0: limit_mb)");

static ulong max_buffer_mb;
module_param(max_buffer_mb, ulong, 0644);
MODULE_PARM_DESC(max_buffer_mb, "MiB of one buffer (0: limit_mb)");

static uint max_buffers = 1024;
module_param(max_buffers, uint, 0644);
MODULE_PARM_DESC(max_buffers, "number of buffers that may exist at once");

/* Also protects lslm_client.used. Innermost: nothing else is taken under it. */
static DEFINE_SPINLOCK(usage_lock);
static u64 used_bytes;
static u32 used_buffers;

struct lslm_client *lslm_client_create(void)
{
	struct lslm_client *client = kzalloc(sizeof(*client), GFP_KERNEL_ACCOUNT);

	if (client) {
		kref_init(&client->ref);
		atomic64_inc(&lslm_stats.clients);
	}
	return client;
}

void lslm_client_get(struct lslm_client *client)
{
	kref_get(&client->ref);
}

static void client_free(struct kref *ref)
{
	kfree(container_of(ref, struct lslm_client, ref));
	atomic64_dec(&lslm_stats.clients);
}

void lslm_client_put(struct lslm_client *client)
{
	kref_put(&client->ref, client_free);
}

/* No file, hence no buffer, can be larger than MAX_LFS_FILESIZE. */
static u64 mb_or(ulong mb, u64 fallback)
{
	u64 most = round_down((u64)MAX_LFS_FILESIZE, PAGE_SIZE);

	if (!mb)
		return fallback;
	return mb > most >> 20 ? most : (u64)mb << 20;
}

void lslm_limits_get(struct lslm_limits *limits)
{
	u64 half = (u64)totalram_pages() / 2 << PAGE_SHIFT;

	limits->limit_bytes = mb_or(READ_ONCE(limit_mb), half);
	limits->quota_bytes = mb_or(READ_ONCE(quota_mb), limits->limit_bytes);
	limits->max_buffer_bytes = mb_or(READ_ONCE(max_buffer_mb), limits->limit_bytes);
	limits->max_buffers = READ_ONCE(max_buffers);
}

/* A limit may have been lowered below what is used: then there is no room, not a negative one. */
static bool has_room(u64 limit, u64 used, u64 more)
{
	return used <= limit && more <= limit - used;
}

int lslm_client_charge(struct lslm_client *client, u64 bytes)
{
	struct lslm_limits limits;
	int ret = 0;

	lslm_limits_get(&limits);
	spin_lock(&usage_lock);
	if (bytes > limits.max_buffer_bytes) {
		ret = -EFBIG;
	} else if (!has_room(limits.quota_bytes, client->used, bytes)) {
		ret = -EDQUOT;
	} else if (!has_room(limits.limit_bytes, used_bytes, bytes) ||
		   !has_room(limits.max_buffers, used_buffers, 1)) {
		ret = -ENOSPC;
	} else {
		client->used += bytes;
		used_bytes += bytes;
		used_buffers++;
	}
	spin_unlock(&usage_lock);
	if (ret)
		atomic64_inc(&lslm_stats.refused);
	return ret;
}

void lslm_client_uncharge(struct lslm_client *client, u64 bytes)
{
	spin_lock(&usage_lock);
	client->used -= bytes;
	used_bytes -= bytes;
	used_buffers--;
	spin_unlock(&usage_lock);
}

void lslm_usage_get(struct lslm_client *client, struct lslm_usage *usage)
{
	spin_lock(&usage_lock);
	usage->bytes = used_bytes;
	usage->client_bytes = client->used;
	usage->buffers = used_buffers;
	spin_unlock(&usage_lock);
}
