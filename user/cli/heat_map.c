// SPDX-License-Identifier: MIT
/*
 * The PNG has 8 bits of grey and is not compressed: zlib's format lets data be stored as they are, which needs only the two sums.
 */
#include "cli/heat_map.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum {
	CELL = 24,
	MOST = 512, /* rows or columns */
	STORED = 65535, /* bytes of a stored block at most */
	STORED_HEAD = 5,
};

static void put_be32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t crc(const uint8_t *p, size_t n)
{
	uint32_t c = ~0U;

	while (n--) {
		c ^= *p++;
		for (int i = 0; i < 8; i++)
			c = c >> 1 ^ (c & 1 ? 0xedb88320U : 0);
	}
	return ~c;
}

static uint32_t adler(const uint8_t *p, size_t n)
{
	uint32_t a = 1, b = 0;

	while (n--) {
		a = (a + *p++) % 65521;
		b = (b + a) % 65521;
	}
	return b << 16 | a;
}

/* A chunk around n bytes that are at p + 8 already. Returns where it ends. */
static uint8_t *close_chunk(uint8_t *p, const char *type, size_t n)
{
	put_be32(p, (uint32_t)n);
	memcpy(p + 4, type, 4);
	put_be32(p + 8 + n, crc(p + 4, n + 4));
	return p + 12 + n;
}

/* zlib's stream of n bytes, stored. Returns its length. */
static size_t store(uint8_t *out, const uint8_t *in, size_t n)
{
	uint8_t *p = out;

	*p++ = 0x78;
	*p++ = 0x01;
	for (size_t at = 0, m; at < n; at += m) {
		m = n - at < STORED ? n - at : STORED;
		*p++ = at + m == n;
		*p++ = (uint8_t)m;
		*p++ = (uint8_t)(m >> 8);
		*p++ = (uint8_t)~m;
		*p++ = (uint8_t)(~m >> 8);
		memcpy(p, in + at, m);
		p += m;
	}
	put_be32(p, adler(in, n));
	return (size_t)(p - out) + 4;
}

static uint8_t grey(double value)
{
	return (uint8_t)(255 * (value < 0 ? 0 : value > 1 ? 1 : value));
}

/* Lines of pixels, each behind a byte that says how it is filtered: not. A frame is of the other end of the scale. */
static void draw(uint8_t *lines, const double *values, uint32_t rows, uint32_t columns,
		 const uint32_t *mark)
{
	const size_t width = 1 + (size_t)columns * CELL;

	for (size_t y = 0; y < (size_t)rows * CELL; y++) {
		const uint32_t row = rows - 1 - (uint32_t)(y / CELL);
		uint8_t *line = lines + y * width;

		*line++ = 0;
		for (size_t x = 0; x < width - 1; x++) {
			const uint32_t column = (uint32_t)(x / CELL);
			const uint8_t at = grey(values[(size_t)row * columns + column]);
			const bool edge = x % CELL < 2 || x % CELL >= CELL - 2 || y % CELL < 2 ||
					  y % CELL >= CELL - 2;

			line[x] = edge && mark[column] == row ? (at < 128 ? 255 : 0) : at;
		}
	}
}

int heat_map_write(const char *path, const double *values, uint32_t rows, uint32_t columns,
		   const uint32_t *mark, struct lslm_error *err)
{
	static const uint8_t signature[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
	const size_t size = (size_t)rows * CELL * (1 + (size_t)columns * CELL);
	uint8_t *lines, *png, *p;
	int rc;

	if (!rows || !columns || rows > MOST || columns > MOST)
		return error_set(err, -EINVAL, "%s: %u rows and %u columns are no picture", path,
				 rows, columns);
	lines = malloc(size);
	png = calloc(1, size + (size / STORED + 1) * STORED_HEAD + 128);
	if (lines && png) {
		draw(lines, values, rows, columns, mark);
		memcpy(png, signature, sizeof(signature));
		p = png + sizeof(signature);
		put_be32(p + 8, columns * CELL);
		put_be32(p + 12, rows * CELL);
		p[16] = 8; /* bits; the colour type and all else is 0 */
		p = close_chunk(p, "IHDR", 13);
		p = close_chunk(p, "IDAT", store(p + 8, lines, size));
		p = close_chunk(p, "IEND", 0);
		rc = file_write(path, png, (size_t)(p - png), 0644, FILE_REPLACE, err);
	} else {
		rc = error_set(err, -ENOMEM, "out of memory");
	}
	free(lines);
	free(png);
	return rc;
}
