/* SPDX-License-Identifier: MIT */
/* Just enough of a GGUF writer for tests that need metadata and no tensors. */
#ifndef LSLM_TESTS_TINY_GGUF_H
#define LSLM_TESTS_TINY_GGUF_H

#include <stdint.h>
#include <string.h>

/* Where the head of a file counts its keys. */
enum { TINY_GGUF_N_KEYS = 16 };

struct tiny_gguf {
	uint8_t data[262144];
	size_t size;
	uint64_t n_keys;
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

static inline void tiny_gguf_bytes(struct tiny_gguf *t, const char *s, size_t len)
{
	tiny_gguf_u64(t, len);
	tiny_gguf_put(t, s, len);
}

static inline void tiny_gguf_text(struct tiny_gguf *t, const char *s)
{
	tiny_gguf_bytes(t, s, strlen(s));
}

static inline void tiny_gguf_begin(struct tiny_gguf *t)
{
	t->size = 0;
	t->n_keys = 0;
	tiny_gguf_put(t, "GGUF", 4);
	tiny_gguf_u32(t, 3);
	tiny_gguf_u64(t, 0);
	tiny_gguf_u64(t, 0);
}

/* Value types of the format: 4 u32, 5 i32, 6 f32, 7 bool, 8 string, 9 array. */
static inline void tiny_gguf_key(struct tiny_gguf *t, const char *key, uint32_t type)
{
	t->n_keys++;
	memcpy(t->data + TINY_GGUF_N_KEYS, &t->n_keys, sizeof(t->n_keys));
	tiny_gguf_text(t, key);
	tiny_gguf_u32(t, type);
}

static inline void tiny_gguf_key_u32(struct tiny_gguf *t, const char *key, uint32_t v)
{
	tiny_gguf_key(t, key, 4);
	tiny_gguf_u32(t, v);
}

static inline void tiny_gguf_key_bool(struct tiny_gguf *t, const char *key, int v)
{
	tiny_gguf_key(t, key, 7);
	tiny_gguf_put(t, &(uint8_t){ v != 0 }, 1);
}

static inline void tiny_gguf_key_str(struct tiny_gguf *t, const char *key, const char *v)
{
	tiny_gguf_key(t, key, 8);
	tiny_gguf_text(t, v);
}

/* The elements follow. */
static inline void tiny_gguf_key_array(struct tiny_gguf *t, const char *key, uint32_t elem,
				       uint64_t n)
{
	tiny_gguf_key(t, key, 9);
	tiny_gguf_u32(t, elem);
	tiny_gguf_u64(t, n);
}

static inline void tiny_gguf_key_strs(struct tiny_gguf *t, const char *key, const char *const *v,
				      uint64_t n)
{
	tiny_gguf_key_array(t, key, 8, n);
	for (uint64_t i = 0; i < n; i++)
		tiny_gguf_text(t, v[i]);
}

#endif
