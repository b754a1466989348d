/* SPDX-License-Identifier: MIT */
/*
 * The model's fingerprint: BLAKE2b-256 over what decides its results.
 *
 * Covered: the metadata that changes results (architecture, sizes, rope, norm epsilon ...; not
 * names, licences, chat templates or the tokenizer, which has a fingerprint of its own),
 * every tensor's name, type and dimensions, and all tensor data, in order of name.
 *
 * It runs at about 1 GB/s, so it is computed once and kept in the cache directory
 * ($XDG_CACHE_HOME/lslm or ~/.cache/lslm) under (dev, ino, size, mtime, ctime) of the file; a
 * file that changed in any of them is computed again. An unusable cache costs time,
 * never an error.
 */
#ifndef LSLM_KV_FINGERPRINT_H
#define LSLM_KV_FINGERPRINT_H

#include <stdbool.h>

#include "kv/key.h"
#include "model/gguf.h"

/* *cached (may be NULL) says whether the cache answered. */
int fingerprint_model(const struct gguf *g, struct kv_hash *out, bool *cached,
		      struct lslm_error *err);

#endif
