/* SPDX-License-Identifier: MIT */
/*
 * Probes: what bpftrace, perf and systemtap can see of the runtime while it works.
 *
 * USDT probes of provider `lslm`, in the program and in liblslm.so. Names, arguments and their order are a
 * contract, as the module's trace events are: new arguments are only appended. Ids, never
 * pointers, never text. All arguments are integers.
 *
 *   context    first 64 bits of a context's key: the first 16 digits that `lslm inspect` prints.
 *              The same in every process, so a courier's units and an engine's tokens can be joined.
 *   buffer, generation   those of the module's trace events (buf_*) and, for a memfd, its inode.
 *   layer_* and whatever else names no context is joined by thread with the other probes of the engine.
 *
 *   context_wanted(context, u32 tokens, u32 stripes, u64 ns)
 *       Its manifest is here, verified, and of this model. ns: since it was asked for.
 *   stream(context, u64 buffer, u64 generation, u64 bytes)
 *       Its blocks begin to arrive in this buffer.
 *   unit_ready(context, u32 stripe, u32 layer, u32 source, u64 bytes)
 *       In the courier: a block was verified in its place. source: enum control_source.
 *   met(context, u32 token, u32 computed, u32 streamed)
 *       Nothing is left to be computed before its stripes are used: so many were computed from the head, so many
 *       come or came from the tail. Where a stream alone brings them they may still be arriving, layer by layer.
 *   layer_wait(u32 layer)
 *   layer_there(u32 layer)
 *       A pass has to wait for this layer of a context, and has waited.
 *   first_token(context, u64 ns)
 *       ns: since the context was asked for or, where it was there already, since the request began. context: 0 for none.
 *
 * A probe that nobody traces costs a load and a branch; its arguments are not computed. (Each has a
 * semaphore, which bpftrace and perf handle.) Without <sys/sdt.h>, or with LSLM_NO_PROBES, all is nothing.
 *
 * scripts/trace/ttft.bt shows how they are used.
 */
#ifndef LSLM_BASE_PROBES_H
#define LSLM_BASE_PROBES_H

#define LSLM_PROBES(X)    \
	X(context_wanted) \
	X(stream)         \
	X(unit_ready)     \
	X(met)            \
	X(layer_wait)     \
	X(layer_there)    \
	X(first_token)

#if !defined(LSLM_NO_PROBES) && __has_include(<sys/sdt.h>)

#define SDT_USE_VARIADIC
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

/* Counts the tracers; written by them. */
#define PROBE_DECLARE(name)                                    \
	extern volatile unsigned short lslm_##name##_semaphore \
		__attribute__((visibility("hidden")));
LSLM_PROBES(PROBE_DECLARE)

#define PROBE_ON(name) (lslm_##name##_semaphore != 0)
#define PROBE(name, ...)                                      \
	do {                                                  \
		if (__builtin_expect(PROBE_ON(name), 0))      \
			STAP_PROBEV(lslm, name, __VA_ARGS__); \
	} while (0)

#else

#define PROBE_ON(name) 0

/* The arguments are still compiled, so that they stay right, and then thrown away. */
static inline void probe_nothing(int first, ...)
{
	(void)first;
}

#define PROBE(name, ...)                               \
	do {                                           \
		if (PROBE_ON(name))                    \
			probe_nothing(0, __VA_ARGS__); \
	} while (0)

#endif

#endif
