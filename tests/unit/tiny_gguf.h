/* SPDX-License-Identifier: MIT */
/* Just enough of a GGUF writer for tests that need metadata and no tensors. */
#ifndef LSLM_TESTS_TINY_GGUF_H
#define LSLM_TESTS_TINY_GGUF_H

#include <stdint.h>
#include <string.h>

struct tiny_gguf {
	uint8_t data[65536];
	size_t size;
};

static inline void tiny_gguf_put(struct tiny_gguf *t, const void *p, size_t n)
{
	assert_true(t->size + n <= sizeof(t->data));
	memcpy(t->data + t->size, p, n);
	t->size += n;
}

static inline void tiny_gguf_u32(struct tiny_gguf *t, uint32_t v)
{
	tiny_gguf_put(t, &v, sizeof(v));
}

static inline void tiny_gguf_u64(struct tiny_gguf *t, uint64_t v)
{
	tiny_gguf_put(t, &v, sizeof(v));
}

static inline void tiny_gguf_text(struct tiny_gguf *t, const char *s)
{
	tiny_gguf_u64(t, strlen(s));
	tiny_gguf_put(t, s, strlen(s));
}

static inline void tiny_gguf_begin(struct tiny_gguf *t, uint64_t n_tensors, uint64_t n_keys)
{
	t->size = 0;
	tiny_gguf_put(t, "GGUF", 4);
	tiny_gguf_u32(t, 3);
	tiny_gguf_u64(t, n_tensors);
	tiny_gguf_u64(t, n_keys);
}

/* Value types of the format: 4 u32, 8 string, 9 array. */
static inline void tiny_gguf_key_u32(struct tiny_gguf *t, const char *key, uint32_t v)
{
	tiny_gguf_text(t, key);
	tiny_gguf_u32(t, 4);
	tiny_gguf_u32(t, v);
}

static inline void tiny_gguf_key_str(struct tiny_gguf *t, const char *key, const char *v)
{
	tiny_gguf_text(t, key);
	tiny_gguf_u32(t, 8);
	tiny_gguf_text(t, v);
}

static inline void tiny_gguf_key_strs(struct tiny_gguf *t, const char *key, const char *const *v,
				      uint64_t n)
{
	tiny_gguf_text(t, key);
	tiny_gguf_u32(t, 9);
	tiny_gguf_u32(t, 8);
	tiny_gguf_u64(t, n);
	for (uint64_t i = 0; i < n; i++)
		tiny_gguf_text(t, v[i]);
}

#endif
