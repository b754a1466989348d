// SPDX-License-Identifier: MIT
#include "model/unicode.h"

enum unicode_class unicode_class(uint32_t code)
{
	unsigned int lo = 0, hi = unicode_n_runs;

	if (code > 0x10ffff)
		return UNICODE_OTHER;
	while (hi - lo > 1) {
		unsigned int mid = lo + (hi - lo) / 2;

		if (unicode_runs[mid] >> 8 <= code)
			lo = mid;
		else
			hi = mid;
	}
	return unicode_runs[lo] & 0xff;
}

size_t unicode_decode(const char *text, size_t len, uint32_t *code)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *b = (const unsigned char *)text;
	size_t n = b[0] < 0x80 ? 1 : b[0] < 0xc0 ? 0 : b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
	uint32_t c;

	if (n == 1) {
		*code = b[0];
		return 1;
	}
	*code = UNICODE_REPLACEMENT;
	if (n == 0 || n > len || b[0] > 0xf4)
		return 1;
	c = b[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((b[i] & 0xc0) != 0x80)
			return 1;
		c = c << 6 | (b[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 1;
	*code = c;
	return n;
}

size_t unicode_encode(uint32_t code, char out[4])
{
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (char)(0xc0 | code >> 6);
		out[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code < 0x10000) {
		out[0] = (char)(0xe0 | code >> 12);
		out[1] = (char)(0x80 | (code >> 6 & 0x3f));
		out[2] = (char)(0x80 | (code & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | code >> 18);
	out[1] = (char)(0x80 | (code >> 12 & 0x3f));
	out[2] = (char)(0x80 | (code >> 6 & 0x3f));
	out[3] = (char)(0x80 | (code & 0x3f));
	return 4;
}

/* The bytes without a printable character: 00-20, 7f-a0 and ad, in this order from U+0100. */
uint32_t unicode_from_byte(uint8_t byte)
{
	if (byte <= 0x20)
		return 0x100u + byte;
	if (byte >= 0x7f && byte <= 0xa0)
		return 0x121u + (byte - 0x7fu);
	if (byte == 0xad)
		return 0x143;
	return byte;
}

int unicode_to_byte(uint32_t code)
{
	if (code >= 0x100 && code <= 0x120)
		return (int)(code - 0x100);
	if (code >= 0x121 && code <= 0x142)
		return (int)(code - 0x121 + 0x7f);
	if (code == 0x143)
		return 0xad;
	if (code > 0xff || unicode_from_byte((uint8_t)code) != code)
		return -1;
	return (int)code;
}
