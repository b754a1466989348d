/* SPDX-License-Identifier: MIT */
/*
 * A choice: at which level each stripe of a context comes.
 *
 * A level is chosen when a stripe is about to be asked for, and not before, because only then is it
 * known how fast the link is. The choice is the finest level at which all that is still missing comes before the
 * deadline at the goodput measured so far, what the engine computes meanwhile left out; when not
 * even the coarsest does, that one. With one level to choose from, or without a deadline, nothing is measured.
 * A speed that is only guessed, from how long the manifest took, which is mostly waiting, is trusted as a
 * lower bound: all at the finest, if that is enough, or one stripe to measure with.
 *
 * Attention reads stripes of one format in a row as one segment, so a choice makes at most CHOICE_RUNS of them, whatever
 * the link does: it gets finer only while half of them are left.
 *
 * In memory each stripe has a place of choice_pitch() bytes, the size of the largest that may come.
 *
 * Used by one thread at a time, but for choice_level(). Times are seconds of one clock.
 */
#ifndef LSLM_NET_CHOICE_H
#define LSLM_NET_CHOICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/manifest.h"

enum {
	CHOICE_RUNS = 8,
	CHOICE_ALL_LEVELS = (1 << KV_LEVELS) - 1,
};

struct choice;

/*
 * levels: bits 1 << enum kv_level that may come. -EINVAL when the context, which outlives the choice, is on
 * offer at none of them.
 */
int choice_open(struct choice **out, const struct manifest *m, uint32_t levels,
		struct lslm_error *err);
void choice_close(struct choice *p);

size_t choice_pitch(const struct choice *p);
/* Bytes of the largest stripe that may come and is decoded on arrival; 0: none is. */
size_t choice_encoded(const struct choice *p);
/* The levels to choose from, finest first; NULL behind the last one. */
const struct manifest_level *choice_candidate(const struct choice *p, uint32_t i);
/* NULL: not chosen yet. From any thread: as it is or was a moment ago. */
const struct manifest_level *choice_level(const struct choice *p, uint32_t stripe);

/*
 * Receiving begins: from now on, within deadline_s (0: take all the time there is). So many bytes have come before,
 * at no less than this rate in bytes per second (0: nothing is known).
 */
void choice_begin(struct choice *p, double now, double deadline_s, uint64_t received, double rate);
/* So many bytes have come by now, those before included. */
void choice_see(struct choice *p, uint64_t received, double now);

/* This one is asked for next, where it is not chosen already; the engine has computed head stripes. */
void choice_make(struct choice *p, uint32_t stripe, uint32_t head, double now);
/* It was found somewhere at this level. False, and nothing chosen: there would be too many runs. */
bool choice_take(struct choice *p, uint32_t stripe, const struct manifest_level *lv);
/*
 * Somebody else has it at this level, which need not be one of those to choose from: is that what choice_make() would take, or
 * finer? With alone it is better than nothing, whatever it is.
 */
bool choice_accepts(const struct choice *p, uint32_t stripe, const struct manifest_level *lv,
		    uint32_t head, double now, bool alone);
/* It is asked for at this level. False as choice_take(). */
bool choice_ask(struct choice *p, uint32_t stripe, const struct manifest_level *lv);
/* It has not come, and will be asked for once more. */
void choice_forget(struct choice *p, uint32_t stripe);

/*
 * Bytes that may be asked for before the speed is looked at again, what is under way counted: UINT64_MAX when
 * nothing is left to decide. One stripe may always be asked for.
 */
uint64_t choice_budget(const struct choice *p, uint32_t head, double now);

#endif
