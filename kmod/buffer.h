/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Buffers: their state, holds and purges. Descriptors are buffer_fd.c, pages are backing.c.
 *
 * Who keeps whom alive:
 *
 *   buffer descriptor --> struct file --> lslm_handle --> backing file --> lslm_buffer
 *   user mapping ----------------------------------------^                  --> lslm_client
 *
 * The backing file's reference count is the buffer's: a handle holds one reference, each mapping
 * one. When it drops to zero the buffer ends (buffer_gone() in buffer.c). lslm_buffer.ref only
 * keeps the structure, for a shrinker that is looking at it at that moment.
 *
 * Why a purge never takes contents from under a holder:
 *  1. A purge runs wholly under buffer->lock, from looking at `holds` to the last page freed.
 *  2. A hold is taken under buffer->lock. So it comes before that look, and then the purge does
 *     not happen; or after the last page was freed, and then the holder is told the new
 *     generation and retained = 0. Nobody can begin to refill while pages are still going.
 *  3. A reader without a hold may see its mapping turn to zeroes half-way, never anybody else's
 *     data: pages are unmapped before they are freed.
 *  4. LSLM_WILL_NEED allocates for long, so it does not keep the lock; `pinned` stands in for a
 *     hold meanwhile.
 *
 * Why a refill that fails takes no contents: it frees the pages that it has added, and until a
 * refill has succeeded the buffer is lost, and promises nothing. `refilling` keeps a second one
 * from succeeding, with pages that the first one added, while the first one fails.
 *
 * Lock order: refilling or registry_lock, then buffer->lock, then idle_lock. Memory is allocated
 * under refilling only, except that seq_file has done so before registry_lock. Reclaim only ever
 * *tries* buffer->lock, with idle_lock held, and takes neither of the first two.
 */
#ifndef LSLM_BUFFER_H
#define LSLM_BUFFER_H

#include <linux/kref.h>
#include <linux/list.h>
#include <linux/lslm.h>
#include <linux/mutex.h>

#include "backing.h"

struct lslm_client;

struct lslm_buffer {
	/* Set before anybody else can see the buffer. */
	struct kref ref;
	struct lslm_backing backing;
	struct lslm_client *client;
	u64 id;
	u64 bytes;
	u32 flags; /* LSLM_BUF_HUGE */

	struct mutex refilling; /* held while pages are given anew */
	struct mutex lock; /* protects what follows, down to lost */
	u64 generation; /* from 1 */
	u64 holds; /* of all handles */
	u64 huge_bytes;
	bool pinned; /* a refill is under way: as good as a hold, not counted as such */
	bool purgeable;
	bool lost; /* purged since the last will-need */

	/*
	 * In the idle list exactly when purgeable, unheld and unpinned. Changed under lock and
	 * idle_lock, except that the shrinker, under idle_lock, moves it between lists.
	 */
	struct list_head idle;

	struct list_head all; /* under registry_lock */
};

/* One open file description of a buffer. */
struct lslm_handle {
	struct lslm_buffer *buffer;
	u32 holds; /* its share of buffer->holds; under buffer->lock */
};

enum { LSLM_MAX_HOLDS = 65536 };

/* What is true at one instant. */
struct lslm_buffer_state {
	u64 generation;
	u64 holds;
	u64 resident_bytes;
	u64 huge_bytes;
	u32 flags; /* HUGE, PURGEABLE, RETAINED */
};

/*
 * A new populated buffer; bytes is whole pages. Errors as lslm_buf_create. The caller gets the
 * first reference to (*out)->backing.file, and ends the buffer by dropping it.
 */
int lslm_buffer_create(struct lslm_client *client, u64 bytes, u32 flags, struct lslm_buffer **out);

/* -EINTR from any of these: a fatal signal while waiting for a purge, or refilling, to end. */
int lslm_buffer_hold(struct lslm_handle *handle, bool *retained, u64 *generation);
int lslm_buffer_release(struct lslm_handle *handle);
int lslm_buffer_purgeable(struct lslm_buffer *buffer);
int lslm_buffer_will_need(struct lslm_buffer *buffer, bool *retained, u64 *generation);
int lslm_buffer_purge(struct lslm_buffer *buffer, u64 *generation);

/* The last close: ends all holds of the handle. */
void lslm_buffer_release_all(struct lslm_handle *handle);

void lslm_buffer_state(struct lslm_buffer *buffer, struct lslm_buffer_state *state);

/* LSLM_BUF_HUGE's page size when every whole huge page of the buffer was given, else PAGE_SIZE. */
u32 lslm_buffer_page_size(const struct lslm_buffer *buffer, u64 huge_bytes);

/* For the shrinker: pages that idle buffers have, and purging the idlest until that many went. */
unsigned long lslm_buffer_idle_pages(void);
unsigned long lslm_buffer_purge_idle(unsigned long pages);

/* Call fn for every buffer, with registry_lock held. */
void lslm_buffer_for_each(void (*fn)(struct lslm_buffer *buffer, void *arg), void *arg);

#endif /* LSLM_BUFFER_H */
