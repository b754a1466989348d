/* SPDX-License-Identifier: MIT */
/*
 * One object of each kind for calls that are made to fail, and all that can be seen of them: what
 * must be the same after a call that failed.
 */
#ifndef TESTS_VM_THINGS_H
#define TESTS_VM_THINGS_H

#include "session.h"

enum {
	THINGS_PAGES = 24, /* of a buffer */
	THINGS_SLOTS = 64,
	THINGS_ENTRIES = 1024,
	THINGS_UNITS = 4, /* of a page each */
	THINGS_CHUNK = 1280,
};

struct things {
	int dev, socket, session;
	int other_socket; /* without a session */
	int buffer; /* bound in slot 1 */
	int spare; /* bound nowhere */
	uint32_t generation; /* of slot 1 */
	size_t page;
};

static inline struct things things_make(void)
{
	struct things t = { .dev = dev_open(), .page = sysconf(_SC_PAGESIZE) };
	int64_t generation;

	t.buffer = buf_create(t.dev, THINGS_PAGES * t.page, 0);
	t.spare = buf_create(t.dev, THINGS_PAGES * t.page, 0);
	t.socket = udp_socket(AF_INET);
	t.other_socket = udp_socket(AF_INET);
	t.session = session_create(t.dev, t.socket, THINGS_SLOTS, THINGS_ENTRIES, NULL);
	if (t.buffer < 0 || t.spare < 0 || t.session < 0)
		bail("a buffer or a session");
	generation = region_bind(t.session, 1, t.buffer, 0, THINGS_CHUNK, THINGS_UNITS, t.page);
	if (generation < 0)
		bail("LSLM_REGION_BIND");
	t.generation = (uint32_t)generation;
	return t;
}

static inline void things_end(const struct things *t)
{
	close(t->session);
	close(t->socket);
	close(t->other_socket);
	close(t->buffer);
	close(t->spare);
	is(dev_info(t->dev).out_used_bytes, 0, "nothing is left");
	close(t->dev);
}

/* To be compared by memcmp(): no padding. */
struct state {
	uint64_t used_bytes, used_buffers;
	int64_t missing; /* chunks of slot 1, or the errno */
	int64_t next_fd;
	struct lslm_query of[2];
	struct lslm_session_stats session;
};

static inline struct state state_of(const struct things *t)
{
	struct lslm_get_info info = dev_info(t->dev);
	struct lslm_range range;
	uint32_t missing = 0;
	struct state state = { .used_bytes = info.out_used_bytes,
			       .used_buffers = info.out_used_buffers,
			       .of = { buf_query(t->buffer), buf_query(t->spare) },
			       .session = session_stats(t->session) };
	int ret = region_missing(t->session, 1, t->generation, 0, &range, 1, &missing);

	state.missing = ret < 0 ? ret : (int64_t)missing;
	state.next_fd = dup(t->dev);
	close((int)state.next_fd);
	return state;
}

#endif
