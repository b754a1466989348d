/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Trace events lslm:*, part of the ABI (docs/abi.md): names and fields stay as they are, in
 * their order; new fields are appended. Ids, never pointers; u32 and u64 only, which every
 * tool can print.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM lslm

#if !defined(LSLM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define LSLM_TRACE_H

#include <linux/lslm.h>
#include <linux/tracepoint.h>

#include "lslm/wire.h"
#include "place.h"

/* clang-format off */

TRACE_DEFINE_ENUM(LSLM_PURGE_ASKED);
TRACE_DEFINE_ENUM(LSLM_PURGE_PRESSURE);

TRACE_DEFINE_ENUM(LSLM_DROP_HEADER);
TRACE_DEFINE_ENUM(LSLM_DROP_SESSION);
TRACE_DEFINE_ENUM(LSLM_DROP_KEY);
TRACE_DEFINE_ENUM(LSLM_DROP_REPLAY);
TRACE_DEFINE_ENUM(LSLM_DROP_FORGED);
TRACE_DEFINE_ENUM(LSLM_DROP_SLOT);
TRACE_DEFINE_ENUM(LSLM_DROP_GENERATION);
TRACE_DEFINE_ENUM(LSLM_DROP_BOUNDS);
TRACE_DEFINE_ENUM(LSLM_DROP_DUPLICATE);
TRACE_DEFINE_ENUM(LSLM_DROP_MEMORY);

TRACE_DEFINE_ENUM(LSLM_VIA_ENCAP);
TRACE_DEFINE_ENUM(LSLM_VIA_TC);
TRACE_DEFINE_ENUM(LSLM_VIA_XDP);

/* A buffer was made; error is 0, or the errno (positive) that ended populating it. */
TRACE_EVENT(buf_create,
	TP_PROTO(u64 id, u64 bytes, u32 flags, u64 huge_bytes, int ret),
	TP_ARGS(id, bytes, flags, huge_bytes, ret),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(u64, bytes)
		__field(u64, huge_bytes)
		__field(u32, flags)
		__field(u32, error)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->bytes = bytes;
		__entry->huge_bytes = huge_bytes;
		__entry->flags = flags;
		__entry->error = -ret;
	),
	TP_printk("id=%llu bytes=%llu huge_bytes=%llu flags=0x%x error=%u",
		  __entry->id, __entry->bytes, __entry->huge_bytes, __entry->flags,
		  __entry->error)
);

/* The last descriptor and the last mapping are gone. */
TRACE_EVENT(buf_free,
	TP_PROTO(u64 id, u64 generation, u64 bytes),
	TP_ARGS(id, generation, bytes),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(u64, generation)
		__field(u64, bytes)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->generation = generation;
		__entry->bytes = bytes;
	),
	TP_printk("id=%llu generation=%llu bytes=%llu",
		  __entry->id, __entry->generation, __entry->bytes)
);

/* holds: of the buffer, after the call. */
TRACE_EVENT(buf_hold,
	TP_PROTO(u64 id, u64 generation, u64 holds, u32 retained),
	TP_ARGS(id, generation, holds, retained),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(u64, generation)
		__field(u64, holds)
		__field(u32, retained)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->generation = generation;
		__entry->holds = holds;
		__entry->retained = retained;
	),
	TP_printk("id=%llu generation=%llu holds=%llu retained=%u",
		  __entry->id, __entry->generation, __entry->holds, __entry->retained)
);

/* count: how many holds ended, more than one when a descriptor was closed with holds. */
TRACE_EVENT(buf_release,
	TP_PROTO(u64 id, u64 generation, u64 holds, u32 count),
	TP_ARGS(id, generation, holds, count),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(u64, generation)
		__field(u64, holds)
		__field(u32, count)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->generation = generation;
		__entry->holds = holds;
		__entry->count = count;
	),
	TP_printk("id=%llu generation=%llu holds=%llu count=%u",
		  __entry->id, __entry->generation, __entry->holds, __entry->count)
);

TRACE_EVENT(buf_purgeable,
	TP_PROTO(u64 id, u64 generation),
	TP_ARGS(id, generation),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(u64, generation)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->generation = generation;
	),
	TP_printk("id=%llu generation=%llu", __entry->id, __entry->generation)
);

TRACE_EVENT(buf_will_need,
	TP_PROTO(u64 id, u64 generation, u32 retained),
	TP_ARGS(id, generation, retained),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(u64, generation)
		__field(u32, retained)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->generation = generation;
		__entry->retained = retained;
	),
	TP_printk("id=%llu generation=%llu retained=%u",
		  __entry->id, __entry->generation, __entry->retained)
);

/* generation: the new one. bytes: memory given back. */
TRACE_EVENT(buf_purge,
	TP_PROTO(u64 id, u64 generation, u32 reason, u64 bytes),
	TP_ARGS(id, generation, reason, bytes),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(u64, generation)
		__field(u64, bytes)
		__field(u32, reason)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->generation = generation;
		__entry->bytes = bytes;
		__entry->reason = reason;
	),
	TP_printk("id=%llu generation=%llu bytes=%llu reason=%s",
		  __entry->id, __entry->generation, __entry->bytes,
		  __print_symbolic(__entry->reason,
				   { LSLM_PURGE_ASKED, "asked" },
				   { LSLM_PURGE_PRESSURE, "pressure" }))
);

/* session: its number, which is unique in the network namespace with inode number netns. */
TRACE_EVENT(session_create,
	TP_PROTO(u32 session, u32 netns, u32 slots, u32 ring_entries),
	TP_ARGS(session, netns, slots, ring_entries),
	TP_STRUCT__entry(
		__field(u32, session)
		__field(u32, netns)
		__field(u32, slots)
		__field(u32, ring_entries)
	),
	TP_fast_assign(
		__entry->session = session;
		__entry->netns = netns;
		__entry->slots = slots;
		__entry->ring_entries = ring_entries;
	),
	TP_printk("session=%u netns=%u slots=%u ring_entries=%u",
		  __entry->session, __entry->netns, __entry->slots, __entry->ring_entries)
);

/* received: authentic datagrams; placed of them were placed. */
TRACE_EVENT(session_destroy,
	TP_PROTO(u32 session, u32 netns, u64 received, u64 placed, u64 placed_bytes),
	TP_ARGS(session, netns, received, placed, placed_bytes),
	TP_STRUCT__entry(
		__field(u64, received)
		__field(u64, placed)
		__field(u64, placed_bytes)
		__field(u32, session)
		__field(u32, netns)
	),
	TP_fast_assign(
		__entry->received = received;
		__entry->placed = placed;
		__entry->placed_bytes = placed_bytes;
		__entry->session = session;
		__entry->netns = netns;
	),
	TP_printk("session=%u netns=%u received=%llu placed=%llu placed_bytes=%llu",
		  __entry->session, __entry->netns, __entry->received, __entry->placed,
		  __entry->placed_bytes)
);

/* id: of the buffer. missing: chunks that have to come. */
TRACE_EVENT(region_bind,
	TP_PROTO(u32 session, u32 slot, u32 generation, u64 id, u64 base, u32 bytes, u32 units,
		 u32 chunks, u32 missing),
	TP_ARGS(session, slot, generation, id, base, bytes, units, chunks, missing),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(u64, base)
		__field(u32, session)
		__field(u32, slot)
		__field(u32, generation)
		__field(u32, bytes)
		__field(u32, units)
		__field(u32, chunks)
		__field(u32, missing)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->base = base;
		__entry->session = session;
		__entry->slot = slot;
		__entry->generation = generation;
		__entry->bytes = bytes;
		__entry->units = units;
		__entry->chunks = chunks;
		__entry->missing = missing;
	),
	TP_printk("session=%u slot=%u generation=%u id=%llu base=%llu bytes=%u units=%u chunks=%u missing=%u",
		  __entry->session, __entry->slot, __entry->generation, __entry->id,
		  __entry->base, __entry->bytes, __entry->units, __entry->chunks,
		  __entry->missing)
);

/* generation: that was in force. missing: chunks that never came. */
TRACE_EVENT(region_unbind,
	TP_PROTO(u32 session, u32 slot, u32 generation, u64 id, u32 missing),
	TP_ARGS(session, slot, generation, id, missing),
	TP_STRUCT__entry(
		__field(u64, id)
		__field(u32, session)
		__field(u32, slot)
		__field(u32, generation)
		__field(u32, missing)
	),
	TP_fast_assign(
		__entry->id = id;
		__entry->session = session;
		__entry->slot = slot;
		__entry->generation = generation;
		__entry->missing = missing;
	),
	TP_printk("session=%u slot=%u generation=%u id=%llu missing=%u",
		  __entry->session, __entry->slot, __entry->generation, __entry->id,
		  __entry->missing)
);

/* bytes: of the payload. */
TRACE_EVENT(place,
	TP_PROTO(u32 session, const struct lslm_header *h, u32 bytes, u32 via),
	TP_ARGS(session, h, bytes, via),
	TP_STRUCT__entry(
		__field(u64, counter)
		__field(u64, offset)
		__field(u32, session)
		__field(u32, slot)
		__field(u32, generation)
		__field(u32, bytes)
		__field(u32, via)
	),
	TP_fast_assign(
		__entry->counter = h->counter;
		__entry->offset = h->offset;
		__entry->session = session;
		__entry->slot = h->slot;
		__entry->generation = h->generation;
		__entry->bytes = bytes;
		__entry->via = via;
	),
	TP_printk("session=%u slot=%u generation=%u counter=%llu offset=%llu bytes=%u via=%s",
		  __entry->session, __entry->slot, __entry->generation, __entry->counter,
		  __entry->offset, __entry->bytes,
		  __print_symbolic(__entry->via,
				   { LSLM_VIA_ENCAP, "encap" },
				   { LSLM_VIA_TC, "tc" },
				   { LSLM_VIA_XDP, "xdp" }))
);

/*
 * bytes: of the datagram. Slot, generation, counter and offset are the sender's words, a forger's
 * perhaps, and 0 where the header could not be read.
 */
TRACE_EVENT(place_drop,
	TP_PROTO(u32 session, const struct lslm_header *h, u32 bytes, u32 via, u32 reason),
	TP_ARGS(session, h, bytes, via, reason),
	TP_STRUCT__entry(
		__field(u64, counter)
		__field(u64, offset)
		__field(u32, session)
		__field(u32, slot)
		__field(u32, generation)
		__field(u32, bytes)
		__field(u32, via)
		__field(u32, reason)
	),
	TP_fast_assign(
		__entry->counter = h->counter;
		__entry->offset = h->offset;
		__entry->session = session;
		__entry->slot = h->slot;
		__entry->generation = h->generation;
		__entry->bytes = bytes;
		__entry->via = via;
		__entry->reason = reason;
	),
	TP_printk("session=%u slot=%u generation=%u counter=%llu offset=%llu bytes=%u via=%s reason=%s",
		  __entry->session, __entry->slot, __entry->generation, __entry->counter,
		  __entry->offset, __entry->bytes,
		  __print_symbolic(__entry->via,
				   { LSLM_VIA_ENCAP, "encap" },
				   { LSLM_VIA_TC, "tc" },
				   { LSLM_VIA_XDP, "xdp" }),
		  __print_symbolic(__entry->reason,
				   { LSLM_DROP_HEADER, "header" },
				   { LSLM_DROP_SESSION, "session" },
				   { LSLM_DROP_KEY, "key" },
				   { LSLM_DROP_REPLAY, "replay" },
				   { LSLM_DROP_FORGED, "forged" },
				   { LSLM_DROP_SLOT, "slot" },
				   { LSLM_DROP_GENERATION, "generation" },
				   { LSLM_DROP_BOUNDS, "bounds" },
				   { LSLM_DROP_DUPLICATE, "duplicate" },
				   { LSLM_DROP_MEMORY, "memory" }))
);

TRACE_EVENT(unit_done,
	TP_PROTO(u32 session, u32 slot, u32 generation, u32 unit, u32 bytes),
	TP_ARGS(session, slot, generation, unit, bytes),
	TP_STRUCT__entry(
		__field(u32, session)
		__field(u32, slot)
		__field(u32, generation)
		__field(u32, unit)
		__field(u32, bytes)
	),
	TP_fast_assign(
		__entry->session = session;
		__entry->slot = slot;
		__entry->generation = generation;
		__entry->unit = unit;
		__entry->bytes = bytes;
	),
	TP_printk("session=%u slot=%u generation=%u unit=%u bytes=%u",
		  __entry->session, __entry->slot, __entry->generation, __entry->unit,
		  __entry->bytes)
);

/* ns: since it was bound. */
TRACE_EVENT(region_done,
	TP_PROTO(u32 session, u32 slot, u32 generation, u32 bytes, u64 ns),
	TP_ARGS(session, slot, generation, bytes, ns),
	TP_STRUCT__entry(
		__field(u64, ns)
		__field(u32, session)
		__field(u32, slot)
		__field(u32, generation)
		__field(u32, bytes)
	),
	TP_fast_assign(
		__entry->ns = ns;
		__entry->session = session;
		__entry->slot = slot;
		__entry->generation = generation;
		__entry->bytes = bytes;
	),
	TP_printk("session=%u slot=%u generation=%u bytes=%u ns=%llu",
		  __entry->session, __entry->slot, __entry->generation, __entry->bytes,
		  __entry->ns)
);

/* clang-format on */

#endif /* LSLM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
