// SPDX-License-Identifier: GPL-2.0-only

#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "binding.h"
#include "buffer_fd.h"

/* What user space says of the units, copied and found possible. */
struct units {
	u32 *lengths;
	u64 *done; /* NULL: none */
	u32 length;
	u32 n_chunks;
};

static void units_free(struct units *units)
{
	kvfree(units->lengths);
	kvfree(units->done);
}

static int units_read(struct units *units, const struct lslm_region_bind *arg)
{
	size_t words = DIV_ROUND_UP(arg->n_units, 64);
	void *p;
	u32 i;

	p = vmemdup_user(u64_to_user_ptr(arg->units), arg->n_units * sizeof(u32));
	if (IS_ERR(p))
		return PTR_ERR(p);
	units->lengths = p;
	for (i = 0; i < arg->n_units; i++)
		if (!units->lengths[i])
			return -EINVAL;
	if (!arg->done)
		return 0;
	p = vmemdup_user(u64_to_user_ptr(arg->done), words * sizeof(u64));
	if (IS_ERR(p))
		return PTR_ERR(p);
	units->done = p;
	return 0;
}

static bool unit_is_done(const struct units *units, u32 i)
{
	return units->done && units->done[i / 64] >> (i % 64) & 1;
}

static int make_tables(struct lslm_binding *b, const struct lslm_region_bind *arg,
		       const struct units *units)
{
	u32 i;

	b->tables = kvzalloc(lslm_region_bytes(arg->n_units, units->n_chunks), GFP_KERNEL_ACCOUNT);
	if (!b->tables)
		return -ENOMEM;
	lslm_region_init(&b->region, b->tables, units->lengths, arg->n_units, arg->chunk,
			 units->n_chunks);
	for (i = 0; i < arg->n_units; i++)
		if (unit_is_done(units, i))
			lslm_region_skip_unit(&b->region, i);
	return b->region.units_missing ? 0 : -EINVAL;
}

static int hold_buffer(struct lslm_binding *b)
{
	u64 generation;
	bool retained;
	int ret;

	ret = lslm_buffer_hold(&b->handle, &retained, &generation);
	if (ret)
		return ret;
	return retained ? 0 : -ESTALE;
}

/*
 * By user, as io_uring and AF_XDP do, and not by process: taking it back from a process would wait
 * for that process's mmap_lock, which its owner can keep for as long as he likes.
 */
static int charge_pages(struct lslm_binding *b, unsigned long n)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	struct user_struct *user = current_user();
	unsigned long new;
	long old;

	if (capable(CAP_IPC_LOCK))
		return 0;
	old = atomic_long_read(&user->locked_vm);
	do {
		new = old + n;
		if (new > limit)
			return -ENOMEM;
	} while (!atomic_long_try_cmpxchg(&user->locked_vm, &old, new));
	if (!b->user)
		b->user = get_uid(user);
	b->charged += n;
	return 0;
}

static int map_pages(struct lslm_binding *b)
{
	unsigned long first = b->base >> PAGE_SHIFT;
	struct page **pages = kvmalloc_array(b->n_pages, sizeof(*pages), GFP_KERNEL_ACCOUNT);
	int ret;

	if (!pages)
		return -ENOMEM;
	ret = lslm_backing_lock(&b->handle.buffer->backing, first, b->n_pages, pages);
	if (ret) {
		kvfree(pages);
		return ret;
	}
	b->pages = pages;
	/* Only now it is known what else they lock, in huge pages that stick out. */
	ret = charge_pages(b, lslm_backing_locked(b->n_pages, pages) - b->n_pages);
	if (ret)
		return ret;
	b->mapped = vmap(pages, b->n_pages, VM_MAP, PAGE_KERNEL);
	if (!b->mapped)
		return -ENOMEM;
	b->memory = b->mapped + offset_in_page(b->base);
	return 0;
}

static int fill(struct lslm_binding *b, const struct lslm_region_bind *arg,
		const struct units *units)
{
	int ret = make_tables(b, arg, units);

	if (ret)
		return ret;
	if (arg->base > b->handle.buffer->bytes ||
	    units->length > b->handle.buffer->bytes - arg->base)
		return -ERANGE;
	b->base = arg->base;
	ret = hold_buffer(b);
	if (ret)
		return ret;
	b->n_pages = PFN_UP(offset_in_page(arg->base) + (u64)units->length);
	ret = charge_pages(b, b->n_pages);
	if (ret)
		return ret;
	ret = map_pages(b);
	b->bound_ns = ktime_get_ns();
	return ret;
}

static int create(const struct lslm_region_bind *arg, const struct units *units,
		  struct lslm_binding **out)
{
	struct lslm_binding *b;
	int ret;

	b = kzalloc(sizeof(*b), GFP_KERNEL_ACCOUNT);
	if (!b)
		return -ENOMEM;
	ret = lslm_buffer_from_fd(arg->buffer, &b->handle.buffer);
	if (ret) {
		kfree(b);
		return ret;
	}
	ret = fill(b, arg, units);
	if (ret) {
		lslm_binding_destroy(b);
		return ret;
	}
	*out = b;
	return 0;
}

int lslm_binding_create(const struct lslm_region_bind *arg, struct lslm_binding **out)
{
	struct units units = {};
	int ret;

	if (arg->chunk < LSLM_CHUNK_MIN || arg->chunk > LSLM_CHUNK_MAX ||
	    arg->chunk % LSLM_CHUNK_ALIGN || !arg->n_units || arg->n_units > LSLM_REGION_UNITS_MAX)
		return -EINVAL;
	ret = units_read(&units, arg);
	if (!ret && !lslm_region_fits(units.lengths, arg->n_units, arg->chunk, &units.length,
				      &units.n_chunks))
		ret = -EFBIG;
	if (!ret)
		ret = create(arg, &units, out);
	units_free(&units);
	return ret;
}

void lslm_binding_destroy(struct lslm_binding *b)
{
	if (!b)
		return;
	if (b->mapped)
		vunmap(b->mapped);
	if (b->pages) {
		lslm_backing_unlock(b->n_pages, b->pages);
		kvfree(b->pages);
	}
	if (b->user) {
		atomic_long_sub(b->charged, &b->user->locked_vm);
		free_uid(b->user);
	}
	lslm_buffer_release_all(&b->handle);
	fput(b->handle.buffer->backing.file);
	kvfree(b->tables);
	kfree(b);
}
