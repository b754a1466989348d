/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A session's completion ring, as the UAPI header lays it out, and who may map what of it.
 *
 * Mappings belong to a file of the ring's own, not to the session's: a mapping that somebody
 * forgot must not keep a session receiving after its last descriptor was closed. The memory, and
 * with it the module, stays until the last mapping is gone.
 *
 * The module believes nothing that it reads from the consumer's page.
 */
#ifndef LSLM_KMOD_RING_H
#define LSLM_KMOD_RING_H

#include <linux/fs.h>
#include <linux/lslm.h>
#include <linux/types.h>
#include <linux/wait.h>

enum { LSLM_RING_MIN = 64, LSLM_RING_MAX = 65536 };

/* The pages' contents are kept here too, since what user space can map it might read half-way. */
struct lslm_completions {
	struct file *file;
	const struct lslm_ring_consumer *consumer;
	struct lslm_ring *ring;
	struct lslm_done *entries;
	u32 n_entries;
	u64 producer;
	u64 overflows;
	u64 sequence;
	wait_queue_head_t wait;
};

/* What the ring page shows besides its own counters. */
struct lslm_progress {
	u64 received;
	u64 last_counter;
	u64 last_ns;
	u64 placed_bytes;
};

/*
 * n_entries: a power of two, LSLM_RING_MIN to LSLM_RING_MAX. The caller ends it by
 * fput((*out)->file), when nobody can push or poll any more. -ENOMEM, -ENFILE.
 */
int lslm_ring_create(u32 n_entries, struct lslm_completions **out);

/* Both in softirq or with bottom halves off; the caller serialises them. False: it was full. */
bool lslm_ring_push(struct lslm_completions *c, const struct lslm_done *done);
void lslm_ring_progress(struct lslm_completions *c, const struct lslm_progress *progress);

/* Whether there are entries that the consumer has not taken. */
bool lslm_ring_ready(const struct lslm_completions *c);

/* For the mmap of a session descriptor. */
int lslm_ring_mmap(struct lslm_completions *c, struct vm_area_struct *vma);

#endif /* LSLM_KMOD_RING_H */
