// SPDX-License-Identifier: MIT
#include "serve/body.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int body_count(struct body *b, size_t size, uint64_t max)
{
	b->received += size;
	if (b->received <= max)
		return 0;
	return b->received > max + BODY_DISCARD_MAX ? -EMSGSIZE : -EFBIG;
}

/* Is everything before the piece that was counted last here? */
static int is_whole(const struct body *b, size_t size)
{
	return b->text || b->received == size;
}

int body_keep(struct body *b, const char *data, size_t size, uint64_t max)
{
	int ret = body_count(b, size, max);
	size_t room = b->room;
	char *more;

	if (ret) {
		body_free(b);
		return ret;
	}
	if (!is_whole(b, size))
		return -ENOMEM;
	while (room < b->received)
		room = room ? room * 2 : 16384;
	if (room != b->room) {
		more = realloc(b->text, room);
		if (!more) {
			body_free(b);
			return -ENOMEM;
		}
		b->text = more;
		b->room = room;
	}
	memcpy(b->text + b->received - size, data, size);
	return 0;
}

void body_free(struct body *b)
{
	free(b->text);
	b->text = NULL;
	b->room = 0;
}
