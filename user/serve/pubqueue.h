/* SPDX-License-Identifier: MIT */
/*
 * The publishing queue: texts become contexts in the store, one at a time.
 *
 * Computing a context takes all cores, so texts queue up, first come, first served. Whoever asks for
 * a text that is queued or being computed already gets that job and shares its result, however
 * many they are. A context that the store has is not computed again.
 *
 * A job has a number that cannot be guessed. It is remembered after its end, among the last PUBQUEUE_KEPT,
 * so that whoever did not want to wait can ask what became of it.
 */
#ifndef LSLM_SERVE_PUBQUEUE_H
#define LSLM_SERVE_PUBQUEUE_H

#include <stdbool.h>

#include "serve/store.h"

struct pubqueue;

enum {
	PUBQUEUE_KEPT = 128,
	PUBQUEUE_WAITING = 64, /* jobs that have not begun; more are refused */
	PUBQUEUE_ID = 33, /* 32 hexadecimal digits and a NUL */
};

/* What is to be published, and for whom. */
struct pubqueue_text {
	const char *text;
	size_t len;
	bool raw;
	const char *title; /* NULL: none */
	const char *model; /* its name; NULL: the first one */
	const char *
		map; /* likewise: made from another model's values; NULL: computed with the model itself */
	struct kv_hash salt; /* of the tenant */
	uint64_t quota; /* that store_add() goes by */
};

/* How the engine's part talks back while it computes. */
struct pubqueue_work {
	void *arg;
	void (*progress)(void *arg, uint32_t done, uint32_t total); /* in tokens */
	/* Asked once, as soon as the key is known. True: it is in the store, so nothing need be written. */
	bool (*have)(void *arg, const struct kv_hash *key);
};

/*
 * Compute the context of a text and write it to path (a .lskv, mode 0600): the engine's part. Called by one
 * thread at a time.
 */
typedef int pubqueue_fn(void *arg, const struct pubqueue_text *what, const char *path,
			const struct pubqueue_work *work, struct kv_hash *key,
			struct lslm_error *err);

int pubqueue_open(struct pubqueue **out, struct store *store, pubqueue_fn *compute, void *arg,
		  struct lslm_error *err);
/* Ends after the job that is computing; no thread may be within another call any more. */
void pubqueue_close(struct pubqueue *p);

/* Blocks until the context is in the store. Errors as of pubqueue_submit(), or what the job ended with. */
int pubqueue_publish(struct pubqueue *p, const struct pubqueue_text *what, struct kv_hash *key,
		     struct lslm_error *err);

/* Does not wait. what is copied. -EAGAIN: PUBQUEUE_WAITING jobs are waiting. */
int pubqueue_submit(struct pubqueue *p, const struct pubqueue_text *what, char id[PUBQUEUE_ID],
		    struct lslm_error *err);

enum pubqueue_state {
	PUBQUEUE_QUEUED,
	PUBQUEUE_COMPUTING,
	PUBQUEUE_STORED,
	PUBQUEUE_FAILED,
};

struct pubqueue_status {
	enum pubqueue_state state;
	unsigned int before; /* QUEUED: jobs that come first */
	uint32_t done, total; /* tokens; total 0: not known yet */
	struct kv_hash key; /* STORED */
	struct lslm_error err; /* FAILED */
};

/* -ENOENT for a number that is not remembered, or whose job is another tenant's. */
int pubqueue_look(struct pubqueue *p, const char *id, const struct kv_hash *salt,
		  struct pubqueue_status *out);

/* Calls of pubqueue_publish() under way. */
unsigned int pubqueue_users(struct pubqueue *p);

#endif
