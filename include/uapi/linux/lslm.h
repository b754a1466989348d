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
 * from their mapping by a purge; a buffer with such pages is treated as held. So is
 * one into which a call that is under way will write its answer.
 *
 * Sessions
 * --------
 * LSLM_SESSION_CREATE attaches the caller's own UDP socket and gives a *session
 * descriptor*. Datagrams of the placement protocol (docs/protocol.md, section 9) that
 * reach the socket and carry data are then authenticated and decrypted straight into
 * buffers, in softirq; everything else still reaches recv(). What may be written is
 * said by the session's own table of *regions*: LSLM_REGION_BIND puts a range of a
 * buffer, given by its read-write descriptor, into a slot; nobody else's buffer can
 * be reached, whatever a datagram says. A bound buffer is held: it is not purged.
 *
 * The session ends with the last close of its descriptor: the socket is then an
 * ordinary one again, and nothing is written any more once close() has returned. The
 * socket may be closed first; the session then receives no more. The session keeps
 * the module loaded. While attached, the socket hears of no ICMP errors, and its owner
 * must not set UDP_ENCAP, which would end placement without a word.
 *
 * BPF programs on XDP and TC can hand datagrams to the same code before the network
 * stack sees them, by the kfuncs lslm_place_xdp() and lslm_place_skb(). They decide
 * whether, the module decides whether it is allowed.
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
 *   EFAULT      the argument cannot be read or, where it has members out_, written
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

/* Numbers are never reused. Device calls below 0x10, buffer calls below 0x30, then sessions'. */
enum lslm_cmd {
	LSLM_CMD_GET_INFO = 0x00,
	LSLM_CMD_GET_STATS = 0x01,
	LSLM_CMD_BUF_CREATE = 0x02,
	LSLM_CMD_SESSION_CREATE = 0x03,

	LSLM_CMD_BUF_RO_FD = 0x10,
	LSLM_CMD_HOLD = 0x11,
	LSLM_CMD_RELEASE = 0x12,
	LSLM_CMD_QUERY = 0x13,
	LSLM_CMD_PURGEABLE = 0x14,
	LSLM_CMD_WILL_NEED = 0x15,
	LSLM_CMD_PURGE = 0x16,

	LSLM_CMD_SESSION_KEY = 0x30,
	LSLM_CMD_REGION_BIND = 0x31,
	LSLM_CMD_REGION_UNBIND = 0x32,
	LSLM_CMD_REGION_MISSING = 0x33,
	LSLM_CMD_SESSION_STATS = 0x34,
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
 * @LSLM_FEATURE_SESSION: LSLM_SESSION_CREATE: placement from UDP sockets
 * @LSLM_FEATURE_PLACE_XDP: lslm_place_xdp() can be called by XDP programs
 * @LSLM_FEATURE_PLACE_TC: lslm_place_skb() can be called by TC programs
 * @LSLM_FEATURE_PLAIN: LSLM_CIPHER_PLAIN, for measurements only
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
	LSLM_FEATURE_SESSION = 7,
	LSLM_FEATURE_PLACE_XDP = 8,
	LSLM_FEATURE_PLACE_TC = 9,
	LSLM_FEATURE_PLAIN = 10,
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
 *   ENOMEM  no memory for the pages; the buffer is as purgeable and as lost as before, and
 *	those that were found are free again
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

/* ---- sessions ---- */

/**
 * enum lslm_cipher - how a session's datagrams are authenticated
 * @LSLM_CIPHER_NONE: no key: LSLM_SESSION_KEY removes the one that is there
 * @LSLM_CIPHER_CHACHA20POLY1305: RFC 8439; nonce: four zero bytes, then the counter
 * @LSLM_CIPHER_PLAIN: not at all, the tag's bytes are ignored. For measurements; refused
 *	unless the module's parameter `plain` is set (LSLM_FEATURE_PLAIN)
 */
enum lslm_cipher {
	LSLM_CIPHER_NONE = 0,
	LSLM_CIPHER_CHACHA20POLY1305 = 1,
	LSLM_CIPHER_PLAIN = 2,
};

/**
 * enum lslm_drop - why a datagram was not placed; index into lslm_session_stats.out_drops
 * @LSLM_DROP_NONE: it was
 * @LSLM_DROP_HEADER: too short, too long, another version, or a malformed header
 * @LSLM_DROP_SESSION: another session than the socket's, or (kfuncs) none of this number
 *	in the packet's network namespace
 * @LSLM_DROP_KEY: no such key, or it has expired by time or count
 * @LSLM_DROP_REPLAY: its counter was seen before or is too old to know
 * @LSLM_DROP_FORGED: the tag is wrong
 * @LSLM_DROP_SLOT: nothing was ever bound to the slot
 * @LSLM_DROP_GENERATION: late: the slot was bound anew or unbound since
 * @LSLM_DROP_BOUNDS: offset and length are not those of a chunk of the region
 * @LSLM_DROP_DUPLICATE: the chunk has come already
 * @LSLM_DROP_MEMORY: a datagram in pieces could not be read
 *
 * From LSLM_DROP_SLOT to LSLM_DROP_DUPLICATE: said of authentic datagrams only.
 */
enum lslm_drop {
	LSLM_DROP_NONE = 0,
	LSLM_DROP_HEADER = 1,
	LSLM_DROP_SESSION = 2,
	LSLM_DROP_KEY = 3,
	LSLM_DROP_REPLAY = 4,
	LSLM_DROP_FORGED = 5,
	LSLM_DROP_SLOT = 6,
	LSLM_DROP_GENERATION = 7,
	LSLM_DROP_BOUNDS = 8,
	LSLM_DROP_DUPLICATE = 9,
	LSLM_DROP_MEMORY = 10,
	LSLM_DROP_COUNT
};

/**
 * struct lslm_session_create - ioctl(LSLM_SESSION_CREATE), device descriptor
 * @size: sizeof(struct lslm_session_create)
 * @flags: must be 0
 * @socket: a UDP socket (IPv4 or IPv6) of the caller, whose datagrams are to be placed
 * @slots: rows of the region table, 1 to 65536
 * @ring_entries: of the completion ring; a power of two, 64 to 65536
 * @out_session: number that DATA datagrams must carry; of this network namespace
 * @out_fd: the session descriptor
 * @__reserved: must be 0
 *
 *   EBADF     socket is no descriptor
 *   ENOTSOCK  it is no socket
 *   EPROTONOSUPPORT  it is no UDP socket
 *   EBUSY     it is attached to a session, or to another user of UDP encapsulation; or another
 *	       thread is in a call that owns it: attach it before others use it
 *   EINVAL    slots or ring_entries out of range
 *   ENOSPC    no number is left
 *   ENOMEM, EMFILE, ENFILE
 */
struct lslm_session_create {
	__u32 size;
	__u32 flags;
	__s32 socket;
	__u32 slots;
	__u32 ring_entries;
	__u32 out_session;
	__s32 out_fd;
	__u32 __reserved;
};

#define LSLM_SESSION_CREATE _IO(LSLM_TYPE, LSLM_CMD_SESSION_CREATE)

/**
 * struct lslm_session_key - ioctl(LSLM_SESSION_KEY), session descriptor
 * @size: sizeof(struct lslm_session_key)
 * @flags: must be 0
 * @key: which, 0 to 3; what was there before is overwritten and its counters forgotten
 * @cipher: enum lslm_cipher
 * @secret: the key; never readable again. Ignored for NONE and PLAIN
 * @max_packets: counters from here on are refused; 1 to 2^48. Ignored for NONE
 * @lifetime_s: datagrams later than this many seconds from now are refused; 1 to 86400.
 *	Ignored for NONE
 * @__reserved: must be 0
 *
 * Reusing a secret in the same session forgets which counters were seen: use a fresh one.
 *
 *   EINVAL      key, cipher, max_packets or lifetime_s out of range
 *   EOPNOTSUPP  LSLM_CIPHER_PLAIN where LSLM_FEATURE_PLAIN is off
 */
struct lslm_session_key {
	__u32 size;
	__u32 flags;
	__u32 key;
	__u32 cipher;
	__u8 secret[32];
	__aligned_u64 max_packets;
	__u32 lifetime_s;
	__u32 __reserved;
};

#define LSLM_SESSION_KEY _IO(LSLM_TYPE, LSLM_CMD_SESSION_KEY)

/**
 * struct lslm_region_bind - ioctl(LSLM_REGION_BIND), session descriptor
 * @size: sizeof(struct lslm_region_bind)
 * @flags: must be 0
 * @slot: row of the region table; what was bound there is unbound
 * @buffer: a read-write buffer descriptor
 * @base: first byte of the region in the buffer
 * @chunk: payload of a datagram: a multiple of 64, 256 to 65408
 * @n_units: 1 to 4096
 * @units: address of n_units __u32: length of each unit. They follow one another from base
 * @done: address of a bitmap of n_units bits in __u64 (bit i of word i / 64): units that
 *	are there already and must not be written. 0: none
 * @out_generation: what datagrams for this region must carry
 * @out_chunks: number of chunks, missing or not
 *
 * The region's pages are locked into memory and, without CAP_IPC_LOCK, charged to the caller's
 * user, whose sum must stay within RLIMIT_MEMLOCK (the sum of io_uring and AF_XDP); a huge page
 * of which some is in the region as a whole.
 * The buffer is held as by LSLM_HOLD until the region is unbound.
 *
 *   EINVAL  slot, chunk, n_units or a length out of range; all units are done
 *   EBADF   buffer is no buffer descriptor
 *   EACCES  it is read-only
 *   ERANGE  the region leaves the buffer
 *   EFBIG   the region is above 1 GiB or has more than 2^22 chunks
 *   EFAULT  units or done cannot be read
 *   ESTALE  the buffer was purged and not renewed by LSLM_WILL_NEED
 *   ENOMEM  no memory for the tables, or RLIMIT_MEMLOCK is reached
 */
struct lslm_region_bind {
	__u32 size;
	__u32 flags;
	__u32 slot;
	__s32 buffer;
	__aligned_u64 base;
	__u32 chunk;
	__u32 n_units;
	__aligned_u64 units;
	__aligned_u64 done;
	__u32 out_generation;
	__u32 out_chunks;
};

#define LSLM_REGION_BIND _IO(LSLM_TYPE, LSLM_CMD_REGION_BIND)

/**
 * struct lslm_region_unbind - ioctl(LSLM_REGION_UNBIND), session descriptor
 * @size: sizeof(struct lslm_region_unbind)
 * @flags: must be 0
 * @slot: row of the region table
 * @__reserved: must be 0
 *
 * Nothing is written to the region any more once this has returned.
 *
 *   EINVAL  slot out of range
 *   ENOENT  nothing is bound there
 */
struct lslm_region_unbind {
	__u32 size;
	__u32 flags;
	__u32 slot;
	__u32 __reserved;
};

#define LSLM_REGION_UNBIND _IO(LSLM_TYPE, LSLM_CMD_REGION_UNBIND)

/**
 * struct lslm_region_missing - ioctl(LSLM_REGION_MISSING), session descriptor
 * @size: sizeof(struct lslm_region_missing)
 * @flags: must be 0
 * @slot: row of the region table
 * @generation: the one that is meant
 * @from: first chunk of interest
 * @max_ranges: room at ranges, 1 to 1024
 * @ranges: address of pairs of __u32: first missing chunk, number of them in a row
 * @out_ranges: how many pairs were written; fewer than max_ranges: there are no more
 * @out_missing: chunks of the whole region that are missing
 *
 *   EINVAL  slot or max_ranges out of range
 *   ESTALE  another generation is bound there, or none
 *   EFAULT  ranges cannot be written
 *   ENOMEM
 *
 * A chunk that comes during the call may be called missing; none that is missing is left out.
 */
struct lslm_region_missing {
	__u32 size;
	__u32 flags;
	__u32 slot;
	__u32 generation;
	__u32 from;
	__u32 max_ranges;
	__aligned_u64 ranges;
	__u32 out_ranges;
	__u32 out_missing;
};

#define LSLM_REGION_MISSING _IO(LSLM_TYPE, LSLM_CMD_REGION_MISSING)

/**
 * struct lslm_session_stats - ioctl(LSLM_SESSION_STATS), session descriptor
 * @size: sizeof(struct lslm_session_stats); on return the number of bytes filled in
 * @flags: must be 0
 * @out_session: its number
 * @out_regions: bound now
 * @out_received: authentic datagrams, placed or not
 * @out_placed: datagrams placed
 * @out_placed_bytes: their payload
 * @out_units: units completed
 * @out_overflows: completions that found the ring full
 * @out_by_encap: datagrams that came by the socket, of whatever fate
 * @out_by_tc: by lslm_place_skb()
 * @out_by_xdp: by lslm_place_xdp()
 * @out_passed: datagrams left to recv() because they carry no data
 * @out_drops: datagrams not placed, by enum lslm_drop
 */
struct lslm_session_stats {
	__u32 size;
	__u32 flags;
	__u32 out_session;
	__u32 out_regions;
	__aligned_u64 out_received;
	__aligned_u64 out_placed;
	__aligned_u64 out_placed_bytes;
	__aligned_u64 out_units;
	__aligned_u64 out_overflows;
	__aligned_u64 out_by_encap;
	__aligned_u64 out_by_tc;
	__aligned_u64 out_by_xdp;
	__aligned_u64 out_passed;
	__aligned_u64 out_drops[16];
};

#define LSLM_SESSION_STATS _IO(LSLM_TYPE, LSLM_CMD_SESSION_STATS)

/*
 * The completion ring, by mmap of a session descriptor. Offset 0, one page, read-write:
 * struct lslm_ring_consumer. Offset of one page, read-only: struct lslm_ring, in a page of its
 * own, and from the next page on ring_entries times struct lslm_done. EINVAL for MAP_PRIVATE, for
 * more than the one page at offset 0, or for a range that leaves the ring; EACCES for PROT_WRITE
 * anywhere else, EPERM for PROT_EXEC. A mapping does not keep the session: after its end
 * it stays as it was.
 *
 * An entry is written for each unit that becomes complete, before `producer` grows
 * (release); entry i is at index i modulo ring_entries, and is the consumer's until
 * consumer.position is moved past it. poll() says POLLIN while producer and
 * position differ.
 *
 * A full ring loses entries, never data: `overflows` grows, and the owner asks
 * LSLM_REGION_MISSING about each region it waits for. Entries are written again as
 * soon as there is room. An overflow alone makes nothing readable: so that none is slept
 * over, move position first, then a full fence, then look at `overflows`, then poll().
 */
struct lslm_ring_consumer {
	__aligned_u64 position;
};

/**
 * struct lslm_ring - what the module tells without a call
 * @producer: entries ever written
 * @overflows: entries lost because the ring was full
 * @sequence: odd while the four members after it change; read them again when it did
 * @received: as out_received of lslm_session_stats
 * @last_counter: highest counter of an authentic datagram
 * @last_ns: when it came (CLOCK_MONOTONIC)
 * @placed_bytes: as out_placed_bytes
 */
struct lslm_ring {
	__aligned_u64 producer;
	__aligned_u64 overflows;
	__aligned_u64 sequence;
	__aligned_u64 received;
	__aligned_u64 last_counter;
	__aligned_u64 last_ns;
	__aligned_u64 placed_bytes;
};

/**
 * struct lslm_done - a unit is complete
 * @ns: when (CLOCK_MONOTONIC)
 * @slot: of the region
 * @generation: of the region
 * @unit: number in the region
 * @flags: LSLM_DONE_REGION: it was the last one
 */
struct lslm_done {
	__aligned_u64 ns;
	__u32 slot;
	__u32 generation;
	__u32 unit;
	__u32 flags;
};

#define LSLM_DONE_REGION (1U << 0)

/**
 * struct lslm_place - what a BPF program tells lslm_place_xdp() and lslm_place_skb()
 * @length: of the UDP payload
 * @flags: must be 0
 *
 * int lslm_place_xdp(struct xdp_md *ctx, __u32 session, __u32 offset,
 *		      const struct lslm_place *place, __u32 place__sz);
 * int lslm_place_skb(struct __sk_buff *ctx, ...the same);
 *
 * offset: of the UDP payload in the packet (XDP: from data; TC: from the mac header).
 *
 *   0       placed, or dropped and counted: the packet is used up, drop it
 *   EAGAIN  not for this call (no DATA, in pieces that XDP cannot read, or in memory that an
 *           AF_XDP socket's owner can write): pass it on
 *   ENOENT  no such session in this network namespace: pass it on
 *   EINVAL  place__sz, flags, offset or length are wrong: the program has a bug
 */
struct lslm_place {
	__u32 length;
	__u32 flags;
};

#endif /* _UAPI_LINUX_LSLM_H */
