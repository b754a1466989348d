/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between supported kernels. Kbuild includes this first into every file, so that
 * the sources are written for the newest of them; HAVE_* come from its look at the headers.
 */
#ifndef LSLM_COMPAT_H
#define LSLM_COMPAT_H

#include <linux/mm.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0) || LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#error "lslm is tested on Linux 6.1 to 6.12; run tests/vm on another kernel before widening this"
#endif

#if !defined(CONFIG_SHMEM) || !defined(CONFIG_TMPFS) || !defined(CONFIG_MMU)
#error "lslm keeps its buffers in tmpfs: the kernel needs CONFIG_MMU, CONFIG_SHMEM, CONFIG_TMPFS"
#endif

#ifndef HAVE_VM_FLAGS_CLEAR
static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* Registering can fail before shrinker_alloc() existed, hence a name of our own. */
#ifdef HAVE_SHRINKER_ALLOC
static inline int compat_shrinker_register(struct shrinker *shrinker)
{
	shrinker_register(shrinker);
	return 0;
}
#else
static inline struct shrinker *shrinker_alloc(unsigned int flags, const char *name)
{
	return kzalloc(sizeof(struct shrinker), GFP_KERNEL);
}

static inline int compat_shrinker_register(struct shrinker *shrinker)
{
	int ret;

	shrinker->seeks = DEFAULT_SEEKS;
	ret = register_shrinker(shrinker, "lslm");
	if (ret)
		kfree(shrinker);
	return ret;
}

static inline void shrinker_free(struct shrinker *shrinker)
{
	unregister_shrinker(shrinker);
	kfree(shrinker);
}
#endif

#endif /* LSLM_COMPAT_H */
