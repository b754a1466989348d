/* SPDX-License-Identifier: MIT */
/*
 * The manifest: what a context is, signed by its publisher.
 *
 * Immutable and without secrets, but it holds the token ids, so it is the text in
 * other form: files are mode 0600 and it is never logged. It arrives and is stored
 * before any block, so that computing the context locally is always possible.
 *
 * Encoding: docs/protocol.md, byte by byte. Trust: parse checks every size
 * against the bytes there are, recomputes nothing; manifest_verify() checks the
 * signature against pinned keys and manifest_match() the identity and the key
 * chain against the model at hand. All three must pass before a block is used.
 */
#ifndef LSLM_KV_MANIFEST_H
#define LSLM_KV_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "kv/geometry.h"
#include "kv/key.h"
#include "kv/proof.h"
#include "kv/run.h"

enum {
	MANIFEST_VERSION = 1,
	MANIFEST_PUBKEY_BYTES = 32,
	MANIFEST_SECKEY_BYTES = 64, /* libsodium's form: seed and public key */
	MANIFEST_SIG_BYTES = 64,
	MANIFEST_MAX_BYTES = 256 << 20,
	MANIFEST_MAX_LEVELS = 8,
	MANIFEST_MAX_TITLE = 127,
	MANIFEST_LEVEL_ALIGN = 4096,
};

/*
 * One level at which every stripe is on offer. A stripe's units (kv_level_units()) follow one another
 * in it, stripes follow one another in the level, and each level but the first begins at a multiple of
 * MANIFEST_LEVEL_ALIGN behind the one before.
 */
struct manifest_level {
	enum kv_level level;
	/* What decodes it besides this program; zero for a level that needs nothing. */
	struct kv_hash calibration;
	uint32_t n_units; /* of a stripe */
	uint64_t *offset; /* [n_stripes] of each stripe, from the start of the stripe area */
	uint64_t *length; /* [n_stripes] bytes */
	uint32_t *unit_bytes; /* [n_stripes * n_units]; NULL where kv_level_is_plain() */
	struct kv_hash *digest; /* [n_stripes * n_units], in stripe order */
};

struct manifest {
	struct kv_identity identity;
	struct kv_hash key;
	struct kv_geometry model_geo; /* of the model that it is for */
	struct kv_run run; /* of its layers, that does not travel */
	struct kv_geometry geo; /* of stripes: kv_run_geometry() of both */
	uint32_t n_tokens;
	int32_t *tokens; /* [n_tokens] */
	uint32_t n_stripes; /* n_tokens / KV_BLOCK_TOKENS */
	uint32_t n_levels;
	struct manifest_level levels[MANIFEST_MAX_LEVELS];
	uint64_t area_bytes; /* of all stripes of all levels */
	/* Of the map that it was made through; PROOF_NONE where there is none, or none is known. */
	struct proof proof;
	uint64_t created; /* seconds since 1970, publisher's clock; informative */
	char title[MANIFEST_MAX_TITLE +
		   1]; /* for people; UTF-8, no control characters, may be empty */
	uint8_t publisher[MANIFEST_PUBKEY_BYTES];
	uint8_t signature[MANIFEST_SIG_BYTES];
};

/*
 * A manifest of one level for these tokens, which are copied: 1 to KV_MAX_TOKENS. Offsets, lengths
 * and area_bytes are filled in where the level is plain; the caller adds identity, digests, created and title. A
 * context of fewer than KV_BLOCK_TOKENS tokens has no stripe, and that is valid.
 */
int manifest_new(struct manifest **out, const struct kv_geometry *geo, const int32_t *tokens,
		 uint32_t n_tokens, enum kv_level level, struct lslm_error *err);
/* The same without the layers of a run. */
int manifest_new_run(struct manifest **out, const struct kv_geometry *model,
		     const struct kv_run *run, const int32_t *tokens, uint32_t n_tokens,
		     enum kv_level level, struct lslm_error *err);
/* Another level, coarser than those that are there. */
int manifest_add_level(struct manifest *m, enum kv_level level, struct lslm_error *err);
/*
 * Offsets, lengths and area_bytes again, from the bytes of units: of all levels before n. What
 * a unit may have is at least 1 and at most twice what it has at f16, and 32 bits.
 */
void manifest_place(struct manifest *m, uint32_t n);
void manifest_free(struct manifest *m);

/*
 * Any text, made into a title: cut at a character where it is too long, with '?' for each byte that
 * is no UTF-8 and for each control character.
 */
void manifest_set_title(struct manifest *m, const char *text);

/*
 * Sign with the publisher's secret key and encode; *data is malloc'd for the caller. The key (from
 * identity and tokens), publisher and signature in *m are filled in. -EINVAL for what parse would
 * refuse, -E2BIG over MANIFEST_MAX_BYTES. The size is known before the digests are.
 */
int manifest_encode(struct manifest *m, const uint8_t seckey[MANIFEST_SECKEY_BYTES], uint8_t **data,
		    size_t *size, struct lslm_error *err);
int manifest_encoded_size(const struct manifest *m, size_t *size, struct lslm_error *err);
/* Of it, what there is for the sake of one level. */
uint64_t manifest_level_bytes(const struct manifest *m, const struct manifest_level *lv);

/*
 * -EINVAL for bytes that are no manifest of this version, or not exactly one. Nothing is
 * allocated in proportion to a number that the bytes present have not paid for. There is at
 * least one level that this program reads; others are skipped.
 */
int manifest_parse(struct manifest **out, const void *data, size_t size, struct lslm_error *err);

/*
 * Signature by one of the pinned keys, over the bytes as received. -EKEYREJECTED with a line that
 * names the publisher's key when it is another one, or the signature is wrong.
 */
int manifest_verify(const void *data, size_t size, const uint8_t (*trusted)[MANIFEST_PUBKEY_BYTES],
		    size_t n_trusted, struct lslm_error *err);

/*
 * Was it made through a map that, by the evaluation that it comes with, is not better than the model alone? Then nobody is to use its
 * blocks: why, in one line. False also where nothing is known.
 */
bool manifest_map_is_off(const struct manifest *m, struct lslm_error *why);

/*
 * This manifest is for this model, tokenizer, rope and salt, of this geometry, and its key is the
 * chain over its own tokens; every token id < n_vocab. -ENOEXEC with a line naming what differs.
 */
int manifest_match(const struct manifest *m, const struct kv_identity *identity,
		   const struct kv_geometry *geo, uint32_t n_vocab, struct lslm_error *err);

/* NULL where the context is not on offer at this level. */
const struct manifest_level *manifest_level(const struct manifest *m, enum kv_level level);
/* Of a unit of a stripe: its digest, its bytes as they travel, where in the stripe it begins. */
const struct kv_hash *manifest_digest(const struct manifest *m, const struct manifest_level *lv,
				      uint32_t stripe, uint32_t unit);
size_t manifest_unit_bytes(const struct manifest *m, const struct manifest_level *lv,
			   uint32_t stripe, uint32_t unit);
uint64_t manifest_unit_offset(const struct manifest *m, const struct manifest_level *lv,
			      uint32_t stripe, uint32_t unit);

#endif
