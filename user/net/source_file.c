// SPDX-License-Identifier: MIT
#include "net/source.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ring.h"
#include "kv/lskv.h"
#include "lslm/page.h"
#include "net/courier.h"

/* Reads in flight: enough for a disk's queue, few enough that the order holds roughly. */
enum { FILE_DEPTH = 32 };

struct source_file {
	struct source source;
	struct lskv *file;
	int direct_fd; /* the same inode opened with O_DIRECT, -1 for none */
	bool direct; /* use it */
	const char *buffered; /* why it is not used, "" if it is */
	struct ring *ring; /* NULL: pread */
	/* One per read in flight, by slot; tag = slot. */
	struct flight {
		uint32_t index;
		size_t got;
		bool direct; /* the read under way uses O_DIRECT */
	} flight[FILE_DEPTH];
};

static struct source_file *of(struct source *s)
{
	return (struct source_file *)s;
}

static int file_manifest(struct source *s, uint8_t **data, size_t *size, struct lslm_error *err)
{
	const void *bytes = lskv_manifest_data(of(s)->file, size);

	*data = malloc(*size ? *size : 1);
	if (!*data)
		return error_sys(err, -ENOMEM, "manifest");
	memcpy(*data, bytes, *size);
	return 0;
}

/*
 * O_DIRECT wants addresses, offsets and lengths that are multiples of the device's block; heads
 * of 32 values or more give that, tiny models do not.
 */
static void open_direct(struct source_file *f, const struct sink *sink)
{
	/* At which a file's stripes come. */
	const struct manifest_level *lv = choice_candidate(sink->choice, 0);
	char self[64];

	if (!kv_level_is_plain(lv->level) ||
	    kv_block_bytes(&sink->manifest->geo, lv->level) % LSLM_DIRECT_ALIGN ||
	    kv_unit_bytes(&sink->manifest->geo, lv->level, 0) % LSLM_DIRECT_ALIGN ||
	    (uintptr_t)sink->base % LSLM_DIRECT_ALIGN) {
		f->buffered = "buffered: blocks are no multiple of 4096 bytes";
		return;
	}
	/* By descriptor, not by name: the name may be another file by now. */
	snprintf(self, sizeof(self), "/proc/self/fd/%d", lskv_fd(f->file));
	f->direct_fd = open(self, O_RDONLY | O_DIRECT | O_CLOEXEC);
	f->direct = f->direct_fd >= 0;
	f->buffered = f->direct ? "" : "buffered: no O_DIRECT on this file system";
}

static uint64_t file_offset(const struct source_file *f, const struct sink *sink, uint32_t index)
{
	uint32_t stripe, layer;

	order_block(&sink->order, index, &stripe, &layer);
	return lskv_unit_offset(f->file, sink_level(sink, index), stripe, layer);
}

/* The descriptor for the next read of a block: after a short one the rest may be unaligned. */
static int fd_for(const struct source_file *f, const struct sink *sink, struct flight *fl,
		  uint64_t offset)
{
	fl->direct = f->direct && offset % LSLM_DIRECT_ALIGN == 0 &&
		     sink_bytes(sink, fl->index) % LSLM_DIRECT_ALIGN == 0;
	return fl->direct ? f->direct_fd : lskv_fd(f->file);
}

/* Account for a read's result. 1: the block is complete, 0: ask for the rest. */
static int took(struct source_file *f, struct sink *sink, struct flight *fl, ssize_t res,
		struct lslm_error *err)
{
	if (res == -EINVAL && fl->direct) {
		/* This device wants a larger alignment than ours; all reads in flight will say so. */
		f->direct = false;
		return 0;
	}
	if (res == -EINTR)
		return 0;
	if (res < 0)
		return error_sys(err, res, "cannot read block %u", fl->index);
	if (res == 0)
		return error_set(err, -ENODATA,
				 "the file ends within block %u; it was cut short while being read",
				 fl->index);
	fl->got += res;
	atomic_fetch_add_explicit(&sink->received, res, memory_order_relaxed);
	return fl->got == sink_bytes(sink, fl->index);
}

static int receive_pread(struct source_file *f, struct sink *sink, struct lslm_error *err)
{
	uint32_t n = order_count(&sink->order);
	struct flight fl;
	uint64_t at;
	ssize_t res;
	int ret;

	for (fl.index = sink_next(sink, 0); fl.index < n; fl.index = sink_next(sink, fl.index)) {
		sink_choose(sink, fl.index);
		at = file_offset(f, sink, fl.index);
		for (fl.got = 0, ret = 0; !ret;) {
			if (atomic_load(&sink->stop))
				return error_set(err, -ECANCELED, "stopped");
			res = pread(fd_for(f, sink, &fl, at + fl.got),
				    sink_place(sink, fl.index) + fl.got,
				    sink_bytes(sink, fl.index) - fl.got, at + fl.got);
			ret = took(f, sink, &fl, res < 0 ? -errno : res, err);
		}
		if (ret > 0)
			ret = sink_block(sink, fl.index, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int queue(struct source_file *f, struct sink *sink, uint32_t slot)
{
	struct flight *fl = &f->flight[slot];
	uint64_t at = file_offset(f, sink, fl->index) + fl->got;

	return ring_read(f->ring, fd_for(f, sink, fl, at), sink_place(sink, fl->index) + fl->got,
			 sink_bytes(sink, fl->index) - fl->got, at, slot);
}

/* Into a free slot: the first wanted block from *next on, if there is one. */
static int queue_next(struct source_file *f, struct sink *sink, uint32_t slot, uint32_t *next)
{
	uint32_t index = sink_next(sink, *next);

	*next = index;
	if (index == order_count(&sink->order))
		return 0;
	*next = index + 1;
	sink_choose(sink, index);
	f->flight[slot] = (struct flight){ .index = index };
	return queue(f, sink, slot);
}

/* One completion: 1 when its slot is free again, 0 when the rest of its block was queued. */
static int reap(struct source_file *f, struct sink *sink, uint32_t *slot, struct lslm_error *err)
{
	struct ring_done done;
	int ret;

	ret = ring_wait(f->ring, &done, err);
	if (ret < 0)
		return ret;
	*slot = done.tag;
	ret = took(f, sink, &f->flight[*slot], done.res, err);
	if (ret < 0)
		return ret;
	if (!ret)
		return queue(f, sink, *slot);
	ret = sink_block(sink, f->flight[*slot].index, err);
	return ret < 0 ? ret : 1;
}

static int receive_ring(struct source_file *f, struct sink *sink, struct lslm_error *err)
{
	uint32_t next = 0, slot;
	struct ring_done late;
	int ret = 0;

	for (slot = 0; slot < FILE_DEPTH && !ret; slot++)
		ret = queue_next(f, sink, slot, &next);
	while (!ret && ring_pending(f->ring)) {
		if (atomic_load(&sink->stop)) {
			ret = error_set(err, -ECANCELED, "stopped");
			break;
		}
		ret = reap(f, sink, &slot, err);
		if (ret <= 0)
			continue;
		ret = queue_next(f, sink, slot, &next);
	}
	/* Until the kernel is done with them, the places are not ours to give back. */
	while (ring_pending(f->ring) && !ring_wait(f->ring, &late, NULL))
		;
	return ret;
}

static int file_receive(struct source *s, struct sink *sink, struct lslm_error *err)
{
	struct source_file *f = of(s);
	struct lslm_error why = { 0 };

	if (f->direct_fd < 0)
		open_direct(f, sink);
	if (!f->ring && ring_open(&f->ring, FILE_DEPTH, &why) < 0) {
		source_set_path(s, "file (pread, %s; %s)", *f->buffered ? f->buffered : "O_DIRECT",
				why.text);
		return receive_pread(f, sink, err);
	}
	source_set_path(s, "file (io_uring, %s)", *f->buffered ? f->buffered : "O_DIRECT");
	return receive_ring(f, sink, err);
}

static void file_close(struct source *s)
{
	struct source_file *f = of(s);

	ring_close(f->ring);
	if (f->direct_fd >= 0)
		close(f->direct_fd);
	if (f->file)
		lskv_close(f->file);
	source_fini(s);
	free(f);
}

static const struct source_ops file_ops = {
	.manifest = file_manifest,
	.receive = file_receive,
	.close = file_close,
};

int source_file_open(struct source **out, const struct courier_opts *opts, struct lslm_error *err)
{
	struct source_file *f = calloc(1, sizeof(*f));
	int ret;

	if (!f)
		return error_sys(err, -ENOMEM, "source");
	source_init(&f->source, &file_ops, CONTROL_FROM_FILE, "file");
	f->direct_fd = -1;
	ret = lskv_open(&f->file, opts->source, err);
	if (ret < 0) {
		file_close(&f->source);
		return ret;
	}
	*out = &f->source;
	return 0;
}
