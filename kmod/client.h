/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A client is one open of /dev/lslm; what it may allocate, and what all together may.
 *
 * Lifetime: referenced by its open file and by each of its buffers, so that a buffer which was
 * passed on still counts against the open that made it, after that one is closed too.
 *
 * Limits are module parameters, in MiB, 0 for the default, and may be changed at run time in
 * /sys/module/lslm/parameters:
 *   limit_mb       all buffers together; default half of the memory
 *   quota_mb       buffers of one client; default limit_mb
 *   max_buffer_mb  one buffer; default limit_mb
 *   max_buffers    number of all buffers; default 1024
 */
#ifndef LSLM_CLIENT_H
#define LSLM_CLIENT_H

#include <linux/kref.h>
#include <linux/types.h>

struct lslm_client {
	struct kref ref;
	u64 used; /* bytes of its buffers; under usage_lock in client.c */
};

struct lslm_limits {
	u64 limit_bytes;
	u64 quota_bytes;
	u64 max_buffer_bytes;
	u32 max_buffers;
};

struct lslm_usage {
	u64 bytes;
	u64 client_bytes;
	u32 buffers;
};

struct lslm_client *lslm_client_create(void); /* NULL without memory */
void lslm_client_get(struct lslm_client *client);
void lslm_client_put(struct lslm_client *client);

/*
 * Account one buffer of so many bytes. -EFBIG, -EDQUOT, -ENOSPC as lslm_buf_create documents,
 * in this order. Undone by lslm_client_uncharge() with the same number.
 */
int lslm_client_charge(struct lslm_client *client, u64 bytes);
void lslm_client_uncharge(struct lslm_client *client, u64 bytes);

void lslm_limits_get(struct lslm_limits *limits);
void lslm_usage_get(struct lslm_client *client, struct lslm_usage *usage);

#endif /* LSLM_CLIENT_H */
