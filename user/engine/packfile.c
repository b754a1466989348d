// SPDX-License-Identifier: MIT
#include "engine/packfile.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/hash.h"
#include "kv/fingerprint.h"
#include "lslm/page.h"

static const char magic[8] = { 'L', 'S', 'L', 'M', 'P', 'A', 'K', '1' };

enum {
	AT_PLAN = 8,
	AT_STAMP = 40,
	AT_FINGERPRINT = 80,
	AT_BYTES = 112,
	AT_SECTIONS = 120,
	AT_SUMS = 128,
	AT_CHECK = PACKFILE_HEADER - HASH_BYTES,
};

_Static_assert(AT_SUMS + 8 * PACKFILE_MAX_SECTIONS <= AT_CHECK, "the sums fit");

/* --- the plan --- */

static void hash_matrix(struct hash *h, const struct weight *w, uint64_t at)
{
	hash_u32(h, w->type);
	hash_u32(h, w->n_in);
	hash_u32(h, w->n_out);
	hash_u64(h, at);
	hash_u64(h, weight_bytes(w));
}

int packfile_plan_make(struct packfile_plan *plan, const struct weight *w, uint32_t n, uint32_t per,
		       struct lslm_error *err)
{
	uint8_t layout[HASH_BYTES];
	uint64_t offset = PACKFILE_HEADER;
	struct hash h;

	plan->n_sections = (n - 1) / per + 1;
	if (plan->n_sections > PACKFILE_MAX_SECTIONS)
		return error_set(err, -E2BIG, "%u layers are too many", plan->n_sections - 1);
	plan->at = calloc(n, sizeof(*plan->at));
	if (!plan->at)
		return error_set(err, -ENOMEM, "out of memory");
	weight_layout(layout);
	hash_start(&h, "lslm packed weights 1");
	hash_raw(&h, layout, sizeof(layout));
	hash_u32(&h, n);
	for (uint32_t s = 0; s < plan->n_sections; s++) {
		struct packfile_section *to = &plan->sections[s];

		to->offset = offset;
		to->bytes = 0;
		to->first = s * per;
		to->n = to->first + per < n ? per : n - to->first;
		for (uint32_t i = to->first; i < to->first + to->n; i++) {
			plan->at[i] = to->bytes;
			hash_matrix(&h, &w[i], offset + to->bytes);
			to->bytes += weight_bytes(&w[i]);
		}
		to->bytes = lslm_round_up(to->bytes, LSLM_DIRECT_ALIGN);
		offset += to->bytes;
	}
	plan->file_bytes = offset;
	hash_finish(&h, plan->digest.b);
	return 0;
}

void packfile_plan_free(struct packfile_plan *plan)
{
	free(plan->at);
	plan->at = NULL;
}

int packfile_cache_path(const struct gguf *g, char **path, struct lslm_error *err)
{
	struct stamp s;
	char *dir;
	int rc;

	rc = stamp_of(gguf_fd(g), &s);
	if (rc)
		return error_sys(err, rc, "%s: cannot stat", gguf_path(g));
	rc = file_xdg_path(&dir, FILE_XDG_CACHE, "packed", err);
	if (rc)
		return rc;
	rc = asprintf(path, "%s/%llx-%llx", dir, (unsigned long long)s.dev,
		      (unsigned long long)s.ino);
	free(dir);
	return rc < 0 ? error_set(err, -ENOMEM, "out of memory") : 0;
}

/* --- writing --- */

struct writer {
	const struct packfile_plan *plan;
	const struct weight *w;
	struct pool *pool;
	int fd;
	uint8_t header[PACKFILE_HEADER];
	uint8_t *buffer; /* of the largest section */
};

static int write_section(struct writer *x, uint32_t s)
{
	const struct packfile_section *sec = &x->plan->sections[s];

	/* What lies behind a matrix up to the next, or to the end, is zero. */
	memset(x->buffer, 0, sec->bytes);
	for (uint32_t i = sec->first; i < sec->first + sec->n; i++)
		weight_store(&x->w[i], x->buffer + x->plan->at[i], x->pool);
	put_le64(x->header + AT_SUMS + 8 * s, XXH3_64bits(x->buffer, sec->bytes));
	return file_pwrite_all(x->fd, x->buffer, sec->bytes, sec->offset);
}

static int write_sections(struct writer *x, const struct packfile_progress *progress)
{
	uint64_t largest = 0;
	int rc = 0;

	for (uint32_t s = 0; s < x->plan->n_sections; s++)
		if (x->plan->sections[s].bytes > largest)
			largest = x->plan->sections[s].bytes;
	if (posix_memalign((void **)&x->buffer, LSLM_HUGE_PAGE,
			   lslm_round_up(largest, LSLM_HUGE_PAGE)))
		return -ENOMEM;
	madvise(x->buffer, largest, MADV_HUGEPAGE);
	for (uint32_t s = 0; !rc && s < x->plan->n_sections; s++) {
		rc = write_section(x, s);
		if (!rc && progress)
			progress->show(progress->arg, x->plan->sections[s].offset,
				       x->plan->file_bytes);
	}
	free(x->buffer);
	return rc;
}

static void finish_header(struct writer *x, const struct stamp *source,
			  const struct kv_hash *fingerprint)
{
	uint8_t *h = x->header;

	memcpy(h, magic, sizeof(magic));
	memcpy(h + AT_PLAN, x->plan->digest.b, HASH_BYTES);
	stamp_put(source, h + AT_STAMP);
	memcpy(h + AT_FINGERPRINT, fingerprint->b, HASH_BYTES);
	put_le64(h + AT_BYTES, x->plan->file_bytes);
	put_le64(h + AT_SECTIONS, x->plan->n_sections);
	hash_bytes(h + AT_CHECK, h, AT_CHECK);
}

int packfile_write(const char *path, mode_t mode, const struct gguf *g,
		   const struct packfile_plan *plan, const struct weight *w, struct pool *pool,
		   const struct packfile_progress *progress, struct lslm_error *err)
{
	struct writer *x = calloc(1, sizeof(*x));
	struct file_atomic *f = NULL;
	struct kv_hash fingerprint;
	struct stamp source;
	int rc;

	if (!x)
		return error_set(err, -ENOMEM, "out of memory");
	*x = (struct writer){ .plan = plan, .w = w, .pool = pool };
	rc = stamp_of(gguf_fd(g), &source);
	if (rc)
		error_sys(err, rc, "%s: cannot stat", gguf_path(g));
	gguf_read_all(g);
	if (!rc)
		rc = fingerprint_model(g, &fingerprint, NULL, err);
	if (!rc)
		rc = file_atomic_open(&f, path, mode, err);
	if (!rc) {
		x->fd = file_atomic_fd(f);
		rc = write_sections(x, progress);
		finish_header(x, &source, &fingerprint);
		if (!rc)
			rc = file_pwrite_all(x->fd, x->header, PACKFILE_HEADER, 0);
		if (rc)
			error_sys(err, rc, "%s: cannot write %llu bytes", path,
				  (unsigned long long)plan->file_bytes);
		else if (!stamp_unchanged(gguf_fd(g), &source))
			rc = error_set(err, -EAGAIN, "%s: changed while it was read; try again",
				       gguf_path(g));
	}
	if (!rc)
		rc = file_atomic_commit(f, FILE_REPLACE, err);
	else
		file_atomic_abort(f);
	free(x);
	return rc;
}

/* --- reading --- */

static int check_header(struct packfile *f, const uint8_t *h, const struct gguf *g,
			const struct packfile_plan *plan, struct lslm_error *err)
{
	uint8_t check[HASH_BYTES], stamp[STAMP_BYTES];
	struct stamp source;

	if (memcmp(h, magic, sizeof(magic)))
		return error_set(err, -EBADMSG, "%s: no packed weights; run lslm pack again",
				 f->path);
	hash_bytes(check, h, AT_CHECK);
	if (memcmp(check, h + AT_CHECK, sizeof(check)))
		return error_set(err, -EBADMSG, "%s: its header is damaged; run lslm pack again",
				 f->path);
	if (stamp_of(gguf_fd(g), &source))
		return error_sys(err, -errno, "%s: cannot stat", gguf_path(g));
	stamp_put(&source, stamp);
	if (memcmp(stamp, h + AT_STAMP, sizeof(stamp)))
		return error_set(err, -ESTALE,
				 "%s: packed from another file, or from %s before it changed; run "
				 "lslm pack again",
				 f->path, gguf_path(g));
	if (memcmp(plan->digest.b, h + AT_PLAN, HASH_BYTES))
		return error_set(err, -ESTALE,
				 "%s: packed by a version of lslm that packs otherwise; run lslm "
				 "pack again",
				 f->path);
	if (get_le64(h + AT_BYTES) != plan->file_bytes || f->stamp.size != plan->file_bytes)
		return error_set(err, -EBADMSG,
				 "%s: has %llu of %llu bytes; it is cut short, run lslm pack again",
				 f->path, (unsigned long long)f->stamp.size,
				 (unsigned long long)plan->file_bytes);
	return 0;
}

static int open_and_check(struct packfile *f, const struct gguf *g,
			  const struct packfile_plan *plan, struct lslm_error *err)
{
	uint8_t header[PACKFILE_HEADER];
	struct stat st;
	int rc;

	f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (f->fd < 0 && errno == ENOENT)
		return error_set(err, -ENOENT, "no packed weights at %s; lslm pack makes them",
				 f->path);
	if (f->fd < 0)
		return error_sys(err, -errno, "%s: cannot open packed weights", f->path);
	if (fstat(f->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return error_set(err, -EBADMSG, "%s: not a regular file", f->path);
	rc = stamp_of(f->fd, &f->stamp);
	if (!rc)
		rc = file_pread_all(f->fd, header, sizeof(header), 0);
	if (rc == -ENODATA)
		return error_set(err, -EBADMSG, "%s: is cut short; run lslm pack again", f->path);
	if (rc)
		return error_sys(err, rc, "%s: cannot read", f->path);
	rc = check_header(f, header, g, plan, err);
	if (rc)
		return rc;
	memcpy(f->fingerprint.b, header + AT_FINGERPRINT, HASH_BYTES);
	for (uint32_t s = 0; s < plan->n_sections; s++)
		f->sums[s] = get_le64(header + AT_SUMS + 8 * s);
	return 0;
}

int packfile_open(struct packfile *f, const char *path, const struct gguf *g,
		  const struct packfile_plan *plan, struct lslm_error *err)
{
	int rc;

	f->fd = -1;
	f->path = strdup(path);
	if (!f->path)
		return error_set(err, -ENOMEM, "out of memory");
	rc = open_and_check(f, g, plan, err);
	if (rc)
		packfile_close(f);
	return rc;
}

void packfile_close(struct packfile *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	f->fd = -1;
	f->path = NULL;
}

/* In pieces, through memory of our own: a mapped page that cannot be read would be a signal. */
static int sum_section(const struct packfile *f, const struct packfile_section *sec, uint8_t *piece,
		       size_t size, uint64_t *sum)
{
	XXH3_state_t *state = XXH3_createState();
	int rc = state ? 0 : -ENOMEM;

	if (state)
		XXH3_64bits_reset(state);
	for (uint64_t at = 0; !rc && at < sec->bytes; at += size) {
		const size_t n = sec->bytes - at < size ? (size_t)(sec->bytes - at) : size;

		rc = file_pread_all(f->fd, piece, n, sec->offset + at);
		if (!rc)
			XXH3_64bits_update(state, piece, n);
	}
	if (!rc)
		*sum = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	return rc;
}

static int damaged(const struct packfile *f, const struct packfile_plan *plan, uint32_t s,
		   struct lslm_error *err)
{
	return error_set(err, -EBADMSG, "%s: section %u of %u is damaged; run lslm pack again",
			 f->path, s, plan->n_sections);
}

int packfile_check_section(const struct packfile *f, const struct packfile_plan *plan, uint32_t s,
			   const void *data, struct lslm_error *err)
{
	if (XXH3_64bits(data, plan->sections[s].bytes) == f->sums[s])
		return 0;
	return damaged(f, plan, s, err);
}

int packfile_verify(const struct packfile *f, const struct packfile_plan *plan,
		    struct lslm_error *err)
{
	enum { PIECE = 1 << 20 };
	uint8_t *piece = malloc(PIECE);
	uint64_t sum = 0;
	int rc = piece ? 0 : -ENOMEM;

	for (uint32_t s = 0; !rc && s < plan->n_sections; s++) {
		rc = sum_section(f, &plan->sections[s], piece, PIECE, &sum);
		if (!rc && sum != f->sums[s]) {
			free(piece);
			return damaged(f, plan, s, err);
		}
	}
	free(piece);
	return rc ? error_sys(err, rc, "%s: cannot read", f->path) : 0;
}
