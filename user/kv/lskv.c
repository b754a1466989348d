// SPDX-License-Identifier: MIT
#include "kv/lskv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "lslm/page.h"

/* The encoding: docs/protocol.md, "The .lskv file". */
static const char magic[8] = { 'L', 'S', 'L', 'M', 'L', 'S', 'K', 'V' };

enum {
	LSKV_VERSION = 1,
	AT_MAGIC = 0,
	AT_VERSION = 8,
	AT_HEADER_BYTES = 12,
	AT_MANIFEST_BYTES = 16,
	AT_AREA_OFFSET = 24,
	AT_AREA_BYTES = 32,
	AT_RESERVED = 40,
	HEADER_BYTES = 64,
};

struct lskv {
	int fd;
	uint64_t area_offset;
	struct manifest *manifest;
	uint8_t *data; /* the manifest as in the file */
	size_t size;
};

/* Where the stripe area starts, given the manifest's size (at most MANIFEST_MAX_BYTES). */
static uint64_t area_offset(size_t manifest_bytes)
{
	return lslm_round_up(HEADER_BYTES + manifest_bytes, LSLM_DIRECT_ALIGN);
}

/* Writing */

static int write_stripe(int fd, uint64_t at, struct manifest *m, uint32_t lv, uint32_t stripe,
			const uint8_t *data)
{
	struct manifest_level *level = &m->levels[lv];
	size_t from = 0;

	for (uint32_t u = 0; u < level->n_units; u++) {
		const size_t bytes = manifest_unit_bytes(m, level, stripe, u);

		level->digest[(size_t)stripe * level->n_units + u] = kv_digest(data + from, bytes);
		from += bytes;
	}
	return file_pwrite_all(fd, data, level->length[stripe], at + level->offset[stripe]);
}

/* Where a stripe goes follows from what those before it have. */
static int write_level(int fd, uint64_t at, struct manifest *m, uint32_t lv,
		       lskv_stripe_fn *stripe_data, void *arg)
{
	struct manifest_level *level = &m->levels[lv];
	uint64_t next = m->n_stripes ? level->offset[0] : 0;
	int ret = 0;

	for (uint32_t s = 0; s < m->n_stripes && !ret; s++) {
		const uint8_t *data = stripe_data(arg, lv, s);

		if (!data)
			return -ECANCELED;
		level->offset[s] = next;
		level->length[s] = manifest_unit_offset(m, level, s, level->n_units);
		next += level->length[s];
		ret = write_stripe(fd, at, m, lv, s, data);
	}
	return ret;
}

/* The length of a level is only known when it is written, so the next one is placed then. */
static int write_levels(int fd, uint64_t at, struct manifest *m, lskv_stripe_fn *stripe_data,
			void *arg)
{
	int ret = 0;

	for (uint32_t lv = 0; lv < m->n_levels && !ret; lv++) {
		manifest_place(m, lv + 1);
		ret = write_level(fd, at, m, lv, stripe_data, arg);
	}
	manifest_place(m, m->n_levels);
	return ret;
}

static int write_head(int fd, const uint8_t *data, size_t size, uint64_t area_bytes)
{
	uint8_t header[HEADER_BYTES] = { 0 };
	int ret;

	memcpy(header + AT_MAGIC, magic, sizeof(magic));
	put_le32(header + AT_VERSION, LSKV_VERSION);
	put_le32(header + AT_HEADER_BYTES, HEADER_BYTES);
	put_le64(header + AT_MANIFEST_BYTES, size);
	put_le64(header + AT_AREA_OFFSET, area_offset(size));
	put_le64(header + AT_AREA_BYTES, area_bytes);
	/* Without stripes nothing else makes the file reach as far as the area. */
	if (ftruncate(fd, (off_t)(area_offset(size) + area_bytes)) < 0)
		return -errno;
	ret = file_pwrite_all(fd, header, sizeof(header), 0);
	return ret < 0 ? ret : file_pwrite_all(fd, data, size, sizeof(header));
}

/* Stripes first: their digests are in the manifest, whose size is known without them. */
static int write_all(int fd, const char *path, struct manifest *m,
		     const uint8_t seckey[MANIFEST_SECKEY_BYTES], lskv_stripe_fn *stripe_data,
		     void *arg, struct lslm_error *err)
{
	uint8_t *data;
	size_t size;
	int ret;

	ret = manifest_encoded_size(m, &size, err);
	if (ret < 0)
		return ret;
	ret = write_levels(fd, area_offset(size), m, stripe_data, arg);
	if (ret == -ECANCELED)
		return error_set(err, ret, "%s: not written: the context was not computed", path);
	if (ret < 0)
		return error_sys(err, ret, "%s: cannot write", path);
	ret = manifest_encode(m, seckey, &data, &size, err);
	if (ret < 0)
		return error_prefix(err, ret, "%s", path);
	ret = write_head(fd, data, size, m->area_bytes);
	free(data);
	return ret < 0 ? error_sys(err, ret, "%s: cannot write", path) : 0;
}

int lskv_write(const char *path, struct manifest *m, const uint8_t seckey[MANIFEST_SECKEY_BYTES],
	       lskv_stripe_fn *stripe_data, void *arg, struct lslm_error *err)
{
	struct file_atomic *f;
	int ret;

	ret = file_atomic_open(&f, path, 0600, err);
	if (ret < 0)
		return ret;
	ret = write_all(file_atomic_fd(f), path, m, seckey, stripe_data, arg, err);
	if (ret < 0) {
		file_atomic_abort(f);
		return ret;
	}
	return file_atomic_commit(f, FILE_REPLACE, err);
}

/* Reading */

static int all_zero(const uint8_t *p, size_t n)
{
	while (n)
		if (p[--n])
			return 0;
	return 1;
}

/* Checks what can be checked before the manifest is read; *bytes is its size. */
static int check_header(const uint8_t *h, uint64_t file_bytes, const char *path, size_t *bytes,
			struct lslm_error *err)
{
	uint64_t manifest_bytes = get_le64(h + AT_MANIFEST_BYTES);
	uint64_t area_bytes = get_le64(h + AT_AREA_BYTES);
	uint64_t offset, expected;

	if (memcmp(h + AT_MAGIC, magic, sizeof(magic)) != 0)
		return error_set(err, -EINVAL, "%s: is no .lskv file", path);
	if (get_le32(h + AT_VERSION) != LSKV_VERSION)
		return error_set(err, -EINVAL, "%s: is of version %u, this program reads %d", path,
				 get_le32(h + AT_VERSION), LSKV_VERSION);
	if (get_le32(h + AT_HEADER_BYTES) != HEADER_BYTES || manifest_bytes > MANIFEST_MAX_BYTES ||
	    !all_zero(h + AT_RESERVED, HEADER_BYTES - AT_RESERVED))
		return error_set(err, -EINVAL, "%s: has a damaged header", path);
	offset = area_offset((size_t)manifest_bytes);
	if (get_le64(h + AT_AREA_OFFSET) != offset ||
	    __builtin_add_overflow(offset, area_bytes, &expected))
		return error_set(err, -EINVAL, "%s: has a damaged header", path);
	if (file_bytes < expected)
		return error_set(err, -EINVAL,
				 "%s: is cut short: it has %llu bytes of %llu; fetch or publish it "
				 "again",
				 path, (unsigned long long)file_bytes,
				 (unsigned long long)expected);
	if (file_bytes > expected)
		return error_set(err, -EINVAL, "%s: has %llu bytes, its header says %llu", path,
				 (unsigned long long)file_bytes, (unsigned long long)expected);
	*bytes = (size_t)manifest_bytes;
	return 0;
}

static int read_manifest(struct lskv *f, const char *path, uint64_t area_bytes,
			 struct lslm_error *err)
{
	size_t gap = (size_t)f->area_offset - HEADER_BYTES - f->size;
	int ret;

	f->data = malloc((size_t)f->area_offset - HEADER_BYTES);
	if (!f->data)
		return error_set(err, -ENOMEM, "%s: out of memory for its manifest of %zu bytes",
				 path, f->size);
	ret = file_pread_all(f->fd, f->data, f->size + gap, HEADER_BYTES);
	if (ret < 0)
		return error_sys(err, ret, "%s: cannot read", path);
	if (!all_zero(f->data + f->size, gap))
		return error_set(err, -EINVAL, "%s: has data between manifest and stripes", path);
	ret = manifest_parse(&f->manifest, f->data, f->size, err);
	if (ret < 0)
		return error_prefix(err, ret, "%s", path);
	if (f->manifest->area_bytes != area_bytes)
		return error_set(err, -EINVAL,
				 "%s: its manifest asks for %llu bytes of stripes, it has %llu",
				 path, (unsigned long long)f->manifest->area_bytes,
				 (unsigned long long)area_bytes);
	return 0;
}

static int read_head(struct lskv *f, const char *path, struct lslm_error *err)
{
	uint8_t header[HEADER_BYTES];
	struct stat st;
	int ret;

	if (fstat(f->fd, &st) < 0)
		return error_sys(err, -errno, "%s: cannot read", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "%s: is not a regular file", path);
	if (st.st_size < HEADER_BYTES)
		return error_set(err, -EINVAL, "%s: is no .lskv file: it has %lld bytes", path,
				 (long long)st.st_size);
	ret = file_pread_all(f->fd, header, sizeof(header), 0);
	if (ret < 0)
		return error_sys(err, ret, "%s: cannot read", path);
	ret = check_header(header, (uint64_t)st.st_size, path, &f->size, err);
	if (ret < 0)
		return ret;
	f->area_offset = area_offset(f->size);
	return read_manifest(f, path, get_le64(header + AT_AREA_BYTES), err);
}

int lskv_open(struct lskv **out, const char *path, struct lslm_error *err)
{
	struct lskv *f = calloc(1, sizeof(*f));
	int ret;

	*out = NULL;
	if (!f)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	/* O_NONBLOCK: a pipe of that name must not hang the open; it is refused just after. */
	f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (f->fd < 0) {
		ret = error_sys(err, -errno, "%s: cannot open", path);
		free(f);
		return ret;
	}
	ret = read_head(f, path, err);
	if (ret < 0) {
		lskv_close(f);
		return ret;
	}
	*out = f;
	return 0;
}

void lskv_close(struct lskv *f)
{
	if (!f)
		return;
	manifest_free(f->manifest);
	free(f->data);
	close(f->fd);
	free(f);
}

const struct manifest *lskv_manifest(const struct lskv *f)
{
	return f->manifest;
}

const void *lskv_manifest_data(const struct lskv *f, size_t *size)
{
	*size = f->size;
	return f->data;
}

int lskv_fd(const struct lskv *f)
{
	return f->fd;
}

uint64_t lskv_area_offset(const struct lskv *f)
{
	return f->area_offset;
}

uint64_t lskv_unit_offset(const struct lskv *f, const struct manifest_level *lv, uint32_t stripe,
			  uint32_t unit)
{
	return f->area_offset + lv->offset[stripe] +
	       manifest_unit_offset(f->manifest, lv, stripe, unit);
}

int lskv_unit_digest(const struct lskv *f, const struct manifest_level *lv, uint32_t stripe,
		     uint32_t unit, struct kv_hash *digest)
{
	const size_t size = manifest_unit_bytes(f->manifest, lv, stripe, unit);
	uint8_t *data = malloc(size);
	int ret;

	if (!data)
		return -ENOMEM;
	ret = file_pread_all(f->fd, data, size, lskv_unit_offset(f, lv, stripe, unit));
	if (!ret)
		*digest = kv_digest(data, size);
	free(data);
	return ret;
}
