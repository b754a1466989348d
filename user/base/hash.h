/* SPDX-License-Identifier: MIT */
/*
 * BLAKE2b-256 of structured input: keys and fingerprints.
 *
 * Every such hash starts with a domain string that says what it is for, so that
 * no input of one use is an input of another. Integers go in little-endian and
 * anything of variable length goes in behind its length, so that no two lists of
 * values give the same bytes. docs/protocol.md names each use.
 */
#ifndef LSLM_BASE_HASH_H
#define LSLM_BASE_HASH_H

#include <sodium.h>
#include <stddef.h>
#include <stdint.h>

enum { HASH_BYTES = 32 };

struct hash {
	crypto_generichash_blake2b_state st;
};

/* Begins with the domain's length (u32) and its bytes. */
void hash_start(struct hash *h, const char *domain);
void hash_u32(struct hash *h, uint32_t v);
void hash_u64(struct hash *h, uint64_t v);
void hash_raw(struct hash *h, const void *data, size_t size); /* without a length */
void hash_string(struct hash *h, const void *data, size_t size); /* u32 length, then bytes */
void hash_finish(struct hash *h, uint8_t out[HASH_BYTES]);

/* Of plain bytes, without a domain. */
void hash_bytes(uint8_t out[HASH_BYTES], const void *data, size_t size);

#endif
