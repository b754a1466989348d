/* SPDX-License-Identifier: MIT */
/* UTF-8 from strangers. */
#ifndef LSLM_BASE_UTF8_H
#define LSLM_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/*
 * Length of the sequence at s, of which `left` bytes (at least one) can be read, and its value; 0 for
 * none. Shortest form only, no surrogates.
 */
size_t utf8_next(const uint8_t *s, size_t left, uint32_t *c);

/* Make it UTF-8: a character that was cut at the end goes, every other byte that belongs to none becomes '?'. */
void utf8_clean(char *text);

/* Of these bytes, how many there are without a character at the end whose rest is missing. */
size_t utf8_whole(const char *text, size_t len);

/*
 * A copy in which every byte that belongs to no character is U+FFFD; malloc'd for the caller, NUL-terminated (a NUL in the
 * text stays one). NULL: no memory.
 */
char *utf8_replace(const char *text, size_t len, size_t *out_len);

#endif
