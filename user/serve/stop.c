// SPDX-License-Identifier: MIT
#include "serve/stop.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

int stop_add(struct stop *s, const char *text, size_t len, struct lslm_error *err)
{
	char *copy;

	if (s->n == STOP_MAX)
		return error_set(err, -EINVAL, "more than %d stop strings", STOP_MAX);
	if (!len || len > STOP_MAX_BYTES)
		return error_set(err, -EINVAL, "a stop string has 1 to %d bytes", STOP_MAX_BYTES);
	copy = malloc(len);
	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	memcpy(copy, text, len);
	s->strings[s->n].text = copy;
	s->strings[s->n].len = len;
	s->n++;
	if (len > s->longest)
		s->longest = len;
	return 0;
}

void stop_free(struct stop *s)
{
	for (unsigned int i = 0; i < s->n; i++)
		free(s->strings[i].text);
	*s = (struct stop){ 0 };
}

/* The first byte of the earliest stop string that begins at or behind `from`; len: there is none. */
static size_t find(const struct stop *s, const char *text, size_t len, size_t from)
{
	size_t at = len;

	for (unsigned int i = 0; i < s->n; i++) {
		const char *hit =
			memmem(text + from, len - from, s->strings[i].text, s->strings[i].len);

		if (hit && (size_t)(hit - text) < at)
			at = (size_t)(hit - text);
	}
	return at;
}

/* Could what begins here, up to the end of the text, be the beginning of a stop string? */
static bool may_begin(const struct stop *s, const char *rest, size_t left)
{
	for (unsigned int i = 0; i < s->n; i++)
		if (left < s->strings[i].len && !memcmp(rest, s->strings[i].text, left))
			return true;
	return false;
}

size_t stop_scan(const struct stop *s, const char *text, size_t len, size_t seen, bool *found)
{
	size_t at = len, from;

	*found = false;
	if (s->n) {
		from = seen >= s->longest ? seen - s->longest + 1 : 0;
		at = find(s, text, len, from);
		*found = at < len;
		if (*found)
			return at;
		for (at = from; at < len && !may_begin(s, text + at, len - at);)
			at++;
	}
	return utf8_whole(text, at);
}
