// SPDX-License-Identifier: MIT
/*
 * The GGUF reader must refuse or accept any bytes without reading outside them. An
 * accepted file is then used in every way the header allows: each tensor's first
 * and last byte, each value as each type.
 */
#include <stdlib.h>
#include <string.h>

#include "model/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

static void touch(const void *p, size_t n)
{
	if (n)
		sink = (uint8_t)(((const uint8_t *)p)[0] + ((const uint8_t *)p)[n - 1]);
}

static void use_key(const struct gguf *g, size_t i)
{
	struct gguf_str key = gguf_kv_key(g, i), s;
	char name[256], text[80];
	const void *raw;
	int64_t n;
	size_t raw_size;
	uint32_t u;
	int32_t v;
	float f;
	bool b;

	gguf_kv_text(g, i, text, sizeof(text));
	gguf_kv_raw(g, i, &raw, &raw_size);
	touch(raw, raw_size);
	if (key.len >= sizeof(name))
		return;
	memcpy(name, key.ptr, key.len);
	name[key.len] = 0;
	gguf_get_u32(g, name, &u);
	gguf_get_f32(g, name, &f);
	gguf_get_bool(g, name, &b);
	if (!gguf_get_str(g, name, &s))
		touch(s.ptr, s.len);
	n = gguf_arr_len(g, name);
	for (int64_t j = 0; j <= n; j++) { /* one too many on purpose */
		gguf_arr_i32(g, name, (size_t)j, &v);
		gguf_arr_f32(g, name, (size_t)j, &f);
		if (!gguf_arr_str(g, name, (size_t)j, &s))
			touch(s.ptr, s.len);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gguf *g;
	void *copy;

	/* Tensor data is aligned relative to the file, so the file must be aligned itself. */
	if (posix_memalign(&copy, 64, size ? size : 1))
		return 0;
	memcpy(copy, data, size);
	if (!gguf_open_mem(&g, copy, size, NULL)) {
		for (size_t i = 0; i < gguf_n_tensors(g); i++) {
			const struct gguf_tensor *t = gguf_tensor(g, i);

			if (gguf_tensor_find(g, t->name) != t)
				abort();
			touch(t->data, t->size);
		}
		for (size_t i = 0; i < gguf_n_kv(g); i++)
			use_key(g, i);
		gguf_close(g);
	}
	free(copy);
	return 0;
}
