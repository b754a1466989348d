// SPDX-License-Identifier: MIT
#include "base/hash.h"

#include <string.h>

#include "base/bytes.h"

_Static_assert(crypto_generichash_blake2b_BYTES == HASH_BYTES, "BLAKE2b-256");

void hash_start(struct hash *h, const char *domain)
{
	/* Idempotent; it picks the machine's fastest BLAKE2b. Without it the portable one runs. */
	(void)!sodium_init();
	crypto_generichash_blake2b_init(&h->st, NULL, 0, HASH_BYTES);
	hash_string(h, domain, strlen(domain));
}

void hash_u32(struct hash *h, uint32_t v)
{
	uint8_t le[4];

	put_le32(le, v);
	hash_raw(h, le, sizeof(le));
}

void hash_u64(struct hash *h, uint64_t v)
{
	uint8_t le[8];

	put_le64(le, v);
	hash_raw(h, le, sizeof(le));
}

void hash_raw(struct hash *h, const void *data, size_t size)
{
	crypto_generichash_blake2b_update(&h->st, data, size);
}

void hash_string(struct hash *h, const void *data, size_t size)
{
	hash_u32(h, (uint32_t)size);
	hash_raw(h, data, size);
}

void hash_finish(struct hash *h, uint8_t out[HASH_BYTES])
{
	crypto_generichash_blake2b_final(&h->st, out, HASH_BYTES);
}

void hash_bytes(uint8_t out[HASH_BYTES], const void *data, size_t size)
{
	(void)!sodium_init();
	crypto_generichash_blake2b(out, HASH_BYTES, data, size, NULL, 0);
}
