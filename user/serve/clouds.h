/* SPDX-License-Identifier: MIT */
/*
 * What a supervisor counts of the clouds that its couriers ask, one courier after the other: counts on the board do not begin anew
 * with the next one.
 */
#ifndef LSLM_SERVE_CLOUDS_H
#define LSLM_SERVE_CLOUDS_H

#include "serve/board.h"
#include "serve/channel.h"

/* What this courier has said so far, by row of the board. */
struct clouds {
	uint64_t opened[BOARD_CLOUDS], probes[BOARD_CLOUDS];
};

/* There is another courier. */
void clouds_begin(struct clouds *c);
/* A CLOUD of it, into the rows; beyond BOARD_CLOUDS clouds it is not counted. -EPROTO: it is none. */
int clouds_take(struct clouds *c, struct board_cloud rows[BOARD_CLOUDS],
		const struct channel_message *m);

#endif
