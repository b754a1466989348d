// SPDX-License-Identifier: MIT
#include "serve/stream.h"

#include <stdlib.h>

#include "base/file.h"

/* What is read at once: several TLS records, and more than most blocks. */
enum { STREAM_PIECE = 256 << 10 };

struct stream {
	struct lskv *file;
	struct range range; /* of it, what was not sent */
	uint64_t within; /* bytes of its first unit that were */
};

static uint64_t unit_bytes(const struct stream *st, uint64_t *offset)
{
	const struct range *r = &st->range;
	uint32_t stripe, unit;

	order_block(&r->order, r->from, &stripe, &unit);
	*offset = lskv_unit_offset(st->file, r->level, stripe, unit);
	return manifest_unit_bytes(lskv_manifest(st->file), r->level, stripe, unit);
}

/* Asked for one piece after the other; the library knows how much there is in all. */
static ssize_t read_some(void *arg, uint64_t pos, char *buf, size_t max)
{
	struct stream *st = arg;
	uint64_t bytes, offset;
	size_t n, done = 0;

	while (done < max && st->range.from < st->range.end) {
		bytes = unit_bytes(st, &offset) - st->within;
		n = max - done < bytes ? max - done : (size_t)bytes;
		if (file_pread_all(lskv_fd(st->file), buf + done, n, offset + st->within) < 0)
			return MHD_CONTENT_READER_END_WITH_ERROR;
		done += n;
		st->within += n;
		if (n == bytes) {
			st->range.from++;
			st->within = 0;
		}
	}
	return done ? (ssize_t)done : MHD_CONTENT_READER_END_OF_STREAM;
}

static void end(void *arg)
{
	struct stream *st = arg;

	lskv_close(st->file);
	free(st);
}

enum MHD_Result stream_blocks(struct MHD_Connection *conn, struct lskv *f,
			      const struct range *range)
{
	struct stream *st = malloc(sizeof(*st));
	struct MHD_Response *r;
	enum MHD_Result ret;

	if (!st) {
		lskv_close(f);
		return MHD_NO;
	}
	*st = (struct stream){ .file = f, .range = *range };
	r = MHD_create_response_from_callback(range_bytes(range, lskv_manifest(f)), STREAM_PIECE,
					      read_some, st, end);
	if (!r) {
		end(st);
		return MHD_NO;
	}
	MHD_add_response_header(r, "Content-Type", "application/octet-stream");
	ret = MHD_queue_response(conn, MHD_HTTP_OK, r);
	MHD_destroy_response(r);
	return ret;
}
