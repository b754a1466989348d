/* SPDX-License-Identifier: MIT */
/*
 * Errands: what admins want done about contexts, on its way from an engine to the courier and back.
 *
 * The supervisor's. What an engine asks for is settled on the board at once (unpin, drop), which all processes read; the
 * courier is told of it, to let go of the memory, or of what its store sets aside. To attach one is the courier's to do, which alone knows what there is, and so is
 * to pin one, as long as there is a courier, for which its store must have room: the
 * engine waits for its answer, for ERRAND_S seconds at most, and hears no later than the courier's end.
 *
 * An engine is not believed. It says a key, or for ATTACH a line of its admin's, and the courier only looks for that in what
 * it has or its cloud lists: nothing of it travels. So many in so many seconds are listened to.
 */
#ifndef LSLM_SERVE_ERRANDS_H
#define LSLM_SERVE_ERRANDS_H

#include <sys/types.h>

#include "serve/board.h"
#include "serve/channel.h"
#include "serve/holdings.h"

struct errands;

enum {
	ERRAND_S = 30,
	/* That one engine may ask for in so many seconds. */
	ERRANDS_MAX = 64,
	ERRANDS_MAX_S = 10,
};

/* As kept with each engine; zero at first. */
struct errand_count {
	uint32_t n;
	double since;
};

/* Both outlive it. log: one line for each thing done; NULL: none. */
int errands_create(struct errands **out, struct board *board, struct holdings *holdings,
		   void (*log)(void *arg, const char *line), void *arg, struct lslm_error *err);
void errands_destroy(struct errands *e); /* NULL is allowed */

/*
 * A CHANGE of the engine that is this process. courier: its channel, -1 for none. 1: *m is the answer, to be sent now; 0: it comes
 * later; -EPROTO: it says what it should not.
 */
int errands_take(struct errands *e, pid_t engine, struct errand_count *count,
		 struct channel_message *m, int courier);
/* A CHANGED of the courier's, by its channel: as above, and *engine is who waits for *m. */
int errands_answer(struct errands *e, struct channel_message *m, int courier, pid_t *engine);
/*
 * Somebody has waited long enough, or there is no courier any more (lost): 1, and *m is for *engine; 0: there is nobody.
 */
int errands_overdue(struct errands *e, bool lost, struct channel_message *m, pid_t *engine);
/* When the next one will be; 0: never. */
double errands_next(const struct errands *e);

#endif
