/* SPDX-License-Identifier: MIT */
/*
 * The model's fingerprint: BLAKE2b-256 over what decides its results.
 *
 * Covered, in this order (docs/protocol.md gives the bytes):
 *   general.architecture, general.quantization_version and every key that starts with
 *   the architecture's name and a dot ("llama.block_count"), in order of name: type and value as
 *   in the file;
 *   every tensor, in order of name: name, type, dimensions, data.
 * Not covered: names, authors, licences, chat templates, general.alignment and the order of
 * tensors in the file, because they change no result; the tokenizer, which has a fingerprint of
 * its own.
 *
 * It runs at about 1 GB/s, so it is computed once and kept in the cache directory
 * ($XDG_CACHE_HOME/lslm/fingerprints or ~/.cache/lslm/fingerprints), one small file per (dev, ino),
 * valid while size, mtime and ctime are the same; a file that changed in any of them is computed
 * again. One that changed in the last two seconds is not kept, because a second change
 * within the clock's tick would not show. An unusable cache costs time, never an error.
 */
#ifndef LSLM_KV_FINGERPRINT_H
#define LSLM_KV_FINGERPRINT_H

#include <stdbool.h>

#include "kv/key.h"
#include "model/gguf.h"

/*
 * *cached (may be NULL) says whether the cache answered. -EINVAL for a model without an
 * architecture, -EAGAIN for a file that is being written to.
 */
int fingerprint_model(const struct gguf *g, struct kv_hash *out, bool *cached,
		      struct lslm_error *err);

#endif
