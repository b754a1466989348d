/* SPDX-License-Identifier: MIT */
/*
 * Contexts of a shelf (serve/shelf.h) that were dropped, and how to have them again: the last SHELF_CONTEXTS of them.
 *
 * Under the shelf's lock.
 */
#ifndef LSLM_SERVE_GONE_H
#define LSLM_SERVE_GONE_H

#include "serve/shelf.h"

struct gone_context {
	char *source; /* NULL: there is none at this place */
	struct kv_hash key;
	char title[MANIFEST_MAX_TITLE + 1]; /* "": not known */
	bool has_salt; /* it is known */
	struct kv_hash salt; /* its name */
};

/* Zeroes: there are none. */
struct gone {
	struct gone_context all[SHELF_CONTEXTS];
	uint32_t n; /* ever; the oldest give way */
};

/* Keeps a copy of the source. title "" and salt NULL: not known, and what was known of this key before stays. */
void gone_remember(struct gone *g, const char *source, const struct kv_hash *key, const char *title,
		   const struct kv_hash *salt);
/* May who looks for this name find it? See shelf_find(). */
bool gone_is_whose(const struct gone_context *c, const struct shelf_whose *whose, const char *name);
void gone_free(struct gone *g);

#endif
