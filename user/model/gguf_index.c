// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <sodium/crypto_shorthash.h>

#include "model/gguf_internal.h"

static uint64_t hash(const struct gguf_index *x, const char *name, size_t len)
{
	uint64_t h;

	_Static_assert(sizeof(h) == crypto_shorthash_BYTES, "one word");
	_Static_assert(sizeof(x->key) == crypto_shorthash_KEYBYTES, "the key fits");
	crypto_shorthash((unsigned char *)&h, (const unsigned char *)name, len, x->key);
	return h;
}

/* The slot that holds the name, or the free one where it would go. */
static uint32_t *probe(const struct gguf_index *x, const char *name, size_t len)
{
	uint32_t i = (uint32_t)hash(x, name, len) & x->mask;

	for (;; i = (i + 1) & x->mask) {
		const struct gguf_str *s;

		if (!x->slots[i])
			return &x->slots[i];
		s = &x->names[x->slots[i] - 1];
		if (s->len == len && !memcmp(s->ptr, name, len))
			return &x->slots[i];
	}
}

int gguf_index_build(struct gguf_index *x, const struct gguf_str *names, size_t n, size_t *twice)
{
	size_t size = 16;

	if (n > UINT32_MAX / 4)
		return -E2BIG;
	while (size < 2 * n)
		size *= 2;
	if (getrandom(x->key, sizeof(x->key), 0) != sizeof(x->key))
		return -errno;
	x->slots = calloc(size, sizeof(*x->slots));
	if (!x->slots)
		return -ENOMEM;
	x->names = names;
	x->mask = (uint32_t)(size - 1);
	for (size_t i = 0; i < n; i++) {
		uint32_t *slot = probe(x, names[i].ptr, names[i].len);

		if (*slot) {
			*twice = i;
			return -EEXIST;
		}
		*slot = (uint32_t)i + 1;
	}
	return 0;
}

void gguf_index_free(struct gguf_index *x)
{
	free(x->slots);
}

int64_t gguf_index_find(const struct gguf_index *x, const char *name, size_t len)
{
	uint32_t slot = *probe(x, name, len);

	return slot ? (int64_t)slot - 1 : -ENOENT;
}
