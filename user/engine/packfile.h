/* SPDX-License-Identifier: MIT */
/*
 * The packed weights of one model in a file: what `lslm pack` writes and the loader reads.
 *
 *   0      magic "LSLMPAK1"
 *   8      digest of the plan: layout of the panels, and type, size and place of every matrix
 *   40     stamp of the GGUF: dev, ino, size, mtime, ctime (ns)
 *   80     fingerprint of the GGUF (kv/fingerprint.h)
 *   112    size of this file, then the number of sections
 *   128    xxh3 of each section
 *   16352  BLAKE2b-256 of all before
 *   16384  sections: layers 0, 1, ..., then the output matrix
 *
 * Integers are u64, little-endian. A section is the matrices of a layer one behind the other, each at a multiple of
 * 64, as products take them; floats as in the GGUF. Sections start at multiples of LSLM_DIRECT_ALIGN and are a multiple
 * of it long, so that O_DIRECT can read any of them into place.
 *
 * What the file has to look like follows from the GGUF, and the plan is made from that. Nothing of the
 * file is ever used as a size or an offset: its digest must be the plan's and its length the plan's, or it is not
 * used. A file made from another state of the GGUF, or by a version that packs otherwise, is another plan or
 * stamp. The panels themselves are believed, as those of a GGUF are; packfile_verify() compares their sums.
 *
 * Embedding rows and vectors stay in the GGUF, of which a prompt needs a few pages.
 */
#ifndef LSLM_ENGINE_PACKFILE_H
#define LSLM_ENGINE_PACKFILE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/pool.h"
#include "base/stamp.h"
#include "compute/weights.h"
#include "kv/key.h"
#include "model/gguf.h"

enum {
	PACKFILE_HEADER = 16384,
	PACKFILE_MAX_SECTIONS = 1025,
};

struct packfile_section {
	uint64_t offset; /* in the file */
	uint64_t bytes;
	uint32_t first, n; /* of its matrices */
};

/* Places of n matrices, of which each section has `per` and the last one the rest, one. */
struct packfile_plan {
	uint32_t n_sections;
	struct packfile_section sections[PACKFILE_MAX_SECTIONS];
	uint64_t *at; /* [n] offset in its section */
	uint64_t file_bytes;
	struct kv_hash digest;
};

/* n = k * per + 1 matrices. -ENOMEM. */
int packfile_plan_make(struct packfile_plan *plan, const struct weight *w, uint32_t n, uint32_t per,
		       struct lslm_error *err);
void packfile_plan_free(struct packfile_plan *plan);

/* "$XDG_CACHE_HOME/lslm/packed/DEV-INO", malloc'd. */
int packfile_cache_path(const struct gguf *g, char **path, struct lslm_error *err);

struct packfile_progress {
	void (*show)(void *arg, uint64_t done, uint64_t total); /* bytes */
	void *arg;
};

/*
 * Pack and write, whole or not at all; an old file is replaced. -EAGAIN when the GGUF changed meanwhile.
 */
int packfile_write(const char *path, mode_t mode, const struct gguf *g,
		   const struct packfile_plan *plan, const struct weight *w, struct pool *pool,
		   const struct packfile_progress *progress, struct lslm_error *err);

struct packfile {
	int fd;
	char *path;
	struct stamp stamp; /* of this file, when it was opened */
	struct kv_hash fingerprint; /* of the GGUF */
	uint64_t sums[PACKFILE_MAX_SECTIONS];
};

/*
 * -ENOENT: there is none. -ESTALE: of another state of the GGUF, or packed by another version. -EBADMSG:
 * damaged. Each with a line.
 */
int packfile_open(struct packfile *f, const char *path, const struct gguf *g,
		  const struct packfile_plan *plan, struct lslm_error *err);
void packfile_close(struct packfile *f);

/* A section that was read into memory against its sum; -EBADMSG. */
int packfile_check_section(const struct packfile *f, const struct packfile_plan *plan, uint32_t s,
			   const void *data, struct lslm_error *err);
/* Every section against its sum; -EBADMSG. */
int packfile_verify(const struct packfile *f, const struct packfile_plan *plan,
		    struct lslm_error *err);

#endif
