/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * lslm: shared memory for attention state. What user space may ask of the module.
 *
 * Objects
 * -------
 * Opening /dev/lslm gives a *device descriptor*: it answers questions about the
 * module and makes buffers, and the buffers made through one open share one quota.
 *
 * LSLM_BUF_CREATE gives a *buffer descriptor*: zeroed, page-backed memory of a
 * fixed size, for mmap(MAP_SHARED), io_uring fixed buffers, O_DIRECT and AF_XDP.
 * A buffer lives as long as any descriptor *or mapping* of it, counts against its
 * quota as long, and keeps the module loaded as long. It has no name; its 64-bit
 * id, never reused while the module is loaded, occurs in traces and statistics
 * only and opens nothing.
 *
 * Rights
 * ------
 * The descriptor is the right, and travels by fork() and SCM_RIGHTS. The one from
 * LSLM_BUF_CREATE is read-write. LSLM_BUF_RO_FD makes a read-only one from either
 * kind: it cannot be mapped writable, a mapping of it cannot be made writable,
 * opening it again through /proc is refused (ENXIO), and calls marked [RW] answer
 * EACCES. Nobody's uid matters after the open of /dev/lslm.
 *
 * Holds, purging, generation
 * --------------------------
 * Whoever works with a buffer's contents holds it: LSLM_HOLD, on any descriptor,
 * read-only ones included. Nothing purges a buffer while any hold exists. Holds
 * are counted per open file description: descriptors made by dup(), fork() or
 * SCM_RIGHTS share theirs, LSLM_BUF_RO_FD makes a separate set, and the last close
 * of a description ends the holds taken through it. A mapping alone holds nothing.
 *
 * A buffer starts as *needed*: only LSLM_PURGE drops its contents. LSLM_PURGEABLE
 * lets the kernel drop them under memory pressure too, and LSLM_WILL_NEED ends
 * that. Dropping contents is called a purge: every page is freed, mappings stay
 * and read as zeroes, `generation` grows by one, and the buffer answers
 * `retained` = 0 until the next LSLM_WILL_NEED, which answers 0 one last time,
 * gives the buffer its (zeroed) pages back, and so starts it afresh.
 *
 * Pages pinned for I/O (an io_uring fixed buffer, an AF_XDP umem) would be torn
 * from their mapping by a purge; a buffer with such pages is treated as held.
 *
 * mmap
 * ----
 * EINVAL for MAP_PRIVATE or a range that leaves the buffer, EACCES for PROT_WRITE
 * on a read-only descriptor, EPERM for PROT_EXEC. Holes cannot be punched
 * (MADV_REMOVE answers EOPNOTSUPP). With 2 MiB pages, an address that is a
 * multiple of 2 MiB lets them be mapped whole; mmap chooses one by itself.
 *
 * Calls
 * -----
 * All are ioctls whose argument points to a structure starting with `size`,
 * sizeof() of the structure the caller was compiled with. A smaller structure
 * than the first published form is refused, a larger one than the module knows is
 * accepted when the part unknown to it is zero. Members named out_ are ignored on
 * the way in, and written on success only; as much is written as the caller's
 * `size` has room for. Errors that every call shares:
 *
 *   ENOTTY      no such call on this kind of descriptor
 *   EFAULT      the argument cannot be read or written
 *   EINVAL      `size` is below the first published form, or a member has a value
 *               that it may never have (a reserved one is not zero)
 *   E2BIG       a byte beyond the structure known to the module is not zero, or
 *               `size` is above the page size
 *   EOPNOTSUPP  a bit in `flags` that this module does not know, or whose feature
 *               is off (LSLM_GET_INFO says why)
 *   EINTR       a fatal signal came first
 *
 * Flags are checked first, then reserved members, rights, values. A call that fails
 * has changed nothing; a descriptor returned is always close-on-exec.
 * 32-bit callers use the same structures.
 */
#ifndef _UAPI_LINUX_LSLM_H
#define _UAPI_LINUX_LSLM_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define LSLM_DEVICE "/dev/lslm"
#define LSLM_TYPE   0xC7

/* Numbers are never reused. Device calls below 0x10, buffer calls below 0x30. */
enum lslm_cmd {
	LSLM_CMD_GET_INFO = 0x00,
	LSLM_CMD_GET_STATS = 0x01,
	LSLM_CMD_BUF_CREATE = 0x02,

	LSLM_CMD_BUF_RO_FD = 0x10,
	LSLM_CMD_HOLD = 0x11,
	LSLM_CMD_RELEASE = 0x12,
	LSLM_CMD_QUERY = 0x13,
	LSLM_CMD_PURGEABLE = 0x14,
	LSLM_CMD_WILL_NEED = 0x15,
	LSLM_CMD_PURGE = 0x16,
};

/**
 * enum lslm_feature - bit numbers in lslm_get_info.out_features
 * @LSLM_FEATURE_RO_FD: read-only descriptors
 * @LSLM_FEATURE_HOLD: holds, across processes
 * @LSLM_FEATURE_PURGE: LSLM_PURGE, LSLM_PURGEABLE, LSLM_WILL_NEED and generations
 * @LSLM_FEATURE_SHRINKER: purgeable buffers are purged under memory pressure
 * @LSLM_FEATURE_QUOTA: bytes are limited per open of the device and for all
 * @LSLM_FEATURE_HUGE: LSLM_BUF_HUGE
 * @LSLM_FEATURE_BTF: the module carries BTF, so that BPF programs see its types
 * @LSLM_FEATURE_COUNT: bits above are unknown to this header
 */
enum lslm_feature {
	LSLM_FEATURE_RO_FD = 0,
	LSLM_FEATURE_HOLD = 1,
	LSLM_FEATURE_PURGE = 2,
	LSLM_FEATURE_SHRINKER = 3,
	LSLM_FEATURE_QUOTA = 4,
	LSLM_FEATURE_HUGE = 5,
	LSLM_FEATURE_BTF = 6,
	LSLM_FEATURE_COUNT
};

/**
 * enum lslm_off - why a feature bit is off, in lslm_get_info.out_off
 * @LSLM_OFF_UNKNOWN: the bit is on, or newer than the module
 * @LSLM_OFF_PARAM: turned off by a parameter of the module
 * @LSLM_OFF_KERNEL: this kernel was built without what it takes
 * @LSLM_OFF_MOUNT: the private tmpfs with huge pages could not be mounted
 * @LSLM_OFF_NO_BTF: the module was built without BTF (scripts/kmod-btf adds it)
 */
enum lslm_off {
	LSLM_OFF_UNKNOWN = 0,
	LSLM_OFF_PARAM = 1,
	LSLM_OFF_KERNEL = 2,
	LSLM_OFF_MOUNT = 3,
	LSLM_OFF_NO_BTF = 4,
};

/**
 * struct lslm_get_info - ioctl(LSLM_GET_INFO), device descriptor
 * @size: sizeof(struct lslm_get_info); on return the number of bytes filled in
 * @flags: must be 0
 * @out_features: a bit per enum lslm_feature, set where the feature is on
 * @out_off: per feature bit one of enum lslm_off
 * @out_version: of the module: major, minor, patch
 * @out_max_buffers: buffers that may exist at once
 * @out_max_buffer_bytes: size that one buffer may have
 * @out_limit_bytes: bytes of all buffers together
 * @out_quota_bytes: bytes of all buffers made through one open of the device
 * @out_used_bytes: of out_limit_bytes, now
 * @out_quota_used_bytes: of out_quota_bytes, now, by this open
 * @out_used_buffers: of out_max_buffers, now
 * @out_max_holds: holds that one open file description may have
 * @out_page_size: size of an ordinary page
 * @out_huge_page_size: size of a page with LSLM_BUF_HUGE; 0 when the feature is off
 *
 * The limits are module parameters and may change at any time; lowering one
 * takes nothing away from existing buffers.
 */
struct lslm_get_info {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_features;
	__u8 out_off[64];
	__u32 out_version[3];
	__u32 out_max_buffers;
	__aligned_u64 out_max_buffer_bytes;
	__aligned_u64 out_limit_bytes;
	__aligned_u64 out_quota_bytes;
	__aligned_u64 out_used_bytes;
	__aligned_u64 out_quota_used_bytes;
	__u32 out_used_buffers;
	__u32 out_max_holds;
	__u32 out_page_size;
	__u32 out_huge_page_size;
};

#define LSLM_GET_INFO _IO(LSLM_TYPE, LSLM_CMD_GET_INFO)

/**
 * struct lslm_get_stats - ioctl(LSLM_GET_STATS), device descriptor
 * @size: sizeof(struct lslm_get_stats); on return the number of bytes filled in
 * @flags: must be 0
 * @out_clients: opens of the device that still exist or still own buffers
 * @out_buffers: buffers that exist
 * @out_bytes: their sizes, summed
 * @out_holds: holds that exist
 * @out_created: buffers ever made
 * @out_freed: buffers ever freed
 * @out_refused: creations refused by a limit (EDQUOT, ENOSPC, EFBIG)
 * @out_no_memory: creations and will-needs that found no memory (ENOMEM)
 * @out_purges_asked: purges by LSLM_PURGE
 * @out_purges_pressure: purges by memory pressure
 * @out_purged_bytes: memory given back by either
 *
 * Counters are since the module was loaded. Each is exact; they are not read at
 * one instant. New members are only ever appended.
 */
struct lslm_get_stats {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_clients;
	__aligned_u64 out_buffers;
	__aligned_u64 out_bytes;
	__aligned_u64 out_holds;
	__aligned_u64 out_created;
	__aligned_u64 out_freed;
	__aligned_u64 out_refused;
	__aligned_u64 out_no_memory;
	__aligned_u64 out_purges_asked;
	__aligned_u64 out_purges_pressure;
	__aligned_u64 out_purged_bytes;
};

#define LSLM_GET_STATS _IO(LSLM_TYPE, LSLM_CMD_GET_STATS)

/**
 * enum lslm_buf_flags - flags of a buffer
 * @LSLM_BUF_HUGE: at creation: use 2 MiB pages for every whole 2 MiB of the buffer
 *	where memory has them (lslm_query.out_huge_bytes says what came). EOPNOTSUPP
 *	when LSLM_FEATURE_HUGE is off; the caller decides whether to do without.
 * @LSLM_BUF_WRITABLE: in lslm_query: this descriptor is read-write
 * @LSLM_BUF_PURGEABLE: in lslm_query: memory pressure may purge it when unheld
 * @LSLM_BUF_RETAINED: in lslm_query: not purged since the last LSLM_WILL_NEED
 * @LSLM_BUF_CREATE_VALID: those that LSLM_BUF_CREATE takes
 */
enum lslm_buf_flags {
	LSLM_BUF_HUGE = 1 << 0,
	LSLM_BUF_WRITABLE = 1 << 1,
	LSLM_BUF_PURGEABLE = 1 << 2,
	LSLM_BUF_RETAINED = 1 << 3,
	LSLM_BUF_CREATE_VALID = LSLM_BUF_HUGE,
};

/**
 * struct lslm_buf_create - ioctl(LSLM_BUF_CREATE), device descriptor
 * @size: sizeof(struct lslm_buf_create)
 * @flags: LSLM_BUF_CREATE_VALID
 * @bytes: size wanted, rounded up to whole pages
 * @out_bytes: size got
 * @out_id: the buffer's id in traces and statistics
 * @out_fd: its read-write descriptor
 * @__reserved: must be 0
 *
 * Every page is allocated here, and charged to the memory cgroup of the caller.
 *
 *   EINVAL  bytes is 0
 *   EFBIG   bytes is above out_max_buffer_bytes of LSLM_GET_INFO
 *   EDQUOT  the quota of this open of the device has no room
 *   ENOSPC  the limit for all (bytes or number of buffers) has no room
 *   ENOMEM  the machine, or the caller's cgroup, has no memory; nothing was killed for it
 *   EMFILE, ENFILE  no descriptor left
 */
struct lslm_buf_create {
	__u32 size;
	__u32 flags;
	__aligned_u64 bytes;
	__aligned_u64 out_bytes;
	__aligned_u64 out_id;
	__s32 out_fd;
	__u32 __reserved;
};

#define LSLM_BUF_CREATE _IO(LSLM_TYPE, LSLM_CMD_BUF_CREATE)

/**
 * struct lslm_buf_ro_fd - ioctl(LSLM_BUF_RO_FD), buffer descriptor
 * @size: sizeof(struct lslm_buf_ro_fd)
 * @flags: must be 0
 * @out_fd: a new read-only descriptor, with holds of its own
 * @__reserved: must be 0
 *
 *   EMFILE, ENFILE, ENOMEM  no descriptor left, no memory for it
 */
struct lslm_buf_ro_fd {
	__u32 size;
	__u32 flags;
	__s32 out_fd;
	__u32 __reserved;
};

#define LSLM_BUF_RO_FD _IO(LSLM_TYPE, LSLM_CMD_BUF_RO_FD)

/**
 * struct lslm_hold - ioctl(LSLM_HOLD), buffer descriptor
 * @size: sizeof(struct lslm_hold)
 * @flags: must be 0
 * @out_retained: 1 when the contents were not purged since the last LSLM_WILL_NEED
 * @__reserved: must be 0
 * @out_generation: the generation that this hold keeps in force
 *
 * Holds nest. The hold is taken also when out_retained is 0: look, and release.
 *
 *   EOVERFLOW  this open file description already has out_max_holds of LSLM_GET_INFO
 */
struct lslm_hold {
	__u32 size;
	__u32 flags;
	__u32 out_retained;
	__u32 __reserved;
	__aligned_u64 out_generation;
};

#define LSLM_HOLD _IO(LSLM_TYPE, LSLM_CMD_HOLD)

/**
 * struct lslm_release - ioctl(LSLM_RELEASE), buffer descriptor
 * @size: sizeof(struct lslm_release)
 * @flags: must be 0
 *
 * Ends one hold of this open file description.
 *
 *   ENOENT  it has none
 */
struct lslm_release {
	__u32 size;
	__u32 flags;
};

#define LSLM_RELEASE _IO(LSLM_TYPE, LSLM_CMD_RELEASE)

/**
 * struct lslm_query - ioctl(LSLM_QUERY), buffer descriptor
 * @size: sizeof(struct lslm_query); on return the number of bytes filled in
 * @flags: must be 0
 * @out_id: as in lslm_buf_create
 * @out_bytes: size of the buffer
 * @out_generation: how often it was purged, plus one
 * @out_holds: holds by anybody
 * @out_resident_bytes: in memory now (neither purged nor swapped out)
 * @out_huge_bytes: in 2 MiB pages, when pages were last given (creation, LSLM_WILL_NEED)
 * @out_flags: of enum lslm_buf_flags
 * @out_page_size: out_huge_page_size of LSLM_GET_INFO when every whole 2 MiB of
 *	the buffer was given such a page, and there is at least one; else out_page_size
 */
struct lslm_query {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_id;
	__aligned_u64 out_bytes;
	__aligned_u64 out_generation;
	__aligned_u64 out_holds;
	__aligned_u64 out_resident_bytes;
	__aligned_u64 out_huge_bytes;
	__u32 out_flags;
	__u32 out_page_size;
};

#define LSLM_QUERY _IO(LSLM_TYPE, LSLM_CMD_QUERY)

/**
 * struct lslm_purgeable - ioctl(LSLM_PURGEABLE), buffer descriptor [RW]
 * @size: sizeof(struct lslm_purgeable)
 * @flags: must be 0
 *
 * From now on memory pressure may purge the buffer whenever nobody holds it.
 * Existing holds keep protecting it. Calling it again changes nothing.
 *
 *   EACCES  the descriptor is read-only
 */
struct lslm_purgeable {
	__u32 size;
	__u32 flags;
};

#define LSLM_PURGEABLE _IO(LSLM_TYPE, LSLM_CMD_PURGEABLE)

/**
 * struct lslm_will_need - ioctl(LSLM_WILL_NEED), buffer descriptor [RW]
 * @size: sizeof(struct lslm_will_need)
 * @flags: must be 0
 * @out_retained: 0 when the contents were purged since the last such call
 * @__reserved: must be 0
 * @out_generation: the generation in force
 *
 * Ends LSLM_PURGEABLE. Pages lost to a purge are allocated again, zeroed, and
 * charged to the caller's memory cgroup. Calling it on a needed buffer is allowed.
 *
 *   EACCES  the descriptor is read-only
 *   ENOMEM  no memory for the pages; the buffer is as purgeable and as lost as before
 */
struct lslm_will_need {
	__u32 size;
	__u32 flags;
	__u32 out_retained;
	__u32 __reserved;
	__aligned_u64 out_generation;
};

#define LSLM_WILL_NEED _IO(LSLM_TYPE, LSLM_CMD_WILL_NEED)

/**
 * struct lslm_purge - ioctl(LSLM_PURGE), buffer descriptor [RW]
 * @size: sizeof(struct lslm_purge)
 * @flags: must be 0
 * @out_generation: the generation after the purge
 *
 * Drops the contents now, needed or purgeable.
 *
 *   EACCES  the descriptor is read-only
 *   EBUSY   somebody holds the buffer, or pages of it are pinned for I/O
 */
struct lslm_purge {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_generation;
};

#define LSLM_PURGE _IO(LSLM_TYPE, LSLM_CMD_PURGE)

/**
 * enum lslm_purge_reason - field `reason` of the trace event lslm:buf_purge
 * @LSLM_PURGE_ASKED: LSLM_PURGE
 * @LSLM_PURGE_PRESSURE: memory pressure
 */
enum lslm_purge_reason {
	LSLM_PURGE_ASKED = 1,
	LSLM_PURGE_PRESSURE = 2,
};

#endif /* _UAPI_LINUX_LSLM_H */
