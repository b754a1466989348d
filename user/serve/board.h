/* SPDX-License-Identifier: MIT */
/*
 * The board: a page of memory that the supervisor writes, and that its courier and its engines read.
 *
 * It has the supervisor's figures, for those who report them, and says what admins chose about contexts, so all processes agree about
 * that, and whoever is started anew too. It lives as long as the supervisor. A choice is about a key; there are BOARD_CHOICES at most.
 *
 * Readers have a read-only descriptor. They never wait for the writer but while it writes, and see each row whole.
 */
#ifndef LSLM_SERVE_BOARD_H
#define LSLM_SERVE_BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "bpf/guard.h"
#include "kv/key.h"
#include "serve/tally.h"

struct board;

enum { BOARD_CHOICES = 1024, BOARD_CLOUDS = 16 };

enum {
	BOARD_PINNED = 1,
	BOARD_DROPPED = 2,
	BOARD_ATTACHED = 4, /* an admin asked for it, and it comes from the cloud */
};

struct board_choice {
	struct kv_hash key;
	uint32_t flags;
	uint32_t drops; /* how often it was dropped: who has one of before has what was dropped */
};

/* One that couriers ask (net/sites.h), as the last one said; the counts are all couriers' together. */
struct board_cloud {
	char name[256]; /* "": there are no more */
	uint32_t state; /* enum breaker_state */
	uint64_t opened, probes;
};

/* Since the supervisor started; as of a second ago at most. */
struct board_figures {
	uint64_t guard[GUARD_COUNTERS]; /* by enum guard_reason; 0 without a guard */
	uint64_t refused_calls; /* of engines, by their filters */
	uint64_t engine_starts, courier_starts;
	uint32_t engines_ready;
	uint32_t guarded; /* 1: engines are, all of them */
	struct board_cloud clouds[BOARD_CLOUDS];
	struct tally_page
		serving; /* of all engines that there are and were; now: of those that there are */
};

/* The writer's. */
int board_create(struct board **out, struct lslm_error *err);
/* A new read-only descriptor, owned by the caller. */
int board_ro_fd(const struct board *b, struct lslm_error *err);
/*
 * Of this key's flags those in `clear` are taken away, those in `set` are added; with BOARD_DROPPED among them it was dropped once
 * more. -ENOSPC: there is no row for one more key.
 */
int board_choose(struct board *b, const struct kv_hash *key, uint32_t clear, uint32_t set);

void board_put_figures(struct board *b, const struct board_figures *figures);

/* A reader's; takes fd over, unless it fails. */
int board_open(struct board **out, int fd, struct lslm_error *err);
void board_close(struct board *b); /* NULL is allowed */

/* What was chosen about this key: flags 0 where nothing was, or where b is NULL. From any thread. */
void board_choice(const struct board *b, const struct kv_hash *key, struct board_choice *out);
/* Was anything ever chosen about it? */
bool board_knows(const struct board *b, const struct kv_hash *key);
/* False where b is NULL. */
bool board_figures(const struct board *b, struct board_figures *out);
/* Of the cloud with this name, or false. */
bool board_cloud(const struct board *b, const char *name, struct board_cloud *out);
/* The n-th of all choices; -ENOENT behind the last one. */
int board_list(const struct board *b, uint32_t n, struct board_choice *out);

#endif
