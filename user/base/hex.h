/* SPDX-License-Identifier: MIT */
/*
 * Keys and digests as people read them: two lower-case hexadecimal digits per byte.
 */
#ifndef LSLM_BASE_HEX_H
#define LSLM_BASE_HEX_H

#include <stddef.h>
#include <stdint.h>

/* text receives 2 * size digits and a NUL. */
void hex_format(char *text, const uint8_t *data, size_t size);

/*
 * The first len characters of text are exactly 2 * size digits of either case: 0, else
 * -EINVAL and *data is untouched.
 */
int hex_parse(uint8_t *data, size_t size, const char *text, size_t len);

#endif
