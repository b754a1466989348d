// SPDX-License-Identifier: MIT
#include "kv/key.h"

#include <endian.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"
#include "base/hex.h"
#include "kv/geometry.h"

_Static_assert((int)HASH_BYTES == (int)KV_HASH_BYTES, "one hash");

struct kv_hash kv_key_root(const struct kv_identity *id)
{
	struct kv_hash key;
	struct hash h;

	hash_start(&h, "lslm key v1");
	hash_u32(&h, KV_FORMAT_VERSION);
	hash_raw(&h, id->model.b, KV_HASH_BYTES);
	hash_raw(&h, id->tokenizer.b, KV_HASH_BYTES);
	hash_raw(&h, id->rope.b, KV_HASH_BYTES);
	hash_raw(&h, id->map.b, KV_HASH_BYTES);
	hash_raw(&h, id->salt.b, KV_HASH_BYTES);
	hash_finish(&h, key.b);
	return key;
}

struct kv_hash kv_key_link(const struct kv_hash *parent, const int32_t *tokens, uint32_t n)
{
	struct kv_hash key;
	struct hash h;

	hash_start(&h, "lslm link v1");
	hash_raw(&h, parent->b, KV_HASH_BYTES);
	hash_u32(&h, n);
	for (uint32_t i = 0; i < n; i++)
		hash_u32(&h, (uint32_t)tokens[i]);
	hash_finish(&h, key.b);
	return key;
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
	struct kv_hash digest;

	hash_bytes(digest.b, data, size);
	return digest;
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

bool kv_hash_begins(const struct kv_hash *h, const char *text)
{
	const size_t len = strnlen(text, KV_HASH_TEXT);
	char hex[KV_HASH_TEXT];

	kv_hash_format(h, hex);
	return len && !strncasecmp(hex, text, len);
}

int kv_hash_equal(const struct kv_hash *a, const struct kv_hash *b)
{
	return sodium_memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

int kv_hash_is_zero(const struct kv_hash *h)
{
	return sodium_is_zero(h->b, sizeof(h->b));
}

uint64_t kv_hash_number(const struct kv_hash *h)
{
	uint64_t number;

	memcpy(&number, h->b, sizeof(number));
	return be64toh(number);
}
