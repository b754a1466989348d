// SPDX-License-Identifier: MIT
#include "engine/loader.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/ring.h"
#include "lslm/page.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* A section under way; with chunks of several megabytes no more than the depth are. */
struct job {
	bool used;
	struct weights_turn turn;
	uint64_t cut; /* bytes for which reads were started */
	uint64_t left; /* bytes that have not arrived */
};

struct chunk {
	bool used;
	struct job *job;
	uint64_t at; /* in the section */
	uint32_t len;
	bool direct; /* as it was started */
};

struct loader {
	struct loader_opts o;
	struct weights_gate *gate;
	pthread_t thread;
	int fd;
	bool direct;
	bool registered;
	struct ring *ring;
	struct job jobs[LOADER_DEPTH + 1];
	struct chunk chunks[LOADER_DEPTH];
	struct job *cutting;
	bool ended; /* nothing more to ask the gate for */
	struct lslm_error failed;
	double start;
	uint32_t kept_left;
	_Atomic uint64_t bytes;
	_Atomic double seconds;
	char why[256]; /* guarded by the gate's lock once the thread runs */
};

static void add_why(struct loader *ld, const char *text)
{
	size_t at;

	pthread_mutex_lock(&ld->gate->lock);
	at = strlen(ld->why);
	snprintf(ld->why + at, sizeof(ld->why) - at, "%s%.120s", at ? "; " : "", text);
	pthread_mutex_unlock(&ld->gate->lock);
}

/* --- what the file says --- */

static int fail(struct loader *ld, int code, const char *what)
{
	if (ld->failed.code)
		return code;
	if (what)
		return error_set(&ld->failed, code, "%s: %s", ld->o.path, what);
	return error_sys(&ld->failed, code, "%s: cannot read the weights", ld->o.path);
}

static int check_unchanged(struct loader *ld)
{
	if (stamp_unchanged(ld->fd, &ld->o.stamp))
		return 0;
	return fail(ld, -ESTALE, "was written to while it was in use; start again");
}

static void section_arrived(struct loader *ld, const struct weights_turn *turn)
{
	if (check_unchanged(ld))
		return;
	if (turn->slot < 0 && --ld->kept_left == 0)
		ld->seconds = clock_seconds() - ld->start;
	weights_gate_loaded(ld->gate, turn);
}

/* --- reading into memory --- */

static uint8_t *place(const struct loader *ld, const struct weights_turn *turn)
{
	if (turn->slot < 0)
		return ld->o.memory + ld->o.kept[turn->section];
	return ld->o.memory + ld->o.slots + (uint64_t)turn->slot * ld->o.slot_bytes;
}

static void no_direct(struct loader *ld)
{
	ld->direct = false;
	fcntl(ld->fd, F_SETFL, fcntl(ld->fd, F_GETFL) & ~O_DIRECT);
	add_why(ld, "the file system refuses O_DIRECT");
}

/* n bytes of a chunk arrived, or -errno. Returns whether the chunk is done with. */
static bool chunk_arrived(struct loader *ld, struct chunk *c, int64_t n)
{
	if (n == -EINTR || n == -EAGAIN)
		return false;
	if (n == -EINVAL && c->direct) {
		if (ld->direct)
			no_direct(ld);
		return false;
	}
	/* O_DIRECT goes on where it may; sections are whole, so there is an end only where one is missing. */
	if (n > 0 && n < c->len && c->direct)
		n -= n % (int64_t)LSLM_DIRECT_ALIGN;
	if (n <= 0) {
		fail(ld, n ? (int)n : -ENODATA, n ? NULL : "is cut short; run lslm pack again");
		return true;
	}
	ld->bytes += (uint64_t)n;
	c->job->left -= (uint64_t)n;
	c->at += (uint64_t)n;
	c->len -= (uint32_t)n;
	return !c->len;
}

static void finish_chunk(struct loader *ld, struct chunk *c)
{
	c->used = false;
	if (ld->failed.code || c->job->left)
		return;
	c->job->used = false;
	section_arrived(ld, &c->job->turn);
}

/* Start reading a chunk, or read it. */
static void submit(struct loader *ld, struct chunk *c)
{
	uint8_t *const base = place(ld, &c->job->turn);
	const uint64_t offset = ld->o.sections[c->job->turn.section].offset;
	bool done = false;

	c->direct = ld->direct;
	if (ld->ring) {
		/* Never full: there are no more chunks than the ring is deep. */
		ring_read(ld->ring, ld->fd, base + c->at, c->len, offset + c->at,
			  (uint64_t)(c - ld->chunks));
		return;
	}
	while (!done) {
		const ssize_t n = pread(ld->fd, base + c->at, c->len, (off_t)(offset + c->at));

		done = chunk_arrived(ld, c, n < 0 ? -errno : n);
		c->direct = ld->direct;
	}
	finish_chunk(ld, c);
}

static struct job *free_job(struct loader *ld)
{
	for (int i = 0; i <= LOADER_DEPTH; i++)
		if (!ld->jobs[i].used)
			return &ld->jobs[i];
	return NULL;
}

static struct chunk *free_chunk(struct loader *ld)
{
	for (int i = 0; i < LOADER_DEPTH; i++)
		if (!ld->chunks[i].used)
			return &ld->chunks[i];
	return NULL;
}

static bool idle(const struct loader *ld)
{
	return !ld->ring || !ring_pending(ld->ring);
}

/* As weights_gate_next(), of what has to be read. */
static int next_turn(struct loader *ld, struct weights_turn *turn)
{
	int rc;

	while ((rc = weights_gate_next(ld->gate, idle(ld), turn)) > 0) {
		if (turn->slot >= 0 || !ld->o.have || !ld->o.have[turn->section])
			break;
		section_arrived(ld, turn);
	}
	return rc;
}

/* The section to cut chunks from; NULL for none now. Waits for one where nothing else is to be waited for. */
static struct job *next_job(struct loader *ld)
{
	struct job *j = ld->cutting;
	int rc;

	if (j && j->used && j->cut < ld->o.sections[j->turn.section].bytes)
		return j;
	ld->cutting = NULL;
	j = free_job(ld);
	if (!j || ld->ended)
		return NULL;
	rc = next_turn(ld, &j->turn);
	if (rc < 0 || (!rc && idle(ld)))
		ld->ended = true;
	if (rc <= 0)
		return NULL;
	j->used = true;
	j->cut = 0;
	j->left = ld->o.sections[j->turn.section].bytes;
	ld->cutting = j;
	return j;
}

static void fill(struct loader *ld)
{
	struct chunk *c;

	while (!ld->failed.code && !weights_gate_stopped(ld->gate) && (c = free_chunk(ld))) {
		struct job *j = next_job(ld);
		uint64_t left;

		if (!j)
			return;
		left = ld->o.sections[j->turn.section].bytes - j->cut;
		*c = (struct chunk){
			.used = true,
			.job = j,
			.at = j->cut,
			.len = left < LOADER_CHUNK ? (uint32_t)left : LOADER_CHUNK,
		};
		j->cut += c->len;
		submit(ld, c);
	}
}

static void reap(struct loader *ld)
{
	struct ring_done done;
	struct chunk *c;

	/* What is in flight then has its pages pinned until it ends, whoever unmaps them. */
	if (ring_wait(ld->ring, &done, &ld->failed)) {
		ring_close(ld->ring);
		ld->ring = NULL;
		return;
	}
	c = &ld->chunks[done.tag];
	if (chunk_arrived(ld, c, done.res))
		finish_chunk(ld, c);
	else if (ld->failed.code || weights_gate_stopped(ld->gate))
		c->used = false;
	else
		submit(ld, c);
}

static void read_all(struct loader *ld)
{
	for (;;) {
		fill(ld);
		if (!idle(ld))
			reap(ld);
		else if (ld->ended || ld->failed.code || weights_gate_stopped(ld->gate))
			return;
	}
}

/* --- over a mapping --- */

static int touch(const struct loader *ld, const struct packfile_section *sec)
{
	const size_t page = lslm_page_size();
	const uintptr_t start = (uintptr_t)(ld->o.mapping + sec->offset) & ~(page - 1);
	const size_t size = (uintptr_t)ld->o.mapping + sec->offset + sec->bytes - start;

	if (!madvise((void *)start, size, MADV_POPULATE_READ))
		return 0;
	/* Before Linux 5.14: it comes as it is touched. */
	return errno == EINVAL ? 0 : errno == EFAULT || errno == EHWPOISON ? -EIO : -errno;
}

static void map_all(struct loader *ld)
{
	struct weights_turn turn;
	int rc;

	while (!ld->failed.code && weights_gate_next(ld->gate, true, &turn) > 0) {
		const struct packfile_section *sec = &ld->o.sections[turn.section];

		rc = check_unchanged(ld);
		if (!rc)
			rc = touch(ld, sec);
		if (rc)
			fail(ld, rc, NULL);
		else
			section_arrived(ld, &turn);
		ld->bytes += sec->bytes;
	}
}

/* --- the thread --- */

static void *run(void *arg)
{
	struct loader *ld = arg;

	if (ld->o.mapping)
		map_all(ld);
	else
		read_all(ld);
	if (ld->failed.code)
		weights_gate_fail(ld->gate, &ld->failed);
	return NULL;
}

/* A description of its own, because O_DIRECT belongs to that. */
static void open_direct(struct loader *ld)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", ld->o.fd);
	ld->fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
	ld->direct = ld->fd >= 0;
	if (!ld->direct) {
		snprintf(ld->why, sizeof(ld->why), "no O_DIRECT: %s", strerror(errno));
		ld->fd = fcntl(ld->o.fd, F_DUPFD_CLOEXEC, 0);
	}
}

static void prepare(struct loader *ld)
{
	struct lslm_error err;

	if (ld->o.mapping) {
		ld->fd = fcntl(ld->o.fd, F_DUPFD_CLOEXEC, 0);
		return;
	}
	open_direct(ld);
	if (ring_open(&ld->ring, LOADER_DEPTH, &err)) {
		ld->ring = NULL;
		add_why(ld, err.text);
	} else if (ld->o.present) {
		ld->registered = !ring_register(ld->ring, ld->o.memory, ld->o.present, &err);
		if (!ld->registered)
			add_why(ld, err.text);
	}
}

int loader_start(struct loader **out, const struct loader_opts *opts, struct weights_gate *gate,
		 struct lslm_error *err)
{
	struct loader *ld = calloc(1, sizeof(*ld));
	sigset_t all, old;
	int rc;

	if (!ld)
		return error_set(err, -ENOMEM, "out of memory");
	ld->o = *opts;
	ld->gate = gate;
	ld->start = clock_seconds();
	ld->kept_left = gate->pinned + 1;
	prepare(ld);
	if (ld->fd < 0) {
		rc = error_sys(err, -errno, "%s: cannot open again", opts->path);
		goto err_free;
	}
	/* Signals are for the program's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	rc = -pthread_create(&ld->thread, NULL, run, ld);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc) {
		error_sys(err, rc, "no thread to load weights");
		close(ld->fd);
		goto err_free;
	}
	*out = ld;
	return 0;
err_free:
	ring_close(ld->ring);
	free(ld);
	return rc;
}

void loader_stop(struct loader *ld)
{
	if (!ld)
		return;
	weights_gate_stop(ld->gate);
	pthread_join(ld->thread, NULL);
	ring_close(ld->ring);
	close(ld->fd);
	free(ld);
}

void loader_stats(struct loader *ld, struct loader_stats *stats)
{
	*stats = (struct loader_stats){ .bytes = ld->bytes, .seconds = ld->seconds };
	pthread_mutex_lock(&ld->gate->lock);
	snprintf(stats->why, sizeof(stats->why), "%s", ld->why);
	pthread_mutex_unlock(&ld->gate->lock);
	if (ld->o.mapping)
		stats->how = "mapped";
	else if (ld->ring && ld->registered)
		stats->how = ld->direct ? "io_uring, O_DIRECT, registered buffers" :
					  "io_uring, registered buffers";
	else if (ld->ring)
		stats->how = ld->direct ? "io_uring, O_DIRECT" : "io_uring";
	else
		stats->how = ld->direct ? "pread, O_DIRECT" : "pread";
}
