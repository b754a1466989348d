// SPDX-License-Identifier: MIT
#include "kv/key.h"

#include <sodium.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hex.h"
#include "kv/geometry.h"

_Static_assert(crypto_generichash_blake2b_BYTES == KV_HASH_BYTES, "BLAKE2b-256");

static void put_u32(crypto_generichash_blake2b_state *st, uint32_t v)
{
	uint8_t le[4];

	put_le32(le, v);
	crypto_generichash_blake2b_update(st, le, sizeof(le));
}

static void put_hash(crypto_generichash_blake2b_state *st, const struct kv_hash *h)
{
	crypto_generichash_blake2b_update(st, h->b, sizeof(h->b));
}

/* Every hash of structured input starts with what it is for, so that no two uses can meet. */
static void start(crypto_generichash_blake2b_state *st, const char *domain)
{
	size_t n = strlen(domain);

	/* Idempotent; it picks the machine's fastest BLAKE2b. */
	(void)!sodium_init();
	crypto_generichash_blake2b_init(st, NULL, 0, KV_HASH_BYTES);
	put_u32(st, (uint32_t)n);
	crypto_generichash_blake2b_update(st, (const uint8_t *)domain, n);
}

static struct kv_hash finish(crypto_generichash_blake2b_state *st)
{
	struct kv_hash h;

	crypto_generichash_blake2b_final(st, h.b, sizeof(h.b));
	return h;
}

struct kv_hash kv_key_root(const struct kv_identity *id)
{
	crypto_generichash_blake2b_state st;

	start(&st, "lslm key v1");
	put_u32(&st, KV_FORMAT_VERSION);
	put_hash(&st, &id->model);
	put_hash(&st, &id->tokenizer);
	put_hash(&st, &id->rope);
	put_hash(&st, &id->map);
	put_hash(&st, &id->salt);
	return finish(&st);
}

struct kv_hash kv_key_link(const struct kv_hash *parent, const int32_t *tokens, uint32_t n)
{
	crypto_generichash_blake2b_state st;

	start(&st, "lslm link v1");
	put_hash(&st, parent);
	put_u32(&st, n);
	for (uint32_t i = 0; i < n; i++)
		put_u32(&st, (uint32_t)tokens[i]);
	return finish(&st);
}

struct kv_hash kv_key(const struct kv_identity *id, const int32_t *tokens, uint32_t n)
{
	struct kv_hash key = kv_key_root(id);

	while (n) {
		uint32_t count = n < KV_BLOCK_TOKENS ? n : KV_BLOCK_TOKENS;

		key = kv_key_link(&key, tokens, count);
		tokens += count;
		n -= count;
	}
	return key;
}

struct kv_hash kv_digest(const void *data, size_t size)
{
	struct kv_hash h;

	(void)!sodium_init();
	crypto_generichash_blake2b(h.b, sizeof(h.b), data, size, NULL, 0);
	return h;
}

void kv_hash_format(const struct kv_hash *h, char text[KV_HASH_TEXT])
{
	hex_format(text, h->b, sizeof(h->b));
}

int kv_hash_parse(struct kv_hash *h, const char *text)
{
	/* strnlen: the text may be a hostile URL of any length. */
	return hex_parse(h->b, sizeof(h->b), text, strnlen(text, KV_HASH_TEXT));
}

int kv_hash_equal(const struct kv_hash *a, const struct kv_hash *b)
{
	return sodium_memcmp(a->b, b->b, sizeof(a->b)) == 0;
}
