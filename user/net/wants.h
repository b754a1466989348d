/* SPDX-License-Identifier: MIT */
/*
 * What a receiver wants: a sink's missing blocks as regions of a session, and as a REPORT's wants.
 *
 * A stripe is a region, its blocks are the units. A *window* of stripes, those that are needed first in
 * the sink's order, is bound at any time; a stripe leaves it when it is complete, or not wanted any more
 * because the engine has come past it. What is complete is checked by sink_block() where it lies,
 * and neither listed nor bound again, also when the chunk changes.
 *
 * How many stripes the window has is bounded by WANTS_SLOTS and, where binding locks memory, by what
 * the kernel lets this process lock.
 *
 * Used by the session's thread. wants_take() may be called within session_poll().
 */
#ifndef LSLM_NET_WANTS_H
#define LSLM_NET_WANTS_H

#include "net/report.h"
#include "net/session.h"
#include "net/source.h"

enum {
	WANTS_SLOTS = 1024, /* more than a REPORT can list, in either order */
	WANTS_URGENT = 8, /* stripes whose data steering lets through before others' */
};

struct steer;
struct wants;

/* The slots that the session needs for this sink. */
uint32_t wants_slots(const struct sink *sink);

/* The session has wants_slots(); sink->buffer is set. steer may be NULL. */
int wants_open(struct wants **out, struct sink *sink, struct session *session, struct steer *steer,
	       struct lslm_error *err);
/* Unbinds all: nothing is written to the sink any more. NULL: nothing happens. */
void wants_close(struct wants *w);

/*
 * Move the window, and bind what is in it in chunks of this size. -EBADMSG as sink_block(); others
 * as session_bind(), when not even one stripe can be bound.
 */
int wants_bind(struct wants *w, uint32_t chunk, struct lslm_error *err);
/* The wants of what is missing and bound, in the order of need, as many as fit. Returns how many, or -errno. */
int wants_write(struct wants *w, struct report_writer *out);

/* A unit has come: check its digest, mark it. Units of the past are ignored. */
int wants_take(struct wants *w, const struct session_done *done, struct lslm_error *err);
/* Completions were lost: look which units are complete. */
int wants_look(struct wants *w, struct lslm_error *err);

/* Nothing is wanted any more. */
bool wants_is_done(struct wants *w);

#endif
