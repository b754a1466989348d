/* SPDX-License-Identifier: MIT */
/*
 * Keys: same key, same meaning.
 *
 * The key of a context is a chain of BLAKE2b-256 over its blocks of
 * KV_BLOCK_TOKENS tokens:
 *
 *   key_0     = H("lslm key v1" || format version || model fingerprint || tokenizer
 *                 fingerprint || rope parameters || map fingerprint || salt)
 *   key_{i+1} = H("lslm link v1" || key_i || u32 count || count token ids, i32 little-endian)
 *
 * The last link covers the n % KV_BLOCK_TOKENS tokens left over, if any. Two contexts
 * with a common prefix share the keys of its full blocks. docs/protocol.md gives
 * the bytes and an example. The salt (32 bytes; zero for none) separates tenants: it is a
 * name, not a secret.
 */
#ifndef LSLM_KV_KEY_H
#define LSLM_KV_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KV_HASH_BYTES = 32 };

struct kv_hash {
	uint8_t b[KV_HASH_BYTES];
};

/* Everything besides the tokens that decides what the KV values are. */
struct kv_identity {
	struct kv_hash model; /* fingerprint_model() */
	struct kv_hash tokenizer; /* tokenizer_fingerprint() */
	struct kv_hash rope; /* model_rope_fingerprint() */
	struct kv_hash map; /* zero without a cross-model map */
	struct kv_hash salt; /* zero without a tenant */
};

struct kv_hash kv_key_root(const struct kv_identity *id);
struct kv_hash kv_key_link(const struct kv_hash *parent, const int32_t *tokens, uint32_t n);
/* The whole chain at once. */
struct kv_hash kv_key(const struct kv_identity *id, const int32_t *tokens, uint32_t n);

/* BLAKE2b-256 of bytes: digests of blocks, fingerprints. */
struct kv_hash kv_digest(const void *data, size_t size);

/* 64 hexadecimal digits and a NUL; parse returns -EINVAL for anything else. */
enum { KV_HASH_TEXT = 2 * KV_HASH_BYTES + 1 };
void kv_hash_format(const struct kv_hash *h, char text[KV_HASH_TEXT]);
int kv_hash_parse(struct kv_hash *h, const char *text);
/* Does its text begin so, in whichever case? An empty one begins none. */
bool kv_hash_begins(const struct kv_hash *h, const char *text);
/* Constant time. */
int kv_hash_equal(const struct kv_hash *a, const struct kv_hash *b);
/* Zero, which stands for none. */
int kv_hash_is_zero(const struct kv_hash *h);
/* The first 16 of those digits as a number: what probes call a context. */
uint64_t kv_hash_number(const struct kv_hash *h);

#endif
