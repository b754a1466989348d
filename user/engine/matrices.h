/* SPDX-License-Identifier: MIT */
/*
 * A model's matrices, from wherever they come, layer by layer.
 *
 * With a file of packed weights (engine/packfile.h; `lslm pack` makes it) a loader's thread brings them, and
 * passes walk behind it layer by layer. They are
 *
 *   mapped   where the page cache has the file already, or has it in 2 MiB pages: nothing is copied, nothing is
 *            zeroed, and however many processes do so, the memory is there once;
 *   read     elsewhere: with O_DIRECT into 2 MiB pages of our own, without which reading and decoding both
 *            are slower;
 *   ringed   where they do not fit the memory that they may take: read, but only some layers stay, and the others
 *            take turns in the rest, in every pass;
 *   shared   read by another process, once for all that use them: struct matrices_share.
 *
 * Without one, as after every change of the model, they are packed from the GGUF at start, on all threads, and
 * passes begin afterwards; `keep` then writes the file meanwhile, for the next start.
 */
#ifndef LSLM_ENGINE_MATRICES_H
#define LSLM_ENGINE_MATRICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "compute/weights.h"
#include "kv/key.h"
#include "model/model.h"

struct matrices;

/* Of a layer, see struct model_layer. */
struct matrices_layer {
	struct weight wq, wk, wv, wo, gate, up, down;
};

enum { MATRICES_PER_LAYER = sizeof(struct matrices_layer) / sizeof(struct weight) };

enum matrices_load {
	MATRICES_AUTO, /* what suits; never an error for want of a packed file */
	MATRICES_READ,
	MATRICES_MAP,
	MATRICES_PACK, /* at start, whatever packed file there is */
	MATRICES_SHARED, /* by a process that reads them for others; opts->share */
};

struct hugemem;

/*
 * Weights that one process reads and others use. Of the same packed file, unchanged, in the same
 * layout, both sides derive the same key; where sections lie in the memory follows from the plan.
 */
struct matrices_share {
	/*
	 * The reader's side, instead of memory of its own: `bytes` at *memory, which stay the callee's. have:
	 * [n_sections], zero; set for those that are there already, and are not read.
	 */
	int (*room)(void *arg, const struct kv_hash *key, uint64_t bytes, uint32_t n_sections,
		    struct hugemem *memory, uint8_t *have, struct lslm_error *err);
	/*
	 * The users' side, MATRICES_SHARED: descriptors, read-only, of a buffer and of a control page that has a layer for each
	 * section and one stripe. The caller's from then on.
	 */
	int (*find)(void *arg, const struct kv_hash *key, int *memory, int *page,
		    struct lslm_error *err);
	void *arg;
};

struct matrices_opts {
	enum matrices_load load;
	const char *packed; /* NULL: the cache directory's */
	uint64_t memory; /* bytes that they may take; 0: what the machine has available */
	const struct matrices_share *share; /* NULL: nobody else; with READ, AUTO and SHARED */
	bool keep; /* with AUTO, what had to be packed at start: see engine/packkeeper.h */
};

/*
 * opts NULL: all zero. -ENOMEM; and, of a packed file that was asked for, the errors of packfile_open(). With room() also
 * -EALREADY: they need no reader, everybody may map the file.
 */
int matrices_open(struct matrices **out, const struct model *model, struct pool *pool,
		  const struct matrices_opts *opts, struct lslm_error *err);
/* Waits for what is being kept. NULL is allowed. */
void matrices_close(struct matrices *m);

/* Write the packed file of a model; path NULL: the cache directory's. *written (malloc'd) is where. */
struct packfile_progress;
int matrices_pack(const struct model *model, struct pool *pool, const char *path,
		  const struct packfile_progress *progress, char **written, struct lslm_error *err);

/*
 * For reports: what matrices_open() would do with this model and no options, and why, without doing it;
 * with verify a packed file's sums are compared, -EBADMSG. text: [size].
 */
int matrices_foresee(const struct model *model, bool verify, char *text, size_t size,
		     struct lslm_error *err);

/* [n_layer], and the output; types and sizes are there at once, a layer's places after matrices_need(). */
const struct matrices_layer *matrices_layers(const struct matrices *m);
const struct weight *matrices_output(const struct matrices *m);

/* Before a pass: -ENOTRECOVERABLE when a file that is in use was written to. */
int matrices_begin(struct matrices *m, struct lslm_error *err);
/*
 * Wait for layer l, n_layer being the output. It may be used until another one is needed.
 * -ENOTRECOVERABLE when it cannot be read; -ETIMEDOUT when whoever reads for others does not bring it.
 */
int matrices_need(struct matrices *m, uint32_t layer, struct lslm_error *err);

/* The users' side: wait for all of them. From any thread. 0 where nothing is shared. */
int matrices_await_shared(const struct matrices *m, struct lslm_error *err);
/* The reader's side, after matrices_need(): a section against its sum, -EBADMSG. */
int matrices_check(const struct matrices *m, uint32_t layer, struct lslm_error *err);
/* From another thread: who waits in matrices_need() waits no longer, now and later. */
void matrices_give_up(struct matrices *m);

/* Of the GGUF, where the packed file says it; else NULL. */
const struct kv_hash *matrices_fingerprint(const struct matrices *m);

struct matrices_stats {
	const char *how; /* "read", "mapped", "ringed", "shared", "packed at start" */
	uint64_t bytes; /* of all of them */
	uint64_t arrived; /* read so far, all passes together */
	double seconds; /* from opening until all that stays was there; 0: not yet */
	double waited; /* that passes did, seconds */
	uint32_t ringed; /* layers that are read in every pass */
	char text[512]; /* all that, and why, in words */
};

void matrices_stats(struct matrices *m, struct matrices_stats *stats);

#endif
