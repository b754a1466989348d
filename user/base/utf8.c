// SPDX-License-Identifier: MIT
#include "base/utf8.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* By its first byte; 0 for one that begins none. */
static size_t length(uint8_t first)
{
	if (first < 0x80)
		return 1;
	if (first < 0xc0 || first >= 0xf8)
		return 0;
	return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

size_t utf8_next(const uint8_t *s, size_t left, uint32_t *c)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = length(s[0]);

	if (n == 0 || n > left)
		return 0;
	*c = n == 1 ? s[0] : s[0] & (0x7f >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*c = *c << 6 | (s[i] & 0x3f);
	}
	return *c < least[n] || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000) ? 0 : n;
}

/* Is this the beginning of a character whose rest is not there? */
static bool is_cut(const uint8_t *s, size_t left)
{
	if (length(s[0]) <= left)
		return false;
	for (size_t i = 1; i < left; i++)
		if ((s[i] & 0xc0) != 0x80)
			return false;
	return true;
}

void utf8_clean(char *text)
{
	uint8_t *s = (uint8_t *)text;
	size_t left = strlen(text), n;
	uint32_t c;

	for (; left; s += n, left -= n) {
		n = utf8_next(s, left, &c);
		if (n)
			continue;
		if (is_cut(s, left)) {
			*s = 0;
			return;
		}
		*s = '?';
		n = 1;
	}
}

size_t utf8_whole(const char *text, size_t len)
{
	const uint8_t *s = (const uint8_t *)text;

	/* A character has at most four bytes, so the one that is cut begins in the last three. */
	for (size_t back = 1; back <= 3 && back <= len; back++) {
		if ((s[len - back] & 0xc0) == 0x80)
			continue;
		return is_cut(s + len - back, back) ? len - back : len;
	}
	return len;
}

char *utf8_replace(const char *text, size_t len, size_t *out_len)
{
	static const char replacement[] = "\xef\xbf\xbd";
	const uint8_t *s = (const uint8_t *)text;
	char *out = malloc(3 * len + 1), *at = out;
	uint32_t c;
	size_t n;

	if (!out)
		return NULL;
	for (; len; s += n, len -= n) {
		n = utf8_next(s, len, &c);
		if (n) {
			memcpy(at, s, n);
			at += n;
			continue;
		}
		memcpy(at, replacement, 3);
		at += 3;
		n = 1;
	}
	*at = 0;
	*out_len = (size_t)(at - out);
	return out;
}
