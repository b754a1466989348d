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

/* clang-format off */

TRACE_DEFINE_ENUM(LSLM_PURGE_ASKED);
TRACE_DEFINE_ENUM(LSLM_PURGE_PRESSURE);

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

/* clang-format on */

#endif /* LSLM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
