// SPDX-License-Identifier: GPL-2.0-only

#include <linux/file.h>
#include <linux/huge_mm.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "buffer.h"
#include "client.h"
#include "stats.h"
#include "trace.h"

static atomic64_t last_id;

static DEFINE_MUTEX(registry_lock);
static LIST_HEAD(registry);

static DEFINE_SPINLOCK(idle_lock);
static LIST_HEAD(idle_list); /* the longest idle first */

static void buffer_free(struct kref *ref)
{
	kfree(container_of(ref, struct lslm_buffer, ref));
}

static void buffer_put(struct lslm_buffer *buffer)
{
	kref_put(&buffer->ref, buffer_free);
}

/* To be called after each change of purgeable, holds or pinned. */
static void update_idle(struct lslm_buffer *buffer)
{
	bool is_idle = buffer->purgeable && !buffer->holds && !buffer->pinned;

	lockdep_assert_held(&buffer->lock);
	spin_lock(&idle_lock);
	if (is_idle && list_empty(&buffer->idle))
		list_add_tail(&buffer->idle, &idle_list);
	else if (!is_idle)
		list_del_init(&buffer->idle);
	spin_unlock(&idle_lock);
}

/*
 * The last mapping and descriptor are gone; why nobody uses the buffer after this:
 *  1. Handles have dropped their references, so no call is running on it, and none can come.
 *  2. A shrinker finds it through idle_list only, under idle_lock, and has taken buffer->lock
 *     and a reference to the structure before it lets go of idle_lock. Either it did so before
 *     we take buffer->lock, and we wait until it has done with the pages; or it finds the list
 *     without us.
 *  3. Its mutex_unlock() may touch the lock after we got it, hence the reference.
 */
static void buffer_gone(struct lslm_backing *backing)
{
	struct lslm_buffer *buffer = container_of(backing, struct lslm_buffer, backing);

	mutex_lock(&registry_lock);
	list_del(&buffer->all);
	mutex_unlock(&registry_lock);

	mutex_lock(&buffer->lock);
	buffer->purgeable = false;
	update_idle(buffer);
	mutex_unlock(&buffer->lock);

	trace_buf_free(buffer->id, buffer->generation, buffer->bytes);
	atomic64_inc(&lslm_stats.freed);
	atomic64_dec(&lslm_stats.buffers);
	atomic64_sub(buffer->bytes, &lslm_stats.bytes);
	lslm_client_uncharge(buffer->client, buffer->bytes);
	lslm_client_put(buffer->client);
	buffer_put(buffer);
}

/* From lslm_backing_create() on the backing file owns the buffer. */
static int give_backing(struct lslm_buffer *buffer)
{
	int ret;

	buffer->backing.gone = buffer_gone;
	ret = lslm_backing_create(&buffer->backing, buffer->id, buffer->bytes,
				  buffer->flags & LSLM_BUF_HUGE);
	if (ret)
		return ret;

	lslm_client_get(buffer->client);
	atomic64_inc(&lslm_stats.created);
	atomic64_inc(&lslm_stats.buffers);
	atomic64_add(buffer->bytes, &lslm_stats.bytes);
	mutex_lock(&registry_lock);
	list_add_tail(&buffer->all, &registry);
	mutex_unlock(&registry_lock);
	return 0;
}

int lslm_buffer_create(struct lslm_client *client, u64 bytes, u32 flags, struct lslm_buffer **out)
{
	struct lslm_buffer *buffer;
	int ret;

	ret = lslm_client_charge(client, bytes);
	if (ret)
		return ret;
	ret = -ENOMEM;
	buffer = kzalloc(sizeof(*buffer), GFP_KERNEL_ACCOUNT);
	if (!buffer)
		goto err_charge;

	kref_init(&buffer->ref);
	mutex_init(&buffer->refilling);
	mutex_init(&buffer->lock);
	INIT_LIST_HEAD(&buffer->idle);
	buffer->client = client;
	buffer->id = atomic64_inc_return(&last_id);
	buffer->bytes = bytes;
	buffer->flags = flags;
	buffer->generation = 1;
	ret = give_backing(buffer);
	if (ret)
		goto err_buffer;

	ret = lslm_backing_populate(&buffer->backing, &buffer->huge_bytes);
	trace_buf_create(buffer->id, bytes, flags, buffer->huge_bytes, ret);
	if (ret) {
		if (ret == -ENOMEM)
			atomic64_inc(&lslm_stats.no_memory);
		fput(buffer->backing.file); /* does all the rest */
		return ret;
	}
	*out = buffer;
	return 0;

err_buffer:
	kfree(buffer);
err_charge:
	lslm_client_uncharge(client, bytes);
	if (ret == -ENOMEM)
		atomic64_inc(&lslm_stats.no_memory);
	return ret;
}

int lslm_buffer_hold(struct lslm_handle *handle, bool *retained, u64 *generation)
{
	struct lslm_buffer *buffer = handle->buffer;

	if (mutex_lock_killable(&buffer->lock))
		return -EINTR;
	if (handle->holds == LSLM_MAX_HOLDS) {
		mutex_unlock(&buffer->lock);
		return -EOVERFLOW;
	}
	handle->holds++;
	buffer->holds++;
	atomic64_inc(&lslm_stats.holds);
	update_idle(buffer);
	*retained = !buffer->lost;
	*generation = buffer->generation;
	trace_buf_hold(buffer->id, buffer->generation, buffer->holds, *retained);
	mutex_unlock(&buffer->lock);
	return 0;
}

static void drop_holds(struct lslm_handle *handle, u32 count)
{
	struct lslm_buffer *buffer = handle->buffer;

	lockdep_assert_held(&buffer->lock);
	handle->holds -= count;
	buffer->holds -= count;
	atomic64_sub(count, &lslm_stats.holds);
	update_idle(buffer);
	trace_buf_release(buffer->id, buffer->generation, buffer->holds, count);
}

int lslm_buffer_release(struct lslm_handle *handle)
{
	struct lslm_buffer *buffer = handle->buffer;
	int ret = -ENOENT;

	if (mutex_lock_killable(&buffer->lock))
		return -EINTR;
	if (handle->holds) {
		drop_holds(handle, 1);
		ret = 0;
	}
	mutex_unlock(&buffer->lock);
	return ret;
}

void lslm_buffer_release_all(struct lslm_handle *handle)
{
	struct lslm_buffer *buffer = handle->buffer;

	mutex_lock(&buffer->lock);
	if (handle->holds)
		drop_holds(handle, handle->holds);
	mutex_unlock(&buffer->lock);
}

int lslm_buffer_purgeable(struct lslm_buffer *buffer)
{
	if (mutex_lock_killable(&buffer->lock))
		return -EINTR;
	if (!buffer->purgeable) {
		buffer->purgeable = true;
		update_idle(buffer);
		trace_buf_purgeable(buffer->id, buffer->generation);
	}
	mutex_unlock(&buffer->lock);
	return 0;
}

/* Called and returns with buffer->lock held; without it meanwhile, see point 4 of buffer.h. */
static int refill(struct lslm_buffer *buffer)
{
	u64 huge_bytes;
	int ret;

	lockdep_assert_held(&buffer->refilling);
	lockdep_assert_held(&buffer->lock);
	buffer->pinned = true;
	update_idle(buffer);
	mutex_unlock(&buffer->lock);

	ret = lslm_backing_populate(&buffer->backing, &huge_bytes);

	mutex_lock(&buffer->lock);
	buffer->pinned = false;
	if (!ret)
		buffer->huge_bytes = huge_bytes;
	else if (ret == -ENOMEM)
		atomic64_inc(&lslm_stats.no_memory);
	update_idle(buffer);
	return ret;
}

static int need_locked(struct lslm_buffer *buffer, bool *retained, u64 *generation)
{
	int ret;

	lockdep_assert_held(&buffer->lock);
	*retained = !buffer->lost;
	if (buffer->lost) {
		ret = refill(buffer);
		if (ret)
			return ret;
	}
	buffer->purgeable = false;
	buffer->lost = false;
	update_idle(buffer);
	*generation = buffer->generation;
	trace_buf_will_need(buffer->id, buffer->generation, *retained);
	return 0;
}

int lslm_buffer_will_need(struct lslm_buffer *buffer, bool *retained, u64 *generation)
{
	int ret = -EINTR;

	if (mutex_lock_killable(&buffer->refilling))
		return -EINTR;
	if (!mutex_lock_killable(&buffer->lock)) {
		ret = need_locked(buffer, retained, generation);
		mutex_unlock(&buffer->lock);
	}
	mutex_unlock(&buffer->refilling);
	return ret;
}

static int purge_locked(struct lslm_buffer *buffer, enum lslm_purge_reason reason)
{
	u64 bytes;

	lockdep_assert_held(&buffer->lock);
	if (buffer->holds || buffer->pinned || lslm_backing_pinned(&buffer->backing))
		return -EBUSY;

	buffer->generation++;
	buffer->lost = true;
	buffer->huge_bytes = 0;
	bytes = lslm_backing_drop(&buffer->backing);

	atomic64_add(bytes, &lslm_stats.purged_bytes);
	atomic64_inc(reason == LSLM_PURGE_ASKED ? &lslm_stats.purges_asked :
						  &lslm_stats.purges_pressure);
	trace_buf_purge(buffer->id, buffer->generation, reason, bytes);
	return 0;
}

int lslm_buffer_purge(struct lslm_buffer *buffer, u64 *generation)
{
	int ret;

	if (mutex_lock_killable(&buffer->lock))
		return -EINTR;
	ret = purge_locked(buffer, LSLM_PURGE_ASKED);
	*generation = buffer->generation;
	mutex_unlock(&buffer->lock);
	return ret;
}

void lslm_buffer_state(struct lslm_buffer *buffer, struct lslm_buffer_state *state)
{
	mutex_lock(&buffer->lock);
	state->generation = buffer->generation;
	state->holds = buffer->holds;
	state->resident_bytes = lslm_backing_resident(&buffer->backing);
	state->huge_bytes = buffer->huge_bytes;
	state->flags = buffer->flags | (buffer->purgeable ? LSLM_BUF_PURGEABLE : 0) |
		       (buffer->lost ? 0 : LSLM_BUF_RETAINED);
	mutex_unlock(&buffer->lock);
}

u32 lslm_buffer_page_size(const struct lslm_buffer *buffer, u64 huge_bytes)
{
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	if (huge_bytes && huge_bytes == round_down(buffer->bytes, HPAGE_PMD_SIZE))
		return HPAGE_PMD_SIZE;
#endif
	return PAGE_SIZE;
}

unsigned long lslm_buffer_idle_pages(void)
{
	struct lslm_buffer *buffer;
	u64 bytes = 0;

	spin_lock(&idle_lock);
	list_for_each_entry(buffer, &idle_list, idle)
		bytes += lslm_backing_resident(&buffer->backing);
	spin_unlock(&idle_lock);
	return bytes >> PAGE_SHIFT;
}

/* Purge the first of the list if it can be had; returns pages freed. */
static unsigned long purge_first(struct list_head *visited) __must_hold(&idle_lock)
{
	struct lslm_buffer *buffer = list_first_entry(&idle_list, struct lslm_buffer, idle);
	unsigned long pages;

	lockdep_assert_held(&idle_lock);
	list_move_tail(&buffer->idle, visited);
	/* Somebody is at work on it, perhaps this very task, reclaiming memory for it. */
	if (!mutex_trylock(&buffer->lock))
		return 0;
	kref_get(&buffer->ref);
	spin_unlock(&idle_lock);

	pages = lslm_backing_resident(&buffer->backing) >> PAGE_SHIFT;
	if (pages && purge_locked(buffer, LSLM_PURGE_PRESSURE))
		pages = 0;

	mutex_unlock(&buffer->lock);
	buffer_put(buffer);
	spin_lock(&idle_lock);
	return pages;
}

unsigned long lslm_buffer_purge_idle(unsigned long want)
{
	unsigned long freed = 0;
	LIST_HEAD(visited); /* so that each is looked at once */

	spin_lock(&idle_lock);
	while (freed < want && !list_empty(&idle_list))
		freed += purge_first(&visited);
	list_splice(&visited, &idle_list);
	spin_unlock(&idle_lock);
	return freed;
}

void lslm_buffer_for_each(void (*fn)(struct lslm_buffer *buffer, void *arg), void *arg)
{
	struct lslm_buffer *buffer;

	mutex_lock(&registry_lock);
	list_for_each_entry(buffer, &registry, all)
		fn(buffer, arg);
	mutex_unlock(&registry_lock);
}
