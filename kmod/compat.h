/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between supported kernels. Kbuild includes this first into every file, so that
 * the sources are written for the newest of them; HAVE_* come from its look at the headers.
 */
#ifndef LSLM_COMPAT_H
#define LSLM_COMPAT_H

#include <linux/btf.h>
#include <linux/btf_ids.h>
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

#if !IS_ENABLED(CONFIG_INET) || !IS_ENABLED(CONFIG_CRYPTO_LIB_CHACHA20POLY1305)
#error "lslm places packets: the kernel needs CONFIG_INET, CONFIG_CRYPTO_LIB_CHACHA20POLY1305"
#endif

/* Rings are shared with user space by single stores of 64 bits. */
#ifndef CONFIG_64BIT
#error "lslm needs a 64-bit kernel"
#endif

#ifndef HAVE_VM_FLAGS_CLEAR
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

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

/* 6.1 and 6.6 began with a struct socket, and got a struct sock in their stable releases. */
#ifdef HAVE_ENCAP_ENABLE_SOCK
#define compat_encap_enable(sock) udp_tunnel_encap_enable((sock)->sk)
#else
#define compat_encap_enable(sock) udp_tunnel_encap_enable(sock)
#endif

/* Functions for BPF programs: the words came one by one. */
#ifndef __bpf_kfunc
#define __bpf_kfunc __used noinline
#endif
#ifndef BTF_KFUNCS_START
#define BTF_KFUNCS_START BTF_SET8_START
#define BTF_KFUNCS_END	 BTF_SET8_END
#endif

#endif /* LSLM_COMPAT_H */
