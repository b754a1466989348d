// SPDX-License-Identifier: MIT
#include "base/hex.h"

#include <errno.h>

void hex_format(char *text, const uint8_t *data, size_t size)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < size; i++) {
		*text++ = digits[data[i] >> 4];
		*text++ = digits[data[i] & 15];
	}
	*text = 0;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int hex_parse(uint8_t *data, size_t size, const char *text, size_t len)
{
	if (len / 2 != size || len % 2)
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		if (digit(text[i]) < 0)
			return -EINVAL;
	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
	return 0;
}
