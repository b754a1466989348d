/* SPDX-License-Identifier: MIT */
/*
 * Stop strings: where an answer ends because its text says so.
 *
 * They are matched on the text and not on tokens, because a string may begin in the middle of one token and end in
 * another. So the end of a text that is still growing must not be shown yet where it could be
 * the beginning of a stop string, or is a part of a character. Nothing of a stop string is ever shown.
 */
#ifndef LSLM_SERVE_STOP_H
#define LSLM_SERVE_STOP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum { STOP_MAX = 4, STOP_MAX_BYTES = 1024 };

struct stop {
	unsigned int n;
	size_t longest;
	struct {
		char *text; /* owned here */
		size_t len;
	} strings[STOP_MAX];
};

/* A copy. -EINVAL: it is empty, or longer than STOP_MAX_BYTES, or one too many. */
int stop_add(struct stop *s, const char *text, size_t len, struct lslm_error *err);
void stop_free(struct stop *s);

/*
 * text has len bytes, of which the first `seen` were looked at before with nothing found. Returns how many bytes of it
 * may be shown. *found: a stop string follows them, and the answer ends there.
 */
size_t stop_scan(const struct stop *s, const char *text, size_t len, size_t seen, bool *found);

#endif
