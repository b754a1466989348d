/* SPDX-License-Identifier: MIT */
/*
 * The contexts that requests can meet: those that are attached for one model.
 *
 * A request meets one by its tokens, the longest that is a prefix of what it says, or by its name. It then holds it until its
 * answer has ended; a context that was removed meanwhile is not found any more, and is closed by whoever lets go of it last.
 * Whose contexts they are is kept apart: one is there for those who have the salt of its key, and for nobody else.
 *
 * From any thread.
 */
#ifndef LSLM_SERVE_ATTACHED_H
#define LSLM_SERVE_ATTACHED_H

#include <jansson.h>
#include <stdbool.h>

#include "engine/context.h"
#include "kv/key.h"

struct attached;
struct attached_context;

int attached_open(struct attached **out, struct lslm_error *err);
/* Closes every context; nothing is held any more. NULL is allowed. */
void attached_close(struct attached *set);

/* Takes c over, unless it fails. -EEXIST: it is there already. */
int attached_add(struct attached *set, struct context *c, struct lslm_error *err);
/* -ENOENT. Whoever names a key has been told of it, as in attached_pin(). */
int attached_remove(struct attached *set, const struct kv_hash *key, struct lslm_error *err);
/* Only remembered here: what it means is the courier's. */
int attached_pin(struct attached *set, const struct kv_hash *key, bool pinned,
		 struct lslm_error *err);

/*
 * Whether all that there is was told, as it is at first. While it was not, who names one that is not there hears -ENOTCONN: it may
 * well be.
 */
void attached_set_told(struct attached *set, bool told);
bool attached_is_told(struct attached *set);

/* The longest whose tokens these begin with, and at least one more follows; held. NULL: there is none. */
struct attached_context *attached_match(struct attached *set, const struct kv_hash *salt,
					const int32_t *ids, uint32_t n);
/* By key, by a beginning of it that is no other's, or by title; held. -ENOENT, -ENOTUNIQ, -ENOTCONN. */
int attached_find(struct attached *set, const struct kv_hash *salt, const char *name,
		  struct attached_context **out, struct lslm_error *err);
void attached_put(struct attached_context *c);

struct context *attached_get(struct attached_context *c);

/*
 * What is known of each of this salt, or of the one with this key: an array of objects, docs/http.md lists their fields.
 * NULL: no memory.
 */
json_t *attached_describe(struct attached *set, const struct kv_hash *salt,
			  const struct kv_hash *key);

struct attached_sum {
	uint32_t contexts, pinned;
	uint64_t tokens, blocks, ready, failed;
	uint64_t from_peers; /* blocks, of those that are ready */
};

void attached_sum(struct attached *set, const struct kv_hash *salt, struct attached_sum *out);

#endif
