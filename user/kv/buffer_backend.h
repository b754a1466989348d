/* SPDX-License-Identifier: MIT */
/*
 * What a backend of kv/buffer.h provides. Private to user/kv/buffer*.c.
 *
 * buffer.c owns struct buffer, its descriptor and the mapping of its data; a backend
 * says what the descriptor means. Every operation may assume that arguments were checked
 * and, where it needs write access, that `writable` is true.
 */
#ifndef LSLM_KV_BUFFER_BACKEND_H
#define LSLM_KV_BUFFER_BACKEND_H

#include "kv/buffer.h"

enum { BUFFER_REASON_BYTES = 160 };

struct buffer {
	const struct buffer_ops *ops;
	int fd;
	bool writable;
	void *map;
	size_t size;
	uint32_t nest; /* holds taken through this struct */
	bool asked_huge; /* kernel backend: at creation */
	/* Of the memfd backend only. */
	struct memfd_tail *tail;
	size_t tail_bytes;
	int64_t hold_start; /* first byte of this struct's own range of hold locks */
};

struct buffer_ops {
	/* 0 and what answers, or -errno and why not. */
	int (*probe)(char reason[BUFFER_REASON_BYTES]);
	uint32_t (*features)(void);
	const char *(*feature_reason)(enum buffer_feature bit);
	/* Sets fd, size, writable and maps; size is a non-zero multiple of the page size. */
	int (*create)(struct buffer *b, size_t size, unsigned int flags, struct lslm_error *err);
	/* b->fd is set; -EBADF when it is not of this backend. */
	int (*import)(struct buffer *b, struct lslm_error *err);
	void (*forget)(struct buffer *b); /* before unmapping and closing */
	int (*ro_fd)(struct buffer *b, struct lslm_error *err);
	int (*query)(struct buffer *b, struct buffer_info *info, struct lslm_error *err);
	int (*hold)(struct buffer *b, bool *retained, uint64_t *generation, struct lslm_error *err);
	int (*release)(struct buffer *b, struct lslm_error *err);
	int (*purgeable)(struct buffer *b, struct lslm_error *err);
	int (*will_need)(struct buffer *b, bool *retained, uint64_t *generation,
			 struct lslm_error *err);
	int (*purge)(struct buffer *b, uint64_t *generation, struct lslm_error *err);
};

extern const struct buffer_ops buffer_memfd_ops;
extern const struct buffer_ops buffer_kernel_ops;

/*
 * Map b->size bytes of b->fd as b->writable allows, aligned for 2 MiB pages when there is
 * room for one: the kernel maps a huge page by one entry only where both sides are.
 */
int buffer_map(struct buffer *b, struct lslm_error *err);

#endif
