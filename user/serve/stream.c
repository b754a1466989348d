// SPDX-License-Identifier: MIT
#include "serve/stream.h"

#include <stdlib.h>

#include "base/file.h"

/* What is read at once: several TLS records, and more than most blocks. */
enum { STREAM_PIECE = 256 << 10 };

struct stream {
	struct lskv *file;
	const struct manifest_level *level;
	struct order order;
	uint32_t from;
	uint32_t end;
	size_t block_bytes;
};

static ssize_t read_some(void *arg, uint64_t pos, char *buf, size_t max)
{
	const struct stream *st = arg;
	uint64_t index = st->from + pos / st->block_bytes;
	size_t within = pos % st->block_bytes, n, done;
	uint32_t stripe, layer;

	for (done = 0; done < max && index < st->end; index++, within = 0) {
		order_block(&st->order, index, &stripe, &layer);
		n = st->block_bytes - within;
		n = max - done < n ? max - done : n;
		if (file_pread_all(lskv_fd(st->file), buf + done, n,
				   lskv_block_offset(st->file, st->level, stripe, layer) + within) <
		    0)
			return MHD_CONTENT_READER_END_WITH_ERROR;
		done += n;
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
			      const struct manifest_level *level, enum order_kind kind,
			      uint32_t from, uint32_t count)
{
	const struct manifest *m = lskv_manifest(f);
	struct stream *st = malloc(sizeof(*st));
	struct MHD_Response *r;
	enum MHD_Result ret;
	uint64_t size;

	if (!st) {
		lskv_close(f);
		return MHD_NO;
	}
	*st = (struct stream){
		.file = f,
		.level = level,
		.order = { kind, m->n_stripes, m->geo.n_layer },
		.from = from,
		.end = from + count,
		.block_bytes = kv_block_bytes(&m->geo, level->level),
	};
	size = (uint64_t)count * st->block_bytes;
	r = MHD_create_response_from_callback(size, STREAM_PIECE, read_some, st, end);
	if (!r) {
		end(st);
		return MHD_NO;
	}
	MHD_add_response_header(r, "Content-Type", "application/octet-stream");
	ret = MHD_queue_response(conn, MHD_HTTP_OK, r);
	MHD_destroy_response(r);
	return ret;
}
